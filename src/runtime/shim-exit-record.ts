import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { formatTime, zeroTime } from "#base/clock.ts";
import { errnoOf } from "#base/errors.ts";
import type { ExitRecord } from "./shim.ts";
import { type Frame, tags } from "./shim-protocol.ts";

/** A record is a few lines; anything longer is not one. */
const recordBytesMax = 4096;

export interface ExitValues {
  readonly exitCode: number;
  readonly startedAtNs: bigint;
  readonly finishedAtNs: bigint;
  readonly oomKilled: boolean;
  readonly droppedLogLines: number;
}

export function exitRecordOf(values: ExitValues): ExitRecord {
  return {
    exitCode: values.exitCode,
    startedAt: values.startedAtNs === 0n ? zeroTime : formatTime(values.startedAtNs),
    finishedAt: formatTime(values.finishedAtNs),
    oomKilled: values.oomKilled,
    ...(values.droppedLogLines > 0 ? { droppedLogLines: values.droppedLogLines } : {}),
  };
}

export function exitRecordOfFrame(frame: Frame): ExitRecord {
  return exitRecordOf({
    exitCode: frame.number(tags.exitCode),
    startedAtNs: frame.bigint(tags.startedNs),
    finishedAtNs: frame.bigint(tags.finishedNs),
    oomKilled: frame.number(tags.oomKilled) !== 0,
    droppedLogLines: frame.number(tags.droppedLines),
  });
}

/**
 * Parses the text that native/exit-record.c writes. Undefined for anything that is not a whole record of a known version:
 * then there is none. Unknown names are skipped.
 */
export function parseExitRecord(text: string): ExitRecord | undefined {
  const lines = text.split("\n");
  if (lines[0] !== "skiff-exit 1" || lines.at(-2) !== "end") return undefined;
  const values = new Map<string, bigint>();
  for (const line of lines.slice(1, -2)) {
    const match = /^([A-Za-z]+) (\d{1,20})$/.exec(line);
    if (match === null) return undefined;
    values.set(match[1] ?? "", BigInt(match[2] ?? "0"));
  }
  const exitCode = values.get("exitCode");
  const finishedAtNs = values.get("finishedAtNs");
  if (exitCode === undefined || finishedAtNs === undefined) return undefined;
  return exitRecordOf({
    exitCode: Number(exitCode),
    startedAtNs: values.get("startedAtNs") ?? 0n,
    finishedAtNs,
    oomKilled: values.get("oomKilled") === 1n,
    droppedLogLines: Number(values.get("droppedLogLines") ?? 0n),
  });
}

/** `<stateDir>/exit`, or undefined when there is none (or no whole one). */
export async function readExitRecord(stateDir: string): Promise<ExitRecord | undefined> {
  try {
    const text = await readFile(join(stateDir, "exit"), "utf8");
    return text.length > recordBytesMax ? undefined : parseExitRecord(text);
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return undefined;
    throw error;
  }
}
