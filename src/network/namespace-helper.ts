import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:os";
import { createInterface } from "node:readline";
import { EngineError, SyscallError } from "#base/errors.ts";
import type { Log } from "#base/log.ts";

/** The native helper that makes and holds namespaces (native/netns-pool.c; protocol: docs/internals/network.md). */
export interface NamespaceHelper {
  readonly pid: number;
  /** False once the process has ended: its namespaces and their links are gone. */
  readonly alive: boolean;
  /** Resolves when the process has ended. */
  readonly ended: Promise<void>;
  /** One request; the number and words of its answer. Rejects with `SyscallError` named after the verb. */
  request(
    verb: HelperVerb,
    ...words: readonly (string | number)[]
  ): Promise<{ readonly value: number; readonly words: readonly string[] }>;
  /** Closes its input: it drops what nobody took and ends. */
  close(): void;
}

export type HelperVerb =
  | "make"
  | "none"
  | "take"
  | "drop"
  | "bridge"
  | "address"
  | "addresses"
  | "ports"
  | "delete"
  | "forget"
  | "forget-udp-port"
  | "watch";

export type HelperEvent = "firewall-lost" | "firewall-changed";

/** errno of a bridge whose 1,023 ports are taken; Node's table lacks it. */
const EXFULL = 54;

const errnoNames = new Map<number, string>([
  [EXFULL, "EXFULL"],
  ...Object.entries(constants.errno).map(([name, value]): [number, string] => [value, name]),
]);

interface Pending {
  readonly verb: HelperVerb;
  readonly resolve: (answer: { value: number; words: string[] }) => void;
  readonly reject: (error: Error) => void;
}

class HelperProcess implements NamespaceHelper {
  readonly #child: ChildProcess;
  readonly #onEvent: (event: HelperEvent) => void;
  /** In the order of their requests, which is the order of the answers. */
  readonly #pending: Pending[] = [];
  readonly ended: Promise<void>;
  #alive = true;
  #ready: Pending | undefined;

  constructor(child: ChildProcess, onEvent: (event: HelperEvent) => void, log: Log) {
    this.#child = child;
    this.#onEvent = onEvent;
    createInterface({ input: child.stdout! }).on("line", (line) => this.#read(line));
    createInterface({ input: child.stderr! }).on("line", (line) => log.warn("namespace helper", { line }));
    child.stdin!.on("error", () => {}); // a broken pipe shows as the end of the process
    this.ended = new Promise((resolve) => {
      const end = (): void => {
        this.#alive = false;
        const error = new EngineError("system", "the network namespace helper has ended", {
          code: "namespace-helper",
        });
        for (const pending of this.#pending.splice(0)) pending.reject(error);
        this.#ready?.reject(error);
        resolve();
      };
      child.once("exit", end);
      child.once("error", end);
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get alive(): boolean {
    return this.#alive;
  }

  async ready(): Promise<void> {
    await new Promise<unknown>((resolve, reject) => {
      this.#ready = { verb: "bridge", resolve, reject };
    });
    this.#ready = undefined;
  }

  request(verb: HelperVerb, ...words: readonly (string | number)[]): ReturnType<NamespaceHelper["request"]> {
    return new Promise((resolve, reject) => {
      if (!this.#alive) {
        reject(
          new EngineError("system", "the network namespace helper has ended", { code: "namespace-helper" }),
        );
        return;
      }
      this.#pending.push({ verb, resolve, reject });
      this.#child.stdin!.write(`1 ${[verb, ...words].join(" ")}\n`);
    });
  }

  close(): void {
    this.#child.stdin!.end();
  }

  #read(line: string): void {
    const [head, status, value = "0", ...words] = line.trim().split(" ");
    if (head === "event") {
      this.#onEvent(status as HelperEvent);
      return;
    }
    if (head === "ready") {
      this.#ready?.resolve({ value: 0, words: [] });
      return;
    }
    const pending = this.#pending.shift();
    if (pending === undefined) return;
    if (status === "ok") {
      pending.resolve({ value: Number(value), words });
      return;
    }
    const errno = Number(value);
    pending.reject(new SyscallError(`network ${pending.verb}`, errnoNames.get(errno) ?? `E${errno}`));
  }
}

/**
 * Starts the helper in a session of its own. It ends by itself when this process ends, however that happens: its
 * input is a pipe from here. Rejects when the program cannot be run.
 */
export async function startNamespaceHelper(options: {
  readonly binaryPath: string;
  readonly onEvent: (event: HelperEvent) => void;
  readonly log: Log;
}): Promise<NamespaceHelper> {
  const child = spawn(options.binaryPath, ["netns-pool"], {
    stdio: ["pipe", "pipe", "pipe"],
    detached: true,
    cwd: "/",
    env: {},
  });
  const failed = once(child, "error").then(([cause]) => {
    throw new EngineError("system", `cannot start the network namespace helper ${options.binaryPath}`, {
      code: "namespace-helper",
      cause,
    });
  });
  failed.catch(() => {});
  const helper = new HelperProcess(child, options.onEvent, options.log);
  await Promise.race([helper.ready(), failed]);
  return helper;
}
