/** Use case: logs. */
import { EngineError } from "#base/errors.ts";
import { type LogOptions, readLogBatches } from "#runtime/log-file.ts";
import type { LogLine } from "#runtime/log-line.ts";
import { frameHeaderBytes, writeFrameHeader } from "#wire/stdio-frames.ts";
import type { Container } from "./container.ts";
import { type ContainerContext, logPathOf } from "./container-context.ts";

export interface LogRequest {
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly follow: boolean;
  readonly timestamps: boolean;
  readonly details: boolean;
  /** Entries from the end; undefined: all. */
  readonly tail: number | undefined;
  readonly sinceNs: bigint | undefined;
  readonly untilNs: bigint | undefined;
  readonly signal: AbortSignal | undefined;
}

export interface ContainerLog {
  /** Raw bytes with a terminal, frames without. */
  readonly terminal: boolean;
  readonly chunks: AsyncIterable<Buffer>;
}

/** A container's output from its log file. The checks are made before the first chunk is asked for. */
export function readContainerLog(
  ctx: ContainerContext,
  container: Container,
  request: LogRequest,
): ContainerLog {
  if (!request.stdout && !request.stderr) {
    throw new EngineError("invalid", "Bad parameters: you must choose at least one stream", {
      code: "no-stream",
    });
  }
  const { document, state } = container;
  if (state.status === "dead" || container.removing) {
    throw new EngineError("conflict", "can not get logs from container which is dead or marked for removal", {
      code: "dead",
    });
  }
  if (document.hostConfig.LogConfig.Type === "none") {
    throw new EngineError("notImplemented", "configured logging driver does not support reading", {
      code: "no-log",
    });
  }
  const terminal = document.config.Tty;
  return { terminal, chunks: chunksOf(ctx, container, request, terminal) };
}

async function* chunksOf(
  ctx: ContainerContext,
  container: Container,
  request: LogRequest,
  terminal: boolean,
): AsyncGenerator<Buffer> {
  const ended = request.follow && container.isUp ? container.wait("not-running") : undefined;
  const options: LogOptions = {
    stdout: request.stdout,
    stderr: request.stderr,
    tail: request.tail ?? "all",
    follow: ended !== undefined,
    readers: ctx.logReaders,
    ...(request.sinceNs !== undefined && { sinceNs: request.sinceNs }),
    ...(request.untilNs !== undefined && { untilNs: request.untilNs }),
    ...(ended !== undefined && { ended: ended.exit }),
    ...(request.signal !== undefined && { signal: request.signal }),
  };
  try {
    for await (const batch of readLogBatches(logPathOf(ctx, container.id), options)) {
      if (batch.length > 0) yield encodeEntries(batch, request, terminal);
    }
  } finally {
    ended?.forget();
  }
}

/** The entries as a client gets them, in one buffer: a batch is thousands of lines, and many clients may read them. */
function encodeEntries(batch: readonly LogLine[], request: LogRequest, terminal: boolean): Buffer {
  const headerBytes = terminal ? 0 : frameHeaderBytes;
  const prefixed = request.timestamps || request.details;
  const prefixes = prefixed ? batch.map((entry) => Buffer.from(prefixOf(entry, request))) : undefined;
  const prefixBytes = (index: number): number => prefixes?.[index]?.length ?? 0;
  let size = 0;
  for (const [index, { line }] of batch.entries()) size += headerBytes + prefixBytes(index) + line.length;
  const encoded = Buffer.allocUnsafeSlow(size);
  let at = 0;
  for (const [index, { stream, line }] of batch.entries()) {
    if (!terminal) writeFrameHeader(encoded, at, stream, prefixBytes(index) + line.length);
    at += headerBytes;
    at += prefixes?.[index]?.copy(encoded, at) ?? 0;
    at += line.copy(encoded, at);
  }
  return encoded;
}

function prefixOf(entry: LogLine, request: LogRequest): string {
  const time = request.timestamps ? `${fixedTime(entry.time)} ` : "";
  return request.details ? `${time}${detailsText(entry.attrs)} ` : time;
}

/** Docker prints nine digits of a second, the file leaves trailing zeros out. */
export function fixedTime(time: string): string {
  const match = /^(.*?:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$/.exec(time);
  return match === null ? time : `${match[1]}.${(match[2] ?? "").padEnd(9, "0")}${match[3]}`;
}

/** `key=value` pairs, sorted, escaped as in a URL's query. */
function detailsText(attrs: Readonly<Record<string, string>> | undefined): string {
  return Object.entries(attrs ?? {})
    .map(([key, value]) => `${queryEscape(key)}=${queryEscape(value)}`)
    .sort()
    .join(",");
}

function queryEscape(text: string): string {
  return encodeURIComponent(text.toWellFormed())
    .replace(/[!'()*]/g, (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`)
    .replace(/%20/g, "+");
}
