import { readFile } from "node:fs/promises";
import type { Socket } from "node:net";
import { join } from "node:path";
import { formatTime, zeroTime } from "#base/clock.ts";
import { describeErrno, EngineError, errnoOf, messageOf } from "#base/errors.ts";
import type { ContainerId } from "#base/ids.ts";
import { limits } from "#base/limits.ts";
import type { Log } from "#base/log.ts";
import type {
  AttachOptions,
  ExecLaunch,
  ExecProcess,
  ExitRecord,
  Shim,
  Started,
  StdioStream,
} from "./shim.ts";
import { errnoNameOf, requestError } from "./shim-errors.ts";
import { ExecStdio } from "./shim-exec-stdio.ts";
import { exitRecordOfFrame } from "./shim-exit-record.ts";
import { type Frame, FrameReader, FrameWriter, frameTypes, streamFlags, tags } from "./shim-protocol.ts";
import { openWithFrame } from "./shim-socket.ts";
import { execError, type StartSubject, startError } from "./shim-start-text.ts";

export interface ShimProcessOptions {
  readonly id: ContainerId;
  readonly runDir: string;
  readonly shimPid: number;
  readonly rootfsPath: string;
  /** 0 when it has not started. */
  readonly pid: number;
  /** The control channel, just after its first frame. */
  readonly control: Socket;
  readonly log: Log;
  /** Called when the shim vanished without reporting an exit: kills what it left and gives the record to report. */
  readonly lost: (startedAt: string) => Promise<ExitRecord>;
  /** When the container was started, if it was. */
  readonly startedAt?: string;
}

interface Waiting {
  readonly resolve: (frame: Frame) => void;
  readonly reject: (error: unknown) => void;
}

/** A living shim over its control channel. */
export class ShimProcess implements Shim {
  readonly id: ContainerId;
  readonly shimPid: number;
  readonly rootfsPath: string;
  readonly exited: Promise<ExitRecord>;
  /** Resolves when the shim has let go of the control channel: everything of the container is gone then. */
  readonly closed: Promise<void>;
  readonly #runDir: string;
  readonly #control: Socket;
  readonly #log: Log;
  readonly #lost: (startedAt: string) => Promise<ExitRecord>;
  readonly #waiting = new Map<number, Waiting>();
  readonly #execs = new Map<string, (exitCode: number) => void>();
  #resolveExited!: (record: ExitRecord) => void;
  #pid: number;
  #startedAt: string;
  #sequence = 0;
  /** No exit is to be expected any more: it was reported, the start failed, or the caller let go. */
  #settled = false;

  constructor(options: ShimProcessOptions) {
    this.id = options.id;
    this.shimPid = options.shimPid;
    this.rootfsPath = options.rootfsPath;
    this.#runDir = options.runDir;
    this.#pid = options.pid;
    this.#control = options.control;
    this.#log = options.log;
    this.#lost = options.lost;
    this.#startedAt = options.startedAt ?? zeroTime;
    this.exited = new Promise((resolve) => {
      this.#resolveExited = resolve;
    });
    const reader = new FrameReader();
    this.#control.on("data", (chunk: Buffer) => this.#take(reader, chunk));
    this.#control.on("end", () => this.#control.destroy());
    this.closed = new Promise((resolve) => {
      this.#control.on("close", () => {
        this.#onClose();
        resolve();
      });
    });
    this.#control.resume();
  }

  get pid(): number {
    return this.#pid;
  }

  /** No exit is to be expected any more; the shim is cleaning up or about to be told so. */
  get ended(): boolean {
    return this.#settled;
  }

  #take(reader: FrameReader, chunk: Buffer): void {
    try {
      reader.push(chunk);
      for (let frame = reader.next(); frame !== undefined; frame = reader.next()) this.#onFrame(frame);
    } catch (error) {
      this.#log.error("unreadable message from a shim", { container: this.id, error: messageOf(error) });
      this.#control.destroy();
    }
  }

  #onFrame(frame: Frame): void {
    switch (frame.type) {
      case frameTypes.exited:
        this.reportExit(frame);
        break;
      case frameTypes.execExited:
        this.#onExecExited(frame);
        break;
      default: {
        const sequence = frame.number(tags.sequence);
        const waiting = this.#waiting.get(sequence);
        this.#waiting.delete(sequence);
        if (frame.type === frameTypes.failed) waiting?.reject(requestError(frame));
        else waiting?.resolve(frame);
      }
    }
  }

  /** Takes an EXITED frame, or a STATUS frame of a shim whose container has exited. */
  reportExit(frame: Frame): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#send(new FrameWriter(frameTypes.ackExit));
    this.#resolveExited(exitRecordOfFrame(frame));
  }

  #onExecExited(frame: Frame): void {
    const id = frame.text(tags.id);
    // Execs of an earlier daemon are acknowledged too: nobody asks for them any more.
    this.#send(new FrameWriter(frameTypes.ackExec).text(tags.id, id));
    this.#execs.get(id)?.(frame.number(tags.exitCode));
    this.#execs.delete(id);
  }

  #onClose(): void {
    const gone = this.#settled
      ? new EngineError("conflict", "process already finished", { code: "ESRCH" })
      : new EngineError("unavailable", "the shim is gone", { code: "shim-gone" });
    for (const waiting of this.#waiting.values()) waiting.reject(gone);
    this.#waiting.clear();
    if (!this.#settled) {
      this.#settled = true;
      this.#log.warn("a shim vanished", { container: this.id });
      this.#lost(this.#startedAt).then(this.#resolveExited, (error: unknown) => {
        this.#log.error("cannot clear what a shim left", { container: this.id, error: messageOf(error) });
        const now = formatTime(BigInt(Date.now()) * 1_000_000n);
        this.#resolveExited({
          exitCode: 137,
          startedAt: this.#startedAt,
          finishedAt: now,
          oomKilled: false,
          lost: "shim killed",
        });
      });
    }
    for (const resolve of this.#execs.values()) resolve(137);
    this.#execs.clear();
  }

  #send(frame: FrameWriter): void {
    if (this.#control.writable) this.#control.write(frame.finish());
  }

  #request(frame: FrameWriter): Promise<Frame> {
    return new Promise((resolve, reject) => {
      if (!this.#control.writable) {
        reject(new EngineError("conflict", "process already finished", { code: "ESRCH" }));
        return;
      }
      this.#sequence += 1;
      this.#waiting.set(this.#sequence, { resolve, reject });
      this.#control.write(frame.number(tags.sequence, this.#sequence).finish());
    });
  }

  get #socketPath(): string {
    return join(this.#runDir, "shim.sock");
  }

  async attach(options: AttachOptions): Promise<StdioStream> {
    const frame = new FrameWriter(frameTypes.openAttach).number(tags.flags, streamsOf(options)).finish();
    const { socket, answer } = await this.#open(frame);
    if (answer.type !== frameTypes.ok) {
      socket.destroy();
      throw new EngineError("conflict", answer.text(tags.text), { code: "not-running" });
    }
    // The process is gone when its output ends: nothing is left to write to.
    socket.once("end", () => socket.end());
    return socket;
  }

  async #open(frame: Buffer): Promise<{ socket: Socket; answer: Frame }> {
    try {
      return await openWithFrame(this.#socketPath, frame);
    } catch (error) {
      const code = error instanceof EngineError ? error.code : errnoOf(error);
      if (code !== "ENOENT" && code !== "ECONNREFUSED" && code !== "shim-gone") throw error;
      throw new EngineError("conflict", `container ${this.id} is not running`, {
        code: "not-running",
        cause: error,
      });
    }
  }

  async start(): Promise<Started> {
    const frame = await this.#request(new FrameWriter(frameTypes.start));
    if (frame.type === frameTypes.startFailed) {
      this.#settled = true;
      throw startError(frame.text(tags.text), await this.#subject());
    }
    this.#pid = frame.number(tags.pid);
    this.#startedAt = formatTime(frame.bigint(tags.startedNs));
    return { pid: this.#pid, startedAt: this.#startedAt };
  }

  /** What the bundle asks to run; for messages only. */
  async #subject(): Promise<StartSubject> {
    try {
      const text = await readFile(join(this.#runDir, "config.json"), "utf8");
      const config = JSON.parse(text) as { process?: { args?: string[]; cwd?: string } };
      return { program: config.process?.args?.[0] ?? "", cwd: config.process?.cwd ?? "" };
    } catch {
      return { program: "", cwd: "" };
    }
  }

  async signal(signal: number): Promise<void> {
    await this.#request(new FrameWriter(frameTypes.signal).number(tags.signal, signal));
  }

  async resize(rows: number, columns: number): Promise<void> {
    const frame = new FrameWriter(frameTypes.resize);
    await this.#request(frame.number(tags.rows, rows).number(tags.columns, columns));
  }

  async exec(launch: ExecLaunch, options: { attach: AttachOptions | undefined }): Promise<ExecProcess> {
    const frame = execFrame(launch, options.attach);
    const exit = new Promise<number>((resolve) => this.#execs.set(launch.execId, resolve));
    try {
      const { socket, answer } = await this.#open(frame);
      if (answer.type !== frameTypes.execStarted) {
        socket.destroy();
        throw execFailure(answer, launch);
      }
      const exited = exit.then((exitCode) => ({ exitCode }));
      if (options.attach === undefined) socket.destroy();
      return {
        pid: answer.number(tags.pid),
        stdio: options.attach === undefined ? undefined : new ExecStdio(socket, exited),
        exited,
        resize: (rows, columns) => this.#resizeExec(launch.execId, rows, columns),
      };
    } catch (error) {
      this.#execs.delete(launch.execId);
      throw error;
    }
  }

  async #resizeExec(id: string, rows: number, columns: number): Promise<void> {
    const frame = new FrameWriter(frameTypes.execResize).text(tags.id, id);
    await this.#request(frame.number(tags.rows, rows).number(tags.columns, columns));
  }

  /** Returns once the shim is gone. */
  async abandon(): Promise<void> {
    this.#settled = true;
    this.#send(new FrameWriter(frameTypes.abandon));
    await this.closed;
  }

  detach(): void {
    this.#settled = true;
    this.#control.destroy();
  }
}

function streamsOf(options: AttachOptions): number {
  return (
    (options.stdin ? streamFlags.stdin : 0) |
    (options.stdout ? streamFlags.stdout : 0) |
    (options.stderr ? streamFlags.stderr : 0)
  );
}

function execFrame(launch: ExecLaunch, attach: AttachOptions | undefined): Buffer {
  const { capabilities } = launch;
  const flags =
    (attach === undefined ? 0 : streamsOf(attach)) |
    (launch.terminal ? streamFlags.terminal : 0) |
    (launch.openStdin && attach?.stdin === true ? streamFlags.openStdin : 0) |
    (launch.noNewPrivileges ? streamFlags.noNewPrivileges : 0);
  const frame = new FrameWriter(frameTypes.openExec)
    .text(tags.id, launch.execId)
    .texts(tags.argument, launch.args)
    .texts(tags.environment, launch.env)
    .text(tags.cwd, launch.cwd)
    .number(tags.uid, launch.uid)
    .number(tags.gid, launch.gid)
    .number(tags.flags, flags)
    .number(tags.capBounding, capabilities.bounding)
    .number(tags.capEffective, capabilities.effective)
    .number(tags.capPermitted, capabilities.permitted)
    .number(tags.capInheritable, capabilities.inheritable)
    .number(tags.capAmbient, capabilities.ambient);
  for (const gid of launch.additionalGids.slice(0, limits.listItemsMax)) frame.number(tags.extraGid, gid);
  if (launch.seccompBpfPath !== undefined) frame.text(tags.seccompPath, launch.seccompBpfPath);
  if (launch.apparmorProfile !== undefined) frame.text(tags.apparmor, launch.apparmorProfile);
  if (launch.terminalSize !== undefined) {
    frame.number(tags.rows, launch.terminalSize.rows).number(tags.columns, launch.terminalSize.columns);
  }
  return frame.finish();
}

function execFailure(answer: Frame, launch: ExecLaunch): Error {
  const errno = errnoNameOf(answer.number(tags.errno));
  const text = answer.text(tags.text);
  if (text === "container is not running") {
    return new EngineError("conflict", text, { code: "not-running" });
  }
  const subject = { program: launch.args[0] ?? "", cwd: launch.cwd };
  return execError(answer.number(tags.stage), describeErrno(errno), text, subject);
}
