import type { Readable } from "node:stream";
import { type Digest, digestOf } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";
import { contradiction } from "./claimed-digest.ts";
import { isLinkLocal } from "./link-local.ts";
import { TransportError } from "./network-error.ts";
import { RegistryError } from "./registry-error.ts";
import type { Remote } from "./remote.ts";
import { pauseAloud, retryDelay } from "./retry.ts";
import { backoffFor, type RegistryTiming } from "./timing.ts";
import { cancelled, discard, type HttpAnswer } from "./transport.ts";
import { uploadStream } from "./upload-stream.ts";

/** Bytes to be sent, from wherever they lie; `open` may be asked several times. */
export interface PushBlob {
  readonly digest: Digest;
  readonly sizeBytes: number;
  open(fromByte: number): Readable;
}

export interface PushOptions {
  readonly signal: AbortSignal;
  /** Bytes that the registry has by now, as far as we know. */
  readonly onProgress?: (sentBytes: number) => void;
  readonly onRetry?: (seconds: number) => void;
  /** Repositories of the same registry that may hold the blob; tried in order. */
  readonly mountFrom?: readonly string[];
  /** This blob's upload, where it began before the blob was whole. */
  readonly early?: EarlyUpload;
}

/** An upload that was begun without knowing length and digest, which only its end needs. */
export interface EarlyUpload {
  /** All of it was sent: where it is to be ended. Rejects where the registry would not have it so, or it broke off. */
  readonly sent: Promise<URL>;
  /** How far it got, wherever it broke off. */
  state(): { readonly location: URL; readonly sentBytes: number } | undefined;
}

export type PushOutcome =
  | { readonly kind: "exists" | "uploaded" }
  | { readonly kind: "mounted"; readonly from: string };

/** An upload that was begun: where to send, and how much is there. */
interface Upload {
  readonly location: URL;
  readonly offset: number;
}

/** One repository, written to (OCI distribution spec, "Push"). Never a mirror. */
export class PushRepository {
  readonly #path: string;
  readonly #remotes: readonly Remote[];
  readonly #timing: RegistryTiming;
  #remote: Remote | undefined;

  constructor(path: string, remotes: readonly Remote[], timing: RegistryTiming) {
    this.#path = path;
    this.#remotes = remotes;
    this.#timing = timing;
  }

  /** Finds the address that answers; one reached by https is never left for http. Throws `TransportError` of the last. */
  async connect(signal: AbortSignal): Promise<void> {
    let failure: unknown;
    for (const remote of this.#remotes) {
      try {
        await remote.reach(signal);
        this.#remote = remote;
        return;
      } catch (error) {
        failure = error;
        if (signal.aborted || !(error instanceof TransportError) || remote.reached) throw error;
      }
    }
    throw failure;
  }

  get #there(): Remote {
    if (this.#remote === undefined) throw new EngineError("system", "the registry was not asked yet");
    return this.#remote;
  }

  /** Whether the repository has a blob. */
  async hasBlob(digest: Digest, signal: AbortSignal): Promise<boolean> {
    try {
      const answer = await this.#there.patiently({
        method: "HEAD",
        path: `${this.#path}/blobs/${digest}`,
        signal,
      });
      await discard(answer);
      return true;
    } catch (error) {
      if (error instanceof RegistryError && error.status === 404) return false;
      throw error;
    }
  }

  /** Brings a blob into the repository: not at all where it is, by mounting where that works, else by sending it. */
  async blob(blob: PushBlob, options: PushOptions): Promise<PushOutcome> {
    const { signal, mountFrom = [], early } = options;
    if (early !== undefined && (await this.#finishEarly(blob, early, options))) return { kind: "uploaded" };
    if (await this.hasBlob(blob.digest, signal)) return { kind: "exists" };
    let begun: Upload | undefined;
    for (const from of mountFrom) {
      const answer = await this.#begin(signal, { mount: blob.digest, from });
      if (answer === undefined) return { kind: "mounted", from };
      begun = answer;
      break;
    }
    await this.#upload(blob, begun ?? (await this.#begin(signal)), options);
    return { kind: "uploaded" };
  }

  /**
   * Sends what grows while its length and digest are not known yet, as docker's own client does: POST, one PATCH without a
   * length, and in `blob` the PUT that names the digest. Whatever goes wrong is for `blob` to mend. `open` gives all of it.
   */
  sendEarly(open: () => Readable, options: Pick<PushOptions, "signal" | "onProgress">): EarlyUpload {
    let location: URL | undefined;
    let sentBytes = 0;
    const send = async (): Promise<URL> => {
      ({ location } = await this.#begin(options.signal));
      const answer = await this.#stream("PATCH", location, { open }, options.signal, (sent) => {
        sentBytes = sent;
        options.onProgress?.(sent);
      });
      return this.#location(answer);
    };
    const sent = send();
    sent.catch(() => {});
    return { sent, state: () => (location === undefined ? undefined : { location, sentBytes }) };
  }

  /** Ends an early upload; where it broke off, goes on with it if the registry can. False: to be sent as if nothing was. */
  async #finishEarly(blob: PushBlob, early: EarlyUpload, options: PushOptions): Promise<boolean> {
    const { signal } = options;
    try {
      await this.#finish(await early.sent, blob.digest, signal);
      return true;
    } catch (error) {
      if (signal.aborted) throw cancelled(signal);
      if (error instanceof EngineError && error.code === "wrong-digest") throw error;
      await pauseAloud(retryDelay(error, 1, this.#timing) ?? 0, options);
      const state = early.state();
      if (state === undefined) return false;
      const begun = await this.#resumed({ location: state.location, offset: 0 }, state.sentBytes, signal);
      if (begun === undefined) return false;
      await this.#upload(blob, begun, options);
      return true;
    }
  }

  /** Begins an upload. Undefined when the registry mounted the blob instead. */
  async #begin(signal: AbortSignal): Promise<Upload>;
  async #begin(signal: AbortSignal, mount: { mount: Digest; from: string }): Promise<Upload | undefined>;
  async #begin(signal: AbortSignal, mount?: { mount: Digest; from: string }): Promise<Upload | undefined> {
    const query = mount === undefined ? "" : `?${new URLSearchParams(mount).toString()}`;
    const answer = await this.#there.patiently({
      method: "POST",
      path: `${this.#path}/blobs/uploads/${query}`,
      headers: { "content-length": "0" },
      signal,
    });
    await discard(answer);
    if (answer.status === 201 && mount !== undefined) return undefined;
    return { location: this.#location(answer), offset: 0 };
  }

  /** Where an upload goes on: perhaps elsewhere, but never from https to http. */
  #location(answer: HttpAnswer): URL {
    const { location } = answer.headers;
    const bad = (why: string): TransportError =>
      new TransportError(`Post "${answer.url.origin}${answer.url.pathname}": ${why}`, false);
    if (typeof location !== "string") throw bad("the registry gave no upload location");
    let url: URL;
    try {
      url = new URL(location, answer.url);
    } catch {
      throw bad("failed to parse Location header");
    }
    if (url.protocol !== "https:" && url.protocol !== "http:")
      throw bad("upload location of unsupported protocol");
    if (answer.url.protocol === "https:" && url.protocol === "http:") {
      throw bad("refusing an upload location that falls from https to http");
    }
    if (isLinkLocal(url.hostname) && url.host !== answer.url.host) {
      throw bad("refusing an upload location at a link-local address");
    }
    url.username = "";
    url.password = "";
    return url;
  }

  /** Sends a blob whole; after a break asks how much is there and sends the rest. */
  async #upload(blob: PushBlob, begun: Upload, options: PushOptions): Promise<void> {
    const { signal } = options;
    let upload: Upload | undefined = begun;
    let furthest = -1;
    let attempt = 0;
    let sentMax = 0;
    const counted: PushOptions = {
      ...options,
      onProgress: (sent) => {
        sentMax = Math.max(sentMax, sent);
        options.onProgress?.(sent);
      },
    };
    for (let total = 1; ; total += 1) {
      try {
        upload ??= await this.#begin(signal);
        await this.#send(blob, upload, counted);
        return;
      } catch (error) {
        if (signal.aborted) throw cancelled(signal);
        const lost = isLostUpload(error, upload);
        const wait = total >= this.#timing.resumesMax ? undefined : this.#delay(error, lost, attempt + 1);
        if (wait === undefined) throw error;
        await pauseAloud(wait, options);
        upload = upload === undefined || lost ? undefined : await this.#resumed(upload, sentMax, signal);
        const there = upload?.offset ?? 0;
        attempt = there > furthest ? 1 : attempt + 1;
        furthest = Math.max(furthest, there);
      }
    }
  }

  #delay(error: unknown, lost: boolean, attempt: number): number | undefined {
    if (!lost) return retryDelay(error, attempt, this.#timing);
    return attempt >= this.#timing.attemptsMax ? undefined : backoffFor(attempt, this.#timing);
  }

  /**
   * How far a broken upload got, or undefined where it must begin again: also when the registry says that it has more than
   * was ever sent, since those bytes are not the blob's.
   */
  async #resumed(upload: Upload, sentMax: number, signal: AbortSignal): Promise<Upload | undefined> {
    try {
      const answer = await this.#there.once({ method: "GET", path: upload.location, signal });
      await discard(answer);
      const match = /^(?:bytes=)?0-(\d{1,15})$/.exec(String(answer.headers["range"] ?? ""));
      const location = answer.headers.location === undefined ? upload.location : this.#location(answer);
      // `0-0` stands for nothing at all and for one byte: beginning at 0 again is refused, so it begins anew.
      const offset = match === null ? 0 : Number(match[1]) + 1;
      return offset > 1 && offset <= sentMax ? { location, offset } : undefined;
    } catch (error) {
      if (signal.aborted) throw cancelled(signal);
      if (error instanceof EngineError) return undefined;
      throw error;
    }
  }

  async #send(blob: PushBlob, upload: Upload, options: PushOptions): Promise<void> {
    const { digest, sizeBytes } = blob;
    const { offset } = upload;
    const { signal } = options;
    const onSent = (sent: number): void => options.onProgress?.(offset + sent);
    const body = { open: () => blob.open(offset), length: sizeBytes - offset };
    if (offset === 0) {
      const answer = await this.#stream("PUT", withDigest(upload.location, digest), body, signal, onSent);
      checkDigest(answer, digest, "layer");
      return;
    }
    let { location } = upload;
    if (body.length > 0) {
      const range = { "content-range": `${offset}-${sizeBytes - 1}` };
      location = this.#location(await this.#stream("PATCH", location, body, signal, onSent, range));
    }
    await this.#finish(location, digest, signal);
  }

  async #finish(location: URL, digest: Digest, signal: AbortSignal): Promise<void> {
    const path = withDigest(location, digest);
    const answer = await this.#there.once({
      method: "PUT",
      path,
      headers: { "content-length": "0" },
      signal,
    });
    await discard(answer);
    checkDigest(answer, digest, "layer");
  }

  /** Sends a body whose length is known, or comes to an end some time. */
  async #stream(
    method: "PUT" | "PATCH",
    path: URL,
    { open, length }: { readonly open: () => Readable; readonly length?: number },
    signal: AbortSignal,
    onSent: (sentBytes: number) => void,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<HttpAnswer> {
    const watched = uploadStream(signal, this.#timing, onSent);
    try {
      const answer = await this.#there.once({
        method,
        path,
        headers: {
          ...headers,
          "content-type": "application/octet-stream",
          ...(length === undefined ? {} : { "content-length": String(length) }),
        },
        ...(length === 0 ? {} : { body: () => watched.wrap(open()) }),
        signal: watched.signal,
      });
      await discard(answer);
      return answer;
    } catch (error) {
      throw watched.reason(error);
    } finally {
      watched.stop();
    }
  }

  /** Puts a manifest under a tag or its digest; the digest that the registry then knows it by. */
  async manifest(name: string, bytes: Buffer, mediaType: string, signal: AbortSignal): Promise<Digest> {
    const answer = await this.#there.patiently({
      method: "PUT",
      path: `${this.#path}/manifests/${name}`,
      headers: { "content-type": mediaType },
      body: () => bytes,
      signal,
    });
    await discard(answer);
    const digest = digestOf(bytes);
    checkDigest(answer, digest, "manifest");
    return digest;
  }
}

/** The registry no longer knows the upload, or what it has of it is not the blob's: nothing of it can be used. */
function isLostUpload(error: unknown, upload: Upload | undefined): boolean {
  if (!(error instanceof RegistryError)) return false;
  const resumed = (upload?.offset ?? 0) > 0;
  return error.status === 404 || error.status === 416 || (resumed && error.registryCode === "DIGEST_INVALID");
}

/** A registry that says what it stored, and says something else, has not stored what it was given. */
function checkDigest(answer: HttpAnswer, digest: Digest, what: string): void {
  if (contradiction(answer.headers, digest) === undefined) return;
  throw new EngineError("system", `${what} verification failed for digest ${digest}`, {
    code: "wrong-digest",
  });
}

function withDigest(location: URL, digest: Digest): URL {
  const url = new URL(location);
  url.searchParams.set("digest", digest);
  return url;
}
