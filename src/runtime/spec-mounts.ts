import { posix } from "node:path";
import { EngineError } from "#base/errors.ts";
import type { OciMount } from "#wire/oci-runtime.ts";
import type { SandboxMount, SandboxRequest } from "./runtime.ts";
import { defaultMounts } from "./security-profile.ts";

/** Where `--init` puts the reaper; Docker's own path, which scripts look for. */
export const initPath = "/sbin/docker-init";

type MountRequest = Pick<
  SandboxRequest,
  "mounts" | "shmSizeBytes" | "privileged" | "readonlyRootfs" | "init" | "ipcNamespace"
>;

const tmpfsFlags = new Map([
  ["rw", "access"],
  ["ro", "access"],
  ["exec", "exec"],
  ["noexec", "exec"],
  ["suid", "suid"],
  ["nosuid", "suid"],
  ["dev", "dev"],
  ["nodev", "dev"],
  ["sync", "sync"],
  ["async", "sync"],
  ["atime", "atime"],
  ["noatime", "atime"],
  ["relatime", "atime"],
  ["norelatime", "atime"],
  ["strictatime", "atime"],
  ["nostrictatime", "atime"],
  ["diratime", "diratime"],
  ["nodiratime", "diratime"],
]);
const tmpfsValues = new Set(["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"]);

/** Docker's defaults for `--tmpfs`, then the user's options: of opposites and repeated keys the last one holds. */
export function tmpfsOptions(text: string, readOnly: boolean): string[] {
  const chosen = new Map([
    ["exec", "noexec"],
    ["suid", "nosuid"],
    ["dev", "nodev"],
  ]);
  for (const option of text.split(",").filter((part) => part !== "")) {
    const flag = tmpfsFlags.get(option);
    const equals = option.indexOf("=");
    const key = option.slice(0, equals);
    if (flag !== undefined) chosen.set(flag, option);
    else if (equals > 0 && tmpfsValues.has(key) && !/[\0-\x20]/.test(option)) chosen.set(key, option);
    else
      throw new EngineError("invalid", `invalid tmpfs option [${JSON.stringify(option)}]`, { code: "mount" });
  }
  if (readOnly) chosen.set("access", "ro");
  return [...chosen.values()];
}

function userMount(mount: SandboxMount, recursiveReadOnly: boolean): OciMount {
  const destination = posix.normalize(mount.target).replace(/(.)\/$/, "$1");
  if (mount.type === "tmpfs") {
    return {
      destination,
      type: "tmpfs",
      source: "tmpfs",
      options: tmpfsOptions(mount.tmpfsOptions ?? "", mount.readOnly),
    };
  }
  const options = [mount.nonRecursive ? "bind" : "rbind"];
  if (!mount.readOnly) options.push("rw");
  else options.push("ro", ...(recursiveReadOnly && !mount.nonRecursive ? ["rro"] : []));
  return { destination, type: "bind", source: mount.source, options: [...options, mount.propagation] };
}

function depth(path: string): number {
  return path.split("/").filter((name) => name !== "").length;
}

// What a read-only root filesystem leaves writable, as Docker does.
const writableWithReadonlyRoot = new Set(["/proc", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev"]);

/** The host's shared memory goes with the host's IPC; its message queues come with the namespace itself. */
function ipcMounts(mounts: OciMount[], ipc: MountRequest["ipcNamespace"]): OciMount[] {
  if (ipc.kind !== "host") return mounts;
  const shared: OciMount = {
    destination: "/dev/shm",
    type: "bind",
    source: "/dev/shm",
    options: ["rbind", "rprivate"],
  };
  return mounts.map((mount) => (mount.destination === shared.destination ? shared : mount));
}

/**
 * All mounts of a container, parents before what lies in them. A user's mount takes the place of a default one; a mount
 * of `/dev` takes the place of all below it, too. `initBinary`: bound read-only for `--init`.
 */
export function planMounts(
  request: MountRequest,
  host: { readonly initBinary: string; readonly recursiveReadOnly: boolean },
): OciMount[] {
  const wanted = request.mounts.map((mount) => userMount(mount, host.recursiveReadOnly));
  const taken = new Set(wanted.map((mount) => mount.destination));
  let defaults = defaultMounts(request.privileged, request.shmSizeBytes).filter(
    ({ destination }) => !taken.has(destination) && !(taken.has("/dev") && destination.startsWith("/dev/")),
  );
  defaults = ipcMounts(defaults, request.ipcNamespace);
  if (request.readonlyRootfs) {
    defaults = defaults.map((mount) =>
      writableWithReadonlyRoot.has(mount.destination) || mount.options.includes("ro")
        ? mount
        : { ...mount, options: [...mount.options.filter((option) => option !== "rw"), "ro"] },
    );
  }
  if (request.init && !taken.has(initPath)) {
    wanted.push({
      destination: initPath,
      type: "bind",
      source: host.initBinary,
      options: ["bind", "ro", "rprivate"],
    });
  }
  wanted.sort((a, b) => depth(a.destination) - depth(b.destination));
  return [...defaults, ...wanted];
}

/**
 * The root's propagation: binds that share mounts with the host need the container's root to do so, else the runtime's
 * own default stands.
 */
export function rootPropagation(mounts: readonly SandboxMount[]): string | undefined {
  if (mounts.some(({ type, propagation }) => type === "bind" && /^r?shared$/.test(propagation)))
    return "shared";
  if (mounts.some(({ type, propagation }) => type === "bind" && /^r?slave$/.test(propagation)))
    return "rslave";
  return undefined;
}
