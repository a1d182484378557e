import { errnoOf } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import { sendToUnixSocket } from "#sys/datagram.ts";
import { listenerKind } from "#sys/socket-option.ts";

/** What a service manager leaves in the environment (sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3)). */
export interface ServiceEnvironment {
  readonly notifySocket: string | undefined;
  readonly watchdogUsec: string | undefined;
  readonly watchdogPid: string | undefined;
  readonly listenFds: string | undefined;
  readonly listenPid: string | undefined;
  readonly listenNames: string | undefined;
}

export interface InheritedSocket {
  readonly fd: number;
  /** `FileDescriptorName=` of the socket unit; "" without one. */
  readonly name: string;
  /** undefined: it is nothing that can be listened on. */
  readonly kind: "unix" | "tcp" | undefined;
}

const firstFd = 3;
/** systemd passes as many as a socket unit names: a handful. */
const inheritedMax = 64;

/** The sockets that were passed on to this very process, in order. */
export function inheritedSockets(
  environment: ServiceEnvironment,
  ownPid: number = process.pid,
): readonly InheritedSocket[] {
  const { listenFds = "", listenPid, listenNames = "" } = environment;
  if (Number(listenPid) !== ownPid || !/^\d{1,3}$/.test(listenFds)) return [];
  const names = listenNames.split(":");
  return Array.from({ length: Math.min(Number(listenFds), inheritedMax) }, (_, index) => {
    const name = names[index] ?? "";
    return {
      fd: firstFd + index,
      name: name === "unknown" ? "" : name,
      kind: listenerKind(firstFd + index),
    };
  });
}

const retryMs = 50;
const retriesMax = 40;

/**
 * Tells the service manager what becomes of this process. Without one it does nothing; a manager that does not listen is
 * reported once and is no reason to stop.
 */
export class ServiceManager implements Disposable {
  readonly #socket: string | undefined;
  readonly #log: Log;
  readonly #watchdog: NodeJS.Timeout | undefined;
  #failed = false;
  /** Messages go out in order, also when one had to wait. */
  readonly #queue: string[] = [];
  #waiting: NodeJS.Timeout | undefined;
  #retries = 0;

  constructor({ notifySocket, watchdogUsec, watchdogPid }: ServiceEnvironment, log: Log) {
    this.#log = log;
    this.#socket = notifySocket === "" ? undefined : notifySocket;
    if (this.#socket !== undefined && !/^[/@]./.test(this.#socket)) {
      log.warn("the service manager's socket is of a kind that is not known", { socket: this.#socket });
      this.#socket = undefined;
    }
    const ours = watchdogPid === undefined || Number(watchdogPid) === process.pid;
    const usec = /^\d{1,15}$/.test(watchdogUsec ?? "") ? Number(watchdogUsec) : 0;
    if (this.#socket === undefined || !ours || usec === 0) return;
    // Twice in the time given: the event loop that sends it is what is watched.
    this.#watchdog = setInterval(() => this.#send("WATCHDOG=1"), Math.max(1, usec / 2000));
    this.#watchdog.unref();
  }

  /** Requests are answered, for the first time or after a reload. */
  ready(status: string): void {
    this.#send(`READY=1\nMAINPID=${process.pid}\nSTATUS=${status}`);
  }

  status(status: string): void {
    this.#send(`STATUS=${status}`);
  }

  reloading(): void {
    // Node's clock is CLOCK_MONOTONIC, which Type=notify-reload asks for.
    this.#send(
      `RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}\nSTATUS=Reading the configuration`,
    );
  }

  stopping(): void {
    this.#send("STOPPING=1\nSTATUS=Stopping");
  }

  #send(text: string): void {
    if (this.#socket === undefined) return;
    this.#queue.push(text);
    if (this.#waiting === undefined) this.#flush(this.#socket);
  }

  #flush(socket: string): void {
    this.#waiting = undefined;
    for (let text = this.#queue[0]; text !== undefined; text = this.#queue[0]) {
      try {
        sendToUnixSocket(socket, text);
      } catch (error) {
        if (errnoOf(error) === "EAGAIN" && this.#retries < retriesMax) {
          this.#retries += 1;
          this.#waiting = setTimeout(() => this.#flush(socket), retryMs);
          return;
        }
        if (!this.#failed) this.#log.warn("the service manager cannot be told", { socket, error });
        this.#failed = true;
      }
      this.#retries = 0;
      this.#queue.shift();
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#watchdog);
    clearTimeout(this.#waiting);
  }
}
