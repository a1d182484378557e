import { EngineError } from "#base/errors.ts";

/** A container's name or id as a part of a request path. Throws for an empty one, which would name the collection. */
export function containerPart(name: string): string {
  return part(name, "container");
}

/** The same for a volume. */
export function volumePart(name: string): string {
  return part(name, "volume");
}

/** The same for a network. */
export function networkPart(name: string): string {
  return part(name, "network");
}

function part(name: string, what: string): string {
  if (name.trim() === "") throw new EngineError("invalid", `invalid ${what} name or ID: value is empty`);
  // Slashes stay: a link is removed by `container/alias`.
  return encodeURIComponent(name).replaceAll("%2F", "/").replaceAll("%3A", ":");
}
