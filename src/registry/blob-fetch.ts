import { EngineError } from "#base/errors.ts";
import type { BlobWriter } from "#content/content-store.ts";
import type { Descriptor } from "#wire/oci-image.ts";
import { TransportError, transportError } from "./network-error.ts";
import { watchRate } from "./rate-watch.ts";
import { RegistryError } from "./registry-error.ts";
import type { Remote } from "./remote.ts";
import { pauseAloud, retryDelay } from "./retry.ts";
import type { RegistryTiming } from "./timing.ts";
import { cancelled, type HttpAnswer } from "./transport.ts";

export interface BlobFetchOptions {
  readonly signal: AbortSignal;
  /** Bytes that are there by now. */
  readonly onProgress?: (receivedBytes: number) => void;
  /** A pause of so many seconds before the next attempt. */
  readonly onRetry?: (seconds: number) => void;
}

function wrongLength(descriptor: Descriptor): EngineError {
  return new EngineError("system", `filesystem layer verification failed for digest ${descriptor.digest}`, {
    code: "wrong-length",
  });
}

/** Downloads with resume: each attempt asks for the range behind what is there. */
export async function fetchBlob(
  remote: Remote,
  path: string,
  descriptor: Descriptor,
  writer: BlobWriter,
  options: BlobFetchOptions,
  timing: RegistryTiming,
): Promise<void> {
  const { signal } = options;
  const position = { received: writer.offset };
  let attempt = 0;
  for (let total = 1; position.received < descriptor.size; total += 1) {
    const before = position.received;
    try {
      await onePass(remote, path, descriptor, writer, position, options, timing);
    } catch (error) {
      if (signal.aborted) throw cancelled(signal);
      attempt = position.received > before ? 1 : attempt + 1;
      const wait = total >= timing.resumesMax ? undefined : retryDelay(error, attempt, timing);
      if (wait === undefined) throw error;
      await pauseAloud(wait, options);
    }
  }
}

async function onePass(
  remote: Remote,
  path: string,
  descriptor: Descriptor,
  writer: BlobWriter,
  position: { received: number },
  options: BlobFetchOptions,
  timing: RegistryTiming,
): Promise<void> {
  const answer = await ask(remote, path, position.received, options.signal);
  const start = startOf(answer);
  if (start === undefined || start > position.received) {
    answer.body.destroy();
    throw new TransportError("registry answered with another range", false);
  }
  const length = answer.headers["content-length"];
  if (typeof length === "string" && start + Number(length) > descriptor.size) {
    answer.body.destroy();
    throw wrongLength(descriptor);
  }
  let skip = position.received - start;
  const rate = watchRate(answer.body, timing);
  try {
    for await (const chunk of answer.body as AsyncIterable<Buffer>) {
      rate.seen += chunk.length;
      // A server without ranges sends it all again; what a reader may have taken already is not written twice.
      const fresh = skip === 0 ? chunk : chunk.subarray(Math.min(skip, chunk.length));
      skip -= chunk.length - fresh.length;
      if (fresh.length === 0) continue;
      const received = position.received + fresh.length;
      if (received > descriptor.size) throw wrongLength(descriptor);
      rate.writing = true;
      await writer.write(fresh);
      rate.writing = false;
      position.received = received;
      options.onProgress?.(position.received);
    }
  } catch (error) {
    // What went wrong on the writer's side (a full disk) is no transport error and is not tried again.
    if (error instanceof EngineError || rate.writing) throw error;
    throw transportError("GET", answer.url, error);
  } finally {
    rate.stop();
    answer.body.destroy();
  }
  if (position.received < descriptor.size) throw new TransportError("unexpected EOF", true);
}

async function ask(remote: Remote, path: string, from: number, signal: AbortSignal): Promise<HttpAnswer> {
  const headers: Record<string, string> = from === 0 ? {} : { range: `bytes=${from}-` };
  try {
    return await remote.once({ method: "GET", path, headers, signal });
  } catch (error) {
    // A registry that has no such range may have the blob. What is there stays, since a reader may have taken it: the digest
    // tells whether it was right.
    if (error instanceof RegistryError && error.status === 416 && from > 0)
      return await ask(remote, path, 0, signal);
    throw error;
  }
}

/** Where the body begins: 0 unless the answer is partial, undefined when it is and does not say. */
function startOf(answer: HttpAnswer): number | undefined {
  if (answer.status !== 206) return 0;
  const match = /^bytes (\d{1,15})-/.exec(String(answer.headers["content-range"] ?? ""));
  return match === null ? undefined : Number(match[1]);
}
