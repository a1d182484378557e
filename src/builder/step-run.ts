import { randomBytes } from "node:crypto";
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
  checkEntitlements(build, instruction);
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
      instruction.security,
      instruction.mounts.map((mount) => ({ ...mount, required: undefined })),
      binds.map(({ digest }) => digest),
    ],
    createdBy: prefix + words.join(" "),
    // History says nothing of these.
    isToldByHistory:
      instruction.mounts.length === 0 &&
      instruction.network === "default" &&
      instruction.security === "sandbox",
    make: () => execute(build, instruction, { words, visible, binds }),
  });
}

/** A Dockerfile is not trusted by the one who builds it: what reaches beyond the container must be granted by the caller. */
function checkEntitlements(build: StageBuild, { security, network }: RunInstruction): void {
  const { entitlements, hostNetwork } = build.context.request;
  const wanted = [
    ...(security === "insecure" ? ["security.insecure"] : []),
    ...(network === "host" && !hostNetwork ? ["network.host"] : []),
  ];
  const missing = wanted.find((name) => !entitlements.has(name));
  if (missing === undefined) return;
  throw new EngineError(
    "forbidden",
    `${missing} is not allowed: the build was not given --allow ${missing}`,
    {
      code: "entitlement",
    },
  );
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
    const from = build.expand(mount.from);
    if (mount.type !== "bind" && !(mount.type === "cache" && from !== "")) continue;
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
      secretEnv: mounts.secretEnv,
      network: instruction.network,
      insecure: instruction.security === "insecure",
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
      omit: mounts.list.flatMap(({ target }) => withAncestors(target)),
    });
  } finally {
    if (!signal.aborted) await build.release(container, succeeded);
  }
}

/** A mount target, and the directories that may have been made for it alone. */
function withAncestors(target: string): string[] {
  const names = target.split("/").filter((name) => name !== "");
  return names.map((_, index) => `/${names.slice(0, index + 1).join("/")}`);
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
  readonly list: StepMount[];
  readonly env: string[];
  readonly secretEnv: string[];
}

async function mountsOf(
  build: StageBuild,
  instruction: RunInstruction,
  work: Work,
  undo: AsyncDisposableStack,
): Promise<Mounts> {
  const mounts: Mounts = { list: [], env: [], secretEnv: [] };
  const binds = [...work.binds];
  const at = (target: string): string => resolveWorkdir(build.state.config.WorkingDir, build.expand(target));
  for (const mount of instruction.mounts) {
    const target = mount.target === "" ? "" : at(mount.target);
    const source = binds[0]?.mount === mount ? binds.shift() : undefined;
    if (mount.type === "tmpfs")
      mounts.list.push({ target, readOnly: false, source: undefined, sizeBytes: mount.sizeBytes });
    else if (mount.type === "cache") mounts.list.push(await cacheMount(build, mount, source, target, undo));
    else if (mount.type === "bind") mounts.list.push(await bindMount(build, source!, target, undo));
    else if (mount.type === "secret") await secretMount(build, mount, target, mounts, undo);
    else await agentMount(build, mount, target, mounts, undo);
  }
  const script = work.words[0];
  const heredoc = instruction.command.form === "shell" ? instruction.command.heredocs[0] : undefined;
  if (heredoc !== undefined && script === `/.heredoc-${heredoc.name}`) {
    const file = await looseFile(build, heredoc.name, heredoc.content, 0o755);
    mounts.list.push({ target: script, readOnly: true, source: file.path, sizeBytes: 0 });
  }
  return mounts;
}

async function cacheMount(
  build: StageBuild,
  mount: RunMount,
  initial: BindSource | undefined,
  target: string,
  undo: AsyncDisposableStack,
): Promise<StepMount> {
  const { executor } = build.context.deps;
  const id = build.expand(mount.id);
  const directory = await executor.cacheMount(
    {
      // A path of a cache is one of its own: resolved within the cache it could lead out of it.
      id: initial === undefined && mount.source !== "" ? `${id}\0${build.expand(mount.source)}` : id,
      sharing: mount.sharing,
      mode: mount.mode ?? 0o755,
      uid: mount.uid,
      gid: mount.gid,
      ...(initial === undefined ? {} : { initial: { spec: initial.spec, digest: initial.digest } }),
    },
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
  // Equal files are one layer: what may be written into has a name that no other has.
  const name = bind.mount.readOnly ? bindName : `${bindName}-${randomBytes(16).toString("hex")}`;
  const layer = await snapshotter.derive({
    source: { kind: "copy", specs: [{ ...bind.spec, target: `/${name}` }] },
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
    source: join(snapshotter.pathOf(layer.key), name),
    sizeBytes: 0,
  };
}

async function secretMount(
  build: StageBuild,
  mount: RunMount,
  target: string,
  mounts: Mounts,
  undo: AsyncDisposableStack,
): Promise<void> {
  const { secrets } = build.context.deps.executor;
  const id = build.expand(mount.id);
  const content = await secrets.secret(id, build.context.signal);
  if (content === undefined) {
    if (mount.required) throw new EngineError("invalid", `secret ${id}: not found`, { code: "secret" });
    return;
  }
  if (mount.env !== "") mounts.secretEnv.push(`${mount.env}=${content.toString("utf8")}`);
  if (target === "") return;
  const file = await secrets.file(content, { mode: mount.mode ?? 0o400, uid: mount.uid, gid: mount.gid });
  undo.use(file);
  mounts.list.push({ target, readOnly: true, source: file.path, sizeBytes: 0 });
}

async function agentMount(
  build: StageBuild,
  mount: RunMount,
  target: string,
  mounts: Mounts,
  undo: AsyncDisposableStack,
): Promise<void> {
  const id = mount.id === "" ? "default" : build.expand(mount.id);
  const { secrets } = build.context.deps.executor;
  const agent = await secrets.agent(id, { mode: mount.mode ?? 0o600, uid: mount.uid, gid: mount.gid });
  if (agent === undefined) {
    if (!mount.required) return;
    throw new EngineError("invalid", `no SSH agent ${JSON.stringify(id)} was forwarded by the client`, {
      code: "ssh",
    });
  }
  undo.use(agent);
  mounts.list.push({ target, readOnly: false, source: agent.path, sizeBytes: 0 });
  if (!mounts.env.some((entry) => entry.startsWith("SSH_AUTH_SOCK=")))
    mounts.env.push(`SSH_AUTH_SOCK=${target}`);
}
