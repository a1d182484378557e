import { spawn } from "node:child_process";
import { existsSync, rmdirSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import type { Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { EngineError, errnoOf } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import { FrameWriter, frameTypes } from "./shim-protocol.ts";
import { cgroupHierarchies } from "./shim-remains.ts";
import { connectUnix } from "./shim-socket.ts";

export interface LauncherOptions {
  /** `native/build/skiff-native`. */
  readonly binaryPath: string;
  readonly execRoot: string;
  /** Path below every cgroup hierarchy, outside the daemon's own unit: `/skiff-shims`. */
  readonly launcherCgroup: string;
  /** Runtimes that are copied into sealed memory once, so that no start copies them again. Default: an installed crun. */
  readonly sealedRuntimes?: readonly string[];
  readonly log: Log;
}

const socketName = "launcher.sock";
/** The grace period that an announcement starts serves all that follow within its length. */
const announceIntervalMs = 4;
const readyTimeoutMs = 10_000;
const defaultSealed = ["/usr/bin/crun", "/usr/local/bin/crun"];

/**
 * The launcher process as the daemon sees it: spawned once (the only spawn the daemon makes for containers), connected to
 * for every container, started again when it has died.
 */
export class Launcher {
  readonly #options: LauncherOptions;
  readonly #socketPath: string;
  #starting: Promise<void> | undefined;
  #announcedMs = Number.NEGATIVE_INFINITY;

  constructor(options: LauncherOptions) {
    this.#options = options;
    this.#socketPath = join(options.execRoot, socketName);
  }

  /** Starts a launcher; one that is there from an earlier daemon loses its socket's name and ends. */
  start(): Promise<void> {
    this.#starting ??= this.#spawn().finally(() => {
      this.#starting = undefined;
    });
    return this.#starting;
  }

  /** A connection on which the launcher has forked (or is about to fork) a shim. */
  async connect(): Promise<Socket> {
    try {
      return await connectUnix(this.#socketPath);
    } catch (error) {
      const errno = errnoOf(error);
      if (errno !== "ENOENT" && errno !== "ECONNREFUSED") throw error;
      this.#options.log.warn("the launcher is gone; starting another");
    }
    await this.start();
    return connectUnix(this.#socketPath);
  }

  /** See `ShimHost.announce`. A launcher that is not there is no reason to start one. */
  announce(): void {
    const now = performance.now();
    if (now - this.#announcedMs < announceIntervalMs) return;
    this.#announcedMs = now;
    void connectUnix(this.#socketPath).then(
      (socket) => {
        socket.resume();
        socket.once("end", () => socket.destroy());
        socket.end(new FrameWriter(frameTypes.announce).finish());
      },
      () => {},
    );
  }

  async #spawn(): Promise<void> {
    const { binaryPath, execRoot, launcherCgroup } = this.#options;
    const cgroup = launcherCgroup.startsWith("/") ? launcherCgroup : `/${launcherCgroup}`;
    const sealed = this.#options.sealedRuntimes ?? defaultSealed.filter((path) => existsSync(path));
    const child = spawn(binaryPath, ["launcher", execRoot, socketName, cgroup, ...sealed], {
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
      cwd: "/",
      env: {},
    });
    await new Promise<void>((resolve, reject) => {
      let errors = "";
      const refuse = (reason: string): void => {
        clearTimeout(timer);
        reject(new EngineError("system", `the launcher did not start: ${reason}`, { code: "launcher" }));
      };
      const timer = setTimeout(() => {
        child.kill("SIGKILL");
        refuse("no answer");
      }, readyTimeoutMs);
      child.stderr.on("data", (chunk: Buffer) => {
        errors = (errors + chunk.toString()).slice(0, 4096);
      });
      child.stdout.once("data", () => {
        clearTimeout(timer);
        resolve();
      });
      child.once("error", (error) => refuse(error.message));
      child.once("exit", (code) => refuse(errors.trim() === "" ? `exit code ${code}` : errors.trim()));
    });
    child.stdout.destroy();
    child.stderr.destroy();
    child.unref();
  }

  /** Asks the launcher to end and removes its cgroups; those in which shims still live stay. */
  async stop(): Promise<void> {
    try {
      const socket = await connectUnix(this.#socketPath);
      await new Promise<void>((resolve) => {
        socket.once("close", () => resolve());
        socket.resume();
        socket.end(new FrameWriter(frameTypes.quit).finish());
        socket.once("end", () => socket.destroy());
      });
    } catch (error) {
      if (errnoOf(error) !== "ENOENT" && errnoOf(error) !== "ECONNREFUSED") throw error;
    }
    await rm(this.#socketPath, { force: true });
    await this.#removeCgroups();
  }

  async #removeCgroups(): Promise<void> {
    const hierarchies = cgroupHierarchies(await readFile("/proc/self/mountinfo", "utf8"));
    let left = hierarchies.map(({ mountPoint }) => join(mountPoint, this.#options.launcherCgroup));
    for (let attempt = 0; attempt < 10 && left.length > 0; attempt += 1) {
      left = left.filter((path) => !removed(path));
      if (left.length > 0) await sleep(2);
    }
  }
}

function removed(path: string): boolean {
  try {
    rmdirSync(path);
    return true;
  } catch (error) {
    return errnoOf(error) === "ENOENT";
  }
}
