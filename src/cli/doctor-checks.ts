/** What this machine needs so that a daemon can run on it, looked at from outside: no daemon is needed for it. */
import { accessSync, constants, existsSync, readdirSync, readFileSync, statfsSync, statSync } from "node:fs";
import { release } from "node:os";
import { dirname, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { binarySize } from "./units.ts";

/** `fail`: containers do not run, or this user cannot reach them. `warn`: something of theirs is missing. */
export interface Finding {
  readonly topic: string;
  readonly state: "ok" | "warn" | "fail";
  readonly found: string;
  /** What to do about it. */
  readonly advice?: string;
}

/** The files of a machine, below `root`; tests have trees of their own. */
export class HostFiles {
  readonly #root: string;
  readonly release: string;

  constructor(root = "/", kernelRelease: string = release()) {
    this.#root = root;
    this.release = kernelRelease;
  }

  path(path: string): string {
    return join(this.#root, path);
  }

  has(path: string): boolean {
    return existsSync(this.path(path));
  }

  /** Empty where it is not there or cannot be read. */
  text(path: string): string {
    try {
      return readFileSync(this.path(path), "utf8");
    } catch {
      return "";
    }
  }

  names(path: string): string[] {
    try {
      return readdirSync(this.path(path));
    } catch {
      return [];
    }
  }

  /** Built in, loaded, or there to be loaded on demand. */
  hasModule(name: string): boolean {
    if (this.has(`/sys/module/${name}`)) return true;
    const folder = `/lib/modules/${this.release}`;
    const known = this.text(`${folder}/modules.dep`) + this.text(`${folder}/modules.builtin`);
    return new RegExp(`/${name.replaceAll("_", "[-_]")}\\.ko\\b`).test(known);
  }

  /** By the configuration that the kernel shows, where it does. */
  isBuiltIn(name: string): boolean {
    try {
      const config = gunzipSync(readFileSync(this.path("/proc/config.gz"))).toString();
      return config.includes(`\nCONFIG_${name.toUpperCase()}=y\n`);
    } catch {
      return false;
    }
  }
}

const good = (topic: string, found: string): Finding => ({ topic, state: "ok", found });
const bad = (topic: string, found: string, advice: string): Finding => ({
  topic,
  state: "fail",
  found,
  advice,
});
const weak = (topic: string, found: string, advice: string): Finding => ({
  topic,
  state: "warn",
  found,
  advice,
});

/** `openat2` and joining namespaces by pidfd came with it. */
const oldestKernel = [5, 8] as const;

function kernelVersion(files: HostFiles): Finding {
  const [major = 0, minor = 0] = files.release.split(".").map(Number);
  const [needMajor, needMinor] = oldestKernel;
  if (major > needMajor || (major === needMajor && minor >= needMinor)) return good("kernel", files.release);
  return bad("kernel", files.release, `Linux ${oldestKernel.join(".")} or later is needed`);
}

function kernelParts(files: HostFiles): Finding[] {
  const findings: Finding[] = [];
  const overlay = /\boverlay$/m.test(files.text("/proc/filesystems")) || files.hasModule("overlay");
  findings.push(
    overlay
      ? good("overlayfs", "available")
      : bad(
          "overlayfs",
          "not in this kernel",
          "install the kernel's modules, or a kernel with CONFIG_OVERLAY_FS",
        ),
  );
  const namespaces = ["cgroup", "ipc", "mnt", "net", "pid", "uts"].filter(
    (name) => !files.has(`/proc/self/ns/${name}`),
  );
  findings.push(
    namespaces.length === 0
      ? good("namespaces", "all that are needed")
      : bad("namespaces", `missing: ${namespaces.join(" ")}`, "a kernel with these namespaces is needed"),
  );
  const missing = ["bridge", "veth", "nf_tables"].filter(
    (name) => !files.hasModule(name) && !files.isBuiltIn(name),
  );
  findings.push(
    missing.length === 0
      ? good("network", "bridges, links and nftables")
      : weak(
          "network",
          `not seen: ${missing.join(" ")}`,
          "install the kernel's modules; a kernel with everything built in may not say so",
        ),
  );
  return findings;
}

function confinement(files: HostFiles): Finding[] {
  const findings: Finding[] = [];
  findings.push(
    files.has("/proc/sys/kernel/seccomp/actions_avail")
      ? good("seccomp", "available")
      : weak("seccomp", "not in this kernel", "containers run without a filter of system calls"),
  );
  if (!files.text("/sys/module/apparmor/parameters/enabled").startsWith("Y")) {
    findings.push(
      weak("AppArmor", "off", "containers run without it; boot with apparmor=1 where the kernel has it"),
    );
  } else if (!["/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"].some((path) => files.has(path))) {
    findings.push(
      weak("AppArmor", "on, without its parser", "install the package apparmor and restart the daemon"),
    );
  } else findings.push(good("AppArmor", "on"));
  return findings;
}

const wantedControllers = ["cpu", "cpuset", "io", "memory", "pids"];

function cgroups(files: HostFiles): Finding {
  const advice = "boot with systemd's unified hierarchy (systemd.unified_cgroup_hierarchy=1)";
  if (files.has("/sys/fs/cgroup/cgroup.controllers")) {
    const there = files.text("/sys/fs/cgroup/cgroup.controllers").trim().split(/\s+/);
    const missing = wantedControllers.filter((name) => !there.includes(name));
    if (missing.length === 0) return good("cgroups", "version 2, all controllers");
    const what = `version 2 without ${missing.join(", ")}`;
    return weak("cgroups", what, "their limits are not enforced; the kernel's command line may disable them");
  }
  const there = files.names("/sys/fs/cgroup").flatMap((name) => name.split(","));
  const missing = ["cpu", "cpuset", "blkio", "memory", "pids", "devices", "freezer"].filter(
    (name) => !there.includes(name),
  );
  if (there.length === 0) return bad("cgroups", "not mounted", `mount them, or ${advice}`);
  if (missing.length === 0) return good("cgroups", "version 1, all controllers");
  return weak("cgroups", `version 1 without ${missing.join(", ")}`, "their limits are not enforced");
}

function forwarding(files: HostFiles): Finding {
  if (files.text("/proc/sys/net/ipv4/ip_forward").trim() === "1") return good("forwarding", "on");
  return good("forwarding", "off (the daemon switches it on when it starts)");
}

const programFolders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

function executable(files: HostFiles, name: string): string | undefined {
  return programFolders
    .map((folder) => `${folder}/${name}`)
    .find((path) => {
      try {
        accessSync(files.path(path), constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

function runtime(files: HostFiles): Finding {
  const found = ["crun", "runc"].flatMap((name) => executable(files, name) ?? []);
  if (found.length > 0) return good("runtime", found.join(", "));
  return bad("runtime", "neither crun nor runc", "install one of them: apt-get install crun");
}

function libraries(files: HostFiles): Finding[] {
  const folders = ["/usr/lib", "/lib"].flatMap((folder) => [
    folder,
    ...files
      .names(folder)
      .filter((name) => name.endsWith("-linux-gnu"))
      .map((name) => `${folder}/${name}`),
    `${folder}64`,
  ]);
  const has = (library: string): boolean => folders.some((folder) => files.has(`${folder}/${library}`));
  const needed = [
    ["libnftables.so.1", "libnftables1"],
    ["libseccomp.so.2", "libseccomp2"],
  ] as const;
  return needed.map(([library, name]) =>
    has(library)
      ? good("library", library)
      : bad("library", `${library} is missing`, `install it: apt-get install ${name}`),
  );
}

/** `f_type` of statfs(2). */
const unsuitable: ReadonlyMap<number, string> = new Map([
  [0x794c7630, "overlay"],
  [0x6969, "NFS"],
  [0x517b, "SMB"],
  [0xff534d42, "CIFS"],
  [0x65735546, "FUSE"],
]);
const freeBytesFew = 2 * 1024 ** 3;
const freeInodesFew = 50_000;

/** The file system that `path`, or the nearest folder above it that is there, lies on. */
export function diskFindings(files: HostFiles, path: string): Finding[] {
  let place = path;
  while (!files.has(place) && place !== "/") place = dirname(place);
  const status = statfsSync(files.path(place));
  const name = unsuitable.get(status.type);
  const findings: Finding[] = [];
  if (name !== undefined) {
    findings.push(
      bad(
        "disk",
        `${path} is on ${name}`,
        "overlayfs needs ext4, xfs or btrfs below it: move it with data-root",
      ),
    );
  }
  const free = status.bavail * status.bsize;
  const few = free < freeBytesFew || (status.files > 0 && status.ffree < freeInodesFew);
  const text = `${path}: ${binarySize(free)} free${status.files > 0 ? `, ${status.ffree} inodes` : ""}`;
  findings.push(
    few ? weak("disk", text, "make room: skiff system df, skiff system prune") : good("disk", text),
  );
  return findings;
}

/** Who may use the socket: root, and the members of its group. */
export function socketFinding(
  files: HostFiles,
  path: string,
  user: { uid: number; groups: readonly number[] },
): Finding {
  if (!files.has(path)) {
    return bad("socket", `${path} is not there`, "start the daemon: systemctl start skiff, or skiffd");
  }
  const status = statSync(files.path(path));
  if ((status.mode & 0o006) !== 0) {
    return bad("socket", `${path} is open to everybody, who is root with it`, `chmod 0660 ${path}`);
  }
  if (user.uid === 0 || status.uid === user.uid || user.groups.includes(status.gid))
    return good("socket", path);
  const advice =
    status.gid === 0
      ? "its group is root: groupadd --system skiff, then restart the daemon"
      : "as root: usermod -aG skiff USER, then log in again; who is in that group is root on this machine";
  return bad("socket", `${path} is not yours to use`, advice);
}

/** Everything that can be told without asking the daemon. */
export function hostFindings(files: HostFiles): Finding[] {
  return [
    kernelVersion(files),
    ...kernelParts(files),
    ...confinement(files),
    cgroups(files),
    forwarding(files),
    runtime(files),
    ...libraries(files),
  ];
}
