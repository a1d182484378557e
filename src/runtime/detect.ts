import { execFile } from "node:child_process";
import { accessSync, constants, readFileSync, realpathSync } from "node:fs";
import { promisify } from "node:util";
import { EngineError, messageOf } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import type { RuntimeInfo } from "./runtime.ts";
import { seccompAnnotation } from "./spec.ts";

/** One of `--add-runtime`. */
export interface RuntimeConfig {
  readonly name: string;
  readonly path: string;
  readonly args?: readonly string[];
}

export interface DetectedRuntime extends RuntimeInfo {
  readonly args: readonly string[];
  /** Reads a compiled filter from an annotation: without this, a filter given so would silently not be there. */
  readonly takesCompiledSeccomp: boolean;
}

const searchPath = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
export const noRuntime = "no OCI runtime found: install crun or runc, or name one with --add-runtime";
const versionTimeoutMs = 10_000;

/** The program of a runtime, by its name or absolute path; undefined where there is none that can be executed. */
export function findRuntime(name: string): string | undefined {
  for (const path of name.startsWith("/") ? [name] : searchPath.map((folder) => `${folder}/${name}`)) {
    try {
      accessSync(path, constants.X_OK);
      return realpathSync(path);
    } catch {
      // Not here; absence everywhere is reported by the caller.
    }
  }
  return undefined;
}

async function versionOf(path: string): Promise<{ kind: "crun" | "runc"; version: string }> {
  const { stdout } = await promisify(execFile)(path, ["--version"], { timeout: versionTimeoutMs });
  const match = /^(\S+) version (\S+)/m.exec(stdout);
  // Anything else that speaks runc's command line (youki, runsc) is driven as runc.
  return { kind: match?.[1] === "crun" ? "crun" : "runc", version: match?.[2] ?? "unknown" };
}

/** The text is in the program itself (Debian links libcrun in): where it is not, the rules go as JSON instead. */
function knowsAnnotation(path: string): boolean {
  return readFileSync(path).includes(seccompAnnotation);
}

async function detectOne(config: RuntimeConfig): Promise<DetectedRuntime> {
  const path = config.path.startsWith("/") ? config.path : findRuntime(config.path);
  if (path === undefined) {
    throw new EngineError("invalid", `runtime ${config.name}: ${config.path} not found`);
  }
  const { kind, version } = await versionOf(path).catch((error: unknown) => {
    throw new EngineError("invalid", `runtime ${config.name}: ${path} does not work: ${messageOf(error)}`);
  });
  return {
    name: config.name,
    path,
    kind,
    version,
    args: config.args ?? [],
    takesCompiledSeccomp: kind === "crun" && knowsAnnotation(path),
  };
}

/**
 * The runtimes of this host, the default first: `--default-runtime`, else crun, else runc. Runs each once with `--version`
 * (at the daemon's start only). Throws `invalid` for a configured runtime that does not work or a default that is unknown.
 */
export async function detectRuntimes(
  configured: readonly RuntimeConfig[],
  defaultRuntime: string | undefined,
  log: Log,
): Promise<DetectedRuntime[]> {
  const found: DetectedRuntime[] = [];
  for (const name of ["crun", "runc"]) {
    if (configured.some((config) => config.name === name) || findRuntime(name) === undefined) continue;
    try {
      found.push(await detectOne({ name, path: name }));
    } catch (error) {
      log.warn("runtime does not work", { runtime: name, reason: messageOf(error) });
    }
  }
  for (const config of configured) found.push(await detectOne(config));
  if (found.length === 0) {
    throw new EngineError("system", noRuntime);
  }
  const chosen = found.find((runtime) => runtime.name === (defaultRuntime ?? found[0]!.name));
  if (chosen === undefined) {
    throw new EngineError("invalid", `specified default runtime '${defaultRuntime}' does not exist`);
  }
  return [chosen, ...found.filter((runtime) => runtime !== chosen)];
}
