import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { type Digest, digestOfHash } from "#base/digest.ts";

/** Digest of a file's content, read in chunks. */
export async function digestOfFile(path: string): Promise<Digest> {
  const hash = createHash("sha256");
  const file = await open(path, "r");
  try {
    const buffer = Buffer.allocUnsafe(1024 * 1024);
    for (let position = 0; ; ) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, position);
      if (bytesRead === 0) return digestOfHash(hash);
      hash.update(buffer.subarray(0, bytesRead));
      position += bytesRead;
    }
  } finally {
    await file.close();
  }
}
