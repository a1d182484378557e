import { EngineError } from "#base/errors.ts";
import { type Filters, matchLabels } from "#wire/filters.ts";
import type { EngineEvent, EventBus } from "./events.ts";

export interface EventQuery {
  readonly sinceNs: bigint | undefined;
  readonly untilNs: bigint | undefined;
  readonly filters: Filters;
}

export const eventFilterKeys: ReadonlySet<string> = new Set([
  ..."container daemon event image label network scope type volume".split(" "),
  // Docker knows these too; nothing here ever has their type.
  ..."config node plugin secret service".split(" "),
]);

/** Actions that carry a text after a colon (`health_status: healthy`): their filter is a prefix. */
const prefixed: ReadonlySet<string> = new Set(["health_status", "exec_create", "exec_start"]);

function exact(filters: Filters, key: string, ...candidates: readonly string[]): boolean {
  const wanted = filters.get(key);
  return wanted === undefined || wanted.length === 0 || wanted.some((value) => candidates.includes(value));
}

function prefix(filters: Filters, key: string, ...candidates: readonly string[]): boolean {
  const wanted = filters.get(key);
  if (wanted === undefined || wanted.length === 0) return true;
  return wanted.some((value) => candidates.some((candidate) => candidate.startsWith(value)));
}

function withoutTag(name: string): string {
  const colon = name.lastIndexOf(":");
  return colon > name.lastIndexOf("/") ? name.slice(0, colon) : name;
}

/** Docker's reading of the events' filters (daemon/events/filter.go): keys are ANDed, values of a key ORed. */
export function matchesEvent(event: EngineEvent, filters: Filters): boolean {
  if (filters.size === 0) return true;
  const { type, action, actorId, attributes } = event;
  const name = attributes["name"] ?? "";
  const actions = filters.get("event");
  const matchAction = actions?.some((wanted) => prefixed.has(wanted)) === true ? prefix : exact;
  const imageName = attributes[type === "image" ? "name" : "image"] ?? "";
  return (
    matchAction(filters, "event", action) &&
    exact(filters, "type", type) &&
    exact(filters, "scope", "local") &&
    ["daemon", "container", "volume", "network", "plugin", "service", "node", "secret", "config"].every(
      (key) => prefix(filters, key, actorId, name),
    ) &&
    exact(filters, "image", actorId, imageName, withoutTag(actorId), withoutTag(imageName)) &&
    matchLabels(filters.get("label"), attributes)
  );
}

/**
 * Events that match, past ones first where `since` or `until` is given, then new ones until `until` passes or the
 * signal is aborted. A reader that is too slow loses events, never holds others up (invariant 6).
 */
export async function* readEvents(
  bus: EventBus,
  { sinceNs, untilNs, filters }: EventQuery,
  nowNs: bigint,
  signal: AbortSignal,
): AsyncGenerator<EngineEvent> {
  const past =
    sinceNs === undefined && untilNs === undefined
      ? []
      : bus
          .recent()
          .filter(({ timeNs }) => timeNs >= (sinceNs ?? 0n) && (untilNs === undefined || timeNs <= untilNs));
  using reader = bus.subscribe();
  for (const event of past) if (matchesEvent(event, filters)) yield event;
  if (untilNs !== undefined && untilNs <= nowNs) return;
  const stop = (): void => reader[Symbol.dispose]();
  signal.addEventListener("abort", stop);
  const timer = untilNs === undefined ? undefined : stopLater(stop, Number((untilNs - nowNs) / 1_000_000n));
  try {
    if (signal.aborted) return;
    for await (const event of reader) if (matchesEvent(event, filters)) yield event;
  } finally {
    clearInterval(timer);
    signal.removeEventListener("abort", stop);
  }
}

/** A timer takes 2^31 ms at most: an `until` years away needs looking at again. */
function stopLater(stop: () => void, delayMs: number): NodeJS.Timeout {
  const deadline = performance.now() + delayMs;
  return setInterval(
    () => {
      if (performance.now() >= deadline - 1) stop();
    },
    Math.min(Math.max(delayMs, 1), 60_000),
  );
}

/** Docker's check of a window. */
export function checkWindow(sinceNs: bigint | undefined, untilNs: bigint | undefined): void {
  if (sinceNs === undefined || untilNs === undefined || sinceNs <= untilNs) return;
  throw new EngineError(
    "invalid",
    `\`since\` time (${sinceNs / 1_000_000_000n}) must be less than \`until\` time (${untilNs / 1_000_000_000n})`,
    { code: "bad-window" },
  );
}
