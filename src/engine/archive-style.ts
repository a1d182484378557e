import { open } from "node:fs/promises";
import type { TarEntry } from "#archive/tar-format.ts";
import { TarReader } from "#archive/tar-read.ts";
import { encodeHeader } from "#archive/tar-write.ts";

/** Long names and attributes in front of an entry fit in it. */
const headBytes = 64 * 1024;

class Found extends Error {}

/**
 * Whether our own writer may have made a plain tar: false where it would write the first entry otherwise, so that packing
 * the layer again cannot give the same bytes. Reads the file's first bytes only; what cannot be read is left to others.
 */
export async function mayBeOwnTar(path: string): Promise<boolean> {
  await using file = await open(path, "r");
  const { buffer, bytesRead } = await file.read(Buffer.alloc(headBytes), 0, headBytes, 0);
  const head = buffer.subarray(0, bytesRead);
  const first = firstEntry(head);
  if (first === undefined) return true;
  const ours = encodeHeader(first);
  return ours.equals(head.subarray(0, ours.length));
}

function firstEntry(head: Buffer): TarEntry | undefined {
  let first: TarEntry | undefined;
  const reader = new TarReader({
    entry: (entry) => {
      first = entry;
      throw new Found();
    },
    data: () => {},
    end: () => {},
  });
  try {
    reader.push(head);
  } catch (error) {
    // A malformed archive is told by whoever unpacks it.
    if (!(error instanceof Found)) return undefined;
  }
  return first;
}
