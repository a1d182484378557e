import type { IncomingHttpHeaders } from "node:http";
import { TransportError } from "./network-error.ts";

/** Headers that are lists by definition. */
const lists: ReadonlySet<string> = new Set(["www-authenticate", "link"]);
/** Those that something is decided by. Two that differ leave it to the reader which one counts. */
const decisive: ReadonlySet<string> = new Set([
  "content-length",
  "content-range",
  "content-type",
  "docker-content-digest",
  "location",
  "range",
  "retry-after",
]);

/**
 * One value for each header. A header that comes twice is joined where it is a list, told once where both are equal, and
 * refused where something is decided by it; of any other the first counts. Throws `TransportError`.
 */
export function answerHeaders(
  raw: Readonly<Record<string, string | string[] | undefined>>,
  what: string,
): IncomingHttpHeaders {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(raw)) {
    if (value === undefined) continue;
    if (typeof value === "string") headers[name] = value;
    else if (lists.has(name)) headers[name] = value.join(", ");
    else if (decisive.has(name) && value.some((other) => other !== value[0])) {
      throw new TransportError(`${what}: the answer has more than one ${name} header`, false);
    } else headers[name] = value[0] ?? "";
  }
  return headers;
}
