/** The server's part of `info`, line by line, as Docker's client lays it out. */
import { binarySize } from "./units.ts";

interface Commit {
  readonly ID?: string;
  readonly Expected?: string;
}

export interface ServerInfo {
  readonly ID?: string;
  readonly Name?: string;
  readonly Containers?: number;
  readonly ContainersRunning?: number;
  readonly ContainersPaused?: number;
  readonly ContainersStopped?: number;
  readonly Images?: number;
  readonly ServerVersion?: string;
  readonly Driver?: string;
  readonly DriverStatus?: readonly (readonly [string, string])[] | null;
  readonly LoggingDriver?: string;
  readonly CgroupDriver?: string;
  readonly CgroupVersion?: string;
  readonly Plugins?: Readonly<Record<string, readonly string[] | null>> | null;
  readonly CDISpecDirs?: readonly string[] | null;
  readonly Swarm?: { readonly LocalNodeState?: string } | null;
  readonly Runtimes?: Readonly<Record<string, unknown>> | null;
  readonly DefaultRuntime?: string;
  readonly InitBinary?: string;
  readonly ContainerdCommit?: Commit;
  readonly RuncCommit?: Commit;
  readonly InitCommit?: Commit;
  readonly SecurityOptions?: readonly string[] | null;
  readonly KernelVersion?: string;
  readonly OperatingSystem?: string;
  readonly OSType?: string;
  readonly Architecture?: string;
  readonly NCPU?: number;
  readonly MemTotal?: number;
  readonly DockerRootDir?: string;
  readonly Debug?: boolean;
  readonly NFd?: number;
  readonly NGoroutines?: number;
  readonly SystemTime?: string;
  readonly NEventsListener?: number;
  readonly HttpProxy?: string;
  readonly HttpsProxy?: string;
  readonly NoProxy?: string;
  readonly Labels?: readonly string[] | null;
  readonly ExperimentalBuild?: boolean;
  readonly RegistryConfig?: {
    readonly InsecureRegistryCIDRs?: readonly string[] | null;
    readonly IndexConfigs?: Readonly<Record<string, { readonly Secure: boolean }>> | null;
    readonly Mirrors?: readonly string[] | null;
  } | null;
  readonly LiveRestoreEnabled?: boolean;
  readonly ProductLicense?: string;
  readonly DefaultAddressPools?: readonly { readonly Base: string; readonly Size: number }[] | null;
  readonly FirewallBackend?: { readonly Driver: string } | null;
  readonly Warnings?: readonly string[] | null;
}

export function serverLines(info: ServerInfo): string[] {
  return [
    ` Containers: ${info.Containers}`,
    `  Running: ${info.ContainersRunning}`,
    `  Paused: ${info.ContainersPaused}`,
    `  Stopped: ${info.ContainersStopped}`,
    ` Images: ${info.Images}`,
    ...optional("Server Version", info.ServerVersion),
    ...optional("Storage Driver", info.Driver),
    ...(info.DriverStatus ?? []).map(([name, value]) => `  ${name}: ${value}`),
    ...optional("Logging Driver", info.LoggingDriver),
    ...optional("Cgroup Driver", info.CgroupDriver),
    ...optional("Cgroup Version", info.CgroupVersion),
    ...pluginLines(info),
    ...section(" CDI spec directories:", info.CDISpecDirs),
    ` Swarm: ${info.Swarm?.LocalNodeState ?? "inactive"}`,
    ...runtimeLines(info),
    ...securityLines(info),
    ...hostLines(info),
    ...daemonLines(info),
    ...registryLines(info),
    ` Live Restore Enabled: ${info.LiveRestoreEnabled ?? false}`,
    ...optional("Product License", info.ProductLicense),
    ...poolLines(info),
    ...optional("Firewall Backend", info.FirewallBackend?.Driver),
  ];
}

function optional(name: string, value: string | undefined): string[] {
  return value === undefined || value === "" ? [] : [` ${name}: ${value}`];
}

function section(title: string, values: readonly string[] | null | undefined): string[] {
  return values === undefined || values === null || values.length === 0
    ? []
    : [title, ...values.map((value) => `  ${value}`)];
}

function pluginLines(info: ServerInfo): string[] {
  const plugins = info.Plugins ?? {};
  const line = (name: string, always: boolean): string[] => {
    const values = plugins[name] ?? [];
    return always || values.length > 0 ? [`  ${name}: ${values.join(" ")}`] : [];
  };
  return [
    " Plugins:",
    ...line("Volume", true),
    ...line("Network", true),
    ...line("Authorization", false),
    ...line("Log", true),
  ];
}

function runtimeLines(info: ServerInfo): string[] {
  if (info.OSType !== "linux") return [];
  const runtimes = Object.keys(info.Runtimes ?? {}).sort();
  const commit = (name: string, { ID = "", Expected = "" }: Commit = {}): string => {
    const shown = Expected !== "" && Expected !== ID ? `${ID} (expected: ${Expected})` : ID;
    return ` ${name} version: ${shown}`;
  };
  return [
    ...(runtimes.length === 0 ? [] : [` Runtimes: ${runtimes.join(" ")}`]),
    ` Default Runtime: ${info.DefaultRuntime}`,
    ` Init Binary: ${info.InitBinary}`,
    commit("containerd", info.ContainerdCommit),
    commit("runc", info.RuncCommit),
    commit("init", info.InitCommit),
  ];
}

/** `name=seccomp,profile=default` becomes a line with the name and one for each further pair. */
function securityLines(info: ServerInfo): string[] {
  const options = info.SecurityOptions ?? [];
  if (options.length === 0) return [];
  const lines = [" Security Options:"];
  for (const option of options) {
    const pairs = option.split(",").map((pair) => pair.split("=", 2) as [string, string?]);
    lines.push(`  ${pairs.find(([key]) => key === "name")?.[1] ?? option}`);
    for (const [key, value] of pairs) {
      if (key === "name") continue;
      lines.push(key === "profile" ? `   Profile: ${value}` : `   ${key}: ${value ?? ""}`);
    }
  }
  return lines;
}

function hostLines(info: ServerInfo): string[] {
  return [
    ...optional("Kernel Version", info.KernelVersion),
    ...optional("Operating System", info.OperatingSystem),
    ...optional("OSType", info.OSType),
    ...optional("Architecture", info.Architecture),
    ` CPUs: ${info.NCPU}`,
    ` Total Memory: ${binarySize(info.MemTotal ?? 0)}`,
    ...optional("Name", info.Name),
    ...optional("ID", info.ID),
    ` Docker Root Dir: ${info.DockerRootDir}`,
    ` Debug Mode: ${info.Debug ?? false}`,
  ];
}

function daemonLines(info: ServerInfo): string[] {
  const debug = info.Debug
    ? [
        `  File Descriptors: ${info.NFd}`,
        `  Goroutines: ${info.NGoroutines}`,
        `  System Time: ${info.SystemTime}`,
        `  EventsListeners: ${info.NEventsListener}`,
      ]
    : [];
  return [
    ...debug,
    ...optional("HTTP Proxy", info.HttpProxy),
    ...optional("HTTPS Proxy", info.HttpsProxy),
    ...optional("No Proxy", info.NoProxy),
    ...section(" Labels:", info.Labels),
    ` Experimental: ${info.ExperimentalBuild ?? false}`,
  ];
}

function registryLines(info: ServerInfo): string[] {
  const config = info.RegistryConfig;
  if (config === undefined || config === null) return [];
  const insecure = Object.entries(config.IndexConfigs ?? {})
    .filter(([, index]) => index.Secure === false)
    .map(([name]) => name);
  return [
    ...section(" Insecure Registries:", [...insecure, ...(config.InsecureRegistryCIDRs ?? [])]),
    ...section(" Registry Mirrors:", config.Mirrors),
  ];
}

function poolLines(info: ServerInfo): string[] {
  const pools = info.DefaultAddressPools ?? [];
  if (pools.length === 0) return [];
  return [" Default Address Pools:", ...pools.map((pool) => `   Base: ${pool.Base}, Size: ${pool.Size}`)];
}
