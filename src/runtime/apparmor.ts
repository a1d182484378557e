import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { promisify } from "node:util";
import { messageOf } from "#base/errors.ts";
import type { Log } from "#base/log.ts";

/** Name of the profile that containers get where the kernel has AppArmor and nothing else was asked for. */
export const apparmorProfileName = "skiff-default";

/**
 * A second fence behind capabilities, masks and mounts: no mounting, no writing to what configures the kernel, no touching
 * processes under another profile. Everything else is left to the first fence.
 */
export const apparmorProfile = `abi <abi/3.0>,

profile ${apparmorProfileName} flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,

  signal (receive) peer=unconfined,
  signal (send, receive) peer=${apparmorProfileName},
  ptrace (trace, read, tracedby, readby) peer=${apparmorProfileName},

  deny mount,

  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,
  deny /proc/{acpi,asound,bus,fs,irq,scsi,tty}/** wklx,
  deny /proc/sys/{abi,debug,dev,fs,sunrpc,user,vm}/** wklx,
  deny /proc/sys/kernel/{core_pattern,hotplug,modprobe,poweroff_cmd,random/**,yama/**} wklx,

  deny /sys/{block,bus,class,dev,devices,firmware,hypervisor,kernel,module,power}/** wklx,
  deny /sys/fs/{bpf,ext4,fuse,pstore,selinux,xfs}/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
}
`;

const parsers = ["/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"];
const loadTimeoutMs = 30_000;

function isLoaded(): boolean {
  try {
    const profiles = readFileSync("/sys/kernel/security/apparmor/profiles", "utf8");
    return profiles.split("\n").some((line) => line.startsWith(`${apparmorProfileName} `));
  } catch {
    return false;
  }
}

/**
 * Loads the profile into the kernel (the daemon's start only). False where it cannot be: containers then run without it,
 * as Docker's do, and `docker info` does not list AppArmor.
 */
export async function loadApparmorProfile(directory: string, log: Log): Promise<boolean> {
  const path = `${directory}/apparmor-${apparmorProfileName}`;
  writeFileSync(path, apparmorProfile, { mode: 0o600 });
  for (const parser of parsers) {
    try {
      await promisify(execFile)(parser, ["--skip-cache", "--replace", path], { timeout: loadTimeoutMs });
      return isLoaded();
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") continue;
      log.warn("AppArmor profile not loaded", { parser, reason: messageOf(error) });
    }
  }
  // Somebody may have loaded it for us.
  return isLoaded();
}
