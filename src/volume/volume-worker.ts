import { constants, existsSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { parentPort } from "node:worker_threads";
import { errnoOf, messageOf } from "#base/errors.ts";
import { openBeneath, openRoot } from "#sys/beneath.ts";
import { closeFd } from "#sys/files.ts";
import { copyTree, emptyDirectory, isEmptyDirectory, treeBytes } from "./tree.ts";

export type VolumeJob =
  | { readonly kind: "usage"; readonly path: string }
  /** Deletes the directory itself too. */
  | { readonly kind: "remove"; readonly path: string }
  | {
      readonly kind: "fill";
      readonly target: string;
      /** Lies beside the target as long as it is not filled whole. */
      readonly marker: string;
      readonly rootPath: string;
      readonly sourcePath: string;
    };

export interface VolumeJobRequest {
  readonly id: number;
  readonly job: VolumeJob;
}

export interface VolumeJobReply {
  readonly id: number;
  readonly value: number;
  readonly failure: { readonly message: string; readonly errno: string | undefined } | undefined;
}

const directoryFlags = constants.O_RDONLY | constants.O_DIRECTORY;

function fill({ target, marker, rootPath, sourcePath }: Extract<VolumeJob, { kind: "fill" }>): void {
  const rootFd = openRoot(rootPath);
  let sourceFd: number;
  try {
    sourceFd = openBeneath(rootFd, sourcePath, directoryFlags);
  } catch (error) {
    // Nothing there, or no directory: the volume starts empty.
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return;
    throw error;
  } finally {
    closeFd(rootFd);
  }
  const targetRoot = openRoot(target);
  try {
    const targetFd = openBeneath(targetRoot, ".", directoryFlags);
    try {
      if (!isEmptyDirectory(targetFd)) return;
      writeFileSync(marker, "");
      copyTree(sourceFd, targetFd);
      rmSync(marker);
    } finally {
      closeFd(targetFd);
    }
  } finally {
    closeFd(targetRoot);
    closeFd(sourceFd);
  }
}

function run(job: VolumeJob): number {
  switch (job.kind) {
    case "usage":
      return treeBytes(job.path);
    case "remove":
      if (!existsSync(job.path)) return 0;
      emptyDirectory(job.path);
      rmdirSync(job.path);
      return 0;
    case "fill":
      fill(job);
      return 0;
  }
}

parentPort?.on("message", ({ id, job }: VolumeJobRequest) => {
  let reply: VolumeJobReply;
  try {
    reply = { id, value: run(job), failure: undefined };
  } catch (error) {
    reply = { id, value: 0, failure: { message: messageOf(error), errno: errnoOf(error) } };
  }
  parentPort?.postMessage(reply);
});
