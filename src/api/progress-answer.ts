import { messageOf } from "#base/errors.ts";
import type { Report } from "#engine/image-context.ts";
import { ProgressQueue } from "#engine/image-progress.ts";
import { encodeJsonMessage, type JsonMessage } from "#wire/json-message.ts";
import type { Exchange } from "./route.ts";

interface LineQueue {
  push(message: JsonMessage): void;
  end(): void;
  /** All that waits, or undefined after the end. */
  take(): Promise<string | readonly JsonMessage[] | undefined>;
}

export interface ProgressOptions {
  /** One that drops older moves of bars, unless given: output that must be whole brings a queue that its work waits for. */
  readonly queue?: LineQueue;
  /** Exit code that goes with an error's line. */
  readonly exitCodeOf?: (error: unknown) => number | undefined;
}

/**
 * Answers with a progress stream. Until the first line is reported a failure is the request's own, with its status;
 * after that it is the stream's last line. The work is cancelled when the client goes away; it waits for the client only
 * where its queue makes it.
 */
export async function answerWithProgress(
  exchange: Exchange,
  work: (report: Report, signal: AbortSignal) => Promise<void>,
  { queue = new ProgressQueue(), exitCodeOf }: ProgressOptions = {},
): Promise<void> {
  const clientGone = new AbortController();
  const signal = AbortSignal.any([exchange.signal, clientGone.signal]);
  const outcome = work((message) => queue.push(message), signal)
    .then(
      () => undefined,
      (error: unknown) => ({ error }),
    )
    .finally(() => queue.end());
  let lines = await queue.take();
  if (lines === undefined) {
    const failure = await outcome;
    if (failure !== undefined) throw failure.error;
    exchange.sendEmpty(200);
    return;
  }
  const stream = exchange.stream(200, "application/json");
  try {
    for (; lines !== undefined; lines = await queue.take()) await stream.write(encodeAll(lines));
  } catch (error) {
    clientGone.abort(error);
    queue.end();
    await outcome;
    return;
  }
  const failure = await outcome;
  if (failure !== undefined && !signal.aborted) {
    const code = exitCodeOf?.(failure.error);
    const message = messageOf(failure.error);
    await stream.write(
      encodeJsonMessage({ kind: "error", message, ...(code === undefined ? {} : { code }) }),
    );
  }
  stream.end();
}

function encodeAll(lines: string | readonly JsonMessage[]): string {
  return typeof lines === "string" ? lines : lines.map(encodeJsonMessage).join("");
}
