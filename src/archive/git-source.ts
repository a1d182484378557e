/**
 * Git repositories as sources of builds, by the system's git. Everything in a repository is hostile: it is fetched into a
 * bare repository without templates, hooks, prompts or configuration of the host, and its files come out as a tar archive
 * (git-archive(1)) or by git's own checkout. docs/decisions/031 says why git is spawned here.
 */
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join, posix } from "node:path";
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { type GitReference, remoteOf, withoutSecrets } from "#wire/git-reference.ts";

export interface GitOptions {
  /** An empty directory for the repository; the caller removes it. */
  readonly directory: string;
  /** The environment that git starts with: PATH, and where the caller is a user, what makes that user's keys work. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly signal: AbortSignal;
}

export interface GitTree {
  /** The commit that the ref names. */
  readonly commit: string;
  /** Seconds since the epoch. */
  readonly committedAt: number;
  /** The files as a tar archive whose times are the commit's. Ends with an error where git does. */
  archive(): AsyncGenerator<Buffer>;
  /** Writes the files into a directory that exists. */
  checkOut(target: string): Promise<void>;
  /** Makes of `<directory>/.git` what a working directory has: the commit checked out, its address without secrets. */
  keepGitDirectory(): Promise<void>;
}

/** Submodules of submodules, and all of them together. */
const submoduleDepthMax = 8;
const submodulesMax = 100;
/** Output of one command that is read into memory: names of a large tree. */
const outputBytesMax = 64 * 1024 * 1024;
/** A fetch that writes nothing for so long is taken for dead. */
const stallMs = 10 * 60 * 1000;
const watchMs = 500;

const settings: readonly string[] = [
  "core.hooksPath=/dev/null",
  "core.attributesFile=/dev/null",
  "core.fsmonitor=false",
  "submodule.recurse=false",
  "gc.auto=0",
  // Always one pack, written where its growth is watched.
  "fetch.unpackLimit=1",
  "transfer.unpackLimit=1",
  "tar.umask=022",
  "http.lowSpeedLimit=100",
  "http.lowSpeedTime=60",
].flatMap((setting) => ["-c", setting]);

function failed(what: string, detail: string): EngineError {
  const text = withoutSecrets(detail)
    // The server's own words come through git's standard error.
    .replace(/[\0-\x08\x0b-\x1f\x7f]/g, "")
    .trim()
    .slice(0, 2000);
  return new EngineError("invalid", `${what}: ${text}`, { code: "git" });
}

/** Whether an address needs no key of this host. */
const isAnonymous = (address: string): boolean => /^(https?|git):/.test(address);

class Repository {
  readonly gitDir: string;
  readonly #options: GitOptions;
  submodules = 0;

  constructor(options: GitOptions) {
    this.#options = options;
    this.gitDir = join(options.directory, ".git");
  }

  #spawn(args: readonly string[], extra: Readonly<Record<string, string>>): ReturnType<typeof spawn> {
    const env = {
      HOME: this.#options.directory,
      ...this.#options.env,
      LC_ALL: "C",
      GIT_DIR: this.gitDir,
      GIT_CONFIG_NOSYSTEM: "1",
      GIT_ATTR_NOSYSTEM: "1",
      GIT_TERMINAL_PROMPT: "0",
      GIT_ASKPASS: "true",
      SSH_ASKPASS: "true",
      GIT_SSH_COMMAND: "ssh -oBatchMode=yes",
      GIT_ALLOW_PROTOCOL: "http:https:git:ssh",
      ...extra,
    };
    // A group of its own: git's helpers end with it.
    return spawn("git", [...settings, ...args], { cwd: this.#options.directory, env, detached: true });
  }

  /** Runs git and yields what it writes. Throws with its own words. */
  async *stream(
    args: readonly string[],
    { env = {}, input = "", what = `git ${args[0]}`, stop }: RunOptions = {},
  ): AsyncGenerator<Buffer> {
    const signal = stop === undefined ? this.#options.signal : AbortSignal.any([this.#options.signal, stop]);
    signal.throwIfAborted();
    const child = this.#spawn(args, env);
    let complaint = "";
    const ended = new Promise<{ code: number | null; error?: Error }>((resolve) => {
      child.on("error", (error) => resolve({ code: null, error }));
      child.on("close", (code) => resolve({ code }));
    });
    child.stderr?.on("data", (chunk: Buffer) => {
      if (complaint.length < 8192) complaint += chunk.toString("utf8");
    });
    const kill = (): void => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
      } catch {
        // It is gone.
      }
    };
    signal.addEventListener("abort", kill, { once: true });
    child.stdin?.on("error", () => {});
    child.stdin?.end(input);
    let done = false;
    try {
      if (child.stdout !== null) for await (const chunk of child.stdout) yield chunk as Buffer;
      const { code, error } = await ended;
      done = true;
      signal.throwIfAborted();
      if (error !== undefined) throw failed("git cannot be run", error.message);
      if (code !== 0) throw failed(what, complaint === "" ? `exit status ${code}` : complaint);
    } finally {
      signal.removeEventListener("abort", kill);
      if (!done) kill();
    }
  }

  async text(args: readonly string[], options?: RunOptions): Promise<string> {
    const parts: Buffer[] = [];
    let length = 0;
    for await (const chunk of this.stream(args, options)) {
      length += chunk.length;
      if (length > outputBytesMax) throw failed("git", "the repository has too many files");
      parts.push(chunk);
    }
    return Buffer.concat(parts).toString("utf8");
  }

  /** Fetches a ref and returns its commit. */
  async fetch(remote: string, ref: string): Promise<string> {
    const wanted = ref === "" ? "HEAD" : ref;
    try {
      await this.#fetch(["--depth=1", "--", remote, wanted]);
      return await this.#commit("FETCH_HEAD");
    } catch (error) {
      if (!(error instanceof EngineError) || error.code !== "git") throw error;
      const isPlainServer = /does not support shallow/.test(error.message);
      if (isPlainServer && !isHash(wanted)) {
        await this.#fetch(["--", remote, wanted]);
        return await this.#commit("FETCH_HEAD");
      }
      if (!isHash(wanted)) throw error;
    }
    // A commit that the server gives only as part of a branch.
    await this.#fetch([
      "--",
      remote,
      "+refs/heads/*:refs/fetched/heads/*",
      "+refs/tags/*:refs/fetched/tags/*",
    ]);
    return await this.#commit(wanted);
  }

  async #fetch(args: readonly string[]): Promise<void> {
    using watch = this.#watch();
    await this.text(
      ["fetch", "-q", "--no-tags", "--no-recurse-submodules", "--no-auto-maintenance", ...args],
      { what: "error fetching", stop: watch.signal },
    );
  }

  /** Ends a fetch that grows beyond its bound, or does not grow any more. */
  #watch(): { readonly signal: AbortSignal } & Disposable {
    const packs = join(this.gitDir, "objects/pack");
    const stop = new AbortController();
    let lastBytes = -1;
    let lastChange = performance.now();
    const timer = setInterval(() => {
      const bytes = sizeOf(packs);
      if (bytes !== lastBytes) lastChange = performance.now();
      lastBytes = bytes;
      if (bytes > limits.gitBytesMax) stop.abort(failed("error fetching", "the repository is too large"));
      else if (performance.now() - lastChange > stallMs)
        stop.abort(failed("error fetching", "the server has gone silent"));
    }, watchMs);
    return { signal: stop.signal, [Symbol.dispose]: () => clearInterval(timer) };
  }

  async #commit(name: string): Promise<string> {
    const text = await this.text(["rev-parse", "--verify", "-q", "--end-of-options", `${name}^{commit}`], {
      what: `the ref ${JSON.stringify(name)} names no commit`,
    });
    const commit = text.trim();
    if (!/^[0-9a-f]{40,64}$/.test(commit)) throw failed("git rev-parse", "no commit");
    return commit;
  }

  /** The tree of a commit, with the trees of its submodules in their places. */
  async tree(commit: string, remote: string, depth = 0): Promise<string> {
    const links = await this.#links(commit);
    if (links.length === 0) return `${commit}^{tree}`;
    if (depth >= submoduleDepthMax) throw failed("git submodules", "nested too deep");
    // Only the index changes; read-tree wants to be told of a working directory all the same.
    const env = {
      GIT_INDEX_FILE: join(this.#options.directory, `index-${depth}`),
      GIT_WORK_TREE: this.#options.directory,
    };
    rmSync(env.GIT_INDEX_FILE, { force: true });
    await this.text(["read-tree", commit], { env });
    for (const { path, hash, address } of links) {
      this.submodules += 1;
      if (this.submodules > submodulesMax) throw failed("git submodules", "too many");
      const from = remoteOf(absolute(address, remote));
      // A repository that anybody may have made must not name what the host's own keys open.
      if (isAnonymous(remote) && !isAnonymous(from))
        throw failed("git submodules", `${path} is to be fetched by ssh, but its repository was not`);
      const tree = await this.tree(await this.fetch(from, hash), from, depth + 1);
      await this.text(["update-index", "-z", "--index-info"], {
        env,
        input: `0 ${"0".repeat(hash.length)}\t${path}\0`,
      });
      await this.text(["read-tree", `--prefix=${path}/`, tree], { env });
    }
    return (await this.text(["write-tree"], { env })).trim();
  }

  /** Submodules that `.gitmodules` has an address for. */
  async #links(commit: string): Promise<{ path: string; hash: string; address: string }[]> {
    const listed = await this.text(["ls-tree", "-r", "-z", "--full-tree", commit]);
    const links = new Map<string, string>();
    for (const line of listed.split("\0")) {
      const match = /^160000 commit ([0-9a-f]+)\t(.*)$/s.exec(line);
      if (match !== null) links.set(match[2]!, match[1]!);
    }
    if (links.size === 0 || !/\t\.gitmodules\0/.test(listed)) return [];
    const config = await this.text([
      "config",
      "--no-includes",
      "--blob",
      `${commit}:.gitmodules`,
      "-z",
      "--list",
    ]);
    const fields = new Map<string, { path?: string; url?: string }>();
    for (const entry of config.split("\0")) {
      const match = /^submodule\.(.*)\.(path|url)\n(.*)$/s.exec(entry);
      if (match === null) continue;
      const field = fields.get(match[1]!) ?? {};
      fields.set(match[1]!, { ...field, [match[2]!]: match[3]! });
    }
    return [...fields.values()].flatMap(({ path, url }) => {
      const hash = path === undefined ? undefined : links.get(path);
      return hash === undefined || url === undefined ? [] : [{ path: path!, hash, address: url }];
    });
  }
}

interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string;
  /** In front of git's words when it fails. */
  readonly what?: string;
  readonly stop?: AbortSignal;
}

function isHash(text: string): boolean {
  return /^[0-9a-f]{7,64}$/.test(text);
}

function sizeOf(directory: string): number {
  try {
    return readdirSync(directory).reduce(
      (sum, name) => sum + (statSync(join(directory, name), { throwIfNoEntry: false })?.size ?? 0),
      0,
    );
  } catch {
    return 0;
  }
}

/** `../other.git` counts from the repository that it is in (gitmodules(5)). */
function absolute(address: string, base: string): string {
  if (!/^\.\.?\//.test(address)) return address;
  const scp = /^([^:/]+:)(.*)$/.exec(base);
  if (scp !== null && !/^[a-z]+:\/\//i.test(base)) return scp[1]! + posix.join(scp[2]!, address);
  const url = new URL(base);
  url.pathname = posix.join(url.pathname, address);
  return String(url);
}

/** Fetches what a reference names. Throws `invalid` (code `git`) in git's words; secrets of addresses are left out. */
export async function fetchGit(reference: GitReference, options: GitOptions): Promise<GitTree> {
  const { directory, remote, ref } = { ...reference };
  const repository = new Repository(options);
  mkdirSync(repository.gitDir, { recursive: true, mode: 0o755 });
  await repository.text(["init", "-q", "--bare", "--template="]);
  const attributes = join(repository.gitDir, "info/attributes");
  mkdirSync(join(repository.gitDir, "info"), { recursive: true });
  // The files as a checkout has them, whatever the repository wants left out of archives.
  writeFileSync(attributes, "* -export-ignore -export-subst\n");
  const commit = await repository.fetch(remote, ref);
  const committedAt = Number((await repository.text(["show", "-s", "--format=%ct", commit])).trim());
  const whole = await repository.tree(commit, remote);
  const tree = await subtree(repository, whole, directory);
  return {
    commit,
    committedAt,
    archive: async function* () {
      // Of a commit, since that of a bare tree has the time of the day.
      const who = { NAME: "build", EMAIL: "build", DATE: `${committedAt} +0000` };
      const env = Object.fromEntries(
        Object.entries(who).flatMap(([key, value]) => [
          [`GIT_AUTHOR_${key}`, value],
          [`GIT_COMMITTER_${key}`, value],
        ]),
      );
      const made = (await repository.text(["commit-tree", tree], { env })).trim();
      yield* repository.stream(["archive", "--format=tar", made]);
    },
    checkOut: async (target) => {
      const env = { GIT_INDEX_FILE: join(options.directory, "index-out"), GIT_WORK_TREE: target };
      await repository.text(["read-tree", tree], { env });
      await repository.text(["checkout-index", "-a", "-f", "-q"], { env });
    },
    keepGitDirectory: async () => {
      await repository.text(["config", "core.bare", "false"]);
      await repository.text(["config", "remote.origin.url", withoutSecrets(remote)]);
      await repository.text(["update-ref", "--no-deref", "HEAD", commit]);
      await repository.text(["read-tree", commit]);
      rmSync(attributes);
      rmSync(join(repository.gitDir, "FETCH_HEAD"), { force: true });
    },
  };
}

async function subtree(repository: Repository, tree: string, directory: string): Promise<string> {
  const name = directory === "" ? tree : `${tree.replace(/\^\{tree\}$/, "")}:${directory}`;
  const what = directory === "" ? "git" : `the repository has no directory ${JSON.stringify(directory)}`;
  const hash = (
    await repository.text(["rev-parse", "--verify", "-q", "--end-of-options", name], { what })
  ).trim();
  const type = (await repository.text(["cat-file", "-t", hash], { what })).trim();
  if (type !== "tree") throw failed("git", `${JSON.stringify(directory)} is no directory of the repository`);
  return hash;
}
