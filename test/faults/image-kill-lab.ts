import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { cpSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync, watch } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { PushProxy } from "../integration/push-proxy.ts";
import { call } from "../peers/engine-call.ts";
import { busyboxRoot, tarOf } from "../peers/images.ts";
import { type PeerRegistry, startRegistry } from "../peers/registry.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";

/** What lay in a data root when its daemon died: by this it is judged what the kill hit. */
export interface Mortem {
  readonly temporary: readonly string[];
  /** Layers being made. */
  readonly staging: readonly string[];
  readonly layerFolders: readonly string[];
  readonly layerRows: ReadonlySet<string>;
  /** Documents by id. */
  readonly images: ReadonlyMap<string, { readonly layers: readonly { readonly key: string }[] }>;
  readonly names: ReadonlyMap<string, string>;
  /** Containers of build steps. */
  readonly steps: number;
}

/** How an answer came, as far as it came. */
export interface Outcome {
  readonly status: number | undefined;
  readonly text: string;
  /** The daemon ended the answer itself. */
  readonly whole: boolean;
}

export interface Hooks {
  /** Called once half of the body has been sent; the other half never is. */
  readonly halfSent?: () => void;
  readonly onOutput?: (text: string) => void;
}

/** A daemon that is killed while images are made and sent, and a registry behind a proxy that sees what it is sent. */
export class ImageKillLab implements AsyncDisposable {
  readonly daemon: TestDaemon;
  readonly registry: PeerRegistry;
  readonly proxy: PushProxy;
  readonly #resources: AsyncDisposableStack;

  private constructor(
    daemon: TestDaemon,
    registry: PeerRegistry,
    proxy: PushProxy,
    resources: AsyncDisposableStack,
  ) {
    this.daemon = daemon;
    this.registry = registry;
    this.proxy = proxy;
    this.#resources = resources;
  }

  /** With the image `busybox`. */
  static async open(options: { dataRoot?: string } = {}): Promise<ImageKillLab> {
    const resources = new AsyncDisposableStack();
    const registry = resources.use(await startRegistry());
    const proxy = resources.use(await PushProxy.start(registry.port));
    const daemon = resources.use(await startSkiffd(options));
    const lab = new ImageKillLab(daemon, registry, proxy, resources);
    const folder = mkdtempSync(join(tmpdir(), "skiff-kill-base-"));
    try {
      busyboxRoot(folder);
      const path = "/images/create?fromSrc=-&repo=busybox&tag=latest";
      assert.equal((await lab.stream("POST", path, tarOf(folder), {})).status, 200);
    } finally {
      rmSync(folder, { recursive: true });
    }
    return lab;
  }

  /** A request whose body goes out in halves and whose answer is seen while it comes. */
  stream(method: string, path: string, body: Buffer, hooks: Hooks): Promise<Outcome> {
    return new Promise((resolve) => {
      let status: number | undefined;
      let text = "";
      const end = (whole: boolean): void => resolve({ status, text, whole });
      const sent = request({
        socketPath: this.daemon.socket,
        method,
        path,
        agent: false,
        headers: {
          "Content-Type": body.length === 0 ? "application/json" : "application/x-tar",
          "Content-Length": body.length,
        },
      });
      sent.on("error", () => end(false));
      sent.on("response", (answer) => {
        status = answer.statusCode;
        answer.setEncoding("utf8");
        answer.on("data", (chunk: string) => {
          text += chunk;
          hooks.onOutput?.(text);
        });
        answer.on("error", () => end(false));
        answer.on("end", () => end(true));
        answer.on("close", () => end(false));
      });
      const half = body.subarray(0, body.length >> 1);
      if (hooks.halfSent === undefined) sent.end(body);
      else sent.write(half, () => hooks.halfSent?.());
    });
  }

  async must<T>(status: number, method: string, path: string, body?: unknown): Promise<T> {
    const answer = await call<T>(this.daemon.socket, method, path, body);
    assert.equal(answer.status, status, `${method} ${path}: ${answer.text}`);
    return answer.body as T;
  }

  get dead(): boolean {
    const { child } = this.daemon;
    return child.killed || child.exitCode !== null || child.signalCode !== null;
  }

  /** At this very moment, or after some: nothing is awaited between the look and the kill. */
  kill(delayMs = 0): void {
    if (delayMs > 0) setTimeout(() => this.kill(), delayMs);
    else if (!this.dead) this.daemon.child.kill("SIGKILL");
  }

  path(...parts: readonly string[]): string {
    return join(this.daemon.dataRoot, ...parts);
  }

  /** Calls `then` once, as soon as a new name of this kind is in the folder: told by the kernel, not asked for. */
  onNew(folder: string, kind: RegExp, then: () => void): Disposable {
    const path = this.path(folder);
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const known = new Set(readdirSync(path));
    let seen = false;
    const watcher = watch(path, (_event, name) => {
      if (seen || name === null || !kind.test(name) || known.has(name)) return;
      seen = true;
      then();
    });
    return { [Symbol.dispose]: () => watcher.close() };
  }

  /** To be called when the daemon is dead. The database is read as a copy: its journal is the next daemon's to take up. */
  mortem(): Mortem {
    const copy = mkdtempSync(join(tmpdir(), "skiff-mortem-"));
    try {
      for (const name of ["state.db", "state.db-wal"]) {
        if (existsSync(this.path(name))) cpSync(this.path(name), join(copy, name));
      }
      using database = new DatabaseSync(join(copy, "state.db"));
      const rows = (sql: string): Record<string, string>[] =>
        database.prepare(sql).all() as Record<string, string>[];
      const overlay = readdirSync(this.path("overlay2"));
      return {
        temporary: existsSync(this.path("tmp")) ? readdirSync(this.path("tmp")) : [],
        staging: readdirSync(this.path("overlay2/tmp")),
        layerFolders: overlay.filter((name) => /^(?:c-)?[0-9a-f]{64}$/.test(name)),
        layerRows: new Set(rows("SELECT key FROM layer").map(({ key }) => key!)),
        images: new Map(
          rows("SELECT id, document FROM image").map(({ id, document }) => [id!, JSON.parse(document!)]),
        ),
        names: new Map(rows("SELECT name, image_id FROM reference").map((row) => [row.name!, row.image_id!])),
        steps: rows("SELECT document FROM container").filter(({ document }) =>
          document!.includes('"buildStep"'),
        ).length,
      };
    } finally {
      rmSync(copy, { recursive: true });
    }
  }

  /** Everything that the API shows of an image is there, and its default command says what it should. */
  async runs(image: string): Promise<string> {
    const { Id: id } = await this.must<{ Id: string }>(201, "POST", "/containers/create", {
      Image: image,
      Tty: true,
    });
    await this.must(204, "POST", `/containers/${id}/start`);
    const waited = await this.must<{ StatusCode: number }>(200, "POST", `/containers/${id}/wait`);
    const logs = await call(this.daemon.socket, "GET", `/containers/${id}/logs?stdout=1`);
    await this.must(204, "DELETE", `/containers/${id}?force=1&v=1`);
    assert.equal(waited.StatusCode, 0, logs.text);
    return logs.text.trim();
  }

  /**
   * The registry's view of a tag, asked behind the proxy's back: undefined when there is none; throws when there is one and
   * not every blob of it is there with its digest.
   */
  async tagOf(repository: string, tag = "latest"): Promise<string | undefined> {
    const base = `http://${this.registry.address}/v2/${repository}`;
    const accept = "application/vnd.oci.image.manifest.v1+json";
    const answer = await fetch(`${base}/manifests/${tag}`, { headers: { accept } });
    const bytes = Buffer.from(await answer.arrayBuffer());
    if (answer.status === 404) return undefined;
    assert.equal(answer.status, 200, bytes.toString());
    const manifest = JSON.parse(bytes.toString()) as { config: Described; layers: Described[] };
    for (const { digest, size } of [manifest.config, ...manifest.layers]) {
      const blob = await fetch(`${base}/blobs/${digest}`);
      assert.equal(blob.status, 200, `the tag ${repository}:${tag} names ${digest}, which is not there`);
      const content = Buffer.from(await blob.arrayBuffer());
      assert.deepEqual([content.length, digestOf(content)], [size, digest]);
    }
    return digestOf(bytes);
  }

  /** Bytes on the disk below what images are made of. */
  diskBytes(): number {
    const bytesBelow = (path: string): number =>
      readdirSync(path, { withFileTypes: true }).reduce((sum, entry) => {
        const inner = join(path, entry.name);
        const own = lstatSync(inner, { throwIfNoEntry: false });
        if (entry.isDirectory()) return sum + bytesBelow(inner);
        return sum + (entry.isFile() ? (own?.blocks ?? 0) * 512 : 0);
      }, 0);
    return ["overlay2", "content", "tmp"]
      .map((name) => this.path(name))
      .filter((path) => existsSync(path))
      .reduce((sum, path) => sum + bytesBelow(path), 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources.disposeAsync();
  }
}

interface Described {
  readonly digest: string;
  readonly size: number;
}

function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}
