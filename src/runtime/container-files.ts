import { constants } from "node:fs";
import { EngineError, errnoOf, SyscallError } from "#base/errors.ts";
import { openRoot, tryOpenat2 } from "#sys/beneath.ts";
import { closeFd } from "#sys/files.ts";
import type { ContainerFiles } from "./runtime.ts";
import type { Shim } from "./shim.ts";

/** Paths of this process's descriptors: threads of it reach them, nothing else does. */
function held(rootFd: number, release: () => void | Promise<void>): ContainerFiles {
  let open = true;
  return {
    path: `/proc/self/fd/${rootFd}`,
    [Symbol.asyncDispose]: async () => {
      if (!open) return;
      open = false;
      closeFd(rootFd);
      await release();
    },
  };
}

function openNamespace(path: string): number {
  const fd = tryOpenat2(-100, path, constants.O_RDONLY, 0, 0);
  if (typeof fd === "string") throw new SyscallError("open", fd, path);
  return fd;
}

/**
 * The root of a process, with its mount namespace held, so that volumes stay where they are after its end. `isStillIt` says,
 * after the process was opened, whether the pid is still the container's: else it may have become another's.
 */
export function openProcessFiles(pid: number, isStillIt: () => boolean): ContainerFiles {
  const gone = (cause?: unknown): EngineError =>
    new EngineError("conflict", "the container has ended", { code: "not-running", cause });
  if (pid <= 0) throw gone();
  using undo = new DisposableStack();
  let rootFd: number;
  let namespaceFd: number;
  try {
    rootFd = openRoot(`/proc/${pid}/root`);
    undo.defer(() => closeFd(rootFd));
    namespaceFd = openNamespace(`/proc/${pid}/ns/mnt`);
    undo.defer(() => closeFd(namespaceFd));
  } catch (error) {
    const errno = errnoOf(error);
    // A process that ends between two steps of the kernel's look-up gives EACCES: its cgroup tells.
    if (errno === "ENOENT" || errno === "ESRCH" || !isStillIt()) throw gone(error);
    throw error;
  }
  if (!isStillIt()) throw gone();
  undo.move();
  return held(rootFd, () => closeFd(namespaceFd));
}

/** What a shim has mounted for a container that does not run; the shim ends with it. */
export async function shimFiles(shim: Shim): Promise<ContainerFiles> {
  try {
    return held(openRoot(`/proc/${shim.shimPid}/root${shim.rootfsPath}`), () => shim.abandon());
  } catch (error) {
    await shim.abandon();
    throw error;
  }
}
