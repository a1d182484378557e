/** One container as the daemon holds it: its document, and what lives only while the daemon does. */
import type { ContainerId, ExecId } from "#base/ids.ts";
import type { Attachment } from "#network/network.ts";
import type { Sandbox } from "#runtime/runtime.ts";
import type { AttachOptions, StdioStream } from "#runtime/shim.ts";
import { ContainerCopies } from "./container-copies.ts";
import type { ContainerDocument, ContainerState } from "./container-document.ts";
import type { EarlySandbox } from "./container-early.ts";
import type { Exec } from "./exec-record.ts";
import { isUp } from "./transitions.ts";

export type WaitCondition = "not-running" | "next-exit" | "removed";

/** A client that attached before the start: given its stream once the sandbox is prepared, before the process runs. */
export interface PendingAttach {
  readonly options: AttachOptions;
  readonly resolve: (stream: StdioStream) => void;
  /** The container is gone, or could not be started. */
  readonly close: () => void;
}

export interface Health {
  status: "starting" | "healthy" | "unhealthy";
  failingStreak: number;
  /** The last five, oldest first. */
  readonly log: { Start: string; End: string; ExitCode: number; Output: string }[];
  stop(): void;
}

interface Waiter {
  readonly condition: WaitCondition;
  readonly resolve: (exitCode: number) => void;
}

export class Container {
  readonly document: ContainerDocument;
  /** While a first process runs (also paused), or is being started. */
  sandbox: Sandbox | undefined;
  attachment: Attachment | undefined;
  readonly pendingAttaches = new Set<PendingAttach>();
  readonly execs = new Map<ExecId, Exec>();
  /** Giving back what the last run held; start and remove wait for it. Never rejects. */
  cleanup: Promise<void> = Promise.resolve();
  /** The next exit is asked for: no restart policy, whatever it says. */
  exitOnNext = false;
  /** What is being copied into and out of it. */
  readonly copies = new ContainerCopies();
  /** A sandbox made ahead of the first start. */
  early: { readonly result: Promise<EarlySandbox | undefined>; readonly timer: NodeJS.Timeout } | undefined;
  /** `restart` is at work: an exit does not remove the container. */
  restartInProgress = false;
  removing = false;
  /** Set while the restart policy waits for its moment; calling it ends the wait. */
  cancelRestart: (() => void) | undefined;
  /** Consecutive quick failures, for the restart policy's pause. */
  restartPauseMs = 0;
  /** What was last written to resolv.conf and hosts by this daemon. */
  readonly writtenFiles = new Map<string, string>();
  /** Variables of a build's secrets: given to the process, and written nowhere. */
  secretEnv: readonly string[] = [];
  /** Row committed: before that, only names and image use count. */
  published = false;
  /** Parts of the list answer that change only with the document. */
  listFragment: { readonly head: string; readonly tail: string } | undefined;
  /** Only with a health check, while it runs or as it was last. */
  health: Health | undefined;
  readonly #waiters = new Set<Waiter>();

  constructor(document: ContainerDocument) {
    this.document = document;
  }

  get id(): ContainerId {
    return this.document.id;
  }

  get name(): string {
    return this.document.name;
  }

  get state(): ContainerState {
    return this.document.state;
  }

  /** Docker's State.Running: running, paused or restarting. */
  get isUp(): boolean {
    return isUp(this.document.state.status);
  }

  /** The document changed: what was cached of it is thrown away. */
  changed(): void {
    this.listFragment = undefined;
  }

  /** Registers at once; `forget` takes it back. */
  wait(condition: WaitCondition): { readonly exit: Promise<number>; forget(): void } {
    let waiter: Waiter | undefined;
    const exit = new Promise<number>((resolve) => {
      waiter = { condition, resolve };
    });
    this.#waiters.add(waiter!);
    return { exit, forget: () => this.#waiters.delete(waiter!) };
  }

  /** It stopped for good: answers everybody but those who wait for its removal. */
  announceStopped(): void {
    this.#announce((waiter) => waiter.condition !== "removed");
  }

  announceRemoved(): void {
    this.#announce(() => true);
  }

  #announce(which: (waiter: Waiter) => boolean): void {
    for (const waiter of this.#waiters) {
      if (!which(waiter)) continue;
      this.#waiters.delete(waiter);
      waiter.resolve(this.document.state.exitCode);
    }
  }

  closePendingAttaches(): void {
    for (const pending of this.pendingAttaches) pending.close();
    this.pendingAttaches.clear();
  }
}
