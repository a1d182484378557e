import { isIP } from "node:net";
import { join, resolve } from "node:path";
import { messageOf } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { type LogLevel, logLevels } from "#base/log.ts";
import { readSettings, type ServeSettings, SettingsError } from "#registry-server/settings.ts";
import {
  formatAddress,
  type HostAddress,
  isHostName,
  parseHost,
  type TlsSettings,
  tlsDefaults,
} from "./config-hosts.ts";
import { type OptionName, options } from "./config-options.ts";
import { ConfigError, parseFlags, readFile, type Settings } from "./config-sources.ts";
import { type AddressPool, isCidr, type RuntimeSetting, type UlimitSetting } from "./config-values.ts";
import type { ServiceEnvironment } from "./service-manager.ts";

/** Everything that can be set, read once, checked and frozen. Parts are handed down; nobody below reads the environment. */
export interface DaemonConfig {
  readonly action: "run" | "help" | "version" | "validate" | "check";
  /** Where the API is served. */
  readonly hosts: readonly HostAddress[];
  readonly tls: TlsSettings;
  /** `--insecure-tcp-without-mutual-tls`: TCP for clients that do not say who they are. */
  readonly insecureTcp: boolean;
  /** Names by which clients may address TCP listeners, besides those that the daemon knows to be its own. */
  readonly allowedHosts: readonly string[];
  /** Group of the sockets; undefined: `skiff` where it exists. */
  readonly group: string | undefined;
  readonly dataRoot: string;
  readonly execRoot: string;
  readonly pidfile: string;
  readonly logLevel: LogLevel;
  readonly debug: boolean;
  readonly insecureRegistries: readonly string[];
  readonly registryMirrors: readonly string[];
  /** Of the registry that the daemon serves; undefined: none. */
  readonly registry: ServeSettings | undefined;
  readonly maxConcurrentDownloads: number;
  readonly maxConcurrentUploads: number;
  readonly maxDownloadAttempts: number;
  /** Of the daemon, for `info`: `key=value`. */
  readonly labels: readonly string[];
  readonly features: ReadonlyMap<string, boolean>;
  /** Network namespaces held ready. */
  readonly networkPoolSize: number;
  readonly bip: string | undefined;
  readonly addressPools: readonly AddressPool[];
  readonly iptables: boolean;
  readonly dns: readonly string[];
  readonly dnsSearch: readonly string[];
  readonly dnsOptions: readonly string[];
  readonly runtimes: ReadonlyMap<string, RuntimeSetting>;
  readonly defaultRuntime: string | undefined;
  readonly defaultUlimits: readonly UlimitSetting[];
  readonly defaultShmSizeBytes: number;
  readonly noNewPrivileges: boolean;
  readonly init: boolean;
  /** undefined: the host's choice. */
  readonly cgroupDriver: "cgroupfs" | "systemd" | undefined;
  readonly cgroupParent: string | undefined;
  readonly logDriver: "json-file" | "none";
  readonly logOptions: ReadonlyMap<string, string>;
  readonly shutdownTimeoutMs: number;
  readonly proxies: { readonly http: string; readonly https: string; readonly none: string };
}

type Environment = Readonly<Record<string, string | undefined>>;

/** What a service manager says in the environment. It is taken out of it: it is not meant for our children. */
export function takeServiceEnvironment(
  environment: Record<string, string | undefined> = process.env,
): ServiceEnvironment {
  const take = (name: string): string | undefined => {
    const value = environment[name];
    delete environment[name];
    return value;
  };
  return {
    notifySocket: take("NOTIFY_SOCKET"),
    watchdogUsec: take("WATCHDOG_USEC"),
    watchdogPid: take("WATCHDOG_PID"),
    listenFds: take("LISTEN_FDS"),
    listenPid: take("LISTEN_PID"),
    listenNames: take("LISTEN_FDNAMES"),
  };
}

export const defaults = {
  configFile: "/etc/skiff/daemon.json",
  dataRoot: "/var/lib/skiff",
  execRoot: "/run/skiff",
  shmSizeBytes: 64 * 1024 * 1024,
  shutdownTimeoutSeconds: 15,
  /** As dockerd's. */
  concurrentUploads: 5,
  downloadAttempts: 5,
} as const;

/** Features of dockerd that may be switched off here, since they are. */
const knownFeatures = new Set(["buildkit", "cdi", "containerd-snapshotter", "time-namespaces"]);

/**
 * Reads flags and the configuration file by dockerd's rules: an unknown key and a directive that is given both ways
 * are errors, and all of them are named at once. A file that was named must exist; the default one need not.
 */
export function readConfig(
  argv: readonly string[] = process.argv.slice(2),
  environment: Environment = process.env,
): DaemonConfig {
  const flags = parseFlags(argv);
  const named = flags.get("config-file") as string | undefined;
  const file = readFile(named ?? defaults.configFile, named !== undefined, flags);
  return Object.freeze(build(new Map([...file, ...flags]), environment));
}

/** Collects what is wrong, so that it is told in one go. */
class Reader {
  readonly problems: string[] = [];
  readonly #settings: Settings;

  constructor(settings: Settings) {
    this.#settings = settings;
  }

  text(name: OptionName): string | undefined {
    const value = this.#settings.get(name) as string | undefined;
    return value === "" ? undefined : value;
  }

  bool(name: OptionName, otherwise = false): boolean {
    return (this.#settings.get(name) as boolean | undefined) ?? otherwise;
  }

  list(name: OptionName, wanted?: (entry: string) => boolean): readonly string[] {
    const value = (this.#settings.get(name) as readonly string[] | undefined) ?? [];
    for (const entry of wanted === undefined ? [] : value) {
      this.require(wanted!(entry), `invalid value ${JSON.stringify(entry)} for ${name}`);
    }
    return value;
  }

  integer(name: OptionName, otherwise: number, min: number, max: number): number {
    const value = (this.#settings.get(name) as number | undefined) ?? otherwise;
    this.require(value >= min && value <= max, `${name} must be from ${min} to ${max}, not ${value}`);
    return value;
  }

  map<T>(name: OptionName): ReadonlyMap<string, T> {
    return (this.#settings.get(name) as ReadonlyMap<string, T> | undefined) ?? new Map();
  }

  raw<T>(name: OptionName): T | undefined {
    return this.#settings.get(name) as T | undefined;
  }

  /** Whether it is set at all, also to false. */
  given(name: OptionName): boolean {
    return this.#settings.has(name);
  }

  require(holds: boolean, problem: string): void {
    if (!holds) this.problems.push(problem);
  }
}

function build(settings: Settings, environment: Environment): DaemonConfig {
  const read = new Reader(settings);
  const execRoot = resolve(read.text("exec-root") ?? defaults.execRoot);
  const dataRoot = resolve(read.text("data-root") ?? defaults.dataRoot);
  read.require(dataRoot !== execRoot, "data-root and exec-root must not be the same directory");
  const tls = tlsSettings(read);
  const config: DaemonConfig = {
    action: chooseAction(read),
    hosts: hosts(read, tls, execRoot),
    tls,
    insecureTcp: read.bool("insecure-tcp-without-mutual-tls"),
    allowedHosts: read.list("allowed-host", isHostName),
    group: read.text("group"),
    dataRoot,
    execRoot,
    pidfile: resolve(read.text("pidfile") ?? join(execRoot, "skiffd.pid")),
    logLevel: logLevel(read),
    debug: read.bool("debug"),
    insecureRegistries: read.list("insecure-registry", (entry) => /^[^\s/]+(\/\d{1,3})?$/.test(entry)),
    registryMirrors: read.list("registry-mirror", isMirror),
    registry: registrySettings(read, dataRoot),
    maxConcurrentDownloads: read.integer("max-concurrent-downloads", limits.concurrentDownloads, 1, 100),
    maxConcurrentUploads: read.integer("max-concurrent-uploads", defaults.concurrentUploads, 1, 100),
    maxDownloadAttempts: read.integer("max-download-attempts", defaults.downloadAttempts, 1, 100),
    labels: labels(read),
    features: features(read),
    networkPoolSize: read.integer("network-pool-size", limits.networkPoolSize, 0, 512),
    bip: read.text("bip"),
    addressPools: read.raw<readonly AddressPool[]>("default-address-pool") ?? [],
    iptables: read.bool("iptables", true),
    dns: read.list("dns", (entry) => isIP(entry) !== 0),
    dnsSearch: read.list("dns-search", (entry) => /^[^\s]{1,253}$/.test(entry)),
    dnsOptions: read.list("dns-opt", (entry) => /^[^\s]{1,253}$/.test(entry)),
    runtimes: read.map<RuntimeSetting>("add-runtime"),
    defaultRuntime: read.text("default-runtime"),
    defaultUlimits: [...read.map<UlimitSetting>("default-ulimit").values()],
    defaultShmSizeBytes: shmSize(read),
    noNewPrivileges: read.bool("no-new-privileges"),
    init: read.bool("init"),
    cgroupDriver: cgroupDriver(read),
    cgroupParent: read.text("cgroup-parent"),
    logDriver: read.text("log-driver") === "none" ? "none" : "json-file",
    logOptions: read.map<string>("log-opt"),
    shutdownTimeoutMs: read.integer("shutdown-timeout", defaults.shutdownTimeoutSeconds, -1, 86_400) * 1000,
    proxies: {
      http: environment["HTTP_PROXY"] ?? environment["http_proxy"] ?? "",
      https: environment["HTTPS_PROXY"] ?? environment["https_proxy"] ?? "",
      none: environment["NO_PROXY"] ?? environment["no_proxy"] ?? "",
    },
  };
  checkRest(read, config);
  if (read.problems.length > 0) throw new ConfigError(read.problems.join("; "));
  return config;
}

function checkRest(read: Reader, config: DaemonConfig): void {
  const { bip, defaultRuntime } = config;
  read.require(
    bip === undefined || (isCidr(bip) && Number(bip.split("/")[1]) <= 30),
    `invalid CIDR address for bip: ${bip}`,
  );
  const driver = read.text("storage-driver");
  read.require(
    driver === undefined || driver === "overlay2" || driver === "overlay",
    `storage-driver ${driver} is not supported by skiffd: overlay2 is`,
  );
  const logDriver = read.text("log-driver") ?? "json-file";
  read.require(
    logDriver === "json-file" || logDriver === "none",
    `log-driver ${logDriver} is not supported by skiffd yet: json-file and none are`,
  );
  const format = read.text("log-format") ?? "json";
  read.require(format === "json", `log-format ${format} is not supported by skiffd yet: json is`);
  checkTcp(read, config);
  const built = new Set(["runc", "crun", ...config.runtimes.keys()]);
  read.require(
    defaultRuntime === undefined || built.has(defaultRuntime),
    `specified default runtime '${defaultRuntime}' does not exist`,
  );
  for (const name of config.runtimes.keys()) {
    read.require(/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(name), `invalid runtime name ${JSON.stringify(name)}`);
    read.require(name !== "runc" && name !== "crun", `runtime name '${name}' is reserved`);
  }
}

function registrySettings(read: Reader, dataRoot: string): ServeSettings | undefined {
  const given = read.raw<ReadonlyMap<string, unknown>>("registry");
  if (given === undefined) return undefined;
  try {
    const defaults = { root: join(dataRoot, "registry"), accessLog: "off" };
    return readSettings(Object.fromEntries(given), defaults);
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    read.problems.push(`registry: ${error.message}`);
    return undefined;
  }
}

function chooseAction(read: Reader): DaemonConfig["action"] {
  if (read.bool("help")) return "help";
  if (read.bool("version")) return "version";
  if (read.bool("check-state")) return "check";
  return read.bool("validate") ? "validate" : "run";
}

function logLevel(read: Reader): LogLevel {
  if (read.bool("debug")) return "debug";
  const name = read.text("log-level") ?? "info";
  if ((logLevels as readonly string[]).includes(name)) return name as LogLevel;
  read.require(false, `unable to parse logging level: ${name}`);
  return "info";
}

function hosts(read: Reader, tls: TlsSettings, execRoot: string): HostAddress[] {
  const given = read.list("host");
  const found = new Map<string, HostAddress>();
  for (const text of given.length === 0 ? ["unix://"] : given) {
    try {
      const address = parseHost(text, tls.mode !== "off", execRoot);
      found.set(JSON.stringify(address), address);
    } catch (error) {
      read.require(false, messageOf(error));
    }
  }
  return [...found.values()];
}

function tlsSettings(read: Reader): TlsSettings {
  // As dockerd: `--tlsverify`, also `--tlsverify=false`, implies `--tls`.
  const on = read.bool("tls") || read.given("tlsverify");
  const path = (name: OptionName, otherwise: string): string => resolve(read.text(name) ?? otherwise);
  return {
    mode: read.bool("tlsverify") ? "mutual" : on ? "server" : "off",
    authority: path("tlscacert", tlsDefaults.authority),
    certificate: path("tlscert", tlsDefaults.certificate),
    key: path("tlskey", tlsDefaults.key),
  };
}

/** Who reaches an engine's API is root: TCP needs clients that prove who they are, or somebody who said otherwise. */
function checkTcp(read: Reader, { hosts, tls, insecureTcp }: DaemonConfig): void {
  if (tls.mode === "mutual" || insecureTcp) return;
  for (const address of hosts) {
    read.require(address.kind !== "tcp", `${withoutMutualTls(formatAddress(address))}`);
  }
}

/** The refusal of TCP without mutual TLS. */
export function withoutMutualTls(host: string): string {
  return `${host} without mutual TLS would make whoever reaches it root on this host: set --tlsverify with --tlscacert, --tlscert and --tlskey, or, if that is what you want, --insecure-tcp-without-mutual-tls`;
}

function labels(read: Reader): readonly string[] {
  const given = read.list("label", (text) => /^[^=\s][^=]*=/.test(text));
  const seen = new Map<string, string>();
  for (const text of given) {
    const key = text.slice(0, text.indexOf("="));
    const before = seen.get(key);
    read.require(
      before === undefined || before === text,
      `conflict labels for ${key}: ${JSON.stringify(before)} and ${JSON.stringify(text)}`,
    );
    seen.set(key, text);
  }
  return [...seen.values()];
}

function features(read: Reader): ReadonlyMap<string, boolean> {
  const given = read.map<boolean>("feature");
  for (const [name, on] of given) {
    if (!knownFeatures.has(name)) read.require(false, `feature ${name} is not known to skiffd`);
    else read.require(!on, `feature ${name} is not supported by skiffd yet`);
  }
  return given;
}

/** `--exec-opt`, in dockerd's words; the last one counts. */
function cgroupDriver(read: Reader): DaemonConfig["cgroupDriver"] {
  let driver: DaemonConfig["cgroupDriver"];
  for (const option of read.list("exec-opt")) {
    const [key = "", value] = option.trim().split("=", 2);
    if (value === undefined) read.require(false, `unable to parse key/value option: ${option}`);
    else if (key.toLowerCase() !== "native.cgroupdriver") read.require(false, `unknown option ${key}`);
    else if (value === "systemd" || value === "cgroupfs") driver = value;
    else read.require(false, `native.cgroupdriver option ${value} not supported`);
  }
  return driver;
}

function isMirror(text: string): boolean {
  try {
    const url = new URL(text);
    return (url.protocol === "http:" || url.protocol === "https:") && url.search === "" && url.hash === "";
  } catch {
    return false;
  }
}

function shmSize(read: Reader): number {
  const text = read.text("default-shm-size");
  if (text === undefined) return defaults.shmSizeBytes;
  const match = /^(\d{1,15}(?:\.\d{1,3})?)\s*([kmgt]?)(?:i?b)?$/i.exec(text);
  const power = "kmgt".indexOf(match?.[2]?.toLowerCase() || "-") + 1;
  const bytes = match === null ? Number.NaN : Math.floor(Number(match[1]) * 1024 ** power);
  read.require(Number.isSafeInteger(bytes), `invalid size for default-shm-size: '${text}'`);
  return bytes;
}

export function usage(): string {
  const lines = options.map((option) => {
    const short = "short" in option ? `-${option.short}, ` : "    ";
    const value =
      (option.kind as string) === "bool"
        ? ""
        : option.kind === "integer"
          ? " int"
          : option.kind === "string"
            ? " string"
            : " list";
    return `  ${short}--${option.flag}${value}`.padEnd(36) + option.help;
  });
  return [
    "",
    "Usage:  skiffd [OPTIONS]",
    "",
    "A container engine that speaks Docker.",
    "",
    "Options:",
    ...lines,
    "",
  ].join("\n");
}
