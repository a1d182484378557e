import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { EngineError } from "#base/errors.ts";
import { shortId } from "#base/ids.ts";
import type { CopySpec } from "#snapshot/copy-spec.ts";
import type { AppliedLayer } from "#snapshot/snapshotter.ts";
import type { Instruction, RunMount } from "./instructions.ts";
import { commandWords, defaultShell, resolveWorkdir } from "./run-config.ts";
import type { StageBuild } from "./stage-build.ts";
import { imageTree, looseFile } from "./step-copy.ts";
import type { StepMount } from "./step-executor.ts";

type RunInstruction = Extract<Instruction, { kind: "run" }>;

/** Where a bind mount's file or directory is put, beneath a directory of its own. */
const bindName = "source";

/** The files of a bind mount: part of what RUN depends on. */
interface BindSource {
  readonly mount: RunMount;
  readonly spec: CopySpec;
  readonly digest: string;
}

/** RUN. Throws Docker's `The command '…' returned a non-zero code: n`. */
export async function runStep(build: StageBuild, instruction: RunInstruction): Promise<void> {
  if (instruction.security === "insecure") {
    throw new EngineError(
      "forbidden",
      "security.insecure is not allowed: the builder grants no entitlement",
      { code: "entitlement" },
    );
  }
  const { args, state } = build;
  const visible = args.visible(state.config.Env ?? []);
  const words = wordsOf(instruction, state.config.Shell ?? defaultShell);
  const binds = await bindSources(build, instruction);
  const prefix = visible.length === 0 ? "" : `|${visible.length} ${visible.join(" ")} `;
  await build.finish({
    parts: [
      "run",
      words,
      instruction.command.form === "shell" ? instruction.command.heredocs : [],
      visible,
      instruction.network,
      instruction.mounts.map((mount) => ({ ...mount, required: undefined })),
      binds.map(({ digest }) => digest),
    ],
    createdBy: prefix + words.join(" "),
    make: () => execute(build, instruction, { words, visible, binds }),
  });
}

/** A lone heredoc is the script itself; other ones are the shell's to read. */
function wordsOf({ command }: RunInstruction, shell: readonly string[]): string[] {
  if (command.form === "exec" || command.heredocs.length === 0) return commandWords(command, shell);
  const [first] = command.heredocs;
  if (
    command.heredocs.length === 1 &&
    first !== undefined &&
    /^\d*<<-?["']?[A-Za-z0-9_.-]+["']?$/.test(command.text)
  ) {
    return first.content.startsWith("#!") ? [`/.heredoc-${first.name}`] : [...shell, first.content];
  }
  const bodies = command.heredocs.map(({ content, name }) => `${content}${name}\n`).join("");
  return [...shell, `${command.text}\n${bodies}`];
}

/** Files of bind mounts, by digest: they are part of what the step depends on. */
async function bindSources(build: StageBuild, instruction: RunInstruction): Promise<BindSource[]> {
  const { deps, request, signal, fromStage } = build.context;
  const binds: BindSource[] = [];
  for (const mount of instruction.mounts) {
    if (mount.type === "ssh") {
      throw new EngineError(
        "notImplemented",
        "RUN --mount=type=ssh needs a BuildKit session, which this builder does not have",
        { code: "ssh-mount" },
      );
    }
    if (mount.type !== "bind") continue;
    const from = build.expand(mount.from);
    let source = request.context;
    if (from !== "") {
      const image = await fromStage(from);
      source = imageTree(
        build,
        image.layers.map(({ key }) => key),
      );
    }
    if (source === undefined)
      throw new EngineError("invalid", "no build context: the Dockerfile came alone", { code: "copy" });
    const path = build.expand(mount.source);
    const spec: CopySpec = {
      source,
      paths: [path === "" ? "." : path],
      target: `/${bindName}`,
      chown: "",
      chmod: undefined,
      excludes: [],
      parents: false,
      unpack: false,
    };
    binds.push({ mount, spec, digest: await deps.snapshotter.copyDigest(spec, signal) });
  }
  return binds;
}

interface Work {
  readonly words: readonly string[];
  readonly visible: readonly string[];
  readonly binds: readonly BindSource[];
}

async function execute(
  build: StageBuild,
  instruction: RunInstruction,
  work: Work,
): Promise<AppliedLayer | undefined> {
  await using undo = new AsyncDisposableStack();
  const { deps, signal } = build.context;
  const image = build.state.image ?? (await build.emptyImage());
  const mounts = await mountsOf(build, instruction, work, undo);
  const container = await deps.executor.container(
    {
      image: image.id,
      command: work.words,
      env: [...work.visible, ...build.args.proxies(), ...mounts.env],
      network: instruction.network,
      mounts: mounts.list,
    },
    true,
  );
  undo.use(container);
  build.say(` ---> Running in ${shortId(container.id)}\n`);
  let succeeded = false;
  try {
    const code = await container.run(
      (chunk, stream) => build.context.report({ kind: stream, text: chunk.toString("utf8") }),
      signal,
    );
    if (code !== 0) throw failed(work.words, code);
    succeeded = true;
    return await build.derive({
      kind: "upper",
      directory: container.upperDir,
      omit: mounts.list.map(({ target }) => target),
    });
  } finally {
    if (!signal.aborted) await build.release(container, succeeded);
  }
}

/** The exit code goes with the error: the docker CLI ends with it. */
export class StepFailed extends EngineError {
  readonly exitCode: number;

  constructor(command: string, exitCode: number) {
    super("system", `The command '${command}' returned a non-zero code: ${exitCode}`, {
      code: "step-failed",
    });
    this.exitCode = exitCode;
  }
}

function failed(words: readonly string[], code: number): StepFailed {
  return new StepFailed(words.join(" "), code);
}

interface Mounts {
  readonly list: readonly StepMount[];
  readonly env: readonly string[];
}

async function mountsOf(
  build: StageBuild,
  instruction: RunInstruction,
  work: Work,
  undo: AsyncDisposableStack,
): Promise<Mounts> {
  const list: StepMount[] = [];
  const env: string[] = [];
  const binds = [...work.binds];
  const at = (target: string): string => resolveWorkdir(build.state.config.WorkingDir, build.expand(target));
  for (const mount of instruction.mounts) {
    const target = mount.target === "" ? "" : at(mount.target);
    if (mount.type === "tmpfs")
      list.push({ target, readOnly: false, source: undefined, sizeBytes: mount.sizeBytes });
    else if (mount.type === "cache") list.push(await cacheMount(build, mount, target, undo));
    else if (mount.type === "bind") list.push(await bindMount(build, binds.shift()!, target, undo));
    else if (mount.type === "secret") await secretMount(build, mount, target, { list, env });
  }
  const script = work.words[0];
  const heredoc = instruction.command.form === "shell" ? instruction.command.heredocs[0] : undefined;
  if (heredoc !== undefined && script === `/.heredoc-${heredoc.name}`) {
    const file = await looseFile(build, heredoc.name, heredoc.content, 0o755);
    list.push({ target: script, readOnly: true, source: file.path, sizeBytes: 0 });
  }
  return { list, env };
}

async function cacheMount(
  build: StageBuild,
  mount: RunMount,
  target: string,
  undo: AsyncDisposableStack,
): Promise<StepMount> {
  if (mount.from !== "" || mount.source !== "") {
    throw new EngineError(
      "notImplemented",
      "a cache mount that begins as a copy (from, source) is not supported",
      { code: "cache-mount" },
    );
  }
  const { executor } = build.context.deps;
  const owner = { mode: mount.mode ?? 0o755, uid: mount.uid, gid: mount.gid };
  const directory = await executor.cacheMount(
    build.expand(mount.id),
    mount.sharing,
    owner,
    build.context.signal,
  );
  undo.use(directory);
  return { target, readOnly: mount.readOnly, source: directory.path, sizeBytes: 0 };
}

/** A private copy of the files: what the step writes into it is gone afterwards. */
async function bindMount(
  build: StageBuild,
  bind: BindSource,
  target: string,
  undo: AsyncDisposableStack,
): Promise<StepMount> {
  const { snapshotter } = build.context.deps;
  const layer = await snapshotter.derive({
    source: { kind: "copy", specs: [bind.spec] },
    stack: [],
    belowChain: undefined,
    signal: build.context.signal,
  });
  if (layer === undefined)
    throw new EngineError("invalid", "the source of a bind mount is empty", { code: "copy" });
  undo.defer(() => snapshotter.discard([layer]));
  return {
    target,
    readOnly: bind.mount.readOnly,
    source: join(snapshotter.pathOf(layer.key), bindName),
    sizeBytes: 0,
  };
}

async function secretMount(
  build: StageBuild,
  mount: RunMount,
  target: string,
  into: { list: StepMount[]; env: string[] },
): Promise<void> {
  const path = build.context.request.secrets.get(mount.id);
  if (path === undefined) {
    if (mount.required) throw new EngineError("invalid", `secret ${mount.id}: not found`, { code: "secret" });
    return;
  }
  if (mount.env !== "") {
    into.env.push(`${mount.env}=${await readFile(path, "utf8")}`);
  }
  if (target !== "") into.list.push({ target, readOnly: true, source: path, sizeBytes: 0 });
}
