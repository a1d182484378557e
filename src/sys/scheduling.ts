import { readlinkSync } from "node:fs";
import { setPriority } from "node:os";
import { koffi, libc } from "./libc.ts";

const cSyscall = libc.func("long syscall(long number, int pid, const void *attributes, unsigned int flags)");

/** sched_setattr of the architecture. */
const numbers: Readonly<Record<string, number>> = { x64: 314, arm64: 274 };
/** struct sched_attr of sched_setattr(2), first version. */
const attributeBytes = 48;
const sliceNs = 20_000_000n;
const niceness = 2;
/** Where the kernel knows no slices: enough that a waking event loop goes first. */
const nicenessWithoutSlices = 5;

/**
 * Lets the calling thread work in long time slices, behind whoever wakes up for a moment: the scheduler (EEVDF) puts a
 * thread with a long slice behind those with the usual 3 ms, and gives it the same share all the same, which niceness
 * takes away: at 5 a third is left beside any other program. Kernels before 6.12 have no slices; there it is that nice.
 */
export function workInLongSlices(kernelRelease: string): void {
  const number = numbers[process.arch];
  if (number !== undefined && hasSlices(kernelRelease)) {
    const attributes = Buffer.alloc(attributeBytes);
    attributes.writeUInt32LE(attributeBytes, 0);
    // Policy SCHED_OTHER is 0.
    attributes.writeInt32LE(niceness, 16);
    attributes.writeBigUInt64LE(sliceNs, 24);
    if (Number(cSyscall(number, 0, attributes, 0)) === 0) return;
    koffi.errno(0);
  }
  // setpriority(2): on Linux a thread's id stands for that thread alone.
  setPriority(Number(readlinkSync("/proc/thread-self").split("/").at(-1)), nicenessWithoutSlices);
}

function hasSlices(kernelRelease: string): boolean {
  const [major = 0, minor = 0] = kernelRelease.split(".").map(Number);
  return major > 6 || (major === 6 && minor >= 12);
}
