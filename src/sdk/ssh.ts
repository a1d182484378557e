/** A daemon behind ssh: the system's ssh runs a client there that joins its stdio to the daemon's socket. */
import type { ChildProcessByStdio } from "node:child_process";
import { Duplex, type Readable, type Writable } from "node:stream";
import { EngineError } from "#base/errors.ts";
import { requestFailure } from "./connect-failure.ts";

/** What of ssh's complaints is kept for the message. */
const complaintBytesMax = 4096;
/** A link that is silent for 3 × 15 s is lost. */
const aliveOptions = ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"];

export interface SshTarget {
  readonly host: string;
  readonly user?: string;
  readonly port?: string;
  /** A socket's path on the far side; the far client's default without. */
  readonly socket?: string;
}

/** Reads `ssh://[user@]host[:port][/socket]`. Throws `invalid` in Docker's words. */
export function parseSsh(text: string): SshTarget {
  const bad = (reason: string): EngineError =>
    new EngineError("invalid", `ssh host connection is not valid: invalid SSH URL: ${reason}`);
  const match = /^ssh:\/\/(?:([^@/?#]*)@)?(\[[^\]]*\]|[^:/?#]*)(?::(\d*))?(\/[^?#]*)?(\?[^#]*)?(#.*)?$/.exec(
    text,
  );
  if (match === null) throw bad(`parse ${JSON.stringify(text)}`);
  const [, login, host = "", port, path, query, fragment] = match;
  if (login?.includes(":") === true) throw bad("plain-text password is not supported");
  if (host === "" || host === "[]") throw bad("hostname is empty");
  if (query !== undefined && query !== "?")
    throw bad(`query parameters are not allowed: ${JSON.stringify(query.slice(1))}`);
  if (fragment !== undefined && fragment !== "#")
    throw bad(`fragments are not allowed: ${JSON.stringify(fragment.slice(1))}`);
  const name = host.replace(/^\[|\]$/g, "");
  const decoded = (part: string): string => {
    try {
      return decodeURIComponent(part);
    } catch {
      throw bad(`${JSON.stringify(part)} is not a percent-encoded name`);
    }
  };
  const user = decoded(login ?? "");
  const socket = decoded(path ?? "");
  // ssh would read it as an option that may run a program here.
  for (const word of [name, user])
    if (word.startsWith("-")) throw bad(`${JSON.stringify(word)} begins with "-"`);
  for (const word of [name, user]) if (/\s/.test(word)) throw bad("it holds white space");
  // ssh puts it into the commands of its own configuration (ProxyCommand's %h).
  if (!/^[\w.:%-]*$/.test(name)) throw bad(`${JSON.stringify(name)} is no host`);
  if (socket.includes("\0")) throw bad("the path holds a zero byte");
  return {
    host: name,
    ...(user === "" ? {} : { user }),
    ...(port === undefined || port === "" ? {} : { port }),
    ...(socket === "" || socket === "/" ? {} : { socket }),
  };
}

const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

/**
 * ssh's arguments. Called as docker we run Docker's client there, as Docker's does; else skiff where it is installed,
 * and Docker's client where it is not. `sh` because the user's own shell there may be any.
 */
export function sshArguments(target: SshTarget, program: string): string[] {
  const words = `${target.socket === undefined ? "" : ` --host ${quote(`unix://${target.socket}`)}`} system dial-stdio`;
  const script = `if command -v skiff >/dev/null 2>&1; then exec skiff${words}; else exec docker${words}; fi`;
  return [
    "-o",
    "ConnectTimeout=30",
    ...aliveOptions,
    "-T",
    ...(target.user === undefined ? [] : ["-l", target.user]),
    ...(target.port === undefined ? [] : ["-p", target.port]),
    "--",
    target.host,
    program === "docker" ? `docker${words}` : `sh -c ${quote(script)}`,
  ];
}

type Child = ChildProcessByStdio<Writable, Readable, Readable>;

/** ssh's stdio as one stream: `end()` closes its stdin only, and what the far side still says arrives. */
class SshStream extends Duplex {
  readonly #child: Child;
  readonly #args: readonly string[];
  #complaint = "";
  #answered = false;

  constructor(child: Child, args: readonly string[]) {
    super();
    this.#child = child;
    this.#args = args;
    child.stderr.on("data", (chunk: Buffer) => {
      this.#complaint = (this.#complaint + chunk.toString()).slice(-complaintBytesMax);
    });
    child.stdout.on("data", (chunk: Buffer) => {
      this.#answered = true;
      if (!this.push(chunk)) child.stdout.pause();
    });
    // Writes to an ssh that has ended fail; its exit says why.
    child.stdin.on("error", () => {});
    child.on("error", (cause) =>
      this.destroy(requestFailure(`exec: "ssh": ${cause.message}`, cause, "connect")),
    );
    // Not "close": a master that ssh leaves behind (ControlPersist) keeps stderr open.
    child.stdout.on("end", () => this.#whenBoth());
    child.on("exit", () => this.#whenBoth());
  }

  #whenBoth(): void {
    const { exitCode, signalCode, stdout } = this.#child;
    if (this.destroyed || !stdout.readableEnded) return;
    if (exitCode !== null || signalCode !== null) this.#ended(exitCode, signalCode);
  }

  #ended(code: number | null, signal: NodeJS.Signals | null): void {
    if (code === 0 || (this.#answered && code !== 255)) {
      this.push(null);
      return;
    }
    const how = code === null ? `signal: ${signal ?? ""}` : `exit status ${code}`;
    const words = `command [ssh ${this.#args.join(" ")}] has exited with ${how}, make sure the URL is valid, and skiff or Docker 18.09 or later is installed on the remote host: stderr=${this.#complaint}`;
    this.destroy(requestFailure(words, undefined, "connect"));
  }

  override _read(): void {
    this.#child.stdout.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: () => void): void {
    if (this.#child.stdin.destroyed) callback();
    else this.#child.stdin.write(chunk, () => callback());
  }

  override _final(callback: () => void): void {
    this.#child.stdin.end();
    callback();
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.#child.stdin.destroy();
    this.#child.kill("SIGTERM");
    callback(error);
  }
}

/** Starts an ssh for one connection. Its failure shows as the stream's error, with what ssh said. */
export async function dialSsh(target: SshTarget, program: string): Promise<Duplex> {
  const { spawn } = await import("node:child_process");
  const args = sshArguments(target, program);
  // A session of its own: the terminal's Ctrl-C is for the command that uses the connection, not for ssh.
  const child = spawn("ssh", args, { stdio: ["pipe", "pipe", "pipe"], detached: true });
  return new SshStream(child, args);
}
