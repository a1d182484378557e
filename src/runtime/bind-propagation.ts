import { readFile, realpath } from "node:fs/promises";
import { EngineError } from "#base/errors.ts";
import type { SandboxMount } from "./runtime.ts";

interface MountLine {
  readonly mountPoint: string;
  readonly shared: boolean;
  readonly slave: boolean;
}

/** proc(5), mountinfo: fields are apart by spaces, which are octal in paths; the optional ones end with ` - `. */
export function parseMountLine(line: string): MountLine | undefined {
  const [before] = line.split(" - ", 1);
  const [, , , , mountPoint, , ...optional] = (before ?? "").split(" ");
  if (mountPoint === undefined || mountPoint === "") return undefined;
  return {
    mountPoint: mountPoint.replace(/\\([0-3][0-7]{2})/g, (_, digits: string) =>
      String.fromCharCode(Number.parseInt(digits, 8)),
    ),
    shared: optional.some((field) => field.startsWith("shared:")),
    slave: optional.some((field) => field.startsWith("master:")),
  };
}

/** The mount that holds a path: the deepest mount point above it, the last one mounted there. */
export function holdingMount(mountinfo: string, path: string): MountLine | undefined {
  let found: MountLine | undefined;
  for (const line of mountinfo.split("\n")) {
    const mount = parseMountLine(line);
    if (mount === undefined) continue;
    const { mountPoint } = mount;
    const holds = mountPoint === "/" || path === mountPoint || path.startsWith(`${mountPoint}/`);
    if (holds && mountPoint.length >= (found?.mountPoint.length ?? 0)) found = mount;
  }
  return found;
}

/**
 * A bind can share mounts with the host only where the host's mount does. Refused in Docker's words, since the runtimes
 * would give the container a private bind and say nothing.
 */
export async function checkBindPropagation(mounts: readonly SandboxMount[]): Promise<void> {
  const sharing = mounts.filter(
    ({ type, propagation }) => type === "bind" && /^r?(?:shared|slave)$/.test(propagation),
  );
  if (sharing.length === 0) return;
  const mountinfo = await readFile("/proc/self/mountinfo", "utf8");
  for (const { source, propagation } of sharing) {
    const path = await realpath(source);
    const mount = holdingMount(mountinfo, path);
    const wantsShared = propagation.endsWith("shared");
    if (mount === undefined || mount.shared || (!wantsShared && mount.slave)) continue;
    const wanted = wantsShared ? "a shared mount" : "a shared or slave mount";
    throw new EngineError(
      "system",
      `path ${source} is mounted on ${mount.mountPoint} but it is not ${wanted}`,
      {
        code: "bad-propagation",
      },
    );
  }
}
