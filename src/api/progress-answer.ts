import { messageOf } from "#base/errors.ts";
import type { Report } from "#engine/image-context.ts";
import { ProgressQueue } from "#engine/image-progress.ts";
import { encodeJsonMessage, type JsonMessage } from "#wire/json-message.ts";
import type { Exchange } from "./route.ts";

/**
 * Answers with a progress stream. Until the first line is reported a failure is the request's own, with its status;
 * after that it is the stream's last line. The work is cancelled when the client goes away and never waits for it.
 */
export async function answerWithProgress(
  exchange: Exchange,
  work: (report: Report, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const queue = new ProgressQueue();
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
    await outcome;
    return;
  }
  const failure = await outcome;
  if (failure !== undefined && !signal.aborted) {
    await stream.write(encodeJsonMessage({ kind: "error", message: messageOf(failure.error) }));
  }
  stream.end();
}

function encodeAll(lines: readonly JsonMessage[]): string {
  return lines.map(encodeJsonMessage).join("");
}
