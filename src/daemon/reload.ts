import { hostname } from "node:os";
import { EngineError, errnoOf, messageOf } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import type { Runtime } from "#runtime/runtime.ts";
import { type DaemonConfig, readConfig } from "./config.ts";
import { formatAddress } from "./config-hosts.ts";
import { ConfigError } from "./config-sources.ts";
import { StartupError } from "./roots.ts";
import { readTlsMaterial, type TlsMaterial } from "./tls-files.ts";

/** What SIGHUP takes over, as dockerd's list; the rest waits for a restart. `live-restore` is always on. */
const reloadable = [
  "debug",
  "logLevel",
  "labels",
  "features",
  "insecureRegistries",
  "registryMirrors",
  "maxConcurrentDownloads",
  "maxConcurrentUploads",
  "maxDownloadAttempts",
  "runtimes",
  "defaultRuntime",
  "shutdownTimeoutMs",
  "allowedHosts",
] as const satisfies readonly (keyof DaemonConfig)[];

/** Who has to follow. */
export interface ReloadTargets {
  /** Throws for what does not work, and has then changed nothing. */
  reconfigure(config: DaemonConfig): Promise<void>;
  useTls(config: DaemonConfig, tls: TlsMaterial | undefined): void;
}

/**
 * Reads the configuration again and returns the one that holds from now on. A file that is wrong, certificates that cannot
 * be used, a runtime that does not work: one line in the log, and everything stays as it was.
 */
export async function reloadConfig(
  current: DaemonConfig,
  targets: ReloadTargets,
  log: Log,
  read: () => DaemonConfig = readConfig,
): Promise<DaemonConfig> {
  try {
    const found = read();
    const next: DaemonConfig = Object.freeze({
      ...current,
      ...Object.fromEntries(reloadable.map((key) => [key, found[key]])),
      // Other files of the same kind; whether there is TLS at all is part of the listeners.
      tls: { ...found.tls, mode: current.tls.mode },
    });
    const tls = await readTlsMaterial(next.tls, log);
    await targets.reconfigure(next);
    targets.useTls(next, tls);
    const waiting = changed(next, found);
    log.info("configuration reloaded", {
      changed: changed(current, next),
      ...(waiting.length === 0 ? {} : { needsRestart: waiting }),
    });
    return next;
  } catch (error) {
    const foreseen =
      error instanceof ConfigError || error instanceof StartupError || error instanceof EngineError;
    if (!foreseen && errnoOf(error) === undefined) throw error;
    log.error(`the configuration was not reloaded: ${messageOf(error).replaceAll("\n", " ")}`);
    return current;
  }
}

/** Names of the settings that differ. */
function changed(before: DaemonConfig, after: DaemonConfig): string[] {
  const text = (value: unknown): string =>
    JSON.stringify(value, (_, inner) => (inner instanceof Map ? [...inner] : inner)) ?? "";
  const keys = Object.keys(before) as (keyof DaemonConfig)[];
  return keys.filter((key) => key !== "action" && text(before[key]) !== text(after[key]));
}

/** The attributes of the daemon's `reload` event (dockerd: daemon/reload.go); lists and maps as JSON. */
export function reloadAttributes(
  config: DaemonConfig,
  runtime: Pick<Runtime, "runtimes">,
): Record<string, string> {
  return {
    name: hostname(),
    debug: String(config.debug),
    "default-runtime": runtime.runtimes[0]?.name ?? "",
    "default-shm-size": String(config.defaultShmSizeBytes),
    features: JSON.stringify(Object.fromEntries(config.features)),
    hosts: JSON.stringify(config.hosts.map(formatAddress)),
    "insecure-registries": JSON.stringify(config.insecureRegistries),
    labels: JSON.stringify(config.labels),
    "live-restore": "true",
    "log-level": config.logLevel,
    "max-concurrent-downloads": String(config.maxConcurrentDownloads),
    "max-concurrent-uploads": String(config.maxConcurrentUploads),
    "max-download-attempts": String(config.maxDownloadAttempts),
    "registry-mirrors": JSON.stringify(config.registryMirrors),
    runtimes: JSON.stringify(Object.fromEntries(runtime.runtimes.map(({ name, path }) => [name, { path }]))),
    "shutdown-timeout": String(config.shutdownTimeoutMs / 1000),
  };
}
