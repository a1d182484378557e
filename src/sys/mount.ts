import { check, libc } from "./libc.ts";

const cMount = libc.func(
  "int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)",
);
const cUmount2 = libc.func("int umount2(const char *target, int flags)");

export const MS_RDONLY = 1;
export const MS_NOSUID = 2;
export const MS_NODEV = 4;
export const MS_NOEXEC = 8;
export const MS_BIND = 4096;
export const MS_REC = 16384;
export const MS_PRIVATE = 1 << 18;
export const MNT_DETACH = 2;
export const UMOUNT_NOFOLLOW = 8;

/**
 * mount(2) of the caller's own mount namespace. The daemon's request path never mounts (the shim does, in a namespace of
 * its own); this is for workers with a short-lived mount and for tests. Sleeps in the kernel.
 */
export function mountFileSystem(
  source: string,
  target: string,
  type: string,
  flags: number,
  data: string | null,
): void {
  check(cMount(source, target, type, flags, data), "mount", target);
}

/** umount2(2); never follows a symlink in the target's last component. */
export function unmount(target: string, flags = 0): void {
  check(cUmount2(target, flags | UMOUNT_NOFOLLOW), "umount", target);
}
