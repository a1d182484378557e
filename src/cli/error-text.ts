import { messageOf } from "#base/errors.ts";
import { ApiError, ConnectionError } from "#sdk/api-error.ts";

/** An error as the user sees it: what the daemon said is marked as its. */
export function errorText(error: unknown): string {
  if (error instanceof ApiError) return `Error response from daemon: ${error.message}`;
  return messageOf(error);
}

/** How to get a daemon, for the user of our own name; scripts that match on Docker's line find it first. */
export function daemonHint(error: unknown, program: string): string {
  const missing = error instanceof ConnectionError && error.code === "no-daemon";
  return missing && program !== "docker" ? "\nStart one as root with: skiffd" : "";
}
