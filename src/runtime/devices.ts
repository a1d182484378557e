import { type BigIntStats, lstatSync, readdirSync, realpathSync } from "node:fs";
import { describeErrno, EngineError, errnoOf } from "#base/errors.ts";
import type { OciDevice, OciDeviceRule } from "#wire/oci-runtime.ts";
import type { SandboxDevice } from "./runtime.ts";

/** Host paths come from the administrator (`--device`), not from the image; they are only looked at, never opened. */
export interface DeviceSet {
  readonly devices: readonly OciDevice[];
  readonly rules: readonly OciDeviceRule[];
}

const S_IFMT = 0o170000n;
const S_IFCHR = 0o020000n;
const S_IFBLK = 0o060000n;
/** A directory given as --device: /dev/dri, /dev/snd and the like hold a few dozen nodes. */
const devicesMax = 4096;

function major(device: bigint): number {
  return Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn));
}

function minor(device: bigint): number {
  return Number((device & 0xffn) | ((device >> 12n) & ~0xffn));
}

function deviceFrom(stats: BigIntStats, path: string): OciDevice | undefined {
  const kind = stats.mode & S_IFMT;
  if (kind !== S_IFCHR && kind !== S_IFBLK) return undefined;
  return {
    type: kind === S_IFCHR ? "c" : "b",
    path,
    major: major(stats.rdev),
    minor: minor(stats.rdev),
    fileMode: Number(stats.mode & 0o7777n),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
  };
}

function walk(hostPath: string, containerPath: string, skip: ReadonlySet<string>, into: OciDevice[]): void {
  for (const name of readdirSync(hostPath)) {
    if (skip.has(name)) continue;
    const path = `${hostPath}/${name}`;
    let stats: BigIntStats;
    try {
      stats = lstatSync(path, { bigint: true });
    } catch (error) {
      // Hot-plugged away between the two calls.
      if (errnoOf(error) === "ENOENT") continue;
      throw error;
    }
    if (stats.isDirectory()) walk(path, `${containerPath}/${name}`, skip, into);
    const device = deviceFrom(stats, `${containerPath}/${name}`);
    if (device !== undefined && into.length < devicesMax) into.push(device);
  }
}

function gatherError(hostPath: string, detail: string): EngineError {
  return new EngineError(
    "system",
    `error gathering device information while adding custom device "${hostPath}": ${detail}`,
    { code: "device" },
  );
}

function expand(device: SandboxDevice): OciDevice[] {
  const found: OciDevice[] = [];
  try {
    const real = realpathSync(device.hostPath);
    const stats = lstatSync(real, { bigint: true });
    const single = deviceFrom(stats, device.containerPath);
    if (single !== undefined) return [single];
    if (stats.isDirectory()) walk(real, device.containerPath, new Set(), found);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === undefined) throw error;
    throw gatherError(device.hostPath, describeErrno(errno));
  }
  if (found.length === 0) throw gatherError(device.hostPath, "not a device node");
  return found;
}

/** Nodes and cgroup rules of `--device` options; a directory means every device below it. Throws `invalid`. */
export function customDevices(requested: readonly SandboxDevice[]): DeviceSet {
  const devices: OciDevice[] = [];
  const rules: OciDeviceRule[] = [];
  for (const request of requested) {
    if (
      !/^[rwm]{1,3}$/.test(request.permissions) ||
      new Set(request.permissions).size !== request.permissions.length
    ) {
      throw new EngineError("invalid", `invalid device mode: ${request.permissions}`, { code: "device" });
    }
    for (const device of expand(request)) {
      devices.push(device);
      rules.push({
        allow: true,
        type: device.type === "b" ? "b" : "c",
        major: device.major,
        minor: device.minor,
        access: request.permissions,
      });
    }
  }
  return { devices, rules };
}

const notForContainers = new Set(["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"]);

/** `--privileged`: every device node of the host, but its terminals and what is mounted afresh in each container. */
export function hostDevices(): OciDevice[] {
  const found: OciDevice[] = [];
  walk("/dev", "/dev", notForContainers, found);
  return found;
}

/** Docker's `--device-cgroup-rule`, as in `c 1:3 rwm`; `*` for any number. Throws `invalid`. */
export function parseDeviceRule(rule: string): OciDeviceRule {
  const match = /^([acb]) (\d{1,9}|\*):(\d{1,9}|\*) ([rwm]{1,3})$/.exec(rule);
  if (match === null) {
    throw new EngineError("invalid", `invalid device cgroup rule format: '${rule}'`, { code: "device" });
  }
  return {
    allow: true,
    type: match[1] as "a" | "b" | "c",
    ...(match[2] === "*" ? {} : { major: Number(match[2]) }),
    ...(match[3] === "*" ? {} : { minor: Number(match[3]) }),
    access: match[4]!,
  };
}
