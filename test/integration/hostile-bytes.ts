import { createGzip, createZstdCompress } from "node:zlib";
import { checksumOf } from "#archive/tar-format.ts";
import { encodeHeader, type TarHeader } from "#archive/tar-write.ts";
import type { ByteString } from "#base/byte-string.ts";

/** Archives that no honest writer makes, byte by byte. */
const plain: TarHeader = {
  path: "x" as ByteString,
  type: "file",
  mode: 0o644,
  uid: 0,
  gid: 0,
  sizeBytes: 0,
  mtimeNs: 0n,
  linkPath: "" as ByteString,
  deviceMajor: 0,
  deviceMinor: 0,
};

export const endOfArchive = Buffer.alloc(1024);

export function header(change: Partial<TarHeader> = {}): Buffer {
  return encodeHeader({ ...plain, ...change } as TarHeader);
}

/** One header block with fields overwritten after the fact, and a fresh checksum. */
export function forged(flag: string, edit: (block: Buffer) => void = () => {}): Buffer {
  const block = Buffer.from(encodeHeader(plain));
  block.write(flag, 156, "latin1");
  edit(block);
  block.write(`${checksumOf(block).toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

/** GNU's base-256 form in a field of 12 bytes. */
export function base256(block: Buffer, at: number, value: bigint): void {
  block.fill(0, at, at + 12);
  block.writeBigUInt64BE(value, at + 4);
  block[at] = 0x80;
}

/** A PAX header with these records, as given. */
export function pax(records: Readonly<Record<string, string>>, flag = "x"): Buffer {
  const body = Object.entries(records).map(([key, value]) => {
    const rest = key.length + Buffer.byteLength(value, "latin1") + 3;
    let length = rest + String(rest).length;
    if (rest + String(length).length !== length) length = rest + String(length).length;
    return Buffer.from(`${length} ${key}=${value}\n`, "latin1");
  });
  return extended(flag, Buffer.concat(body));
}

export function extended(flag: string, body: Buffer): Buffer {
  const block = forged(flag, (bytes) =>
    bytes.write(body.length.toString(8).padStart(11, "0"), 124, "latin1"),
  );
  return Buffer.concat([block, body, Buffer.alloc((512 - (body.length % 512)) % 512)]);
}

/** Compresses a beginning and then zeros without end, up to `zeroBytes`; never holds them all. */
export async function bomb(kind: "gzip" | "zstd", head: Buffer, zeroBytes: number): Promise<Buffer> {
  const stream = kind === "gzip" ? createGzip({ level: 9, chunkSize: 1 << 20 }) : createZstdCompress();
  const pieces: Buffer[] = [];
  stream.on("data", (piece: Buffer) => pieces.push(piece));
  const done = new Promise((resolve, reject) => stream.once("end", resolve).once("error", reject));
  const write = (bytes: Buffer): Promise<void> =>
    new Promise((resolve) => {
      if (stream.write(bytes)) resolve();
      else stream.once("drain", resolve);
    });
  await write(head);
  const zeros = Buffer.alloc(1 << 22);
  for (let left = zeroBytes; left > 0; left -= zeros.length) await write(zeros);
  stream.end();
  await done;
  return Buffer.concat(pieces);
}
