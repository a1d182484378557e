import { access } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { formatTime, zeroTime } from "#base/clock.ts";
import { errnoOf } from "#base/errors.ts";
import type { ContainerId } from "#base/ids.ts";
import type { Log } from "#base/log.ts";
import type { ExitRecord, Shim, ShimHost, ShimLaunch } from "./shim.ts";
import { formatPort, launchError } from "./shim-errors.ts";
import { readExitRecord } from "./shim-exit-record.ts";
import { Launcher, type LauncherOptions } from "./shim-launcher.ts";
import { ShimProcess } from "./shim-process.ts";
import { FrameWriter, frameTypes, launchFlags, protocolVersion, shimStates, tags } from "./shim-protocol.ts";
import { clearRemains, readRemains } from "./shim-remains.ts";
import { firstFrame, openWithFrame } from "./shim-socket.ts";

const endingTimeoutMs = 2000;

export type ShimHostOptions = LauncherOptions;

/**
 * Starts a launcher in `execRoot` (which must exist, mode 0700 or 0711) and returns the host of its shims. Disposing it
 * leaves containers running: their shims are let go of, the launcher ends.
 */
export async function createShimHost(options: ShimHostOptions): Promise<ShimHost> {
  const launcher = new Launcher(options);
  await launcher.start();
  return new NativeShimHost(launcher, options.log);
}

class NativeShimHost implements ShimHost {
  readonly #launcher: Launcher;
  readonly #log: Log;
  readonly #shims = new Set<ShimProcess>();

  constructor(launcher: Launcher, log: Log) {
    this.#launcher = launcher;
    this.#log = log;
  }

  announce(): void {
    this.#launcher.announce();
  }

  async launch(launch: ShimLaunch, options: { signal?: AbortSignal } = {}): Promise<Shim> {
    options.signal?.throwIfAborted();
    const control = await this.#launcher.connect();
    control.write(launchFrame(launch));
    const answer = await firstFrame(control, options.signal);
    if (answer.type !== frameTypes.ready) {
      control.destroy();
      throw launchError(answer, launch.ports);
    }
    return this.#adopt(
      new ShimProcess({
        id: launch.id,
        runDir: launch.runDir,
        shimPid: answer.number(tags.pid),
        rootfsPath: answer.text(tags.rootfs),
        pid: 0,
        control,
        log: this.#log,
        lost: (startedAt) => this.#lost(launch.id, launch.runDir, launch.stateDir, startedAt),
      }),
    );
  }

  #adopt(shim: ShimProcess): ShimProcess {
    this.#shims.add(shim);
    void shim.closed.then(() => this.#shims.delete(shim));
    return shim;
  }

  /** A shim that is gone: the record it wrote all the same, or the container is killed and the loss recorded. */
  async #lost(id: ContainerId, runDir: string, stateDir: string, startedAt: string): Promise<ExitRecord> {
    await this.#clear(id, runDir);
    return (await readExitRecord(stateDir)) ?? lostRecord(startedAt);
  }

  /** Returns whether a shim had left anything. */
  async #clear(id: ContainerId, runDir: string): Promise<boolean> {
    const remains = await readRemains(runDir);
    if (remains === undefined) return false;
    await clearRemains(id, runDir, remains, () => {
      this.#log.error("processes of a container survived SIGKILL", { container: id });
    });
    return true;
  }

  async recover(
    id: ContainerId,
    runDir: string,
    stateDir: string,
  ): Promise<{ shim: Shim } | { exit: ExitRecord } | undefined> {
    const shim = await this.#reconnect(id, runDir, stateDir);
    if (shim !== undefined) return { shim };
    const started = await exists(join(runDir, "container.pid"));
    const remained = await this.#clear(id, runDir);
    const exit = await readExitRecord(stateDir);
    if (exit !== undefined) return { exit };
    return remained && started ? { exit: lostRecord(zeroTime) } : undefined;
  }

  async #reconnect(id: ContainerId, runDir: string, stateDir: string): Promise<ShimProcess | undefined> {
    const hello = new FrameWriter(frameTypes.openControl).number(tags.version, protocolVersion).finish();
    let opened: Awaited<ReturnType<typeof openWithFrame>>;
    try {
      opened = await openWithFrame(join(runDir, "shim.sock"), hello);
    } catch (error) {
      const errno = errnoOf(error);
      // Nobody listens, or the shim ended just now: its exit record tells.
      if (errno === "ENOENT" || errno === "ENOTDIR" || errno === "ECONNREFUSED") return undefined;
      if (error instanceof Error && "code" in error && error.code === "shim-gone") return undefined;
      throw error;
    }
    const { socket: control, answer } = opened;
    const startedNs = answer.bigint(tags.startedNs);
    const shim = new ShimProcess({
      id,
      runDir,
      shimPid: answer.number(tags.shimPid),
      rootfsPath: join(runDir, "rootfs"),
      pid: answer.number(tags.pid),
      control,
      log: this.#log,
      lost: (startedAt) => this.#lost(id, runDir, stateDir, startedAt),
      ...(startedNs === 0n ? {} : { startedAt: formatTime(startedNs) }),
    });
    this.#adopt(shim);
    const state = answer.number(tags.state);
    if (state === shimStates.exited) shim.reportExit(answer);
    if (state !== shimStates.created) return shim;
    // It has not yet noticed that its daemon went before the start: it ends now.
    await shim.abandon();
    return undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Those whose container has ended are only cleaning up: with a little patience nothing of them is left.
    const ending = [...this.#shims].filter((shim) => shim.ended);
    for (const shim of this.#shims) if (!shim.ended) shim.detach();
    await Promise.race([
      Promise.all(ending.map((shim) => shim.closed)),
      sleep(endingTimeoutMs, undefined, { ref: false }),
    ]);
    for (const shim of ending) shim.detach();
    await this.#launcher.stop();
  }
}

function lostRecord(startedAt: string): ExitRecord {
  return {
    exitCode: 137,
    startedAt,
    finishedAt: formatTime(BigInt(Date.now()) * 1_000_000n),
    oomKilled: false,
    lost: "shim killed",
  };
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}

function launchFrame(launch: ShimLaunch): Buffer {
  const flags =
    (launch.volatile ? launchFlags.volatile : 0) |
    (launch.terminal ? launchFlags.terminal : 0) |
    (launch.openStdin ? launchFlags.openStdin : 0) |
    (launch.stdinOnce ? launchFlags.stdinOnce : 0) |
    (launch.log.driver === "json-file" ? launchFlags.logJson : 0) |
    (launch.runtime.kind === "crun" ? launchFlags.hideUnified : 0) |
    (launch.filesOnly === undefined ? 0 : launchFlags.filesOnly) |
    (launch.systemdCgroup === true ? launchFlags.systemdCgroup : 0) |
    (launch.filesOnly?.readonlyRoot === true ? launchFlags.readonlyRoot : 0);
  const frame = new FrameWriter(frameTypes.launch)
    .number(tags.version, protocolVersion)
    .text(tags.id, launch.id)
    .text(tags.runDir, launch.runDir)
    .text(tags.stateDir, launch.stateDir)
    .texts(tags.lowerDir, launch.lowerDirs)
    .text(tags.upperDir, launch.upperDir)
    .text(tags.workDir, launch.workDir)
    .number(tags.flags, flags)
    .text(tags.runtimePath, launch.runtime.path)
    .text(tags.runtimeRoot, launch.runtime.root)
    .texts(tags.runtimeArgument, launch.runtime.args)
    .text(tags.logPath, launch.log.path)
    .number(tags.logBytesMax, launch.log.maxBytes)
    .number(tags.logFilesMax, launch.log.maxFiles)
    .text(tags.logAttrs, launch.log.attrsJson)
    .texts(tags.port, launch.ports.map(formatPort))
    .text(tags.cgroupPath, launch.cgroupPath);
  for (const bind of launch.filesOnly?.binds ?? []) {
    const letters = `${bind.readOnly ? "r" : "w"}${bind.recursive ? "R" : "N"}`;
    frame.text(tags.bindSource, `${letters}${bind.source}`).text(tags.bindTarget, bind.target);
  }
  if (launch.oomScoreAdj !== undefined) frame.number(tags.oomScore, launch.oomScoreAdj);
  return frame.finish();
}
