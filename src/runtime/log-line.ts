/** One entry of Docker's json-file log. Long lines come as several entries of 16 KiB, only the last ending in a newline. */
export interface LogLine {
  readonly stream: "stdout" | "stderr";
  /** RFC 3339 with nanoseconds, as it stands in the file. */
  readonly time: string;
  /** What the container wrote, its newline included. */
  readonly line: Buffer;
  readonly attrs?: Readonly<Record<string, string>>;
}

const prefix = Buffer.from('{"log":"');
const endings = (["stdout", "stderr"] as const).map((stream) => ({
  stream,
  bytes: Buffer.from(`\\n","stream":"${stream}","time":"`),
}));
const endingLength = endings[0]!.bytes.length;
const backslash = 0x5c;
const newline = 0x0a;
/** `2026-01-01T00:00:00Z` to nanoseconds. */
const timeLengthMin = 20;
const timeLengthMax = 35;

/**
 * The common entry, a whole line that needs no escape but its newline, without JSON.parse and without a copy: the text
 * stays where it was read, and its `\n` is turned into the byte in place. Undefined for all other entries.
 */
function parsePlain(chunk: Buffer, start: number, end: number): LogLine | undefined {
  // The entry ends in `…"}`.
  const timeEnd = end - 2;
  const quote = chunk.lastIndexOf('"', timeEnd - 1);
  const timeLength = timeEnd - quote - 1;
  if (timeLength < timeLengthMin || timeLength > timeLengthMax) return undefined;
  const at = quote + 1 - endingLength;
  if (
    at < start + prefix.length ||
    chunk.compare(prefix, 0, prefix.length, start, start + prefix.length) !== 0
  ) {
    return undefined;
  }
  if (chunk.indexOf(backslash, start + prefix.length) !== at) return undefined;
  const ending = endings.find(
    ({ bytes }) => chunk.compare(bytes, 0, endingLength, at, at + endingLength) === 0,
  );
  if (ending === undefined) return undefined;
  chunk[at] = newline;
  return {
    stream: ending.stream,
    time: chunk.toString("latin1", quote + 1, timeEnd),
    line: chunk.subarray(start + prefix.length, at + 1),
  };
}

function parseAttrs(value: unknown): Record<string, string> | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  const attrs: Record<string, string> = Object.create(null);
  for (const [key, entry] of Object.entries(value)) if (typeof entry === "string") attrs[key] = entry;
  return attrs;
}

/**
 * Parses the entry in `chunk[start, end)` (without its newline); undefined for what is none (a line torn by a crash).
 * May change the bytes of the chunk, and the result refers to it.
 */
export function parseLogLine(chunk: Buffer, start: number, end: number): LogLine | undefined {
  const plain = parsePlain(chunk, start, end);
  if (plain !== undefined) return plain;
  let value: unknown;
  try {
    value = JSON.parse(chunk.toString("utf8", start, end));
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { log, stream, time, attrs } = value as Readonly<Record<string, unknown>>;
  if (typeof time !== "string" || (stream !== "stdout" && stream !== "stderr")) return undefined;
  const parsedAttrs = parseAttrs(attrs);
  return {
    stream,
    time,
    line: Buffer.from(typeof log === "string" ? log : ""),
    ...(parsedAttrs === undefined ? {} : { attrs: parsedAttrs }),
  };
}
