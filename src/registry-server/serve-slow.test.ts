import assert from "node:assert/strict";
import { createServer, type IncomingMessage, request } from "node:http";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { HttpFront } from "./serve-listen.ts";

const settings = { stopTimeoutMs: 1000, maxConnections: 10 };
const pace = { windowMs: 1000, bytesMin: 1000 };

/** Sends `bytes` every 20 ms until the body has so many pieces, or until it is cut off. */
async function send(port: number, bytes: number, pieces: number): Promise<string> {
  const outgoing = request({ host: "127.0.0.1", port, method: "POST", headers: { connection: "close" } });
  let outcome: string | undefined;
  const ended = new Promise<void>((resolve) => {
    outgoing.once("response", (response) => {
      outcome = String(response.resume().statusCode);
      resolve();
    });
    outgoing.once("error", (error: NodeJS.ErrnoException) => {
      outcome ??= error.code ?? error.message;
      resolve();
    });
  });
  for (let piece = 0; piece < pieces && outcome === undefined; piece += 1) {
    outgoing.write(Buffer.alloc(bytes));
    await sleep(20);
  }
  outgoing.end();
  await ended;
  return outcome!;
}

test("a body that drips is cut off; one that flows is not, nor one that we do not read", async () => {
  const read = (incoming: IncomingMessage): Promise<void> =>
    new Promise((resolve, reject) => incoming.resume().once("end", resolve).once("error", reject));
  const slowReader = async (incoming: IncomingMessage): Promise<void> => {
    incoming.pause();
    await sleep(1600);
    await read(incoming);
  };
  const expectOutcome = async (
    take: (incoming: IncomingMessage) => Promise<void>,
    [bytes, pieces]: readonly [number, number],
    expected: RegExp,
  ): Promise<void> => {
    const front = new HttpFront(
      settings,
      (options, listener) => createServer(options, listener),
      (incoming, response) => {
        take(incoming).then(
          () => response.end(),
          () => {},
        );
      },
      pace,
    );
    const { port } = await front.listen({ host: "127.0.0.1", port: 0 });
    assert.match(await send(port, bytes, pieces), expected);
    await front.stop();
  };
  await Promise.all([
    expectOutcome(read, [1, 1000], /ECONNRESET|EPIPE/),
    expectOutcome(read, [5000, 80], /^200$/),
    expectOutcome(slowReader, [5000, 80], /^200$/),
  ]);
});
