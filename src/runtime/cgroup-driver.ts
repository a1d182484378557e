import { existsSync } from "node:fs";
import { posix } from "node:path";
import { EngineError } from "#base/errors.ts";

export type CgroupDriverName = "cgroupfs" | "systemd";

/** Where a container's processes go. */
export interface CgroupPlace {
  /** Below the mount of each cgroup tree. */
  readonly path: string;
  /** `linux.cgroupsPath` of the runtime's spec. */
  readonly specPath: string;
}

/**
 * Who makes the cgroups. `cgroupfs`: directories below a parent of ours. `systemd`: a scope a container, asked for by the
 * runtime; systemd keeps whoever else writes to its tree from being surprised, and is what pure version 2 hosts expect.
 */
export interface CgroupDriver {
  readonly name: CgroupDriverName;
  /** Parent of containers that name none: a path below each tree's mount. */
  readonly parentPath: string;
  /** Options that the OCI runtime needs before its command. */
  readonly runtimeArguments: readonly string[];
  /** `parent`: the container's `--cgroup-parent`, if any. Throws `invalid` for one that this driver cannot use. */
  place(id: string, parent: string | undefined): CgroupPlace;
}

/** Scopes are `<prefix>-<id>.scope`. */
const scopePrefix = "skiff";

/**
 * As dockerd: systemd's where it runs this host and the hierarchy is version 2, whose rule is one writer a tree. A parent
 * that is a path can only mean cgroupfs (dockerd refuses it then).
 */
export function defaultCgroupDriver(
  version: "1" | "2",
  parent: string | undefined,
  booted: () => boolean = systemdRuns,
): CgroupDriverName {
  return version === "2" && parent?.startsWith("/") !== true && booted() ? "systemd" : "cgroupfs";
}

/** sd_booted(3). */
function systemdRuns(): boolean {
  return existsSync("/run/systemd/system");
}

/** `parent`: `--cgroup-parent` of the daemon. Throws `invalid` where it is nothing for this driver. */
export function createCgroupDriver(name: CgroupDriverName, parent: string | undefined): CgroupDriver {
  return name === "systemd" ? systemdDriver(parent ?? "system.slice") : cgroupfsDriver(parent ?? "/skiff");
}

function cgroupfsDriver(daemonParent: string): CgroupDriver {
  const parentPath = posix.join("/", daemonParent);
  return {
    name: "cgroupfs",
    parentPath,
    runtimeArguments: [],
    place: (id, parent) => {
      const path = posix.join(parent === undefined ? parentPath : posix.join("/", parent), id);
      return { path, specPath: path };
    },
  };
}

function systemdDriver(daemonParent: string): CgroupDriver {
  const parentPath = slicePath(daemonParent);
  return {
    name: "systemd",
    parentPath,
    runtimeArguments: ["--systemd-cgroup"],
    place: (id, parent) => {
      const slice = parent ?? daemonParent;
      return {
        path: posix.join(slicePath(slice), `${scopePrefix}-${id}.scope`),
        specPath: `${slice}:${scopePrefix}:${id}`,
      };
    },
  };
}

/** The cgroup of a slice: dashes nest, `a-b.slice` lies in `a.slice` (systemd.slice(5)). Throws `invalid`. */
export function slicePath(slice: string): string {
  const name = /^([\w:.\\@-]{1,240})\.slice$/.exec(slice)?.[1];
  const parts = name?.split("-") ?? [""];
  if (name === "-") return "/";
  if (parts.includes("")) {
    throw new EngineError(
      "invalid",
      'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"',
      { code: "cgroup-parent" },
    );
  }
  return parts.map((_, index) => `/${parts.slice(0, index + 1).join("-")}.slice`).join("");
}
