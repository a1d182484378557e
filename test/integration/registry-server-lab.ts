import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { lstatSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** `skiff registry serve` as users run it, and a small client that speaks to it in plain requests. */

const root = join(import.meta.dirname, "../..");
export const skiff = join(root, "bin/skiff");

export interface Served extends AsyncDisposable {
  /** `127.0.0.1:<port>` */
  readonly address: string;
  readonly metrics: string | undefined;
  readonly root: string;
  readonly child: ChildProcess;
  /** Its own log. */
  log(): string;
  /** What it wrote to its access log. */
  requests(): Record<string, unknown>[];
  /** Waits for its log to hold the text. */
  logged(text: string): Promise<void>;
  /** Resolves with the exit code. */
  readonly exited: Promise<number | null>;
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>;
}

/** A folder below /tmp that goes with the stack. */
export function temporaryFolder(stack: AsyncDisposableStack | DisposableStack): string {
  const folder = mkdtempSync(join(tmpdir(), "skiff-registry-"));
  stack.defer(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Starts a server on a free port of loopback; `flags` may say otherwise. */
export async function serve(folder: string, ...flags: string[]): Promise<Served> {
  const at = (name: string): string => join(folder, name);
  const argv = ["registry", "serve", "--root", at("root"), "--listen", "127.0.0.1:0", ...flags];
  const child = spawn(skiff, argv, { stdio: ["ignore", openSync(at("out"), "a"), openSync(at("err"), "w")] });
  const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
  const log = (): string => readFileSync(at("err"), "utf8");
  const logged = async (text: string): Promise<void> => {
    const deadline = performance.now() + 60_000;
    while (!log().includes(text)) {
      assert.equal(child.exitCode, null, log());
      assert.ok(performance.now() < deadline, `no ${text} in ${log()}`);
      await sleep(10);
    }
  };
  const end = async (signal: NodeJS.Signals): Promise<number | null> => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal);
    return await exited;
  };
  await logged("the registry is ready");
  const ready = JSON.parse(
    log()
      .split("\n")
      .find((line) => line.includes("is ready"))!,
  ) as { listen: string; metricsListen?: string };
  return {
    address: ready.listen,
    metrics: ready.metricsListen,
    root: at("root"),
    child,
    exited,
    log,
    logged,
    requests: () =>
      readFileSync(at("out"), "utf8")
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as Record<string, unknown>),
    stop: () => end("SIGTERM"),
    async [Symbol.asyncDispose]() {
      await end("SIGKILL");
    },
  };
}

export interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs a program to its end. */
export function run(
  program: string,
  args: readonly string[],
  env = process.env,
  input = "",
): Promise<Outcome> {
  const child = spawn(program, [...args], { env, timeout: 60_000, killSignal: "SIGKILL" });
  const texts = { out: "", err: "" };
  child.stdout.on("data", (bytes: Buffer) => {
    texts.out += bytes.toString();
  });
  child.stderr.on("data", (bytes: Buffer) => {
    texts.err += bytes.toString();
  });
  // A program that reads nothing may be gone already.
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code: code ?? -1, ...texts }));
  });
}

/** An htpasswd file made by `skiff registry passwd`: name → password. */
export async function passwordFile(path: string, users: Readonly<Record<string, string>>): Promise<string> {
  for (const [user, password] of Object.entries(users)) {
    const { code, err } = await run(skiff, ["registry", "passwd", path, user], process.env, `${password}\n`);
    assert.equal(code, 0, err);
  }
  return path;
}

/** Certificate and key for 127.0.0.1, self-signed. */
export function certificate(folder: string, name: string): { cert: string; key: string } {
  const cert = join(folder, `${name}.crt`);
  const key = join(folder, `${name}.key`);
  const kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
  const names = ["-subj", `/CN=${name}`, "-addext", "subjectAltName=IP:127.0.0.1"];
  execFileSync("openssl", ["req", ...kind, ...names, "-keyout", key, "-out", cert], { stdio: "ignore" });
  return { cert, key };
}

export const basic = (user: string, password: string): string =>
  `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;

export const digestOf = (bytes: Uint8Array): string =>
  `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

const manifestType = "application/vnd.oci.image.manifest.v1+json";

/** A client of one repository. */
export class Client {
  readonly #base: string;
  readonly #headers: Record<string, string>;

  constructor(address: string, repository: string, authorization?: string) {
    this.#base = `http://${address}/v2/${repository}`;
    this.#headers = authorization === undefined ? {} : { authorization };
  }

  async ask(
    method: string,
    path: string,
    options: { body?: Uint8Array; type?: string } = {},
  ): Promise<Response> {
    const headers = { ...this.#headers, ...(options.type && { "content-type": options.type }) };
    const url = path.startsWith("http") ? path : `${this.#base}${path}`;
    return await fetch(url, {
      method,
      headers,
      ...(options.body && { body: options.body as Uint8Array<ArrayBuffer> }),
    });
  }

  /** As clients do it: asks first, uploads what is not there. */
  async pushBlob(bytes: Uint8Array): Promise<{ digest: string; size: number }> {
    const digest = digestOf(bytes);
    const there = await this.ask("HEAD", `/blobs/${digest}`);
    if (there.status !== 200) {
      const begun = await this.ask("POST", "/blobs/uploads/");
      assert.equal(begun.status, 202, await begun.text());
      const target = new URL(begun.headers.get("location")!, this.#base);
      target.searchParams.set("digest", digest);
      const done = await this.ask("PUT", target.href, { body: bytes, type: "application/octet-stream" });
      assert.equal(done.status, 201, await done.text());
    }
    return { digest, size: bytes.length };
  }

  /** Pushes an image of these layers; pushes again what a collection took meanwhile. Returns the manifest's digest. */
  async push(tag: string, layers: readonly Uint8Array[]): Promise<string> {
    for (let tries = 0; ; tries += 1) {
      const config = await this.pushBlob(Buffer.from(JSON.stringify({ tag })));
      const pushed = [];
      for (const layer of layers) pushed.push(await this.pushBlob(layer));
      const body = Buffer.from(
        JSON.stringify({
          schemaVersion: 2,
          mediaType: manifestType,
          config: { mediaType: "application/vnd.oci.image.config.v1+json", ...config },
          layers: pushed.map((blob) => ({ mediaType: "application/vnd.oci.image.layer.v1.tar", ...blob })),
        }),
      );
      const answer = await this.ask("PUT", `/manifests/${tag}`, { body, type: manifestType });
      if (answer.status === 201) return digestOf(body);
      const text = await answer.text();
      assert.ok(tries < 300 && /BLOB_UNKNOWN/.test(text), `${answer.status} ${text}`);
    }
  }

  /** Reads a whole image and checks each digest. Returns its bytes. */
  async pull(reference: string): Promise<number> {
    const answer = await this.ask("GET", `/manifests/${reference}`);
    assert.equal(answer.status, 200, `manifest ${reference}`);
    const document = (await answer.json()) as { config: { digest: string }; layers: { digest: string }[] };
    let total = 0;
    for (const { digest } of [document.config, ...document.layers]) {
      const blob = await this.ask("GET", `/blobs/${digest}`);
      assert.equal(blob.status, 200, `blob ${digest} of ${reference}`);
      const bytes = new Uint8Array(await blob.arrayBuffer());
      assert.equal(digestOf(bytes), digest);
      total += bytes.length;
    }
    return total;
  }
}

/** Bytes that a folder takes on the disk. */
export function diskBytes(folder: string): number {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + lstatSync(join(entry.parentPath, entry.name)).blocks * 512, 0);
}
