/** `system dial-stdio`: the far side of `ssh://`. stdin and stdout become the two directions of a connection. */
import { fstatSync } from "node:fs";
import { Socket } from "node:net";
import type { Duplex, Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type Command, noArguments } from "./command.ts";

/** Writes to a pipe block the whole process through process.stdout: both directions must go on by themselves. */
function freeStdout(): Writable {
  const stat = fstatSync(1);
  return stat.isFIFO() || stat.isSocket()
    ? new Socket({ fd: 1, readable: false, writable: true })
    : process.stdout;
}

/** The end of stdin closes the daemon's side of it only: what the daemon still says is passed on to its end. */
async function join(stream: Duplex): Promise<void> {
  const output = freeStdout();
  const toDaemon = pipeline(process.stdin, stream, { end: true }).catch(() => {
    // The daemon reads no more: its output may go on.
  });
  await pipeline(stream, output, { end: true });
  void toDaemon;
}

export const dialStdio: Command = {
  usage: "",
  flags: [],
  args: noArguments,
  run: async (context) => {
    const stream = await context.client.endpoint.dial();
    await join(stream);
    return 0;
  },
};
