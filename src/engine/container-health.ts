/** Health checks: a command run inside now and then (moby `daemon/health.go`). */
import { messageOf } from "#base/errors.ts";
import { newExecId } from "#base/ids.ts";
import type { Sandbox } from "#runtime/runtime.ts";
import type { HealthcheckConfig } from "#wire/container-schema.ts";
import { FrameDecoder } from "#wire/stdio-frames.ts";
import type { Container, Health } from "./container.ts";
import { effectiveEnv } from "./container-config.ts";
import { type ContainerContext, containerEvent } from "./container-context.ts";

const msPerNs = 1e-6;
const defaults = { intervalMs: 30_000, timeoutMs: 30_000, startIntervalMs: 5_000, retries: 3 };
const logEntriesMax = 5;
const outputBytesMax = 4096;
const exitTimedOut = -1;

interface Check {
  readonly args: readonly string[];
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly startPeriodMs: number;
  readonly startIntervalMs: number;
  readonly retries: number;
}

/** The check that a config asks for; undefined for none. Words keep their spaces (COMPAT 12). */
export function healthCheckOf(
  config: HealthcheckConfig | null,
  shell: readonly string[] | null,
): Check | undefined {
  const [kind, ...words] = config?.Test ?? [];
  if (config === null || kind === undefined || kind === "NONE") return undefined;
  const ms = (ns: number, fallback: number): number => (ns === 0 ? fallback : ns * msPerNs);
  return {
    args: kind === "CMD-SHELL" ? [...(shell ?? ["/bin/sh", "-c"]), words[0] ?? ""] : words,
    intervalMs: ms(config.Interval, defaults.intervalMs),
    timeoutMs: ms(config.Timeout, defaults.timeoutMs),
    startPeriodMs: ms(config.StartPeriod, 0),
    startIntervalMs: ms(config.StartInterval, defaults.startIntervalMs),
    retries: config.Retries || defaults.retries,
  };
}

/** Checks a started container until it ends. Does nothing where it has no check. */
export function startHealthChecks(ctx: ContainerContext, container: Container, sandbox: Sandbox): void {
  const { config } = container.document;
  const check = healthCheckOf(config.Healthcheck, config.Shell);
  if (check === undefined) return;
  container.health?.stop();
  const startedMs = ctx.clock.monotonicMs();
  let timer: NodeJS.Timeout | undefined;
  const health: Health = {
    status: "starting",
    failingStreak: 0,
    log: [],
    stop: () => clearTimeout(timer),
  };
  container.health = health;
  const isCurrent = (): boolean => container.health === health && container.sandbox === sandbox;
  const schedule = (): void => {
    const starting =
      health.status === "starting" && ctx.clock.monotonicMs() - startedMs < check.startPeriodMs;
    timer = setTimeout(
      () => ctx.watch("a health check", probe()),
      starting ? check.startIntervalMs : check.intervalMs,
    );
    timer.unref();
  };
  const probe = async (): Promise<void> => {
    if (!isCurrent() || ctx.closing) return;
    if (container.state.status === "running") {
      const result = await runProbe(ctx, container, sandbox, check);
      if (!isCurrent()) return;
      record(
        ctx,
        container,
        health,
        check,
        result,
        ctx.clock.monotonicMs() - startedMs < check.startPeriodMs,
      );
    }
    schedule();
  };
  schedule();
}

function record(
  ctx: ContainerContext,
  container: Container,
  health: Health,
  check: Check,
  result: Health["log"][number],
  inStartPeriod: boolean,
): void {
  health.log.push(result);
  if (health.log.length > logEntriesMax) health.log.shift();
  const before = health.status;
  if (result.ExitCode === 0) {
    health.failingStreak = 0;
    health.status = "healthy";
  } else if (!(health.status === "starting" && inStartPeriod)) {
    health.failingStreak += 1;
    if (health.failingStreak >= check.retries) health.status = "unhealthy";
  }
  if (health.status !== before) containerEvent(ctx, container, `health_status: ${health.status}`);
}

async function runProbe(
  ctx: ContainerContext,
  container: Container,
  sandbox: Sandbox,
  check: Check,
): Promise<Health["log"][number]> {
  const start = ctx.clock.now();
  const { config } = container.document;
  const output: Buffer[] = [];
  let bytes = 0;
  const decoder = new FrameDecoder((_, part) => {
    const room = outputBytesMax - bytes;
    if (room > 0) output.push(Buffer.from(part.subarray(0, room)));
    bytes += part.length;
  });
  const done = (exitCode: number, text?: string): Health["log"][number] => ({
    Start: start,
    End: ctx.clock.now(),
    ExitCode: exitCode,
    Output: text ?? `${Buffer.concat(output).toString("utf8")}${bytes > outputBytesMax ? "..." : ""}`,
  });
  try {
    const process = await sandbox.exec({
      execId: newExecId(),
      args: check.args,
      env: effectiveEnv(config.Env),
      workingDir: config.WorkingDir,
      user: config.User,
      privileged: false,
      terminal: false,
      openStdin: false,
      attach: { stdin: false, stdout: true, stderr: true },
    });
    process.stdio?.on("data", (chunk: Buffer) => decoder.push(chunk));
    process.stdio?.on("error", () => {});
    const exit = await exitWithin(process.exited, check.timeoutMs);
    if (exit !== undefined) return done(exit.exitCode);
    process.stdio?.destroy();
    killProcess(process.pid);
    return done(exitTimedOut, `Health check exceeded timeout (${check.timeoutMs / 1000}s)`);
  } catch (error) {
    return done(exitTimedOut, messageOf(error));
  }
}

/** The pid is the daemon's own child's child and not yet waited for by its shim, so it cannot be another's by now. */
function killProcess(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It ended meanwhile.
  }
}

async function exitWithin(
  exited: Promise<{ readonly exitCode: number }>,
  ms: number,
): Promise<{ readonly exitCode: number } | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), ms);
  });
  try {
    return await Promise.race([exited, late]);
  } finally {
    clearTimeout(timer);
  }
}
