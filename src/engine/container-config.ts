/** Merging an image's defaults into a create request, as Docker's `merge` does. Pure. */
import { EngineError } from "#base/errors.ts";
import type { ContainerConfig } from "#wire/container-schema.ts";
import type { ImageRunConfig } from "#wire/oci-image.ts";

/**
 * The config a container is made with.
 * - `Entrypoint` given (also `[""]`, which clears it) keeps the image's `Cmd` out; `[]` and null mean "not given".
 * - `Env`: the request's, then the image's whose keys it lacks. `Labels`, `ExposedPorts`, `Volumes`: united.
 * Throws `invalid` `no command specified` when there is nothing to run.
 */
export function mergeImageConfig(
  request: ContainerConfig,
  image: ImageRunConfig | undefined,
): ContainerConfig {
  const config: ContainerConfig = { ...request };
  if (image !== undefined) {
    config.User = request.User || (image.User ?? "");
    config.ExposedPorts = unite(request.ExposedPorts, image.ExposedPorts);
    config.Volumes = unite(request.Volumes, image.Volumes);
    config.Labels = unite(request.Labels, image.Labels);
    config.Env = mergeEnv(request.Env, image.Env ?? null);
    config.WorkingDir = request.WorkingDir || (image.WorkingDir ?? "");
    config.StopSignal = request.StopSignal || (image.StopSignal ?? "");
    config.Healthcheck = mergeHealthcheck(request, image);
    config.Shell = request.Shell ?? (image.Shell ? [...image.Shell] : null);
    config.OnBuild = request.OnBuild;
    mergeCommand(config, request, image);
  }
  if (config.Entrypoint?.length === 1 && config.Entrypoint[0] === "") config.Entrypoint = null;
  if (!config.Entrypoint?.length && !config.Cmd?.length) {
    throw new EngineError("invalid", "no command specified", { code: "no-command" });
  }
  config.Labels ??= {};
  return config;
}

function mergeCommand(config: ContainerConfig, request: ContainerConfig, image: ImageRunConfig): void {
  if (request.Entrypoint !== null && request.Entrypoint.length > 0) return;
  if (!request.Cmd?.length) {
    config.Cmd = image.Cmd ? [...image.Cmd] : request.Cmd;
    config.ArgsEscaped = image.ArgsEscaped ?? request.ArgsEscaped;
  }
  // `[]` clears the image's entrypoint (COMPAT 12); only an absent one inherits it.
  if (request.Entrypoint === null) config.Entrypoint = image.Entrypoint ? [...image.Entrypoint] : null;
}

function unite<T>(
  mine: Record<string, T> | null,
  theirs: Readonly<Record<string, T | object>> | null | undefined,
): Record<string, T> | null {
  if (!theirs || Object.keys(theirs).length === 0) return mine;
  const entries = new Map<string, T>(Object.entries(theirs) as [string, T][]);
  for (const [key, value] of Object.entries(mine ?? {})) entries.set(key, value);
  return Object.fromEntries([...entries].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)));
}

function mergeEnv(mine: readonly string[] | null, theirs: readonly string[] | null): string[] | null {
  if (mine === null || mine.length === 0) return theirs === null ? (mine as string[] | null) : [...theirs];
  const keys = new Set(mine.map(envKey));
  return [...mine, ...(theirs ?? []).filter((entry) => !keys.has(envKey(entry)))];
}

function envKey(entry: string): string {
  const equals = entry.indexOf("=");
  return equals < 0 ? entry : entry.slice(0, equals);
}

function mergeHealthcheck(request: ContainerConfig, image: ImageRunConfig): ContainerConfig["Healthcheck"] {
  const theirs = image.Healthcheck;
  if (!theirs) return request.Healthcheck;
  const mine = request.Healthcheck;
  return {
    Test: mine?.Test?.length ? mine.Test : theirs.Test ? [...theirs.Test] : null,
    Interval: mine?.Interval || (theirs.Interval ?? 0),
    Timeout: mine?.Timeout || (theirs.Timeout ?? 0),
    StartPeriod: mine?.StartPeriod || (theirs.StartPeriod ?? 0),
    StartInterval: mine?.StartInterval || (theirs.StartInterval ?? 0),
    Retries: mine?.Retries || (theirs.Retries ?? 0),
  };
}

/** What is executed: Docker's Path and Args. */
export function commandOf(config: ContainerConfig): { path: string; args: string[] } {
  const words = [...(config.Entrypoint ?? []), ...(config.Cmd ?? [])];
  return { path: words[0] ?? "", args: words.slice(1) };
}

/** `KEY=value` entries only: an entry without `=` removes a variable in Docker, and must not reach the daemon's own environment. */
export function effectiveEnv(env: readonly string[] | null): string[] {
  return (env ?? []).filter((entry) => entry.indexOf("=") > 0);
}
