import { readFileSync } from "node:fs";
import { arch, cpus, hostname, machine, release, totalmem } from "node:os";
import type { Clock } from "#base/clock.ts";
import { engineVersion } from "#base/version.ts";
import type { NetworkManager } from "#network/network.ts";
import type { Runtime, RuntimeInfo } from "#runtime/runtime.ts";

/** The part of the configuration that `info` shows. */
export interface SystemSettings {
  /** Persistent identity of the daemon. */
  readonly daemonId: string;
  readonly dataRoot: string;
  readonly debug: boolean;
  readonly labels: readonly string[];
  readonly insecureRegistries: readonly string[];
  readonly registryMirrors: readonly string[];
  readonly logDriver: string;
  readonly addressPools: readonly { readonly base: string; readonly size: number }[];
  readonly proxies: { readonly http: string; readonly https: string; readonly none: string };
}

export interface ContainerCounts {
  readonly running: number;
  readonly paused: number;
  readonly stopped: number;
}

export interface SystemFacts {
  /** As they are now: some change while the daemon runs. */
  readonly settings: () => SystemSettings;
  /** About the daemon itself, beside what the host cannot do. */
  readonly warnings: () => readonly string[];
  readonly clock: Clock;
  readonly runtime: Runtime;
  readonly networks: NetworkManager;
  readonly backingFilesystem: string;
  readonly containerCounts: () => ContainerCounts;
  readonly imageCount: () => number;
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** Name and version of the distribution, as in `Debian GNU/Linux 12 (bookworm)` and `12`. */
function operatingSystem(): { name: string; version: string } {
  const text = readText("/etc/os-release") || readText("/usr/lib/os-release");
  const field = (name: string): string =>
    new RegExp(`^${name}=(.*)$`, "m").exec(text)?.[1]?.replace(/^["']|["']$/g, "") ?? "";
  return { name: field("PRETTY_NAME") || "Linux", version: field("VERSION_ID") };
}

function isOn(path: string): boolean {
  return readText(path).trim() === "1";
}

/** GOARCH of this machine: what Docker calls the architecture of the engine. */
export function goArchitecture(): string {
  return arch() === "x64" ? "amd64" : arch();
}

/** Warnings that Docker prints are also the flags of `info`: one list, so that they cannot disagree. */
function limitFlags(warnings: readonly string[]): Record<string, boolean> {
  const lacks = (what: RegExp): boolean => warnings.some((line) => what.test(line));
  return {
    MemoryLimit: !lacks(/no memory limit/i),
    SwapLimit: !lacks(/no swap limit/i),
    CpuCfsPeriod: !lacks(/no cpu cfs/i),
    CpuCfsQuota: !lacks(/no cpu cfs/i),
    CPUShares: !lacks(/no cpu shares/i),
    CPUSet: !lacks(/no cpuset/i),
    PidsLimit: !lacks(/no pids? limit/i),
    IPv4Forwarding: isOn("/proc/sys/net/ipv4/ip_forward"),
    OomKillDisable: !lacks(/no oom kill disable/i),
  };
}

function securityOptions(runtime: Runtime): string[] {
  const options = ["name=seccomp,profile=builtin"];
  if (readText("/sys/module/apparmor/parameters/enabled").startsWith("Y")) options.unshift("name=apparmor");
  if (runtime.cgroupVersion === "2") options.push("name=cgroupns");
  return options;
}

function registryConfig({ insecureRegistries, registryMirrors }: SystemSettings): object {
  const isCidr = (entry: string): boolean => entry.includes("/");
  const names = insecureRegistries.filter((entry) => !isCidr(entry));
  const index = (name: string, secure: boolean, official: boolean, mirrors: readonly string[]): object => ({
    Name: name,
    Mirrors: mirrors,
    Secure: secure,
    Official: official,
  });
  return {
    InsecureRegistryCIDRs: ["::1/128", "127.0.0.0/8", ...insecureRegistries.filter(isCidr)],
    IndexConfigs: {
      "docker.io": index("docker.io", true, true, registryMirrors),
      ...Object.fromEntries(names.map((name) => [name, index(name, false, false, [])])),
    },
    Mirrors: registryMirrors.length === 0 ? null : registryMirrors,
  };
}

function commit(runtime: RuntimeInfo | undefined): object {
  return { ID: runtime?.version ?? "" };
}

/** The body of `GET /info`, Docker's members in Docker's order. */
export function systemInfo(facts: SystemFacts): object {
  const { runtime, networks } = facts;
  const settings = facts.settings();
  const warnings = [...facts.warnings(), ...runtime.warnings];
  const counts = facts.containerCounts();
  const os = operatingSystem();
  return {
    ID: settings.daemonId,
    Containers: counts.running + counts.paused + counts.stopped,
    ContainersRunning: counts.running,
    ContainersPaused: counts.paused,
    ContainersStopped: counts.stopped,
    Images: facts.imageCount(),
    Driver: "overlay2",
    DriverStatus: [
      ["Backing Filesystem", facts.backingFilesystem],
      ["Supports d_type", "true"],
      ["Using metacopy", "false"],
      ["Native Overlay Diff", "true"],
      ["userxattr", "false"],
      ...networks.foreignRules.map((rule) => ["Host firewall rule", rule]),
    ],
    Plugins: {
      Volume: ["local"],
      Network: networks.list().map(({ driver }) => driver),
      Authorization: null,
      Log: ["json-file", "none"],
    },
    ...limitFlags(runtime.warnings),
    Debug: settings.debug,
    NFd: countDescriptors(),
    NGoroutines: 1,
    SystemTime: facts.clock.now(),
    LoggingDriver: settings.logDriver,
    CgroupDriver: runtime.cgroupDriver,
    CgroupVersion: runtime.cgroupVersion,
    NEventsListener: 0,
    KernelVersion: release(),
    OperatingSystem: os.name,
    OSVersion: os.version,
    OSType: "linux",
    Architecture: machine(),
    IndexServerAddress: "https://index.docker.io/v1/",
    RegistryConfig: registryConfig(settings),
    NCPU: cpus().length,
    MemTotal: totalmem(),
    GenericResources: null,
    DockerRootDir: settings.dataRoot,
    HttpProxy: withoutCredentials(settings.proxies.http),
    HttpsProxy: withoutCredentials(settings.proxies.https),
    NoProxy: settings.proxies.none,
    Name: hostname(),
    Labels: settings.labels,
    ExperimentalBuild: false,
    ServerVersion: engineVersion,
    ...runtimesInfo(runtime),
    Swarm: {
      NodeID: "",
      NodeAddr: "",
      LocalNodeState: "inactive",
      ControlAvailable: false,
      Error: "",
      RemoteManagers: null,
    },
    LiveRestoreEnabled: true,
    Isolation: "",
    InitBinary: "skiff-native",
    ContainerdCommit: { ID: "" },
    RuncCommit: commit(runtime.runtimes[0]),
    InitCommit: { ID: "" },
    SecurityOptions: securityOptions(runtime),
    ...(settings.addressPools.length === 0
      ? {}
      : { DefaultAddressPools: settings.addressPools.map(({ base, size }) => ({ Base: base, Size: size })) }),
    CDISpecDirs: null,
    Warnings: warnings.length === 0 ? null : warnings,
  };
}

function runtimesInfo({ runtimes }: Runtime): object {
  return {
    Runtimes: Object.fromEntries(runtimes.map(({ name, path }) => [name, { path }])),
    DefaultRuntime: runtimes[0]?.name ?? "",
  };
}

function countDescriptors(): number {
  return readText("/proc/self/status") === ""
    ? 0
    : Number(/^FDSize:\s*(\d+)$/m.exec(readText("/proc/self/status"))?.[1] ?? 0);
}

/** Proxies are shown to whoever may ask for `info`: their passwords are not. */
function withoutCredentials(text: string): string {
  try {
    const url = new URL(text);
    if (url.username === "" && url.password === "") return text;
    url.username = "xxxxx";
    url.password = "xxxxx";
    return url.href;
  } catch {
    return text;
  }
}
