/** The STATUS column. Pure; wording of moby `State.String` and go-units `HumanDuration`. */
import { parseTime } from "#base/clock.ts";
import type { ContainerState } from "./container-document.ts";

/** `Less than a second`, `5 seconds`, `About a minute`, … */
export function humanDuration(ms: number): string {
  const seconds = Math.trunc(ms / 1000);
  if (seconds < 1) return "Less than a second";
  if (seconds === 1) return "1 second";
  if (seconds < 60) return `${seconds} seconds`;
  const minutes = Math.trunc(ms / 60_000);
  if (minutes === 1) return "About a minute";
  if (minutes < 60) return `${minutes} minutes`;
  const hours = Math.trunc(ms / 3_600_000 + 0.5);
  if (hours === 1) return "About an hour";
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 7 * 2) return `${Math.trunc(hours / 24)} days`;
  if (hours < 24 * 30 * 2) return `${Math.trunc(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.trunc(hours / 24 / 30)} months`;
  return `${Math.trunc(ms / 3_600_000 / 24 / 365)} years`;
}

export function statusText(
  state: Pick<ContainerState, "status" | "exitCode" | "startedAt" | "finishedAt">,
  nowNs: bigint,
  health?: string,
): string {
  switch (state.status) {
    case "running":
      return `Up ${since(state.startedAt, nowNs)}${healthText(health)}`;
    case "paused":
      return `Up ${since(state.startedAt, nowNs)} (Paused)`;
    case "restarting":
      return `Restarting (${state.exitCode}) ${since(state.finishedAt, nowNs)} ago`;
    case "removing":
      return "Removal In Progress";
    case "dead":
      return "Dead";
    case "created":
      return "Created";
    case "exited":
      return `Exited (${state.exitCode}) ${since(state.finishedAt, nowNs)} ago`;
  }
}

function healthText(health: string | undefined): string {
  if (health === undefined || health === "none") return "";
  return health === "starting" ? " (health: starting)" : ` (${health})`;
}

function since(time: string, nowNs: bigint): string {
  const from = parseTime(time) ?? nowNs;
  return humanDuration(Number((nowNs - from) / 1_000_000n));
}
