/**
 * Checks of a create request that need no look at the host, in Docker's words and order (moby `verifyContainerSettings`
 * and `runconfig`), and the defaults that Docker fills in. What is not honoured is refused by name, never dropped.
 */
import { isIP } from "node:net";
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { parseExtraHost } from "#network/resolver-files.ts";
import { defaultMaskedPaths, defaultReadonlyPaths } from "#runtime/security-profile.ts";
import type { ContainerConfig, HostConfig, ResourcesConfig } from "#wire/container-schema.ts";
import { checkLogConfig } from "./container-log-config.ts";
import { portRequests } from "./container-ports.ts";
import { checkRestartPolicy } from "./restart-policy.ts";
import { parseSignal } from "./signals.ts";

function refuse(message: string, code = "invalid"): EngineError {
  return new EngineError("invalid", message, { code });
}

function unsupported(name: string): EngineError {
  return refuse(`${name} is not supported`, "not-supported");
}

/** Throws for what can never work; returns Docker's warnings. */
export function checkCreateRequest(config: ContainerConfig, host: HostConfig): string[] {
  checkConfig(config);
  checkUnsupported(config, host);
  checkModes(config, host);
  const warnings = checkResources(host);
  if (host.ShmSize < 0) throw refuse("SHM size can not be less than 0");
  if (host.OomScoreAdj < -1000 || host.OomScoreAdj > 1000) {
    throw refuse(`Invalid value ${host.OomScoreAdj}, range for oom score adj is [-1000, 1000]`);
  }
  checkRestartPolicy(host.RestartPolicy, host.AutoRemove);
  // Any address will do for `host-gateway` here: the real one is known at start.
  for (const entry of host.ExtraHosts ?? []) parseExtraHost(entry, "0.0.0.0");
  for (const address of host.Dns ?? []) {
    if (isIP(address) === 0) throw refuse(`bad nameserver address ${address}`);
  }
  for (const option of [...(host.DnsOptions ?? []), ...(host.DnsSearch ?? [])]) {
    if (/[\s\0]/.test(option)) throw refuse(`invalid DNS option or search domain: ${JSON.stringify(option)}`);
  }
  const ports = portRequests(config, host);
  if (ports.length > 0 && host.NetworkMode === "host") {
    warnings.push("Published ports are discarded when using host network mode");
  }
  return warnings;
}

function checkConfig(config: ContainerConfig): void {
  if (config.WorkingDir !== "" && !config.WorkingDir.startsWith("/")) {
    throw refuse(`the working directory '${config.WorkingDir}' is invalid, it needs to be an absolute path`);
  }
  for (const entry of config.Env ?? []) {
    if (entry === "" || entry.startsWith("=")) throw refuse(`invalid environment variable: ${entry}`);
    if (entry.includes("\0")) throw refuse("invalid environment variable: contains a NUL byte");
  }
  if ([...(config.Entrypoint ?? []), ...(config.Cmd ?? [])].some((word) => word.includes("\0"))) {
    throw refuse("invalid command: contains a NUL byte");
  }
  if (config.StopSignal !== "") parseSignal(config.StopSignal);
  if (/[\s\0/]/.test(config.Hostname) || config.Hostname.length > 64) {
    throw refuse(`invalid hostname format: ${config.Hostname.slice(0, 80)}`);
  }
  if (/[\s\0/]/.test(config.Domainname)) throw refuse(`invalid domainname format: ${config.Domainname}`);
  if (/[\n\0]/.test(config.User)) throw refuse("invalid user: contains a line break or NUL byte");
  if (config.MacAddress !== "" && !/^([0-9a-f]{2}[:-]){5}[0-9a-f]{2}$/i.test(config.MacAddress)) {
    throw refuse(`invalid MAC address: ${config.MacAddress}`);
  }
  checkHealthcheck(config);
}

function checkHealthcheck(config: ContainerConfig): void {
  const health = config.Healthcheck;
  if (health === null) return;
  const millisecond = 1_000_000;
  for (const name of ["Interval", "Timeout", "StartPeriod", "StartInterval"] as const) {
    if (health[name] !== 0 && health[name] < millisecond) {
      throw refuse(`${name} in Healthcheck cannot be less than 1ms`);
    }
  }
  if (health.Retries < 0) throw refuse("Retries in Healthcheck cannot be negative");
}

/** Options of Docker that are not here (yet), by name. A zero value is no use of the option. */
function checkUnsupported(config: ContainerConfig, host: HostConfig): void {
  if (config.NetworkDisabled) throw unsupported("NetworkDisabled");
  if (host.Isolation !== "" && host.Isolation !== "default") {
    throw refuse(`Invalid isolation: "${host.Isolation}" - linux only supports 'default'`);
  }
  if (Object.keys(host.StorageOpt ?? {}).length > 0) {
    throw refuse("--storage-opt is supported only for overlay over xfs with 'pquota' mount option");
  }
  if (host.UsernsMode !== "" && host.UsernsMode !== "host") {
    throw refuse(`invalid user namespace mode: ${host.UsernsMode}`);
  }
  if (host.Cgroup !== "") throw unsupported("HostConfig.Cgroup");
  if (Object.keys(host.Annotations ?? {}).length > 0) throw unsupported("HostConfig.Annotations");
  checkUnsupportedResources(host);
}

/** The same for the fields that `update` takes too. */
export function checkUnsupportedResources(host: ResourcesConfig): void {
  for (const name of [
    "BlkioWeightDevice",
    "BlkioDeviceReadBps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps",
  ] as const) {
    if (host[name]?.length) throw unsupported(`HostConfig.${name}`);
  }
  for (const name of [
    "CpuRealtimePeriod",
    "CpuRealtimeRuntime",
    "CpuCount",
    "CpuPercent",
    "IOMaximumIOps",
    "IOMaximumBandwidth",
  ] as const) {
    if (host[name] !== 0) throw unsupported(`HostConfig.${name}`);
  }
  const device = host.DeviceRequests?.[0];
  if (device !== undefined) {
    const wanted = (device.Capabilities ?? []).map((all) => `[${all.join(" ")}]`).join(" ");
    throw refuse(`could not select device driver "${device.Driver}" with capabilities: [${wanted}]`);
  }
}

function isContainerMode(mode: string): boolean {
  return mode.startsWith("container:");
}

/** Namespace modes and what they exclude (moby `runconfig/hostconfig_unix.go`). */
function checkModes(config: ContainerConfig, host: HostConfig): void {
  checkOneMode("network", host.NetworkMode, () => true);
  checkOneMode("IPC", host.IpcMode, (mode) => ["", "none", "private", "shareable", "host"].includes(mode));
  checkOneMode("PID", host.PidMode, (mode) => ["", "private", "host"].includes(mode));
  if (!["", "host", "private"].includes(host.UTSMode)) throw refuse(`invalid UTS mode: ${host.UTSMode}`);
  if (!["", "host", "private"].includes(host.CgroupnsMode)) {
    throw refuse(`invalid cgroup namespace mode: ${host.CgroupnsMode}`);
  }
  if (host.IpcMode === "none") throw unsupported('IpcMode "none"');
  if (host.UTSMode === "host" && config.Hostname !== "") {
    throw refuse("conflicting options: hostname and the UTS mode");
  }
  if (!isContainerMode(host.NetworkMode)) return;
  const conflicts: [boolean, string][] = [
    [config.Hostname !== "", "hostname and the network mode"],
    [
      (host.Links?.length ?? 0) > 0,
      "container type network can't be used with links. This would result in undefined behavior",
    ],
    [(host.Dns?.length ?? 0) > 0, "dns and the network mode"],
    [(host.ExtraHosts?.length ?? 0) > 0, "custom host-to-IP mapping and the network mode"],
    [config.MacAddress !== "", "mac-address and the network mode"],
    [
      Object.keys(host.PortBindings ?? {}).length > 0 || host.PublishAllPorts,
      "port publishing and the container type network mode",
    ],
    [Object.keys(config.ExposedPorts ?? {}).length > 0, "port exposing and the container type network mode"],
  ];
  const conflict = conflicts.find(([holds]) => holds);
  if (conflict !== undefined) throw refuse(`conflicting options: ${conflict[1]}`);
}

function checkOneMode(what: string, mode: string, isKnown: (mode: string) => boolean): void {
  if (isContainerMode(mode)) {
    if (mode.length > "container:".length) return;
    throw refuse(`Invalid ${what} mode: invalid container format container:<name|id>`);
  }
  if (!isKnown(mode)) throw refuse(`invalid ${what} mode: ${mode}`);
}

/** Limits of memory, CPU and processes (moby `verifyPlatformContainerResources`). Returns warnings. */
export function checkResources(
  resources: ResourcesConfig,
  cpus = globalThis.navigator.hardwareConcurrency,
): string[] {
  const warnings: string[] = [];
  checkMemory(resources);
  checkCpu(resources, cpus);
  if (resources.BlkioWeight !== 0 && (resources.BlkioWeight < 10 || resources.BlkioWeight > 1000)) {
    throw refuse("Range of blkio weight is from 10 to 1000");
  }
  if (resources.OomKillDisable && resources.Memory === 0) {
    warnings.push(
      "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.",
    );
  }
  return warnings;
}

function checkMemory(resources: ResourcesConfig): void {
  const { Memory, MemorySwap, MemoryReservation, MemorySwappiness } = resources;
  if (Memory < 0) throw refuse("memory limit can not be negative");
  if (Memory !== 0 && Memory < limits.containerMemoryBytesMin) {
    throw refuse("Minimum memory limit allowed is 6MB");
  }
  if (Memory > 0 && MemorySwap > 0 && MemorySwap < Memory) {
    throw refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
  }
  if (Memory === 0 && MemorySwap > 0) {
    throw refuse("You should always set the Memory limit when using Memoryswap limit, see usage");
  }
  if (MemorySwap < -1) throw refuse("memory-swap can be -1 for unlimited swap, but not less");
  if (MemorySwappiness !== null && (MemorySwappiness < -1 || MemorySwappiness > 100)) {
    throw refuse(`Invalid value: ${MemorySwappiness}, valid memory swappiness range is 0-100`);
  }
  if (MemoryReservation > 0 && MemoryReservation < limits.containerMemoryBytesMin) {
    throw refuse("Minimum memory reservation allowed is 6MB");
  }
  if (Memory > 0 && MemoryReservation > 0 && Memory < MemoryReservation) {
    throw refuse("Minimum memory limit can not be less than memory reservation limit, see usage");
  }
}

function checkCpu(resources: ResourcesConfig, cpus: number): void {
  const { NanoCpus, CpuPeriod, CpuQuota } = resources;
  if (NanoCpus > 0 && CpuPeriod > 0) {
    throw refuse("Conflicting options: Nano CPUs and CPU Period cannot both be set");
  }
  if (NanoCpus > 0 && CpuQuota > 0) {
    throw refuse("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
  }
  if (NanoCpus < 0 || NanoCpus > cpus * 1e9 || (NanoCpus > 0 && NanoCpus < 1e7)) {
    throw refuse(`Range of CPUs is from 0.01 to ${cpus}.00, as there are only ${cpus} CPUs available`);
  }
  if (CpuPeriod !== 0 && (CpuPeriod < 1000 || CpuPeriod > 1_000_000)) {
    throw refuse("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
  }
  if (CpuQuota > 0 && CpuQuota < 1000) throw refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)");
  checkCpuset("cpus", resources.CpusetCpus);
  checkCpuset("mems", resources.CpusetMems);
  const last = cpusetMax(resources.CpusetCpus);
  if (last >= cpus) {
    throw refuse(
      `Requested CPUs are not available - requested ${resources.CpusetCpus}, available: ${cpus === 1 ? "0" : `0-${cpus - 1}`}`,
    );
  }
}

function checkCpuset(what: string, text: string): void {
  if (text === "" || /^\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*$/.test(text)) return;
  throw refuse(`Invalid value ${text} for cpuset ${what}: invalid format: ${text}`);
}

function cpusetMax(text: string): number {
  return text === "" ? -1 : Math.max(...text.split(/[,-]/).map(Number));
}

export interface HostDefaults {
  readonly shmSizeBytes: number;
  readonly logDriver: string;
  readonly logOptions: Readonly<Record<string, string>>;
  readonly runtimeName: string;
  readonly cgroupVersion: "1" | "2";
}

/** Fills in what Docker fills in (moby `adaptContainerSettings`), so that inspect shows it and a later create may send it back. */
export function withHostDefaults(request: HostConfig, defaults: HostDefaults): HostConfig {
  const host: HostConfig = { ...request };
  if (host.NetworkMode === "" || host.NetworkMode === "default") host.NetworkMode = "bridge";
  if (host.IpcMode === "") host.IpcMode = "private";
  if (host.CgroupnsMode === "") {
    host.CgroupnsMode = defaults.cgroupVersion === "2" ? "private" : "host";
  }
  if (host.ShmSize === 0) host.ShmSize = defaults.shmSizeBytes;
  if (host.Memory > 0 && host.MemorySwap === 0) host.MemorySwap = host.Memory * 2;
  host.OomKillDisable ??= false;
  if (host.Runtime === "") host.Runtime = defaults.runtimeName;
  if (host.PidsLimit !== null && host.PidsLimit <= 0) host.PidsLimit = null;
  if (host.RestartPolicy.Name === "") {
    host.RestartPolicy = { Name: "no", MaximumRetryCount: host.RestartPolicy.MaximumRetryCount };
  }
  if (host.ConsoleSize === null || host.ConsoleSize.length !== 2) host.ConsoleSize = [0, 0];
  if (host.LogConfig.Type === "") {
    host.LogConfig = {
      Type: defaults.logDriver,
      Config: { ...defaults.logOptions, ...host.LogConfig.Config },
    };
  }
  checkLogConfig(host.LogConfig.Type, host.LogConfig.Config);
  if (!host.Privileged) {
    host.MaskedPaths ??= [...defaultMaskedPaths];
    host.ReadonlyPaths ??= [...defaultReadonlyPaths];
  }
  return host;
}
