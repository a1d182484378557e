/** `-p [ip:][host:]container[/proto]` with ranges, and `--expose`, as the API's port bindings. */
import { isIP } from "node:net";

export interface PortBinding {
  readonly HostIp: string;
  readonly HostPort: string;
}

export interface PublishedPorts {
  readonly exposed: Set<string>;
  readonly bindings: Map<string, PortBinding[]>;
}

interface Range {
  readonly start: number;
  readonly end: number;
}

class RangeError_ extends Error {}

/** nat.ParsePortRange: `80` or `80-90`. */
function parseRange(text: string): Range {
  if (text === "") throw new RangeError_("empty string specified for ports.");
  const dash = text.indexOf("-");
  const [first, last] = dash < 0 ? [text, text] : [text.slice(0, dash), text.slice(dash + 1)];
  const start = parsePort(first);
  const end = parsePort(last);
  if (end < start) throw new RangeError_(`invalid range specified for port: ${text}`);
  return { start, end };
}

function parsePort(text: string): number {
  if (!/^\d+$/.test(text))
    throw new RangeError_(`strconv.ParseUint: parsing ${JSON.stringify(text)}: invalid syntax`);
  if (Number(text) > 65535) {
    throw new RangeError_(`strconv.ParseUint: parsing ${JSON.stringify(text)}: value out of range`);
  }
  return Number(text);
}

function rangeOr(text: string, message: string): Range {
  try {
    return parseRange(text);
  } catch (error) {
    if (!(error instanceof RangeError_)) throw error;
    throw new Error(message);
  }
}

function splitProtocol(text: string): [string, string] {
  // What follows a second slash is ignored, as Docker's parser does.
  const [port, protocol = ""] = text.split("/") as [string, string?];
  return [port, protocol === "" ? "tcp" : protocol];
}

/** Splits `ip:host:container` from the right; an IPv6 address stands in brackets. */
function splitParts(text: string): { ip: string; host: string; container: string } {
  const parts = text.split(":");
  const container = parts.pop()!;
  const host = parts.pop() ?? "";
  return { ip: parts.join(":"), host, container };
}

/** Adds one `-p`. Throws Docker's messages (nat.ParsePortSpec). */
export function publish(text: string, into: PublishedPorts): void {
  const { ip: rawIp, host, container } = splitParts(text);
  const [containerPart, protocol] = splitProtocol(container);
  const ip = rawIp.startsWith("[") && rawIp.endsWith("]") ? rawIp.slice(1, -1) : rawIp;
  if (ip !== "" && isIP(ip) === 0) throw new Error(`invalid IP address: ${rawIp}`);
  if (containerPart === "") throw new Error(`no port specified: ${text}<empty>`);
  const inside = rangeOr(containerPart, `invalid containerPort: ${containerPart}`);
  const outside = host === "" ? undefined : rangeOr(host, `invalid hostPort: ${host}`);
  const count = inside.end - inside.start;
  if (outside !== undefined && outside.end - outside.start !== count) {
    // One container port may take any of a range of host ports; otherwise the lengths must agree.
    if (count !== 0)
      throw new Error(`invalid ranges specified for container and host Ports: ${containerPart} and ${host}`);
  }
  const lower = protocol.toLowerCase();
  if (!["tcp", "udp", "sctp"].includes(lower)) throw new Error(`invalid proto: ${protocol}`);
  for (let index = 0; index <= count; index += 1) {
    const key = `${inside.start + index}/${lower}`;
    let hostPort = "";
    if (outside !== undefined) {
      hostPort = String(outside.start + index);
      if (count === 0 && outside.end !== outside.start) hostPort = `${outside.start}-${outside.end}`;
    }
    into.exposed.add(key);
    into.bindings.set(key, [...(into.bindings.get(key) ?? []), { HostIp: ip, HostPort: hostPort }]);
  }
}

/** The long form of `-p`: `target=80,published=8080,protocol=tcp,mode=host` in short form. */
export function shortForm(text: string): string {
  if (!text.includes("=")) return text;
  let target = "";
  let published = "";
  let protocol = "tcp";
  for (const field of text.split(",")) {
    const [key, value] = field.split("=", 2) as [string, string?];
    if (value === undefined || value === "") throw new Error(`invalid field ${field}`);
    if (key === "target") target = value;
    else if (key === "published") published = value;
    else if (key === "protocol") protocol = value.toLowerCase();
    else if (key !== "mode") throw new Error(`invalid field key ${key}`);
  }
  if (target === "") throw new Error(`missing mandatory field "target"`);
  return `${published === "" ? "" : `${published}:`}${target}/${protocol}`;
}

/** Adds one `--expose`. */
export function expose(text: string, exposed: Set<string>): void {
  if (text.includes(":")) throw new Error(`invalid port format for --expose: ${text}`);
  const [port, protocol] = splitProtocol(text);
  let range: Range;
  try {
    range = parseRange(port);
  } catch (error) {
    throw new Error(`invalid range format for --expose: ${text}, error: ${(error as Error).message}`);
  }
  for (let number = range.start; number <= range.end; number += 1)
    exposed.add(`${number}/${protocol.toLowerCase()}`);
}
