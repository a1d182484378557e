import type { Readable } from "node:stream";
import { releaseBytes } from "#base/release-bytes.ts";
import type { Exchange } from "./route.ts";

/** More than a connection keeps for later: when it asks for more, the kernel has all of such a chunk. */
const releasedBytesMin = 128 * 1024;

/**
 * Answers with an archive. Headers go out with its first bytes, so that what fails before them has a status of its own;
 * a failure after that breaks the connection. The archive is closed when the client goes away.
 */
export async function answerWithArchive(
  exchange: Exchange,
  archive: Readable,
  options: { contentType?: string; headers?: Readonly<Record<string, string>> } = {},
): Promise<void> {
  const { contentType = "application/x-tar", headers } = options;
  const stop = (): void => void archive.destroy();
  exchange.signal.addEventListener("abort", stop, { once: true });
  try {
    const chunks = archive[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
    let next = await chunks.next();
    const stream = exchange.stream(200, contentType, headers);
    for (; next.done !== true; next = await chunks.next()) {
      await stream.write(next.value);
      if (next.value.length >= releasedBytesMin) releaseBytes(next.value);
    }
    stream.end();
  } catch (error) {
    if (!exchange.signal.aborted) throw error;
  } finally {
    exchange.signal.removeEventListener("abort", stop);
    archive.destroy();
  }
}
