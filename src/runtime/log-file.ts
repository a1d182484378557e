import { type FileHandle, open, stat } from "node:fs/promises";
import { parseTime, systemClock } from "#base/clock.ts";
import { errnoOf } from "#base/errors.ts";
import type { Semaphore } from "#base/lock.ts";
import { type LogLine, parseLogLine } from "./log-line.ts";
import { LogReaders } from "./log-readers.ts";

/**
 * Reads a container's log while the shim may write and rotate it: bounded memory whatever the file holds, no lock, and a
 * reader that is slow costs nobody anything, since nothing is read before it is asked for.
 */
export interface LogOptions {
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** Entries from the end, counted as Docker does: both streams, before any other filter. */
  readonly tail: number | "all";
  /** Nanoseconds since the epoch; entries before it are left out. */
  readonly sinceNs?: bigint;
  /** Entries after it end the reading. */
  readonly untilNs?: bigint;
  readonly follow: boolean;
  /** With `follow`: the container has ended and its log is complete. */
  readonly ended?: Promise<unknown>;
  readonly signal?: AbortSignal;
  /** What it shares with other readers; without it it is alone. */
  readonly readers?: LogReaders;
}

const newline = 0x0a;
const largeReadBytes = 256 * 1024;
const smallReadBytes = 8 * 1024;
/** A line of the shim is 16 KiB of text, six times that when all of it is escaped, and its attributes. */
const entryBytesMax = 2 * 1024 * 1024;
const tailBlockBytes = 64 * 1024;
const rotatedFilesMax = 1000;
/** inotify tells at once; this is for file systems without it. */
const pollMs = 500;
const absentPollMs = 50;

interface OpenLog {
  readonly handle: FileHandle;
  readonly inode: number;
  /** Next byte to read. */
  position: number;
}

async function openLog(path: string): Promise<OpenLog | undefined> {
  try {
    const handle = await open(path, "r");
    return { handle, inode: (await handle.stat()).ino, position: 0 };
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Oldest first. All are open at once, so that a rotation in between neither repeats nor loses an entry. */
async function openAll(path: string): Promise<OpenLog[]> {
  for (;;) {
    const logs: OpenLog[] = [];
    for (let number = 0; number < rotatedFilesMax; number += 1) {
      const log = await openLog(number === 0 ? path : `${path}.${number}`);
      if (log !== undefined) logs.unshift(log);
      else if (number > 0) break;
    }
    const inodes = new Set(logs.map((log) => log.inode));
    if (inodes.size === logs.length) return logs;
    // Rotated while we opened: one file was met under two names.
    await closeAll(logs);
  }
}

async function closeAll(logs: readonly OpenLog[]): Promise<void> {
  await Promise.all(logs.map((log) => log.handle.close()));
}

/** Entries of a chunk, and the bytes that begin the next one. */
function splitEntries(chunk: Buffer, end: number, into: LogLine[]): number {
  let start = 0;
  for (;;) {
    const at = chunk.indexOf(newline, start);
    if (at < 0 || at >= end) return start;
    const entry = at > start ? parseLogLine(chunk, start, at) : undefined;
    if (entry !== undefined) into.push(entry);
    start = at + 1;
  }
}

/**
 * From the log's position up to `limit` bytes, whole entries only: what a writer has not finished is left for the next
 * call. An entry longer than any that the shim writes is skipped.
 */
async function* readEntries(
  log: OpenLog,
  limit: number,
  { largeReads, reads }: LogReaders,
): AsyncGenerator<LogLine[]> {
  let needed = 0;
  while (log.position < limit) {
    // Held while the consumer has the entries: they are all that a reader keeps in memory.
    using slot = largeReads.tryAcquire();
    const size = Math.max(needed, slot === undefined ? smallReadBytes : largeReadBytes);
    const { entries, consumed, bytesRead } = await readSome(log, Math.min(size, limit - log.position), reads);
    if (bytesRead === 0) return;
    if (consumed > 0) {
      log.position += consumed;
      needed = 0;
      if (entries.length > 0) yield entries;
    } else if (log.position + bytesRead >= limit && bytesRead < entryBytesMax) return;
    else if (size < entryBytesMax) needed = Math.min(size * 2, entryBytesMax);
    else log.position += bytesRead;
  }
}

async function readSome(
  log: OpenLog,
  size: number,
  reads: Semaphore,
): Promise<{ entries: LogLine[]; consumed: number; bytesRead: number }> {
  using _turn = await reads.acquire();
  const chunk = Buffer.allocUnsafeSlow(size);
  const { bytesRead } = await log.handle.read(chunk, 0, size, log.position);
  const entries: LogLine[] = [];
  const consumed = splitEntries(chunk, bytesRead, entries);
  return { entries, consumed, bytesRead };
}

/**
 * Offset of the last `count` entries below `size`: after the newline before them. A part of an entry at the end counts for
 * nothing. `missing`: how many the file does not have.
 */
async function findTail(
  log: OpenLog,
  size: number,
  count: number,
): Promise<{ position: number; missing: number }> {
  const block = Buffer.allocUnsafeSlow(Math.min(size, tailBlockBytes));
  let newlines = 0;
  for (let end = size; end > 0; ) {
    const start = Math.max(0, end - block.length);
    const { bytesRead } = await log.handle.read(block, 0, end - start, start);
    let at = bytesRead;
    while (at > 0) {
      at = block.lastIndexOf(newline, at - 1);
      if (at < 0) break;
      newlines += 1;
      if (newlines > count) return { position: start + at + 1, missing: 0 };
    }
    end = start;
  }
  return { position: 0, missing: count - newlines };
}

/** Sets the positions so that `count` entries remain, looking from the end of the newest file backwards. */
async function seekTail(logs: readonly OpenLog[], sizes: readonly number[], count: number): Promise<void> {
  let missing = count;
  for (let index = logs.length - 1; index >= 0; index -= 1) {
    const found = await findTail(logs[index]!, sizes[index]!, missing);
    logs[index]!.position = found.position;
    missing = found.missing;
  }
}

/** Wakes when the file may have grown, was renamed, the container ended, or the caller gave up. */
class ChangeSignal implements Disposable {
  readonly readers: LogReaders;
  #watch: Disposable | undefined;
  #changed = false;
  #wake: (() => void) | undefined;

  constructor(readers: LogReaders) {
    this.readers = readers;
  }

  watch(path: string, log: OpenLog): void {
    this.#watch?.[Symbol.dispose]();
    this.#watch = this.readers.watch(path, log.inode, () => this.notify());
  }

  notify(): void {
    this.#changed = true;
    this.#wake?.();
  }

  async wait(timeoutMs: number): Promise<void> {
    if (!this.#changed) {
      const timer = setTimeout(() => this.#wake?.(), timeoutMs);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      clearTimeout(timer);
      this.#wake = undefined;
    }
    this.#changed = false;
  }

  [Symbol.dispose](): void {
    this.#watch?.[Symbol.dispose]();
  }
}

/** Follows one log and its successors; ends after the last entry once `state.ended` is set. */
async function* followEntries(
  path: string,
  first: OpenLog | undefined,
  state: { readonly ended: boolean },
  changes: ChangeSignal,
): AsyncGenerator<LogLine[]> {
  let log = first;
  try {
    while (log === undefined) {
      const ended = state.ended;
      log = await openLog(path);
      if (log === undefined && ended) return;
      if (log === undefined) await changes.wait(absentPollMs);
    }
    changes.watch(path, log);
    for (;;) {
      const wasEnded = state.ended;
      const { size } = await log.handle.stat();
      // Truncated in place: rotation with a single file.
      if (size < log.position) log.position = 0;
      yield* readEntries(log, size, changes.readers);
      const next = await successorOf(path, log);
      if (next !== undefined) {
        // What was written between our last look and the rename.
        yield* readEntries(log, (await log.handle.stat()).size, changes.readers);
        await log.handle.close();
        log = next;
        changes.watch(path, log);
      } else if (wasEnded) return;
      else await changes.wait(pollMs);
    }
  } finally {
    await log?.handle.close();
  }
}

/** The file that took the log's name, once it is another one. After several rotations the oldest not yet read. */
async function successorOf(path: string, log: OpenLog): Promise<OpenLog | undefined> {
  const current = await stat(path).catch((error: unknown) => {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  });
  if (current === undefined || current.ino === log.inode) return undefined;
  const logs = await openAll(path);
  const position = logs.findIndex((candidate) => candidate.inode === log.inode);
  const next = logs[position + 1];
  await closeAll(logs.filter((candidate) => candidate !== next));
  return next;
}

function inTime(entry: LogLine, options: LogOptions): "skip" | "take" | "end" {
  if (options.sinceNs === undefined && options.untilNs === undefined) return "take";
  const time = parseTime(entry.time);
  if (time === undefined) return "skip";
  if (options.sinceNs !== undefined && time < options.sinceNs) return "skip";
  return options.untilNs !== undefined && time > options.untilNs ? "end" : "take";
}

/** The wanted entries of a batch, and whether `until` ends the reading with it. */
function select(entries: readonly LogLine[], options: LogOptions): { taken: LogLine[]; ended: boolean } {
  const taken: LogLine[] = [];
  for (const entry of entries) {
    const verdict = inTime(entry, options);
    if (verdict === "end") return { taken, ended: true };
    if (verdict === "take" && options[entry.stream]) taken.push(entry);
  }
  return { taken, ended: false };
}

async function* allEntries(
  path: string,
  options: LogOptions,
  state: { readonly ended: boolean },
  changes: ChangeSignal,
): AsyncGenerator<LogLine[]> {
  const logs = await openAll(path);
  let open = logs;
  try {
    const sizes = await Promise.all(logs.map(async (log) => (await log.handle.stat()).size));
    if (options.tail !== "all") await seekTail(logs, sizes, options.tail);
    for (const [index, log] of logs.entries()) yield* readEntries(log, sizes[index]!, changes.readers);
    if (!options.follow) return;
    open = logs.slice(0, -1);
    yield* followEntries(path, logs.at(-1), state, changes);
  } finally {
    await closeAll(open);
  }
}

/** Docker's `logs -f --until`: ends at that time even when nothing is written. */
function untilTimer(options: LogOptions, stop: () => void): NodeJS.Timeout | undefined {
  if (!options.follow || options.untilNs === undefined) return undefined;
  const remainingMs = Number((options.untilNs - systemClock.nowNs()) / 1_000_000n);
  const timerMsMax = 2 ** 31 - 1;
  return remainingMs > timerMsMax ? undefined : setTimeout(stop, Math.max(0, remainingMs)).unref();
}

/**
 * The entries of a log in batches (one a read, so that a million entries are not a million turns of the event loop).
 * Rotated files come first, oldest first. Without a log file: nothing, or with `follow` what comes until the end.
 * Ends quietly when the signal aborts. Buffers of a batch may be kept; they are not used again.
 */
export async function* readLogBatches(path: string, options: LogOptions): AsyncGenerator<readonly LogLine[]> {
  const state = { ended: false };
  using changes = new ChangeSignal(options.readers ?? new LogReaders());
  const end = (): void => {
    state.ended = true;
    changes.notify();
  };
  options.ended?.then(end, end);
  const onAbort = (): void => end();
  options.signal?.addEventListener("abort", onAbort, { once: true });
  const timer = untilTimer(options, end);
  try {
    for await (const entries of allEntries(path, options, state, changes)) {
      if (options.signal?.aborted) return;
      const { taken, ended } = select(entries, options);
      if (taken.length > 0) yield taken;
      if (ended) return;
    }
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener("abort", onAbort);
  }
}

/** `readLogBatches`, one entry at a time. */
export async function* readLog(path: string, options: LogOptions): AsyncGenerator<LogLine> {
  for await (const batch of readLogBatches(path, options)) yield* batch;
}
