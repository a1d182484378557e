import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { setPriority, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Disk } from "./disk.ts";
import type { Emulator } from "./emulator.ts";

export interface Answer {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

export interface MachineOptions {
  readonly emulator: Emulator;
  readonly disk: Disk;
  /** A file that the machine sees as /dev/vdb. */
  readonly payload: string;
  readonly processors: number;
}

const memoryMib = 1536;
const bootTimeoutMs = 300_000;
/** Of lowest priority but one tenth: a machine that tests run on does other work, too. */
const niceness = 10;

/**
 * An emulated machine that runs commands for us. Its disk is a throw-away copy: what it writes is gone with it. Disposal
 * ends the emulator.
 */
export class Machine implements AsyncDisposable {
  readonly #home = mkdtempSync(join(tmpdir(), "skiff-vm-"));
  readonly #child: ChildProcess;
  #socket: Socket | undefined;
  #rest = "";
  #boots: string[] = [];
  readonly #waiting = new Map<string, (answer: Answer) => void>();
  #ended: Error | undefined;
  #wake = Promise.withResolvers<void>();

  private constructor(options: MachineOptions) {
    const { emulator, disk, payload, processors } = options;
    const log = openSync(join(this.#home, "emulator.log"), "a");
    const drive = (file: string, extra: string): string[] => [
      "-drive",
      `file=${file},format=raw,if=virtio,${extra}`,
    ];
    const args = [
      ...emulator.firmware.flatMap((path) => ["-L", path]),
      ...["-M", "pc", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"],
      ...["-smp", String(processors), "-m", String(memoryMib)],
      ...["-nodefaults", "-no-user-config", "-display", "none"],
      ...["-kernel", disk.kernel, "-initrd", disk.initrd],
      ...["-append", "root=/dev/vda rw quiet console=ttyS0 net.ifnames=0"],
      // The temporary copy is on the machine's own disk, not in memory.
      ...drive(disk.image, "snapshot=on,cache=unsafe"),
      ...drive(payload, "readonly=on"),
      ...["-serial", `file:${join(this.#home, "console")}`],
      ...["-device", "virtio-serial-pci", "-device", "virtio-rng-pci"],
      ...["-chardev", `socket,id=agent,path=${join(this.#home, "agent")},server=on,wait=off`],
      ...["-device", "virtserialport,chardev=agent,name=skiff.vm"],
      ...["-nic", "none"],
    ];
    this.#child = spawn(emulator.program, args, {
      stdio: ["ignore", log, log],
      env: { ...emulator.env, TMPDIR: this.#home },
    });
    setPriority(this.#child.pid!, niceness);
    this.#child.once("exit", (code, signal) => this.#end(`the emulator ended (${signal ?? code})`));
  }

  /** Starts a machine; resolves when it has booted. */
  static async start(options: MachineOptions): Promise<Machine> {
    const machine = new Machine(options);
    try {
      await machine.#connect();
      await machine.booted(1);
    } catch (error) {
      await machine[Symbol.asyncDispose]();
      throw error;
    }
    return machine;
  }

  #end(reason: string): void {
    this.#ended ??= new Error(`${reason}\n${this.console().slice(-2000)}`);
    for (const answer of this.#waiting.values()) answer({ status: -1, out: "", err: this.#ended.message });
    this.#waiting.clear();
    this.#wake.resolve();
  }

  async #connect(): Promise<void> {
    const path = join(this.#home, "agent");
    for (;;) {
      if (this.#ended !== undefined) throw this.#ended;
      const socket = connect({ path });
      const connected = await new Promise<boolean>((resolve) => {
        socket.once("connect", () => resolve(true));
        socket.once("error", () => resolve(false));
      });
      if (connected) {
        this.#socket = socket;
        socket.setEncoding("latin1");
        socket.on("data", (text: string) => this.#take(text));
        socket.on("error", (error) => this.#end(error.message));
        return;
      }
      await sleep(100);
    }
  }

  #take(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop()!;
    for (const line of lines) {
      const [kind, id = "", status = "", out = "", err = ""] = line.trim().split(" ");
      if (kind === "boot") {
        this.#boots.push(id);
        // What was asked of the system before it went down is not answered any more.
        for (const answer of this.#waiting.values()) answer({ status: -1, out: "", err: "rebooted" });
        this.#waiting.clear();
        this.#wake.resolve();
        this.#wake = Promise.withResolvers();
      } else if (kind === "done") {
        const decode = (part: string): string => Buffer.from(part.slice(1), "base64").toString();
        this.#waiting.get(id)?.({ status: Number(status), out: decode(out), err: decode(err) });
        this.#waiting.delete(id);
      }
    }
  }

  /** How often it has booted. */
  get boots(): number {
    return this.#boots.length;
  }

  /** Resolves when it has booted for the `count`th time. */
  async booted(count: number): Promise<void> {
    const late = AbortSignal.timeout(bootTimeoutMs);
    while (this.#boots.length < count) {
      if (this.#ended !== undefined) throw this.#ended;
      if (late.aborted)
        throw new Error(`not booted after ${bootTimeoutMs / 1000} s\n${this.console().slice(-2000)}`);
      await Promise.race([this.#wake.promise, sleep(1000)]);
    }
  }

  /** Runs a shell command in the machine, as root. */
  run(command: string, timeoutSeconds = 120): Promise<Answer> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const id = randomUUID();
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve);
      this.#socket!.write(`${id} ${timeoutSeconds} ${Buffer.from(command).toString("base64")}\n`);
    });
  }

  /** The output of a command that has to succeed. */
  async succeed(command: string, timeoutSeconds?: number): Promise<string> {
    const { status, out, err } = await this.run(command, timeoutSeconds);
    if (status !== 0) throw new Error(`${command}\nexit status ${status}\n${out}${err}`);
    return out.trim();
  }

  /** Orders a reboot and waits for it. */
  async reboot(): Promise<void> {
    const next = this.boots + 1;
    await this.run("systemctl --no-block reboot");
    await this.booted(next);
  }

  /** What the kernel and systemd wrote to the serial line. */
  console(): string {
    try {
      return readFileSync(join(this.#home, "console"), "latin1");
    } catch {
      return "";
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket?.destroy();
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const ended = new Promise((resolve) => this.#child.once("exit", resolve));
      this.#child.kill("SIGKILL");
      await ended;
    }
    rmSync(this.#home, { recursive: true, force: true });
  }
}
