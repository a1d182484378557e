/** The parts of a zlib stream's native handle used here: the same ones Node's own zlib.*Sync functions drive. */
export interface NativeHandle {
  onerror: (message: string, errno: number, code: string) => void;
  writeSync(
    flush: number,
    input: Uint8Array | null,
    inputAt: number,
    inputBytes: number,
    output: Uint8Array,
    outputAt: number,
    outputBytes: number,
  ): void;
  reset(): void;
  close(): void;
}

export interface NativeStream {
  _handle: NativeHandle;
  _writeState: Uint32Array;
}
