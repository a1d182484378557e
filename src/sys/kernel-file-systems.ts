import { statfsSync } from "node:fs";

/**
 * File systems that are the kernel's own surface (statfs(2), `linux/magic.h`): what is read there is made on the spot, and
 * what is written there acts on the machine.
 */
const magics: ReadonlySet<number> = new Set([
  0x9fa0, // proc
  0x62656572, // sysfs
  0x27e0eb, // cgroup
  0x63677270, // cgroup2
  0x64626720, // debugfs
  0x74726163, // tracefs
  0x73636673, // securityfs
  0x62656570, // configfs
  0xcafe4a11, // bpf
  0x6165676c, // pstore
  0xf97cff8c, // selinuxfs
  0x43415d53, // smackfs
  0x42494e4d, // binfmt_misc
  0x65735543, // fusectl
  0xde5e81e4, // efivarfs
  0x1cd1, // devpts
  0x19800202, // mqueue
  0x6e736673, // nsfs
  0x7655821, // resctrl
]);

/** Whether an open descriptor (also O_PATH) lies on one of them. */
export function isKernelFileSystem(fd: number): boolean {
  return magics.has(statfsSync(`/proc/self/fd/${fd}`).type);
}
