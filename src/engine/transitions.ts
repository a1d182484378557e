/**
 * What a container can be and what may happen to it, as a table. Pure: the rest of the engine asks it before it acts.
 *
 *   created ─start→ running ─exit→ exited ─start→ running …
 *   running ─pause→ paused ─resume→ running          paused ─exit→ exited
 *   running ─exitRestart→ restarting ─start→ running  restarting ─giveUp→ exited
 *   created, exited, dead ─remove→ removing ─removeFailed→ dead
 *
 * Docker calls a container "running" (State.Running) while it is running, paused or restarting.
 */
import { assert } from "#base/assert.ts";

export const containerStatuses = [
  "created",
  "running",
  "paused",
  "restarting",
  "removing",
  "exited",
  "dead",
] as const;
export type ContainerStatus = (typeof containerStatuses)[number];

export type ContainerHappening =
  | "start"
  | "startFailed"
  | "exit"
  | "exitRestart"
  | "giveUp"
  | "pause"
  | "resume"
  | "remove"
  | "removeFailed";

const table: Readonly<Record<ContainerStatus, Partial<Record<ContainerHappening, ContainerStatus>>>> = {
  created: { start: "running", startFailed: "created", remove: "removing" },
  running: { exit: "exited", exitRestart: "restarting", pause: "paused" },
  paused: { exit: "exited", exitRestart: "restarting", resume: "running" },
  restarting: { start: "running", startFailed: "restarting", giveUp: "exited" },
  exited: { start: "running", startFailed: "exited", remove: "removing" },
  removing: { removeFailed: "dead" },
  dead: { remove: "removing" },
};

/** The status after a happening, or undefined where it cannot happen. */
export function nextStatus(
  status: ContainerStatus,
  happening: ContainerHappening,
): ContainerStatus | undefined {
  return table[status][happening];
}

/** As `nextStatus`; what cannot happen is a mistake in the engine and ends the daemon (invariant 8). */
export function requireNext(status: ContainerStatus, happening: ContainerHappening): ContainerStatus {
  const next = table[status][happening];
  assert(next !== undefined, `a container that is ${status} cannot ${happening}`);
  return next;
}

/** Docker's State.Running. */
export function isUp(status: ContainerStatus): boolean {
  return status === "running" || status === "paused" || status === "restarting";
}

export function isContainerStatus(text: string): text is ContainerStatus {
  return (containerStatuses as readonly string[]).includes(text);
}
