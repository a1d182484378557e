import { existsSync } from "node:fs";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { createHttpFront } from "#api/listen.ts";
import { apiVersionMax, formatVersion } from "#api/version.ts";
import { AssertionFailure } from "#base/assert.ts";
import { EngineError, messageOf } from "#base/errors.ts";
import { createLog, type Log } from "#base/log.ts";
import { skiffVersion } from "#base/version.ts";
import { compose } from "./compose.ts";
import { type DaemonConfig, readConfig, usage } from "./config.ts";
import { ConfigError } from "./config-sources.ts";
import { findDisagreements } from "./fsck.ts";
import { returnIdleMemory } from "./idle-memory.ts";
import { reportLoopDelay } from "./loop-delay.ts";
import { claimPidfile, claimRoot, StartupError } from "./roots.ts";
import { listenOnSocket, socketGroupId } from "./sockets.ts";

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

function waitForStopSignal(log: Log): Promise<void> {
  return new Promise((resolve) => {
    let stopping = false;
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.on(signal, () => {
        log.info(`${signal}: stopping`);
        if (stopping) process.exit(128 + (signal === "SIGINT" ? 2 : 15));
        stopping = true;
        resolve();
      });
    }
    // Reserved for reloading the configuration; dockerd does not end by it either.
    process.on("SIGHUP", () => log.info("SIGHUP: reloading the configuration is not supported yet"));
  });
}

async function run(config: DaemonConfig, log: Log): Promise<void> {
  if (process.getuid?.() !== 0) throw new StartupError("skiffd needs to be started with root privileges");
  await using resources = new AsyncDisposableStack();
  resources.use(claimRoot(config.dataRoot, "data root"));
  resources.use(claimRoot(config.execRoot, "exec root"));
  resources.use(claimPidfile(config.pidfile));
  const groupId = socketGroupId(config.group);

  const daemon = resources.use(await compose(config, log));
  const front = createHttpFront({ routes: daemon.routes, log });
  resources.defer(() => front.close(requestGraceMs));
  const stopped = waitForStopSignal(log);
  for (const path of config.sockets) {
    const server = front.createServer();
    await listenOnSocket(server, path, groupId, log);
    resources.defer(() => {
      server.close();
    });
  }
  resources.use(returnIdleMemory());
  if (config.logLevel === "debug") resources.use(reportLoopDelay(log));
  log.info("skiffd is ready", {
    version: skiffVersion,
    api: formatVersion(apiVersionMax),
    dataRoot: config.dataRoot,
    startMs: Math.round(performance.now()),
  });
  await stopped;
  limitShutdown(config.shutdownTimeoutMs, log);
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

async function main(): Promise<void> {
  const config = readConfigOrExit();
  if (config.action === "help") process.stdout.write(usage());
  else if (config.action === "version") {
    process.stdout.write(`skiffd version ${skiffVersion}, Engine API ${formatVersion(apiVersionMax)}\n`);
  } else if (config.action === "validate") process.stdout.write("configuration OK\n");
  else {
    const log = createLog(config.logLevel, (line) => process.stderr.write(line));
    crashOnBrokenInvariant(log);
    try {
      if (config.action === "check") process.exit(await checkState(config, log));
      await run(config, log);
    } catch (error) {
      if (error instanceof StartupError || error instanceof EngineError) refuse(messageOf(error));
      throw error;
    }
    log.info("stopped");
    process.exit(0);
  }
}

await main();
