/** Answers of the container endpoints, in Docker's field order (Engine API v1.51). */
import type { ContainerConfig, HostConfig } from "./container-schema.ts";

export interface EndpointJson {
  IPAMConfig: object | null;
  Links: string[] | null;
  Aliases: string[] | null;
  MacAddress: string;
  DriverOpts: object | null;
  GwPriority: number;
  NetworkID: string;
  EndpointID: string;
  Gateway: string;
  IPAddress: string;
  IPPrefixLen: number;
  IPv6Gateway: string;
  GlobalIPv6Address: string;
  GlobalIPv6PrefixLen: number;
  DNSNames: string[] | null;
}

export interface MountJson {
  Type: string;
  Name?: string;
  Source: string;
  Destination: string;
  Driver?: string;
  Mode: string;
  RW: boolean;
  Propagation: string;
}

export interface HealthJson {
  Status: string;
  FailingStreak: number;
  Log: { Start: string; End: string; ExitCode: number; Output: string }[];
}

export interface ContainerStateJson {
  Status: string;
  Running: boolean;
  Paused: boolean;
  Restarting: boolean;
  OOMKilled: boolean;
  Dead: boolean;
  Pid: number;
  ExitCode: number;
  Error: string;
  StartedAt: string;
  FinishedAt: string;
  Health?: HealthJson;
}

export interface ContainerInspectJson {
  Id: string;
  Created: string;
  Path: string;
  Args: readonly string[];
  State: ContainerStateJson;
  Image: string;
  ResolvConfPath: string;
  HostnamePath: string;
  HostsPath: string;
  LogPath: string;
  Name: string;
  RestartCount: number;
  Driver: string;
  Platform: string;
  MountLabel: string;
  ProcessLabel: string;
  AppArmorProfile: string;
  ExecIDs: string[] | null;
  HostConfig: Omit<Partial<HostConfig>, "Mounts"> & { Mounts?: object[] };
  GraphDriver: { Data: Record<string, string>; Name: string };
  SizeRw?: number;
  SizeRootFs?: number;
  Mounts: MountJson[];
  Config: Partial<ContainerConfig>;
  NetworkSettings: {
    Bridge: string;
    SandboxID: string;
    SandboxKey: string;
    Ports: Record<string, { HostIp: string; HostPort: string }[] | null>;
    HairpinMode: boolean;
    LinkLocalIPv6Address: string;
    LinkLocalIPv6PrefixLen: number;
    SecondaryIPAddresses: null;
    SecondaryIPv6Addresses: null;
    EndpointID: string;
    Gateway: string;
    GlobalIPv6Address: string;
    GlobalIPv6PrefixLen: number;
    IPAddress: string;
    IPPrefixLen: number;
    IPv6Gateway: string;
    MacAddress: string;
    Networks: Record<string, EndpointJson>;
  };
}

export interface PortJson {
  IP?: string;
  PrivatePort: number;
  PublicPort?: number;
  Type: string;
}

/** Optional fields of Go's `omitempty`: left out when they are zero. */
const omittedWhenZero: readonly (keyof HostConfig | keyof ContainerConfig)[] = [
  "Annotations",
  "StorageOpt",
  "Tmpfs",
  "Sysctls",
  "Mounts",
  "Init",
  "ExposedPorts",
  "Healthcheck",
  "ArgsEscaped",
  "NetworkDisabled",
  "MacAddress",
  "StopSignal",
  "StopTimeout",
  "Shell",
];

/** Every member of a `Mounts` entry is `omitempty`, those of its parts too. */
export function mountsAsGoPrints(mounts: HostConfig["Mounts"]): object[] {
  return (mounts ?? []).map((mount) => withoutZeroMembers(mount));
}

function withoutZeroMembers(value: object): object {
  const members = Object.entries(value).flatMap(([key, entry]): [string, unknown][] => {
    if (entry === null || entry === "" || entry === false || entry === 0) return [];
    if (typeof entry !== "object" || Array.isArray(entry)) return [[key, entry]];
    return [[key, withoutZeroMembers(entry)]];
  });
  return Object.fromEntries(members);
}

/** A decoded body as Go would print it. */
export function withoutEmpty<T extends object>(value: T): Partial<T> {
  const result: Partial<T> = { ...value };
  for (const key of omittedWhenZero as (keyof T)[]) {
    const entry = result[key];
    const isEmpty =
      entry === null ||
      entry === "" ||
      entry === false ||
      (typeof entry === "object" && Object.keys(entry as object).length === 0);
    // `Init: false` is a pointer in Go: it is a value.
    if (isEmpty && !(key === "Init" && entry === false)) delete result[key];
  }
  return result;
}
