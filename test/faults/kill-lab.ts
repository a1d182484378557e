import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep, setImmediate as turn } from "node:timers/promises";
import { type Answer, call } from "../peers/engine-call.ts";
import { busyboxRoot, pushLayout, tarOf, writeLayout } from "../peers/images.ts";
import { type PeerRegistry, startRegistry } from "../peers/registry.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";

export interface State {
  readonly Status: string;
  readonly Running: boolean;
  readonly ExitCode: number;
  readonly Pid: number;
  readonly StartedAt: string;
  readonly FinishedAt: string;
}

/** A request on its way. */
export interface Sent {
  /** The answer, or undefined when the daemon died before all of it had come. */
  readonly answer: Promise<Answer<unknown> | undefined>;
  answered(): boolean;
}

export interface Created {
  readonly name?: string;
  readonly host?: Readonly<Record<string, unknown>>;
  readonly volume?: boolean;
}

/**
 * An OCI layout of three layers beside busybox's, 10 MB that do not compress, whose default command prints the checksum
 * of everything in them. The caller removes `folder`.
 */
export function bigLayout(folder: string): { layout: string; checksum: string } {
  const root = join(folder, "root");
  mkdirSync(root);
  busyboxRoot(root);
  const layers = [tarOf(root)];
  const hash = createHash("sha256");
  for (const letter of ["a", "b", "c"]) {
    const layer = join(folder, letter);
    mkdirSync(join(layer, "var"), { recursive: true });
    for (let file = 100; file < 170; file += 1) {
      const bytes = randomBytes(50_000);
      hash.update(bytes);
      writeFileSync(join(layer, "var", `${letter}${file}`), bytes);
    }
    layers.push(tarOf(layer));
  }
  const layout = join(folder, "layout");
  writeLayout(layout, layers, { Cmd: ["sh", "-c", "cat /var/* | sha256sum"] });
  return { layout, checksum: hash.digest("hex") };
}

/**
 * A daemon that is killed, with two images in a registry: `image` (pulled) and `bigImage`.
 * With `kills: false` nothing is killed: what such a daemon leaves is the measure for one that was.
 */
export class KillLab implements AsyncDisposable {
  readonly daemon: TestDaemon;
  readonly image: string;
  readonly bigImage: string;
  readonly #registry: PeerRegistry;
  readonly #kills: boolean;

  private constructor(daemon: TestDaemon, registry: PeerRegistry, kills: boolean) {
    this.daemon = daemon;
    this.#registry = registry;
    this.#kills = kills;
    this.image = `${registry.address}/busybox:latest`;
    this.bigImage = `${registry.address}/big:latest`;
  }

  static async open(layouts: { small: string; big: string }, options: { kills: boolean }): Promise<KillLab> {
    const registry = await startRegistry();
    const lab = new KillLab(await startSkiffd(), registry, options.kills);
    pushLayout(layouts.small, lab.image);
    pushLayout(layouts.big, lab.bigImage);
    await lab.pull(lab.image);
    return lab;
  }

  send(method: string, path: string, body?: unknown): Sent {
    let answered = false;
    const answer = call(this.daemon.socket, method, path, body).then(
      (value) => {
        answered = true;
        return value;
      },
      () => undefined,
    );
    return { answer, answered: () => answered };
  }

  async must<T>(status: number, method: string, path: string, body?: unknown): Promise<T> {
    const answer = await call<T>(this.daemon.socket, method, path, body);
    assert.equal(answer.status, status, `${method} ${path}: ${answer.text}`);
    return answer.body as T;
  }

  async pull(image: string): Promise<void> {
    const answer = await call(
      this.daemon.socket,
      "POST",
      `/images/create?fromImage=${encodeURIComponent(image)}`,
    );
    assert.equal(answer.status, 200, answer.text);
    assert.doesNotMatch(answer.text, /"error"/);
  }

  body(script: string, { host, volume }: Created = {}): object {
    return {
      Image: this.image,
      Cmd: ["sh", "-c", script],
      ...(volume === true ? { Volumes: { "/volume": {} } } : {}),
      HostConfig: host ?? {},
    };
  }

  async create(script: string, options: Created = {}): Promise<string> {
    const query = options.name === undefined ? "" : `?name=${options.name}`;
    const path = `/containers/create${query}`;
    return (await this.must<{ Id: string }>(201, "POST", path, this.body(script, options))).Id;
  }

  async run(script: string, options: Created = {}): Promise<string> {
    const id = await this.create(script, options);
    await this.must(204, "POST", `/containers/${id}/start`);
    return id;
  }

  async state(id: string): Promise<State> {
    return (await this.must<{ State: State }>(200, "GET", `/containers/${id}/json`)).State;
  }

  /** undefined: no such container. */
  async find(id: string): Promise<{ readonly Id: string; readonly State: State } | undefined> {
    const answer = await call<{ Id: string; State: State }>(
      this.daemon.socket,
      "GET",
      `/containers/${id}/json`,
    );
    if (answer.status === 404) return undefined;
    assert.equal(answer.status, 200, answer.text);
    return answer.body;
  }

  async ended(id: string): Promise<State> {
    return this.until(`the end of ${id}`, async () => {
      const state = await this.state(id);
      return state.Running ? undefined : state;
    });
  }

  /** Asks again until there is an answer; 20 s at most. */
  async until<T>(what: string, ask: () => Promise<T | undefined>): Promise<T> {
    for (const deadline = performance.now() + 60_000; ; await sleep(20)) {
      const found = await ask();
      if (found !== undefined) return found;
      assert.ok(performance.now() < deadline, `waited in vain for ${what}`);
    }
  }

  /** Lines of the log, by the API; the container has no terminal. */
  async lines(id: string): Promise<string[]> {
    const answer = await call(this.daemon.socket, "GET", `/containers/${id}/logs?stdout=1&stderr=1`);
    assert.equal(answer.status, 200, answer.text);
    // Each line stands in a frame of its own: 8 bytes of header before it.
    return [...answer.text.matchAll(/(line \d+|began|[0-9a-f]{64} .-)\n/g)].map((match) => match[1]!);
  }

  /** Lines in the log file at this moment, without asking a daemon. */
  linesWritten(id: string): number {
    const text = readFileSync(join(this.daemon.dataRoot, "containers", id, `${id}-json.log`), "utf8");
    return text.split("\n").length - 1;
  }

  /** Runs a command in the container and gives what it wrote. */
  async exec(id: string, script: string): Promise<string> {
    const exec = await this.must<{ Id: string }>(201, "POST", `/containers/${id}/exec`, {
      Cmd: ["sh", "-c", script],
      AttachStdout: true,
      Tty: true, // No frames in what comes.
    });
    const shown = await call(this.daemon.socket, "POST", `/exec/${exec.Id}/start`, { Tty: true });
    assert.equal(shown.status, 200, shown.text);
    return shown.text.replaceAll("\r\n", "\n").trim();
  }

  /**
   * SIGKILL after so many milliseconds (fractions count: this process goes on turning meanwhile), then `look` at what was
   * unanswered at that very moment, then another daemon after `downMs`.
   */
  async crash<T>(delayMs: number, look: () => T, downMs = 0): Promise<T> {
    const at = performance.now() + delayMs;
    if (delayMs > 2) await sleep(Math.floor(delayMs) - 1);
    while (performance.now() < at) await turn();
    const seen = look();
    if (this.#kills) await this.daemon.kill();
    if (downMs > 0) await sleep(downMs);
    if (this.#kills) await this.daemon.restart();
    return seen;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.daemon[Symbol.asyncDispose]();
    await this.#registry[Symbol.asyncDispose]();
  }
}
