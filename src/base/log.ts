export const logLevels = ["trace", "debug", "info", "warn", "error", "fatal"] as const;
export type LogLevel = (typeof logLevels)[number];
export type LogFields = Readonly<Record<string, unknown>>;

/** Structured log, one JSON object a line on stderr. Nothing secret goes in: callers pass names, never credentials. */
export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  child(fields: LogFields): Log;
}

function plain(value: unknown): unknown {
  if (value instanceof Error) return value.stack ?? value.message;
  if (typeof value === "bigint") return value.toString();
  return value;
}

/** `level` may be a function: what it says counts for each line, also those of children. */
export function createLog(
  level: LogLevel | (() => LogLevel),
  write: (line: string) => void,
  base: LogFields = {},
): Log {
  const threshold = typeof level === "function" ? level : (): LogLevel => level;
  const emit = (at: LogLevel, message: string, fields: LogFields = {}): void => {
    if (logLevels.indexOf(at) < logLevels.indexOf(threshold())) return;
    const record: Record<string, unknown> = { time: new Date().toISOString(), level: at, msg: message };
    for (const [key, value] of Object.entries({ ...base, ...fields })) record[key] = plain(value);
    write(`${JSON.stringify(record)}\n`);
  };
  return {
    debug: (message, fields) => emit("debug", message, fields),
    info: (message, fields) => emit("info", message, fields),
    warn: (message, fields) => emit("warn", message, fields),
    error: (message, fields) => emit("error", message, fields),
    child: (fields) => createLog(level, write, { ...base, ...fields }),
  };
}

export const silentLog: Log = createLog("fatal", () => {});
