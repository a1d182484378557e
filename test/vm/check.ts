import assert from "node:assert/strict";
import type { Machine } from "./machine.ts";

/** One thing that is so on a user's machine. Checks run in order, in one machine, and build on each other. */
export interface Check {
  readonly name: string;
  /** Also part of the quick form. */
  readonly quick?: boolean;
  readonly run: (machine: Machine) => Promise<void>;
}

/** The engine's API, which costs an emulated machine less than starting the command line. */
export async function api<Body>(
  machine: Machine,
  method: "GET" | "POST" | "DELETE",
  path: string,
  body?: object,
): Promise<Body> {
  const data =
    body === undefined
      ? ""
      : `-H 'Content-Type: application/json' -d '${JSON.stringify(body).replaceAll("'", "'\\''")}'`;
  const text = await machine.succeed(
    `curl -sS --fail-with-body --unix-socket /run/skiff/skiff.sock -X ${method} ${data} 'http://skiff${path}'`,
  );
  return (text === "" ? undefined : JSON.parse(text)) as Body;
}

interface Inspected {
  readonly Id: string;
  readonly RestartCount: number;
  readonly State: {
    readonly Status: string;
    readonly Pid: number;
    readonly ExitCode: number;
    readonly OOMKilled: boolean;
  };
}

export function inspect(machine: Machine, name: string): Promise<Inspected> {
  return api(machine, "GET", `/containers/${name}/json`);
}

/** Asks until `test` holds; the last answer is in the error. */
export async function until(
  machine: Machine,
  what: string,
  test: () => Promise<boolean>,
  seconds = 90,
): Promise<void> {
  const deadline = performance.now() + seconds * 1000;
  for (;;) {
    const failure = await test().then(
      (holds) => (holds ? undefined : "it does not hold"),
      (error: unknown) => String(error),
    );
    if (failure === undefined) return;
    if (performance.now() > deadline) {
      const { out } = await machine.run("journalctl -u skiff -n 30 --no-pager");
      assert.fail(`${what}: not within ${seconds} s (${failure})\n${out}`);
    }
    await machine.run("sleep 0.5");
  }
}

/** The daemon answers. Asking starts it where its socket is systemd's. */
export function answers(machine: Machine): Promise<void> {
  return until(machine, "the daemon answers", async () => {
    const { out } = await machine.run(
      "curl -s --max-time 60 --unix-socket /run/skiff/skiff.sock http://skiff/_ping",
      70,
    );
    return out === "OK";
  });
}

/** The cgroup of a container's first process, as a directory. */
export async function cgroupOf(machine: Machine, name: string): Promise<string> {
  const { State } = await inspect(machine, name);
  const own = await machine.succeed(`cat /proc/${State.Pid}/cgroup`);
  assert.match(own, /^0::\/\S+$/, "one line, of version 2");
  return `/sys/fs/cgroup${own.slice(3)}`;
}
