import { existsSync } from "node:fs";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { createHttpFront } from "#api/listen.ts";
import { apiVersionMax, formatVersion } from "#api/version.ts";
import { AssertionFailure } from "#base/assert.ts";
import { EngineError, errnoOf, messageOf } from "#base/errors.ts";
import { createLog, type Log } from "#base/log.ts";
import { skiffVersion } from "#base/version.ts";
import { compose, type Daemon } from "./compose.ts";
import { type DaemonConfig, readConfig, takeServiceEnvironment, usage } from "./config.ts";
import { ConfigError } from "./config-sources.ts";
import { findDisagreements } from "./fsck.ts";
import { returnIdleMemory } from "./idle-memory.ts";
import { Listeners } from "./listeners.ts";
import { reportLoopDelay } from "./loop-delay.ts";
import { checkDataRoot, checkWritable, requireRuntime } from "./preconditions.ts";
import { type ReloadTargets, reloadConfig } from "./reload.ts";
import { claimPidfile, claimRoot, StartupError } from "./roots.ts";
import { inheritedSockets, type ServiceEnvironment, ServiceManager } from "./service-manager.ts";
import { socketGroupId } from "./sockets.ts";
import { readTlsMaterial, type TlsMaterial } from "./tls-files.ts";

/** Requests in flight get this long when the daemon stops; streams and attached clients are cut. */
const requestGraceMs = 2_000;
/** Exit status after a broken invariant: told apart from 1, a bad start. */
const crashStatus = 70;

function refuse(message: string): never {
  process.stderr.write(`skiffd: ${message.replaceAll("\n", " ")}\n`);
  process.exit(1);
}

function readConfigOrExit(): DaemonConfig {
  try {
    return readConfig();
  } catch (error) {
    if (error instanceof ConfigError) refuse(error.message);
    throw error;
  }
}

function crashOnBrokenInvariant(log: Log): void {
  process.on("uncaughtException", (error) => {
    log.error("skiffd ends: an invariant is broken; containers go on, and the next start recovers", {
      error,
    });
    process.exit(crashStatus);
  });
  process.on("unhandledRejection", (reason) => {
    // One request's forgotten promise must not end the others' daemon (invariant 8).
    if (reason instanceof AssertionFailure) throw reason;
    log.error("a promise was rejected and nobody looked", { error: reason });
  });
  // A log that cannot be written any more is no reason to end.
  process.stderr.on("error", () => {});
}

/** Signals are taken from the first moment on: SIGHUP would end a process that does not expect it. */
class Signals {
  readonly stopped: Promise<void>;
  #hangup: (() => Promise<void>) | undefined;
  #hungUp = false;
  #reloading: Promise<void> | undefined;

  constructor(log: Log) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.stopped = promise;
    let stopping = false;
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.on(signal, () => {
        log.info(`${signal}: stopping`);
        if (stopping) process.exit(128 + (signal === "SIGINT" ? 2 : 15));
        stopping = true;
        resolve();
      });
    }
    process.on("SIGHUP", () => {
      this.#hungUp = true;
      this.#reload();
    });
  }

  /** Called for each SIGHUP, also for one that came before; one at a time, and once more for those that came meanwhile. */
  onHangup(act: () => Promise<void>): void {
    this.#hangup = act;
    this.#reload();
  }

  #reload(): void {
    if (!this.#hungUp || this.#hangup === undefined || this.#reloading !== undefined) return;
    this.#hungUp = false;
    this.#reloading = this.#hangup().finally(() => {
      this.#reloading = undefined;
      this.#reload();
    });
  }
}

/** The configuration as it is now, and the log that follows it. */
interface Running {
  config: DaemonConfig;
  readonly log: Log;
  readonly environment: ServiceEnvironment;
}

async function run(running: Running): Promise<void> {
  const { config, log, environment } = running;
  if (process.getuid?.() !== 0) throw new StartupError("skiffd needs to be started with root privileges");
  const tls = await checkBeforehand(config, log);
  const signals = new Signals(log);
  await using resources = new AsyncDisposableStack();
  const manager = resources.use(new ServiceManager(environment, log));
  const roots = [
    claimRoot(config.dataRoot, "data root"),
    claimRoot(config.execRoot, "exec root", { withContent: true }),
  ];
  for (const root of roots) resources.use(root);
  resources.use(claimPidfile(config.pidfile));

  // Before anything else is touched: an address in use ends the start here. Clients wait until it is open.
  const front = createHttpFront({ log });
  const inherited = inheritedSockets(environment);
  const listeners = await Listeners.open({ front, config, tls, inherited, log });
  const beingMade = new AsyncDisposableStack();
  resources.use(beingMade);
  resources.defer(() => front.close(requestGraceMs));
  resources.use(listeners);
  manager.status("Taking over what runs");
  const daemon = beingMade.use(await compose(config, log, () => listeners.warnings));
  for (const root of roots) root.keep();
  front.open(daemon.routes);
  resources.use(returnIdleMemory());
  if (config.logLevel === "debug") resources.use(reportLoopDelay(log));
  log.info("skiffd is ready", {
    version: skiffVersion,
    api: formatVersion(apiVersionMax),
    dataRoot: config.dataRoot,
    cgroupDriver: daemon.cgroupDriver,
    startMs: Math.round(performance.now()),
  });
  manager.ready(readyStatus);
  signals.onHangup(() => reload(running, daemon, listeners, manager));
  await signals.stopped;
  manager.stopping();
  limitShutdown(running.config.shutdownTimeoutMs, log);
}

const readyStatus = "Serving the Docker Engine API";

async function reload(
  running: Running,
  daemon: Daemon,
  listeners: Listeners,
  manager: ServiceManager,
): Promise<void> {
  running.log.info("SIGHUP: reading the configuration again");
  manager.reloading();
  const targets: ReloadTargets = {
    reconfigure: (next) => daemon.reconfigure(next),
    useTls: (next, tls) => listeners.reload(next, tls),
  };
  try {
    running.config = await reloadConfig(running.config, targets, running.log);
  } finally {
    manager.ready(readyStatus);
  }
}

/** All that can be found wrong without changing anything on the host. */
async function checkBeforehand(config: DaemonConfig, log: Log): Promise<TlsMaterial | undefined> {
  checkDataRoot(config.dataRoot);
  checkWritable(config.execRoot, "exec root");
  socketGroupId(config.group);
  requireRuntime(config);
  return await readTlsMaterial(config.tls, log);
}

function limitShutdown(timeoutMs: number, log: Log): void {
  if (timeoutMs < 0) return;
  setTimeout(() => {
    log.warn("stopping took too long");
    process.exit(0);
  }, timeoutMs).unref();
}

/** `--check-state`: one line for each disagreement; the exit status is 1 when there are any. */
async function checkState(config: DaemonConfig, log: Log): Promise<number> {
  if (!existsSync(join(config.dataRoot, "state.db"))) {
    throw new StartupError(`there is no state in the data root ${config.dataRoot}`);
  }
  using _data = claimRoot(config.dataRoot, "data root");
  const found = await findDisagreements({ dataRoot: config.dataRoot, execRoot: config.execRoot, log });
  process.stdout.write(found.length === 0 ? "state OK\n" : `${found.join("\n")}\n`);
  return found.length === 0 ? 0 : 1;
}

/** `--validate`: the configuration, and the files that it names. Nothing is made or changed. */
async function validate(config: DaemonConfig): Promise<void> {
  const warnings = createLog("warn", (line) => process.stderr.write(line));
  socketGroupId(config.group);
  requireRuntime(config);
  await readTlsMaterial(config.tls, warnings);
  process.stdout.write("configuration OK\n");
}

/** In one line what keeps the daemon from starting; undefined for what nobody has foreseen. */
function reasonNotToStart(error: unknown): string | undefined {
  const foreseen = error instanceof StartupError || error instanceof EngineError;
  // The kernel's refusals name their call and path; SQLite's their reason (a full disk, for example).
  const { errcode } = error as { errcode?: unknown };
  if (foreseen || errnoOf(error) !== undefined || typeof errcode === "number") return messageOf(error);
  return undefined;
}

async function main(): Promise<void> {
  const environment = takeServiceEnvironment();
  const config = readConfigOrExit();
  if (config.action === "help") process.stdout.write(usage());
  else if (config.action === "version") {
    process.stdout.write(`skiffd version ${skiffVersion}, Engine API ${formatVersion(apiVersionMax)}\n`);
  } else await act(config, environment);
}

async function act(config: DaemonConfig, environment: ServiceEnvironment): Promise<void> {
  const log: Log = createLog(
    () => running.config.logLevel,
    (line) => process.stderr.write(line),
  );
  const running: Running = { config, log, environment };
  crashOnBrokenInvariant(log);
  try {
    if (config.action === "validate") {
      await validate(config);
      return;
    }
    if (config.action === "check") process.exit(await checkState(config, log));
    await run(running);
  } catch (error) {
    const reason = reasonNotToStart(error);
    if (reason === undefined) throw error;
    log.debug("the start has failed", { error });
    refuse(reason);
  }
  log.info("stopped");
  process.exit(0);
}

await main();
