import { isIP } from "node:net";
import type { RequestHead } from "./listen-head.ts";

/**
 * Whose requests a listener takes, told by headers that a page in a browser cannot choose (SECURITY 1.15). A page may make
 * any browser near the daemon send requests: its own name can be made to lead here (DNS rebinding), so the name asked for
 * must be one of ours; and a page from elsewhere (CSRF) is told by `Origin` and `Sec-Fetch-Site`.
 */
export interface Guard {
  /** Whether the daemon answers to this name (lower case, no port). Undefined: a unix socket, which has no name. */
  readonly isOwnName: ((name: string) => boolean) | undefined;
  readonly encrypted: boolean;
}

const shownLengthMax = 200;

/** Why a request is refused, in one line; undefined when it is not. */
export function foreignRequest(head: RequestHead, guard: Guard): string | undefined {
  const site = head.headers["sec-fetch-site"];
  if (site !== undefined && !["same-origin", "none"].includes(site.trim().toLowerCase())) {
    return refusal("Sec-Fetch-Site", site);
  }
  // Programs in front of a unix socket pass on what their own pages send: their origin is not ours to judge.
  if (guard.isOwnName === undefined) return undefined;
  const host = head.headers["host"];
  const name = host === undefined ? undefined : hostName(host);
  if (name === undefined || !isTrusted(name, guard.isOwnName)) return refusal("Host", host ?? "");
  if (head.authority !== undefined && head.authority.toLowerCase() !== host!.trim().toLowerCase()) {
    return refusal("request target", head.authority);
  }
  const origin = head.headers["origin"];
  if (origin !== undefined && !isOwnOrigin(origin, host!, guard.encrypted)) return refusal("Origin", origin);
  return undefined;
}

function refusal(what: string, value: string): string {
  return `request refused: ${what} ${JSON.stringify(value.slice(0, shownLengthMax))} is foreign to this daemon`;
}

/** The host without its port, in lower case; undefined for what is neither a name nor an address. */
function hostName(host: string): string | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([\w.-]+))(?::\d{1,5})?$/.exec(host.trim());
  return (match?.[1] ?? match?.[2])?.toLowerCase().replace(/\.$/, "");
}

/** An address in place of a name cannot be rebound: it is what the client has connected to, or a proxy's business. */
function isTrusted(name: string, isOwnName: (name: string) => boolean): boolean {
  return isIP(name) !== 0 || name === "localhost" || name.endsWith(".localhost") || isOwnName(name);
}

function isOwnOrigin(origin: string, host: string, encrypted: boolean): boolean {
  const own = `${encrypted ? "https" : "http"}://${host.trim()}`;
  return URL.canParse(own) && URL.canParse(origin) && new URL(own).origin === new URL(origin).origin;
}
