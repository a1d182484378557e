/** Joins a client's connection with a container's (or an exec's) stdio until one of them ends. */
import type { Duplex } from "node:stream";
import type { StdioStream } from "#runtime/shim.ts";
import { DetachScanner } from "./attach-keys.ts";

export interface PipeOptions {
  /** The client's bytes are the process's input; else they are dropped. */
  readonly stdin: boolean;
  /** Only with a terminal: without one every byte is data. */
  readonly detachKeys: Buffer | undefined;
}

/**
 * Output goes to the client as it comes and waits for it: a client that does not read holds up its own stream, which
 * then drops with a marker (invariant 2 of the shim), never the process. The client's end of input ends the process's
 * input and nothing else. Resolves with how it ended; never rejects.
 */
export function joinStdio(
  client: Duplex,
  stdio: StdioStream,
  options: PipeOptions,
): Promise<"ended" | "client-gone" | "detached"> {
  return new Promise((resolve) => {
    let settled = false;
    const settle = (how: "ended" | "client-gone" | "detached"): void => {
      if (settled) return;
      settled = true;
      if (how !== "ended") stdio.destroy();
      client.end();
      // The client's own half may stay open for ever: it is read and dropped until it goes.
      client.removeAllListeners("data");
      client.resume();
      resolve(how);
    };
    stdio.on("data", (chunk: Buffer) => {
      if (client.destroyed || client.write(chunk)) return;
      stdio.pause();
      client.once("drain", () => stdio.resume());
    });
    stdio.once("end", () => settle("ended"));
    stdio.once("error", () => settle("ended"));
    stdio.once("close", () => settle("ended"));
    client.once("error", () => settle("client-gone"));
    client.once("close", () => settle("client-gone"));
    // Ended before anybody listened.
    if (stdio.destroyed) settle("ended");
    else if (options.stdin) passInput(client, stdio, options.detachKeys, () => settle("detached"));
    else client.resume();
  });
}

function passInput(
  client: Duplex,
  stdio: StdioStream,
  detachKeys: Buffer | undefined,
  onDetach: () => void,
): void {
  const scanner = detachKeys === undefined ? undefined : new DetachScanner(detachKeys);
  client.on("data", (chunk: Buffer) => {
    const input = scanner?.push(chunk);
    const bytes = input === undefined ? chunk : input.passed;
    if (bytes.length > 0 && stdio.writable && !stdio.write(bytes)) {
      client.pause();
      stdio.once("drain", () => client.resume());
    }
    if (input?.detached) onDetach();
  });
  client.once("end", () => {
    if (stdio.writable) stdio.end();
  });
}
