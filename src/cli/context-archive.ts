/** Contexts as archives, in Docker's layout: `meta.json` and `tls/<endpoint>/<file>` of a tar. */
import { TarReader } from "#archive/tar-read.ts";
import { TarWriter } from "#archive/tar-write.ts";
import { bytesOfText, textOfBytes } from "#base/byte-string.ts";
import { EngineError } from "#base/errors.ts";
import { type ContextMeta, parseMeta, type StoredContext } from "./contexts.ts";

/** A context is some kilobytes; Docker's client takes as much. */
export const contextArchiveBytesMax = 10 * 1024 * 1024;
const entriesMax = 1000;
const nameBytesMax = 255;

/** An archive that any of both clients imports. Files are root's and have no times, as Docker's have. */
export function packContext({ meta, tls }: StoredContext): Buffer {
  const parts: Uint8Array[] = [];
  const tar = new TarWriter((chunk) => parts.push(Uint8Array.from(chunk)));
  const write = (path: string, mode: number, bytes: Buffer | undefined): void => {
    tar.entry({
      path: bytesOfText(path),
      type: bytes === undefined ? "directory" : "file",
      mode,
      uid: 0,
      gid: 0,
      sizeBytes: bytes?.length ?? 0,
      mtimeNs: 0n,
      linkPath: bytesOfText(""),
      deviceMajor: 0,
      deviceMinor: 0,
    });
    if (bytes !== undefined) tar.data(bytes);
  };
  write("meta.json", 0o644, Buffer.from(JSON.stringify(meta)));
  write("tls", 0o700, undefined);
  for (const [endpoint, files] of tls) {
    write(`tls/${endpoint}`, 0o700, undefined);
    for (const [file, bytes] of files) write(`tls/${endpoint}/${file}`, 0o600, bytes);
  }
  tar.finish();
  return Buffer.concat(parts);
}

/** Reads an archive that may come from anywhere; the context gets `name`. Throws `invalid` in Docker's words. */
export function unpackContext(archive: Buffer, name: string): StoredContext {
  if (archive.length > contextArchiveBytesMax)
    throw new EngineError("invalid", "read exceeds the defined limit");
  if (archive.subarray(0, 4).toString("latin1") === "PK\x03\x04")
    throw new EngineError("invalid", "zip archives are not supported: export the context as tar");
  let meta: ContextMeta | undefined;
  const tls = new Map<string, Map<string, Buffer>>();
  for (const { path, bytes } of filesOf(archive)) {
    if (path === "meta.json") {
      meta = parseMeta(bytes.toString());
      continue;
    }
    const [endpoint, file] = tlsPlace(path);
    if (!tls.has(endpoint)) tls.set(endpoint, new Map());
    tls.get(endpoint)!.set(file, bytes);
  }
  if (meta === undefined) throw new EngineError("invalid", "invalid context: no metadata found");
  return { meta: { ...meta, Name: name }, tls };
}

function tlsPlace(path: string): readonly [string, string] {
  if (!path.startsWith("tls/")) throw new EngineError("invalid", `${path}: unexpected context file`);
  const parts = path.split("/");
  if (parts.some((part) => part === "" || part === "." || part === ".." || part.length > nameBytesMax))
    throw new EngineError("invalid", `${path}: unexpected path format`);
  const [, endpoint, file, ...rest] = parts;
  if (endpoint === undefined || file === undefined || rest.length > 0 || path.includes("\0"))
    throw new EngineError("invalid", "archive format is invalid");
  return [endpoint, file];
}

interface ArchivedFile {
  readonly path: string;
  readonly bytes: Buffer;
}

/** The regular files of a tar; links, directories and devices are passed over. */
function filesOf(archive: Buffer): ArchivedFile[] {
  const files: ArchivedFile[] = [];
  let current: { path: string; parts: Buffer[] } | undefined;
  let total = 0;
  const reader = new TarReader(
    {
      entry: ({ path, type, sizeBytes }) => {
        total += sizeBytes;
        // A sparse file may claim more than the archive holds.
        if (total > contextArchiveBytesMax)
          throw new EngineError("invalid", "read exceeds the defined limit");
        current = type === "file" ? { path: textOfBytes(path), parts: [] } : undefined;
      },
      data: (chunk) => current?.parts.push(Buffer.from(chunk)),
      end: () => {
        if (current !== undefined) files.push({ path: current.path, bytes: Buffer.concat(current.parts) });
        current = undefined;
      },
    },
    entriesMax,
  );
  reader.push(archive);
  reader.finish();
  return files;
}
