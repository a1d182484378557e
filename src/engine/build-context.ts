/** Where a build's files come from: the request's body, a URL, a git repository. All become one file with an index beside it. */
import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { detectBytes, detectFormat } from "#archive/compression.ts";
import { fetchGit } from "#archive/git-source.ts";
import { blockBytes, checksumMatches } from "#archive/tar-format.ts";
import { TarWriter } from "#archive/tar-write.ts";
import { type ByteString, bytesOfText } from "#base/byte-string.ts";
import { EngineError } from "#base/errors.ts";
import type { GitRequest, GitSource } from "#builder/step-executor.ts";
import { RingWriter } from "#content/byte-ring.ts";
import type { ContextOutcome } from "#snapshot/context-job.ts";
import type { TreeSource } from "#snapshot/copy-spec.ts";
import { isGitReference, parseGitReference, withoutSecrets } from "#wire/git-reference.ts";
import type { ImageContext, Report } from "./image-context.ts";
import { pour } from "./layer-import.ts";

export interface ContextRequest {
  readonly body: AsyncIterable<Uint8Array>;
  /** "" for the body; else an archive or a Dockerfile by http, or a git repository. */
  readonly remote: string;
  readonly dockerfile: string;
  /** The build's own. */
  readonly directory: string;
}

export interface TakenContext {
  /** The Dockerfile. */
  readonly text: string;
  readonly source: TreeSource;
}

/** Programs that a daemon started by anything may not find in its environment. */
const gitEnv = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" };
const dockerfileBytesMax = 4 * 1024 * 1024;

/** Takes the context in while it arrives. Throws `invalid` in Docker's words where there is no Dockerfile. */
export async function takeContext(
  ctx: ImageContext,
  request: ContextRequest,
  report: Report,
  signal: AbortSignal,
): Promise<TakenContext> {
  const { remote, dockerfile, directory } = request;
  const input = remote === "" ? request.body : await fetchRemote(ctx, request, report, signal);
  const { outcome, indexPath } = await indexArchive(
    ctx,
    { input, directory, name: "context", dockerfile, appliesIgnore: remote !== "" },
    signal,
  );
  if (outcome.dockerfile === undefined) {
    throw new EngineError("invalid", `Cannot locate specified Dockerfile: ${dockerfile}`, {
      code: "no-dockerfile",
    });
  }
  if (outcome.dockerfile.trim() === "") {
    throw new EngineError("invalid", `the Dockerfile (${dockerfile}) cannot be empty`, {
      code: "empty-dockerfile",
    });
  }
  return { text: outcome.dockerfile, source: { kind: "context", indexPath } };
}

interface ArchiveRequest {
  readonly input: AsyncIterable<Uint8Array>;
  readonly directory: string;
  readonly name: string;
  readonly dockerfile: string;
  readonly appliesIgnore: boolean;
}

/** An archive into one file, with an index of what it holds. */
async function indexArchive(
  ctx: ImageContext,
  { input, directory, name, dockerfile, appliesIgnore }: ArchiveRequest,
  signal: AbortSignal,
): Promise<{ readonly outcome: ContextOutcome; readonly indexPath: string }> {
  const dataPath = join(directory, name);
  const indexPath = `${dataPath}.index`;
  const ring = new RingWriter();
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  const job = { ring: ring.buffer, dataPath, indexPath, dockerfile, appliesIgnore };
  const indexing = ctx.snapshotter.indexContext(job, both);
  indexing.catch((error: unknown) => stop.abort(error));
  try {
    await pour(input, ring, both, "the build context");
  } catch (error) {
    // What the index found wrong is the reason, not that the reading was ended for it. Judged before the index is told to
    // give up, which it reports as a failure of its own.
    const failure: unknown = stop.signal.aborted ? stop.signal.reason : error;
    ring.settle("failed");
    await indexing.catch(() => {});
    if (signal.aborted) throw new EngineError("cancelled", "context canceled", { cause: signal.reason });
    throw failure;
  }
  return { outcome: await indexing, indexPath };
}

/** `remote` as an archive. Throws `invalid` for what is neither http nor git. */
async function fetchRemote(
  ctx: ImageContext,
  { remote, directory, dockerfile }: ContextRequest,
  report: Report,
  signal: AbortSignal,
): Promise<AsyncIterable<Uint8Array>> {
  if (isGitReference(remote)) {
    const folder = join(directory, "git");
    mkdirSync(folder, { mode: 0o700 });
    const tree = await fetchGit(parseGitReference(remote), { directory: folder, env: gitEnv, signal });
    return tree.archive();
  }
  if (!/^https?:\/\//i.test(remote)) {
    throw new EngineError(
      "invalid",
      `remote context ${JSON.stringify(remote.slice(0, 200))} is neither an http URL nor a git repository`,
      { code: "remote" },
    );
  }
  let url: URL;
  try {
    url = new URL(remote);
  } catch (cause) {
    throw new EngineError("invalid", `invalid remote ${JSON.stringify(withoutSecrets(remote))}`, { cause });
  }
  const answer = await ctx.registry.transport.send({ method: "GET", url, verifyTls: true, signal });
  if (answer.status !== 200) {
    answer.body.destroy();
    throw new EngineError(
      "invalid",
      `error downloading remote context ${url.origin}${url.pathname}: failed to GET with status ${answer.status}`,
      { code: "download-failed" },
    );
  }
  report({ kind: "stream", text: `Downloading build context from remote url: ${withoutSecrets(remote)}\n` });
  return await archiveOrDockerfile(answer.body, dockerfile);
}

/** A URL gives an archive, or a Dockerfile that stands alone: told by its first bytes, whatever type the server claims. */
async function archiveOrDockerfile(
  body: AsyncIterable<Uint8Array>,
  dockerfile: string,
): Promise<AsyncIterable<Uint8Array>> {
  const source = body[Symbol.asyncIterator]();
  let head: Buffer = Buffer.alloc(0);
  let isDone = false;
  const more = async (): Promise<void> => {
    const { value, done } = await source.next();
    if (done === true) isDone = true;
    else head = Buffer.concat([head, value]);
  };
  while (!isDone && head.length < Math.max(blockBytes, detectBytes)) await more();
  const isArchive = detectFormat(head) !== "none" || (head.length >= blockBytes && checksumMatches(head));
  if (isArchive) {
    return (async function* () {
      // Whoever stops reading closes the download.
      try {
        yield head;
        for (let next = await source.next(); next.done !== true; next = await source.next()) yield next.value;
      } finally {
        await source.return?.();
      }
    })();
  }
  while (!isDone && head.length <= dockerfileBytesMax) await more();
  if (!isDone) {
    await source.return?.();
    throw new EngineError("invalid", "the remote Dockerfile is too large", { code: "remote" });
  }
  return loneFile(dockerfile, head);
}

async function* loneFile(name: string, content: Buffer): AsyncGenerator<Buffer> {
  const chunks: Buffer[] = [];
  const tar = new TarWriter((chunk) => chunks.push(Buffer.from(chunk)));
  tar.entry({
    path: bytesOfText(name),
    type: "file",
    mode: 0o600,
    uid: 0,
    gid: 0,
    sizeBytes: content.length,
    mtimeNs: 0n,
    linkPath: "" as ByteString,
    deviceMajor: 0,
    deviceMinor: 0,
  });
  tar.data(content);
  tar.finish();
  yield Buffer.concat(chunks);
}

/** ADD of a git repository: its files as a tree, and its `.git` where that is to be kept. */
export async function addGit(
  ctx: ImageContext,
  request: GitRequest,
  signal: AbortSignal,
): Promise<GitSource> {
  const { directory } = request;
  const name = `git-${randomBytes(8).toString("hex")}`;
  const folder = join(directory, name);
  mkdirSync(folder, { mode: 0o700 });
  const reference = parseGitReference(request.reference);
  const tree = await fetchGit(reference, { directory: folder, env: gitEnv, signal });
  if (request.checksum !== "" && !tree.commit.startsWith(request.checksum)) {
    throw new EngineError("invalid", `expected checksum to match ${request.checksum}, got ${tree.commit}`, {
      code: "copy",
    });
  }
  const { indexPath } = await indexArchive(
    ctx,
    { input: tree.archive(), directory, name: `${name}.tar`, dockerfile: "Dockerfile", appliesIgnore: false },
    signal,
  );
  if (request.keepGitDir) await tree.keepGitDirectory();
  return {
    commit: tree.commit,
    files: { kind: "context", indexPath },
    ...(request.keepGitDir ? { git: { kind: "layers", directories: [folder] } } : {}),
  };
}
