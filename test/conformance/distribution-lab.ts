import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type IncomingHttpHeaders, type OutgoingHttpHeaders, request } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { openRegistry, type Registry, type RegistryOptions } from "#registry-server/registry.ts";
import { mediaTypes } from "#wire/oci-image.ts";

/** Our registry over real HTTP, and what the tests of the distribution spec say to it. */

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  json<T = Record<string, unknown>>(): T;
  /** Codes of the error body. */
  codes(): string[];
}

export interface Ask {
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: Uint8Array | string;
}

export function sha(bytes: Uint8Array | string, algorithm: "sha256" | "sha512" = "sha256"): string {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}`;
}

export interface PushedImage {
  readonly digest: string;
  readonly bytes: Buffer;
  readonly config: Buffer;
  readonly layer: Buffer;
}

export class DistributionLab implements AsyncDisposable {
  readonly port: number;
  readonly root: string;
  readonly #options: Partial<RegistryOptions>;
  readonly #parts: AsyncDisposableStack;
  readonly #open: { registry: Registry };
  #nextRepository = 0;

  static async open(options: Partial<RegistryOptions> = {}): Promise<DistributionLab> {
    await using parts = new AsyncDisposableStack();
    const root = options.root ?? mkdtempSync(join(tmpdir(), "skiff-distribution-"));
    if (options.root === undefined) parts.defer(() => rmSync(root, { recursive: true, force: true }));
    const open = { registry: await openRegistry({ ...options, root }) };
    parts.defer(() => open.registry.close());
    const server = createServer((incoming, response) => open.registry.handle(incoming, response));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    parts.defer(async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    });
    return new DistributionLab((server.address() as AddressInfo).port, root, options, open, parts.move());
  }

  private constructor(
    port: number,
    root: string,
    options: Partial<RegistryOptions>,
    open: { registry: Registry },
    parts: AsyncDisposableStack,
  ) {
    this.port = port;
    this.root = root;
    this.#options = options;
    this.#open = open;
    this.#parts = parts;
  }

  get registry(): Registry {
    return this.#open.registry;
  }

  /** Closes the registry and opens it again on the same root, perhaps with other options. */
  async reopen(options: Partial<RegistryOptions> = {}): Promise<void> {
    await this.registry.close();
    this.#open.registry = await openRegistry({ ...this.#options, ...options, root: this.root });
  }

  /** A repository of the test's own. */
  fresh(): string {
    this.#nextRepository += 1;
    return `test/r${this.#nextRepository}`;
  }

  async ask(method: string, path: string, { headers = {}, body }: Ask = {}): Promise<Answer> {
    return await new Promise((resolve, reject) => {
      const length =
        body === undefined || headers["transfer-encoding"] !== undefined
          ? {}
          : { "content-length": Buffer.byteLength(body) };
      const outgoing = request(
        {
          host: "127.0.0.1",
          port: this.port,
          method,
          path,
          headers: { ...length, ...headers },
          agent: false,
        },
        (incoming) => {
          const chunks: Buffer[] = [];
          incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
          incoming.on("error", reject);
          incoming.on("end", () => {
            const bytes = Buffer.concat(chunks);
            resolve({
              status: incoming.statusCode ?? 0,
              headers: incoming.headers,
              body: bytes,
              json: <T>() => JSON.parse(bytes.toString()) as T,
              codes: () =>
                (JSON.parse(bytes.toString()) as { errors: { code: string }[] }).errors.map(
                  ({ code }) => code,
                ),
            });
          });
        },
      );
      outgoing.on("error", reject);
      outgoing.end(body);
    });
  }

  async begin(repository: string): Promise<string> {
    const answer = await this.ask("POST", `/v2/${repository}/blobs/uploads/`);
    assert.equal(answer.status, 202);
    return location(answer);
  }

  async putBlob(repository: string, bytes: Uint8Array, digest = sha(bytes)): Promise<string> {
    const answer = await this.ask("POST", `/v2/${repository}/blobs/uploads/?digest=${digest}`, {
      body: bytes,
    });
    assert.equal(answer.status, 201, answer.body.toString());
    return digest;
  }

  async putManifest(repository: string, reference: string, document: object): Promise<Answer> {
    const type = (document as { mediaType?: string }).mediaType ?? mediaTypes.ociManifest;
    const body = JSON.stringify(document);
    const headers = { "content-type": type };
    return await this.ask("PUT", `/v2/${repository}/manifests/${reference}`, { headers, body });
  }

  /** An image of one layer under a tag. */
  async pushImage(
    repository: string,
    tag: string,
    more: object = {},
    text = `layer of ${tag}`,
  ): Promise<PushedImage> {
    const config = Buffer.from(JSON.stringify({ os: "linux", architecture: "amd64", note: text }));
    const layer = Buffer.from(text);
    await this.putBlob(repository, config);
    await this.putBlob(repository, layer);
    const document = imageManifest(config, [layer], more);
    const answer = await this.putManifest(repository, tag, document);
    assert.equal(answer.status, 201, answer.body.toString());
    const bytes = Buffer.from(JSON.stringify(document));
    return { digest: sha(bytes), bytes, config, layer };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.disposeAsync();
  }
}

export function location(answer: Answer): string {
  const found = answer.headers.location;
  assert.equal(typeof found, "string", "Location");
  return found!;
}

export function withDigest(path: string, digest: string): string {
  return `${path}${path.includes("?") ? "&" : "?"}digest=${encodeURIComponent(digest)}`;
}

export function imageManifest(config: Uint8Array, layers: readonly Uint8Array[], more: object = {}): object {
  return {
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    config: { mediaType: mediaTypes.ociConfig, digest: sha(config), size: config.length },
    layers: layers.map((layer) => ({
      mediaType: mediaTypes.ociLayer,
      digest: sha(layer),
      size: layer.length,
    })),
    ...more,
  };
}

/** A requirement in our words, its place in the spec, and what shows it. */
export type Requirement = readonly [
  level: "MUST" | "SHOULD" | "MAY",
  what: string,
  check: (lab: DistributionLab, repository: string) => Promise<void>,
];

/** One test a requirement, all against one registry, each in a repository of its own. */
export function requirements(category: string, table: readonly Requirement[]): void {
  let lab: DistributionLab;
  before(async () => {
    lab = await DistributionLab.open();
  });
  after(() => lab[Symbol.asyncDispose]());
  for (const [level, what, check] of table) {
    test(`${category} ${level}: ${what}`, () => check(lab, lab.fresh()));
  }
}
