/** Sessions of clients beside their builds (wire/build-session.ts): secrets and SSH agents, asked for when a step needs them. */
import { randomBytes } from "node:crypto";
import { chmodSync, chownSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { EngineError } from "#base/errors.ts";
import type { BuildSecrets, FileOwner } from "#builder/step-executor.ts";
import { encodeFrame, type Frame, SessionDecoder, type SessionOffer } from "#wire/build-session.ts";

/** Clients with a session and no build that uses it wait here: a handful at most. */
const sessionsMax = 64;
const namesMax = 1000;
/** Connections to agents that the steps of one build hold at once. */
const channelsMax = 256;
/** A secret is in the client's memory or a small file of its own. */
const answerMs = 60_000;
/** An agent's answer is some kilobytes; a reader that takes none of it is cut off. */
const channelBytesMax = 1024 * 1024;

interface Channel {
  frame(frame: Frame): void;
  /** The client is gone. */
  lost(): void;
}

class BuildSession {
  readonly #stream: Duplex;
  readonly #channels = new Map<number, Channel>();
  readonly offer: SessionOffer;
  #next = 1;
  #isOpen = true;

  constructor(stream: Duplex, offer: SessionOffer) {
    this.#stream = stream;
    this.offer = offer;
  }

  take(frame: Frame): void {
    this.#channels.get(frame.channel)?.frame(frame);
  }

  lost(): void {
    this.#isOpen = false;
    for (const channel of [...this.#channels.values()]) channel.lost();
    this.#channels.clear();
  }

  #open(channel: Channel): number {
    if (!this.#isOpen) throw gone();
    if (this.#channels.size >= channelsMax)
      throw new EngineError("unavailable", "too many connections to the client's agents", {
        code: "session",
      });
    const number = this.#next;
    this.#next += 1;
    this.#channels.set(number, channel);
    return number;
  }

  #send(...frame: Parameters<typeof encodeFrame>): boolean {
    return !this.#isOpen || this.#stream.write(encodeFrame(...frame));
  }

  /** Asks the client for a secret. */
  async secret(id: string, signal: AbortSignal): Promise<Buffer> {
    const answer = Promise.withResolvers<Buffer>();
    const number = this.#open({
      frame: ({ kind, payload }) => {
        if (kind === "value") answer.resolve(Buffer.from(payload));
        else
          answer.reject(
            new EngineError("invalid", `secret ${id}: ${payload.toString("utf8")}`, { code: "secret" }),
          );
      },
      lost: () => answer.reject(gone()),
    });
    const onAbort = (): void =>
      answer.reject(new EngineError("cancelled", "context canceled", { code: "aborted" }));
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    const timer = setTimeout(() => answer.reject(gone()), answerMs);
    try {
      this.#send("secret", number, Buffer.from(id));
      return await answer.promise;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      this.#channels.delete(number);
    }
  }

  /** Connects a step's socket with the client's agent. */
  connect(id: string, socket: Socket): void {
    socket.on("error", () => socket.destroy());
    let number: number;
    try {
      number = this.#open({
        frame: ({ kind, payload }) => {
          if (kind !== "data") socket.end();
          else {
            socket.write(Buffer.from(payload));
            if (socket.writableLength > channelBytesMax) socket.destroy();
          }
        },
        lost: () => socket.destroy(),
      });
    } catch {
      socket.destroy();
      return;
    }
    this.#send("connect", number, Buffer.from(id));
    socket.on("data", (chunk: Buffer) => {
      let isRoomy = true;
      for (let at = 0; at < chunk.length; at += 65_536)
        isRoomy = this.#send("data", number, chunk.subarray(at, at + 65_536)) && isRoomy;
      if (isRoomy) return;
      socket.pause();
      this.#stream.once("drain", () => socket.resume());
    });
    socket.on("close", () => {
      this.#send("end", number);
      this.#channels.delete(number);
    });
  }

  end(): void {
    this.#stream.end();
  }
}

function gone(): EngineError {
  return new EngineError("unavailable", "the client that holds the build's secrets is gone", {
    code: "session",
  });
}

/** The sessions of a daemon. Files and sockets of steps lie below `directory`, which should be in memory. */
export class BuildSessions {
  readonly #directory: string;
  readonly #sessions = new Map<string, BuildSession>();

  constructor(directory: string) {
    this.#directory = directory;
    // What an earlier life of the daemon left.
    rmSync(directory, { recursive: true, force: true });
  }

  /** Serves a client's stream to its end. Throws `invalid` for one that does not begin with an offer. */
  async serve(stream: Duplex): Promise<void> {
    const id = randomBytes(32).toString("hex");
    let session: BuildSession | undefined;
    const decoder = new SessionDecoder((frame) => {
      if (session !== undefined) session.take(frame);
      else if (frame.kind !== "hello")
        throw new EngineError("invalid", "a build session begins with its offer");
      else {
        if (this.#sessions.size >= sessionsMax)
          throw new EngineError("unavailable", "too many build sessions", { code: "session" });
        session = new BuildSession(stream, readOffer(frame.payload));
        this.#sessions.set(id, session);
        stream.write(encodeFrame("ready", 0, Buffer.from(JSON.stringify({ session: id }))));
      }
    });
    try {
      for await (const chunk of stream as AsyncIterable<Buffer>) decoder.push(chunk);
    } catch {
      // A broken client: its build is told that it is gone.
    } finally {
      this.#sessions.delete(id);
      session?.lost();
      stream.destroy();
    }
  }

  /** What a build may ask for; without a session, nothing. Disposal ends the session. Throws `invalid` for an unknown one. */
  open(id: string | undefined): BuildSecrets & Disposable {
    const session = id === undefined ? undefined : this.#sessions.get(id);
    if (id !== undefined && session === undefined)
      throw new EngineError("invalid", "no such build session", { code: "session" });
    // One build a session: its secrets are no other's.
    if (id !== undefined) this.#sessions.delete(id);
    return {
      secret: async (name, signal) =>
        session?.offer.secrets.includes(name) === true ? await session.secret(name, signal) : undefined,
      agent: async (name, owner) =>
        session?.offer.agents.includes(name) === true ? await this.#agent(session, name, owner) : undefined,
      file: async (content, owner) => this.#file(content, owner),
      [Symbol.dispose]: () => session?.end(),
    };
  }

  #path(): string {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    return join(this.#directory, randomBytes(8).toString("hex"));
  }

  #file(content: Buffer, owner: FileOwner): { readonly path: string } & AsyncDisposable {
    const path = this.#path();
    writeFileSync(path, content, { mode: 0o600, flag: "wx" });
    own(path, owner);
    return { path, [Symbol.asyncDispose]: async () => rmSync(path, { force: true }) };
  }

  async #agent(
    session: BuildSession,
    name: string,
    owner: FileOwner,
  ): Promise<{ readonly path: string } & AsyncDisposable> {
    const path = this.#path();
    const sockets = new Set<Socket>();
    const server = createServer({ allowHalfOpen: false }, (socket) => {
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
      session.connect(name, socket);
    });
    await new Promise<void>((resolve, reject) => {
      // Not once: an error of a later accept is that client's, not the daemon's.
      server.on("error", reject);
      server.listen(path, resolve);
    });
    own(path, owner);
    return {
      path,
      [Symbol.asyncDispose]: async () => {
        server.close();
        for (const socket of sockets) socket.destroy();
        rmSync(path, { force: true });
      },
    };
  }
}

function own(path: string, { mode, uid, gid }: FileOwner): void {
  chownSync(path, uid, gid);
  chmodSync(path, mode);
}

function readOffer(payload: Buffer): SessionOffer {
  const value = JSON.parse(payload.toString("utf8")) as Partial<SessionOffer> | null;
  const names = (list: unknown): string[] => {
    const isList = Array.isArray(list) && list.length <= namesMax;
    if (!isList || !list.every((name) => typeof name === "string" && name.length <= 255))
      throw new EngineError("invalid", "the build session's offer is broken", { code: "session" });
    return list as string[];
  };
  return { secrets: names(value?.secrets ?? []), agents: names(value?.agents ?? []) };
}
