/** Checks of single option values, with the messages of Docker's client. */
import { isIP } from "node:net";
import { ipcSysctls, ulimitNames } from "#wire/process-options.ts";
import { parseInteger } from "./flag-types.ts";
import { parseSize } from "./units.ts";

export function checkAttach(text: string): string {
  const stream = text.toLowerCase();
  if (stream === "stdin" || stream === "stdout" || stream === "stderr") return stream;
  throw new Error("valid streams are STDIN, STDOUT and STDERR");
}

export function checkEnv(text: string): string {
  if (text.startsWith("=") || text === "") throw new Error(`invalid environment variable: ${text}`);
  return text;
}

export function checkLabel(text: string): string {
  const name = text.split("=", 1)[0]!;
  if (name.trim() === "") throw new Error(`invalid label '${text}': empty name`);
  if (/\s/.test(name)) throw new Error(`label '${name}' contains whitespaces`);
  return text;
}

export function checkIp(text: string): string {
  const address = text.trim();
  if (isIP(address) === 0) throw new Error(`IP address is not correctly formatted: ${text}`);
  return address;
}

/** `host:ip` or `host=ip`; kept with a colon, brackets around the address dropped, as the API wants it. */
export function checkAddHost(text: string): string {
  const match = /^([^=:]+)[=:](.*)$/s.exec(text);
  if (match === null) throw new Error(`bad format for add-host: ${JSON.stringify(text)}`);
  const [, host, rest] = match as unknown as [string, string, string];
  if (rest === "host-gateway") return `${host}:${rest}`;
  const address = rest.replace(/^\[(.*)\]$/, "$1");
  if (isIP(address) === 0) throw new Error(`invalid IP address in add-host: ${JSON.stringify(rest)}`);
  return `${host}:${address}`;
}

export function checkLink(text: string): string {
  if (text === "") throw new Error("empty string specified for links");
  if (text.split(":").length > 2) throw new Error(`bad format for links: ${text}`);
  return text;
}

export function checkSysctl(text: string): string {
  const name = text.split("=", 1)[0]!;
  const allowed = ipcSysctls.has(name) || name.startsWith("net.") || name.startsWith("fs.mqueue.");
  if (!allowed || !text.includes("=")) throw new Error(`sysctl '${text}' is not allowed`);
  return text;
}

/** `path[:path[:rwm]]`; the parts are told apart in container-config.ts. */
export function checkDevice(text: string): string {
  if (/^[a-z0-9.-]+\/[^/=]+=/i.test(text)) return text;
  const parts = text.split(":");
  const modes = (mode: string | undefined): boolean =>
    mode !== undefined && mode !== "" && /^[rwm]+$/.test(mode);
  if (parts.length > 3) throw new Error(`bad format for path: ${text}`);
  if (parts.length === 3 && !modes(parts[2])) throw new Error(`bad mode specified: ${parts[2]}`);
  const target =
    parts.length === 1 ? parts[0]! : modes(parts[1]) && parts.length === 2 ? parts[0]! : parts[1]!;
  if (!target.startsWith("/")) throw new Error(`${target} is not an absolute path`);
  return text;
}

export function checkDeviceRule(text: string): string {
  if (/^[acb] (\d+|\*):(\d+|\*) [rwm]{1,3}$/.test(text)) return text;
  throw new Error(`invalid device cgroup format '${text}'`);
}

export interface WeightDevice {
  readonly Path: string;
  readonly Weight: number;
}

export function parseWeightDevice(text: string): WeightDevice {
  const colon = text.indexOf(":");
  if (colon < 0) throw new Error(`bad format: ${text}`);
  const [path, number] = [text.slice(0, colon), text.slice(colon + 1)];
  if (!path.startsWith("/dev/")) throw new Error(`bad format for device path: ${text}`);
  const weight = Number(number);
  if (!/^\d+$/.test(number)) throw new Error(`invalid weight for device: ${text}`);
  if (weight > 0 && (weight < 10 || weight > 1000)) throw new Error(`invalid weight for device: ${text}`);
  return { Path: path, Weight: weight };
}

export interface ThrottleDevice {
  readonly Path: string;
  readonly Rate: number;
}

export function parseThrottle(kind: "bytes" | "count"): (text: string) => ThrottleDevice {
  return (text) => {
    const colon = text.indexOf(":");
    if (colon < 0) throw new Error(`bad format: ${text}`);
    const [path, number] = [text.slice(0, colon), text.slice(colon + 1)];
    if (!path.startsWith("/dev/")) throw new Error(`bad format for device path: ${text}`);
    const hint =
      kind === "bytes"
        ? `The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb`
        : "The correct format is <device-path>:<number>. Number must be a positive integer";
    const bad = new Error(`invalid rate for device: ${text}. ${hint}`);
    if (kind === "count") {
      if (!/^\d+$/.test(number)) throw bad;
      return { Path: path, Rate: Number(number) };
    }
    try {
      return { Path: path, Rate: parseSize(number) };
    } catch {
      throw bad;
    }
  };
}

export interface Ulimit {
  readonly Name: string;
  readonly Hard: number;
  readonly Soft: number;
}

/** `name=soft[:hard]`. */
export function parseUlimit(text: string): Ulimit {
  const equals = text.indexOf("=");
  if (equals < 0) throw new Error(`invalid ulimit argument: ${text}`);
  const name = text.slice(0, equals);
  if (!ulimitNames.has(name)) throw new Error(`invalid ulimit type: ${name}`);
  const values = text.slice(equals + 1).split(":");
  if (values.length > 2 || values[0] === "") {
    if (values.length > 2)
      throw new Error(
        `too many limit value arguments - ${text.slice(equals + 1)}, can only have up to two, \`soft[:hard]\``,
      );
  }
  const [soft, hard = soft] = values.map(parseInteger) as [number, number?];
  if (hard !== -1) {
    if (soft === -1)
      throw new Error(
        "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: ".concat(
          String(hard),
        ),
      );
    if (soft > hard!)
      throw new Error(`ulimit soft limit must be less than or equal to hard limit: ${soft} > ${hard}`);
  }
  return { Name: name, Hard: hard!, Soft: soft };
}
