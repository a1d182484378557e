/**
 * Docker's multiplexed stream: each frame is one byte of stream number (0 stdin, 1 stdout, 2 stderr), three zero bytes,
 * the length of the payload as a big-endian 32-bit number, and the payload (Engine API, "ContainerAttach").
 */
export type StreamName = "stdout" | "stderr";

export const frameHeaderBytes = 8;

/** One frame around `payload`, in one buffer. */
export function encodeFrame(stream: StreamName, payload: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(frameHeaderBytes + payload.length);
  writeFrameHeader(frame, 0, stream, payload.length);
  frame.set(payload, frameHeaderBytes);
  return frame;
}

/** The header of a frame at `at`, for whoever lays frames out in a buffer of its own. */
export function writeFrameHeader(target: Buffer, at: number, stream: StreamName, payloadBytes: number): void {
  target.writeUInt32BE(stream === "stdout" ? 0x01000000 : 0x02000000, at);
  target.writeUInt32BE(payloadBytes, at + 4);
}

/** Takes frames apart however the chunks are cut. `onPayload` sees parts of a payload as they come. */
export class FrameDecoder {
  readonly #onPayload: (stream: StreamName, part: Buffer) => void;
  #header = Buffer.alloc(0);
  #stream: StreamName = "stdout";
  #remaining = 0;

  constructor(onPayload: (stream: StreamName, part: Buffer) => void) {
    this.#onPayload = onPayload;
  }

  push(chunk: Buffer): void {
    let rest = chunk;
    while (rest.length > 0) {
      if (this.#remaining > 0) {
        const part = rest.subarray(0, this.#remaining);
        this.#remaining -= part.length;
        rest = rest.subarray(part.length);
        this.#onPayload(this.#stream, part);
        continue;
      }
      const wanted = frameHeaderBytes - this.#header.length;
      this.#header = Buffer.concat([this.#header, rest.subarray(0, wanted)]);
      rest = rest.subarray(Math.min(wanted, rest.length));
      if (this.#header.length === frameHeaderBytes) {
        this.#stream = this.#header[0] === 2 ? "stderr" : "stdout";
        this.#remaining = this.#header.readUInt32BE(4);
        this.#header = Buffer.alloc(0);
      }
    }
  }
}
