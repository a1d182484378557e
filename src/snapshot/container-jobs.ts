import { DetectingDecompressor } from "#archive/compression.ts";
import { TarReader } from "#archive/tar-read.ts";
import { EngineError } from "#base/errors.ts";
import { RingReader } from "#content/byte-ring.ts";
import { openRoot } from "#sys/beneath.ts";
import { closeFd } from "#sys/files.ts";
import { isKernelFileSystem } from "#sys/kernel-file-systems.ts";
import { openArchive } from "./archive-format.ts";
import { ContainerExtractor, checkWritable } from "./container-extract.ts";
import {
  openExtractionPoint,
  type PathStat,
  parseContainerPath,
  statContainerPath,
} from "./container-path.ts";
import { abortCheck } from "./layer-job.ts";

const chunkBytes = 1024 * 1024;

/** A look at one path of a container. */
export interface PathStatJob {
  readonly kind: "path-stat";
  /** Leads to the container's root. */
  readonly root: string;
  readonly path: string;
}

/** An archive that arrives through a ring, into a directory of a container. */
export interface ExtractJob {
  readonly kind: "extract";
  readonly root: string;
  readonly path: string;
  readonly ring: SharedArrayBuffer;
  readonly noOverwriteDirNonDir: boolean;
  readonly owner?: { readonly uid: number; readonly gid: number };
  readonly mounts: readonly { readonly destination: string; readonly readOnly: boolean }[];
  readonly readonlyRoot: boolean;
}

export function runPathStat(job: PathStatJob): PathStat | undefined {
  const rootFd = openRoot(job.root);
  try {
    return statContainerPath(rootFd, parseContainerPath(job.path));
  } finally {
    closeFd(rootFd);
  }
}

/** Throws ENOENT where the directory is missing; all else in Docker's words. */
export function runExtract(job: ExtractJob, control: Int32Array): undefined {
  using resources = new DisposableStack();
  const rootFd = openRoot(job.root);
  resources.defer(() => closeFd(rootFd));
  const { path } = parseContainerPath(job.path);
  const point = openExtractionPoint(rootFd, path);
  resources.defer(() => closeFd(point.fd));
  if (!point.isDirectory || isKernelFileSystem(point.fd)) {
    throw new EngineError("system", "extraction point is not a directory", { code: "extract" });
  }
  checkWritable(point.canonical, job.mounts, job.readonlyRoot);
  const { noOverwriteDirNonDir, owner } = job;
  const checkAborted = abortCheck(control);
  const extractor = resources.use(
    new ContainerExtractor(rootFd, {
      target: point.canonical,
      noOverwriteDirNonDir,
      checkAborted,
      ...(owner === undefined ? {} : { owner }),
    }),
  );
  const tar = new TarReader(extractor);
  const archive = resources.use(
    new DetectingDecompressor((head) => openArchive(head, (chunk) => tar.push(chunk))),
  );
  const source = new RingReader(job.ring, checkAborted);
  for (let read = source.read(chunkBytes); read !== undefined; read = source.read(chunkBytes)) {
    if (read === "failed") throw new EngineError("cancelled", "context canceled", { code: "aborted" });
    archive.push(read);
  }
  archive.finish();
  tar.finish();
  extractor.complete();
  return undefined;
}
