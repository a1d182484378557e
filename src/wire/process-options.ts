/** Names that both the command line and the daemon check, as the kernel spells them. */

/** Names of rlimits that Docker takes (go-units), lower case, without `RLIMIT_`; `as` is not among the client's. */
export const ulimitNames: ReadonlySet<string> = new Set([
  "core",
  "cpu",
  "data",
  "fsize",
  "locks",
  "memlock",
  "msgqueue",
  "nice",
  "nofile",
  "nproc",
  "rss",
  "rtprio",
  "rttime",
  "sigpending",
  "stack",
]);

/** sysctls that an IPC namespace has of its own, beside `fs.mqueue.*` (ipc_namespaces(7)). */
export const ipcSysctls: ReadonlySet<string> = new Set([
  "kernel.msgmax",
  "kernel.msgmnb",
  "kernel.msgmni",
  "kernel.sem",
  "kernel.shmall",
  "kernel.shmmax",
  "kernel.shmmni",
  "kernel.shm_rmid_forced",
]);
