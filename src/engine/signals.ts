import { constants } from "node:os";
import { EngineError } from "#base/errors.ts";

const realtimeMin = 34;
const realtimeMax = 64;

/** A signal by number (`9`) or name (`KILL`, `SIGKILL`, `RTMIN+3`), as moby/sys/signal reads it; else `Invalid signal: x`. */
export function parseSignal(text: string): number {
  const bad = (): EngineError =>
    new EngineError("invalid", `Invalid signal: ${text}`, { code: "bad-signal" });
  if (/^\d{1,3}$/.test(text)) {
    const number = Number(text);
    if (number === 0 || number > realtimeMax) throw bad();
    return number;
  }
  const name = text.toUpperCase().replace(/^SIG/, "");
  const realtime = /^RT(MIN|MAX)(?:([+-])(\d{1,2}))?$/.exec(name);
  if (realtime !== null) {
    const base = realtime[1] === "MIN" ? realtimeMin : realtimeMax;
    const number = base + (realtime[2] === "-" ? -1 : 1) * Number(realtime[3] ?? 0);
    if (number < realtimeMin || number > realtimeMax) throw bad();
    return number;
  }
  const known = constants.signals as Readonly<Record<string, number>>;
  const number = Object.hasOwn(known, `SIG${name}`) ? known[`SIG${name}`] : undefined;
  if (number === undefined) throw bad();
  return number;
}

/** The signal that stops a container politely: its own, else SIGTERM. */
export function stopSignalOf(config: { readonly StopSignal: string }): number {
  return config.StopSignal === "" ? constants.signals.SIGTERM : parseSignal(config.StopSignal);
}
