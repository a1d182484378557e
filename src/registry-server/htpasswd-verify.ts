import { createHmac, randomBytes } from "node:crypto";
import { Worker } from "node:worker_threads";
import { decoyHash, type PasswordFile } from "./htpasswd.ts";
import { RegistryFault } from "./registry-fault.ts";
import type { SettingsFile } from "./settings-file.ts";

/** A push asks some ten times; a password that was changed counts at once, since the hash is part of the key. */
const rememberedMs = 5 * 60_000;
const rememberedMax = 4096;
/** Some five seconds of work at cost 10. Who floods us with guesses is told to wait, and so are others meanwhile. */
const waitingMax = 64;
/** bcrypt itself reads 72 bytes. */
const passwordBytesMax = 1024;

interface Waiting {
  readonly resolve: (matches: boolean) => void;
  readonly reject: (error: Error) => void;
}

/**
 * Checks user and password against a password file, off the event loop. What was right is remembered for a while by a
 * keyed hash (the key lives and dies with the process), never the password itself; what was wrong is not.
 */
export class PasswordVerifier implements AsyncDisposable {
  readonly #file: SettingsFile<PasswordFile>;
  readonly #key = randomBytes(32);
  /** Keyed hash → until when it counts; in the order of insertion, which is that of expiry. */
  readonly #remembered = new Map<string, number>();
  readonly #underWay = new Map<string, Promise<boolean>>();
  readonly #waiting = new Map<number, Waiting>();
  #worker: Worker | undefined;
  #lastId = 0;

  constructor(file: SettingsFile<PasswordFile>) {
    this.#file = file;
  }

  /** Throws `TOOMANYREQUESTS` when too many others wait. */
  async verify(user: string, password: string): Promise<boolean> {
    const users = await this.#file.current();
    const stored = users.get(user);
    const fits = Buffer.byteLength(password) <= passwordBytesMax;
    const hash = stored !== undefined && fits ? stored : decoyHash(users);
    const key = createHmac("sha256", this.#key)
      .update(JSON.stringify([user, password, hash]))
      .digest("base64");
    const until = this.#remembered.get(key);
    if (until !== undefined && until > performance.now()) return true;
    // Requests of one client come side by side: they share one check.
    let check = this.#underWay.get(key);
    if (check === undefined) {
      check = this.#compare(fits ? password : "", hash).finally(() => this.#underWay.delete(key));
      this.#underWay.set(key, check);
    }
    const right = (await check) && hash === stored;
    if (right) this.#remember(key);
    return right;
  }

  #remember(key: string): void {
    const now = performance.now();
    this.#remembered.delete(key);
    this.#remembered.set(key, now + rememberedMs);
    for (const [old, until] of this.#remembered) {
      if (until > now && this.#remembered.size <= rememberedMax) return;
      this.#remembered.delete(old);
    }
  }

  async #compare(password: string, hash: string): Promise<boolean> {
    if (this.#waiting.size >= waitingMax) {
      throw new RegistryFault(429, "TOOMANYREQUESTS", { headers: { "retry-after": "5" } });
    }
    this.#worker ??= this.#startWorker();
    const worker = this.#worker;
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      worker.postMessage({ id, password, hash });
    });
  }

  #startWorker(): Worker {
    const worker = new Worker(new URL("./htpasswd-worker.ts", import.meta.url), {
      resourceLimits: { maxOldGenerationSizeMb: 32 },
    });
    worker.on("message", ({ id, matches }: { id: number; matches: boolean }) => {
      this.#waiting.get(id)?.resolve(matches);
      this.#waiting.delete(id);
    });
    const ended = (why: Error): void => {
      if (this.#worker !== worker) return;
      this.#worker = undefined;
      for (const { reject } of this.#waiting.values()) reject(why);
      this.#waiting.clear();
    };
    worker.on("error", (error) => ended(error instanceof Error ? error : new Error(String(error))));
    worker.on("exit", () => ended(new Error("the password checker has ended")));
    return worker;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker?.terminate();
  }
}
