import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  cpSync,
  globSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { cachedFolder, cacheFolder } from "../peers/package-cache.ts";

export interface Disk {
  /** An ext4 file system without a partition table. */
  readonly image: string;
  readonly kernel: string;
  readonly initrd: string;
}

/**
 * Debian 12 as it is installed on servers, as small as it can be: systemd, the cloud kernel (pure cgroup v2, AppArmor),
 * and what Skiff's package depends on, so that the package installs without a network.
 */
const suite = "bookworm";
const packages = [
  "systemd-sysv",
  "dbus",
  "udev",
  "kmod",
  "linux-image-cloud-amd64",
  "initramfs-tools",
  "apparmor",
  "crun",
  "runc",
  "nftables",
  "libnftables1",
  "libseccomp2",
  "libdeflate0",
  "libstdc++6",
  "libatomic1",
  "iproute2",
  "curl",
  "procps",
  "busybox-static",
  "passwd",
  "netbase",
  "zstd",
] as const;
const bytes = 3 * 1024 ** 3;

const agentUnit = `[Unit]
Description=Runs what the test asks for
[Service]
ExecStart=/usr/local/sbin/vm-agent
Environment=HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
`;

/** What a server does that a test need not wait for. */
const masked = [
  "apt-daily.timer",
  "apt-daily-upgrade.timer",
  "dpkg-db-backup.timer",
  "e2scrub_all.timer",
  "fstrim.timer",
  "getty@tty1.service",
  "systemd-timesyncd.service",
];

function recipe(): string {
  const agent = readFileSync(join(import.meta.dirname, "agent.sh"), "utf8");
  const text = JSON.stringify([suite, packages, bytes, agentUnit, masked, agent]);
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

function make(folder: string): void {
  const root = join(folder, "root");
  execFileSync(
    "mmdebstrap",
    ["--variant=minbase", "--quiet", `--include=${packages.join(",")}`, suite, join(folder, "root.tar")],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  mkdirSync(root);
  execFileSync("tar", ["-xf", join(folder, "root.tar"), "-C", root]);
  rmSync(join(folder, "root.tar"));
  const agent = join(root, "usr/local/sbin/vm-agent");
  cpSync(join(import.meta.dirname, "agent.sh"), agent);
  chmodSync(agent, 0o755);
  const units = join(root, "etc/systemd/system");
  writeFileSync(join(units, "vm-agent.service"), agentUnit);
  mkdirSync(join(units, "multi-user.target.wants"), { recursive: true });
  symlinkSync("../vm-agent.service", join(units, "multi-user.target.wants/vm-agent.service"));
  for (const unit of masked) {
    rmSync(join(units, unit), { force: true });
    symlinkSync("/dev/null", join(units, unit));
  }
  writeFileSync(join(root, "etc/hostname"), "vm\n");
  writeFileSync(join(root, "etc/hosts"), "127.0.0.1 localhost vm\n");
  for (const [name, pattern] of [
    ["kernel", "boot/vmlinuz-*"],
    ["initrd", "boot/initrd.img-*"],
  ] as const) {
    copyFileSync(join(root, globSync(pattern, { cwd: root })[0]!), join(folder, name));
  }
  const image = join(folder, "disk");
  writeFileSync(image, "");
  truncateSync(image, bytes);
  execFileSync("mke2fs", ["-q", "-t", "ext4", "-d", root, image], { stdio: ["ignore", "ignore", "inherit"] });
  rmSync(root, { recursive: true });
}

/** The disk that machines start from; made (some three minutes) when the cache has none of this recipe. */
export function ensureDisk(): Disk {
  const folder = cacheFolder("vm-disk");
  const key = recipe();
  mkdirSync(folder, { recursive: true });
  for (const other of readdirSync(folder)) {
    if (!other.startsWith(key)) rmSync(join(folder, other), { recursive: true, force: true });
  }
  const base = cachedFolder(join(folder, key), make);
  return { image: join(base, "disk"), kernel: join(base, "kernel"), initrd: join(base, "initrd") };
}
