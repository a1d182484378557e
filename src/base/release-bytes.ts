/**
 * Gives the memory of bytes back now, which nobody may look at any more: they are empty afterwards. A body of 100 MB comes
 * in buffers of 64 KiB, which are few enough objects that no small collection ever runs for them; their bytes outside the
 * heap then make V8 collect everything each 30 MB. Only what has its buffer to itself is released: the rest stays.
 */
export function releaseBytes(bytes: Uint8Array): void {
  const { buffer } = bytes;
  if (buffer instanceof ArrayBuffer && bytes.length === buffer.byteLength && bytes.length > 0)
    buffer.transfer(0);
}
