import { createHash, randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join, posix } from "node:path";
import { EngineError, messageOf } from "#base/errors.ts";
import type { LooseFile } from "#snapshot/context-tree.ts";
import type { CopySpec, TreeSource } from "#snapshot/copy-spec.ts";
import { parseModeChanges } from "#snapshot/mode-change.ts";
import type { LayerKey } from "#snapshot/snapshotter.ts";
import { isGitReference } from "#wire/git-reference.ts";
import { expandWord } from "#wire/word-expand.ts";
import { sourceDateNs } from "./build-request.ts";
import type { Instruction } from "./instructions.ts";
import type { StageBuild } from "./stage-build.ts";

type CopyInstruction = Extract<Instruction, { kind: "copy" | "add" }>;

function invalid(message: string): EngineError {
  return new EngineError("invalid", message, { code: "copy" });
}

/** Told without the instruction's name. */
function plain(message: string): EngineError {
  return new EngineError("invalid", message, { code: "copy-target" });
}

/** COPY and ADD. Errors carry Docker's `COPY failed: ` in front. */
export async function copyStep(build: StageBuild, instruction: CopyInstruction): Promise<void> {
  const keyword = instruction.kind.toUpperCase();
  try {
    await copy(build, instruction, keyword);
  } catch (error) {
    if (!(error instanceof EngineError) || !["copy", "bad-pattern"].includes(error.code)) throw error;
    throw new EngineError(error.kind, `${keyword} failed: ${messageOf(error)}`, {
      code: error.code,
      cause: error,
    });
  }
}

async function copy(build: StageBuild, instruction: CopyInstruction, keyword: string): Promise<void> {
  const { deps, signal } = build.context;
  const isAdd = instruction.kind === "add";
  const target = targetOf(build, instruction);
  const common = {
    target,
    chown: build.expand(instruction.chown),
    chmod: modeOf(build.expand(instruction.chmod)),
    excludes: instruction.excludes.map((pattern) => build.expand(pattern)),
    parents: instruction.parents,
  };
  const parts = await sourcesOf(build, instruction);
  const specs = parts.map(
    ({ source, paths, unpack, under }): CopySpec => ({
      ...common,
      ...(under === undefined ? {} : { target: posix.join(target, under) }),
      source,
      paths,
      unpack,
    }),
  );
  if (parts.length > 1 && parts.some(({ under }) => under === undefined) && !target.endsWith("/")) {
    throw plain(
      `When using ${keyword} with more than one source file, the destination must be a directory and end with a /`,
    );
  }
  // What ADD does not unpack has no `file:` in front, as in Docker: the words then tell it from an archive that it does.
  const digests = await Promise.all(
    specs.map(async (spec, index) => {
      const digest = parts[index]?.digest ?? (await deps.snapshotter.copyDigest(spec, signal));
      return isAdd && spec.source.kind === "files" ? digest.replace(/^file:/, "") : digest;
    }),
  );
  const digest =
    digests.length === 1
      ? digests[0]
      : `multi:${createHash("sha256").update(digests.join(" ")).digest("hex")}`;
  const { chown, chmod, excludes, parents } = common;
  const hasUnpack = instruction.kind === "add" && instruction.unpack !== undefined;
  // Docker puts no blank behind the owner.
  const owner = chown === "" ? "" : `--chown=${chown}`;
  const note = `${keyword} ${owner}${digest} in ${build.expand(instruction.target)} `;
  await build.finish({
    parts: [
      instruction.kind,
      digest,
      target,
      chown,
      chmod,
      excludes,
      parents,
      specs.map(({ unpack }) => unpack),
    ],
    createdBy: `/bin/sh -c #(nop) ${note}`,
    isToldByHistory: chmod === undefined && excludes.length === 0 && !parents && !hasUnpack,
    make: () => build.derive({ kind: "copy", specs }),
  });
}

/** Absolute, with the slash at its end that makes it a directory. */
function targetOf(build: StageBuild, instruction: CopyInstruction): string {
  const text = build.expand(instruction.target);
  if (text === "") throw invalid("the destination is empty");
  const path = posix.resolve("/", build.state.config.WorkingDir ?? "/", text);
  const isDirectory =
    text.endsWith("/") || text === "." || text.endsWith("/.") || text.endsWith("/..") || text === "..";
  return isDirectory && path !== "/" ? `${path}/` : path;
}

function modeOf(text: string): CopySpec["chmod"] {
  if (text === "") return undefined;
  const changes = parseModeChanges(text);
  if (changes !== undefined) return changes;
  if (!/^[0-7]{1,4}$/.test(text.replace(/^0o?/, "0"))) {
    throw invalid(`invalid chmod parameter: '${text}'. it should be octal string and between 0 and 07777`);
  }
  return Number.parseInt(text.replace(/^0o/, ""), 8);
}

interface Part {
  readonly source: TreeSource;
  readonly paths: readonly string[];
  readonly unpack: boolean;
  /** Below the target, where it is not put there itself. */
  readonly under?: string;
  /** Known without a look at the files. */
  readonly digest?: string;
}

const urlPattern = /^https?:\/\//i;

/** The trees that the sources come from: the context or an image, heredocs, downloads. */
async function sourcesOf(build: StageBuild, instruction: CopyInstruction): Promise<Part[]> {
  const isAdd = instruction.kind === "add";
  const texts = instruction.sources.map((text) => ({ text, expanded: build.expand(text) }));
  const heredocs = [...instruction.heredocs];
  const parts: Part[] = [];
  const paths: string[] = [];
  const loose: LooseFile[] = [];
  for (const { text, expanded } of texts) {
    if (/^\d*<<-?/.test(text) && heredocs.length > 0) {
      const heredoc = heredocs.shift()!;
      const content = heredoc.expand
        ? expandWord(heredoc.content, { ...build.words, raw: true })
        : heredoc.content;
      loose.push(await looseFile(build, heredoc.name, content));
    } else if (isAdd && isGitReference(expanded)) {
      parts.push(...(await gitParts(build, expanded, instruction)));
    } else if (isAdd && urlPattern.test(expanded)) {
      parts.push(await download(build, expanded, instruction));
    } else paths.push(expanded);
  }
  if (loose.length > 0)
    parts.push({
      source: { kind: "files", files: loose },
      paths: loose.map(({ name }) => name),
      unpack: false,
    });
  if (paths.length > 0) {
    const unpack = isAdd && instruction.unpack !== false;
    parts.push({ source: await treeOf(build, instruction), paths, unpack });
  }
  if (isAdd && instruction.checksum !== "" && (texts.length !== 1 || paths.length > 0 || loose.length > 0)) {
    throw invalid("checksum requires a single remote file as source");
  }
  return parts;
}

async function treeOf(build: StageBuild, instruction: CopyInstruction): Promise<TreeSource> {
  const from = instruction.kind === "copy" ? instruction.from : "";
  if (from !== "") {
    const image = await build.context.fromStage(build.expand(from));
    return imageTree(
      build,
      image.layers.map(({ key }) => key),
    );
  }
  const { context } = build.context.request;
  if (context === undefined) throw invalid("no build context: the Dockerfile came alone");
  return context;
}

/** The files of an image, as a source of copies. */
export function imageTree(build: StageBuild, keys: readonly LayerKey[]): TreeSource {
  const { snapshotter } = build.context.deps;
  const unique = keys.filter((key, index) => keys.lastIndexOf(key) === index);
  return { kind: "layers", directories: unique.map((key) => snapshotter.pathOf(key)).reverse() };
}

/** A file of the build's own. */
export async function looseFile(
  build: StageBuild,
  name: string,
  content: string,
  mode = 0o644,
): Promise<LooseFile> {
  const { request, deps } = build.context;
  const path = join(request.temporaryDir, `loose-${randomBytes(8).toString("hex")}`);
  writeFileSync(path, content, { mode });
  const mtimeNs = sourceDateNs(request) ?? BigInt(deps.clock.nowNs());
  return {
    name,
    path,
    mode,
    mtimeNs: String(mtimeNs),
    contentHash: createHash("sha256").update(content).digest("hex"),
  };
}

/** A repository's files, and its `.git`, whose bytes differ from fetch to fetch while the commit says all of them. */
async function gitParts(build: StageBuild, reference: string, instruction: CopyInstruction): Promise<Part[]> {
  const { deps, request, signal } = build.context;
  const isAdd = instruction.kind === "add";
  const checksum = isAdd ? build.expand(instruction.checksum) : "";
  if (checksum !== "" && !/^[0-9a-f]{7,64}$/.test(checksum))
    throw invalid(`invalid checksum of a git commit: ${checksum}`);
  const keepGitDir = isAdd && instruction.keepGitDir;
  const fetched = await deps.executor.git(
    { reference, checksum, keepGitDir, directory: request.temporaryDir },
    signal,
  );
  const files: Part = { source: fetched.files, paths: ["."], unpack: false, under: "/" };
  if (fetched.git === undefined) return [files];
  const digest = createHash("sha256").update(`${reference}\0${fetched.commit}`).digest("hex");
  return [files, { source: fetched.git, paths: [".git"], unpack: false, under: "/.git", digest }];
}

async function download(build: StageBuild, url: string, instruction: CopyInstruction): Promise<Part> {
  const { deps, request, signal } = build.context;
  const checksum = instruction.kind === "add" ? build.expand(instruction.checksum) : "";
  if (checksum !== "" && !/^sha256:[0-9a-f]{64}$/.test(checksum))
    throw invalid(`invalid checksum digest format: ${checksum}`);
  const file = await deps.executor.download(url, checksum, request.temporaryDir, signal);
  const unpack = instruction.kind === "add" && instruction.unpack === true;
  return { source: { kind: "files", files: [file] }, paths: [file.name], unpack };
}
