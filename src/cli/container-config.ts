/** What `run` and `create` send: from flags to the body of `POST /containers/create`. Throws Docker's messages. */

import { deviceMapping, gpuRequest } from "./device-option.ts";
import { collectEnvironment, collectLabels } from "./env-file.ts";
import type { Flags } from "./flags.ts";
import type { Environment } from "./global-options.ts";
import { healthConfig } from "./health-option.ts";
import { type MountSpec, parseVolume } from "./mount-spec.ts";
import { networkConfig } from "./network-config.ts";
import type { ThrottleDevice, Ulimit, WeightDevice } from "./option-checks.ts";
import { expose, type PublishedPorts, publish, shortForm } from "./port-spec.ts";
import {
  checkNamespaceModes,
  effectiveCapabilities,
  restartPolicy,
  securityOptions,
} from "./security-option.ts";

export interface CreateRequest {
  readonly body: Record<string, unknown>;
  /** Streams to attach to when the container runs in the foreground. */
  readonly attach: { readonly stdin: boolean; readonly stdout: boolean; readonly stderr: boolean };
  readonly tty: boolean;
  readonly openStdin: boolean;
  readonly autoRemove: boolean;
}

/** `args`: image, then the command. */
export function createRequest(flags: Flags, args: readonly string[], env: Environment): CreateRequest {
  checkSimple(flags);
  const attach = attachedStreams(flags);
  const volumes = splitVolumes(flags);
  const ports = publishedPorts(flags);
  const variables = collectEnvironment(flags.list("env-file"), flags.list("env"), env);
  const labels = collectLabels(flags.list("label-file"), flags.list("label"));
  checkNamespaceModes(flags);
  const restart = restartPolicy(flags.text("restart"));
  const hostConfig = { ...hostConfigOf(flags, volumes, ports), RestartPolicy: restart };
  const health = healthConfig(flags);
  const autoRemove = flags.bool("rm");
  if (autoRemove && restart.Name !== "" && restart.Name !== "no") {
    throw new Error("conflicting options: cannot specify both --restart and --rm");
  }
  const [image, ...command] = args as [string, ...string[]];
  const config: Record<string, unknown> = {
    Hostname: flags.text("hostname"),
    Domainname: flags.text("domainname"),
    User: flags.text("user"),
    AttachStdin: attach.stdin,
    AttachStdout: attach.stdout,
    AttachStderr: attach.stderr,
    Tty: flags.bool("tty"),
    OpenStdin: flags.bool("interactive"),
    StdinOnce: flags.bool("interactive") && attach.stdin,
    Env: variables,
    Cmd: command.length === 0 ? null : command,
    Image: image,
    Volumes: Object.fromEntries(volumes.anonymous.map((path) => [path, {}])),
    WorkingDir: flags.text("workdir"),
    Entrypoint: flags.changed("entrypoint") ? [flags.text("entrypoint")] : null,
    Labels: labels,
    ...(ports.exposed.size === 0
      ? {}
      : { ExposedPorts: Object.fromEntries([...ports.exposed].map((key) => [key, {}])) }),
    ...(health === undefined ? {} : { Healthcheck: health }),
    ...(flags.changed("stop-signal") ? { StopSignal: flags.text("stop-signal") } : {}),
    ...(flags.changed("stop-timeout") ? { StopTimeout: flags.number("stop-timeout") } : {}),
    ...(flags.text("mac-address") === "" ? {} : { MacAddress: flags.text("mac-address") }),
  };
  return {
    body: { ...config, HostConfig: hostConfig, NetworkingConfig: networkConfig(flags) },
    attach,
    tty: flags.bool("tty"),
    openStdin: flags.bool("interactive"),
    autoRemove,
  };
}

function checkSimple(flags: Flags): void {
  const mac = flags.text("mac-address");
  if (mac !== "" && !/^([0-9a-fA-F]{2}([:-])){5}[0-9a-fA-F]{2}$/.test(mac)) {
    throw new Error(`${mac} is not a valid mac address`);
  }
  const swappiness = flags.number("memory-swappiness");
  if (swappiness !== -1 && (swappiness < 0 || swappiness > 100)) {
    throw new Error(`invalid value: ${swappiness}. Valid memory swappiness range is 0-100`);
  }
  if (flags.bool("use-api-socket")) throw new Error("--use-api-socket is not supported");
}

function attachedStreams(flags: Flags): CreateRequest["attach"] {
  const chosen = flags.list("attach");
  if (chosen.length > 0) {
    return {
      stdin: chosen.includes("stdin"),
      stdout: chosen.includes("stdout"),
      stderr: chosen.includes("stderr"),
    };
  }
  return { stdin: flags.bool("interactive"), stdout: true, stderr: true };
}

interface Volumes {
  readonly binds: readonly string[];
  readonly anonymous: readonly string[];
}

function splitVolumes(flags: Flags): Volumes {
  const binds: string[] = [];
  const anonymous: string[] = [];
  for (const text of new Set(flags.list("volume"))) {
    const { source, target, rest, parts } = parseVolume(text);
    if (parts === 1) anonymous.push(target);
    else if (parts > 3) binds.push(text);
    else binds.push([source, target, ...(parts === 3 ? [rest] : [])].join(":"));
  }
  return { binds, anonymous };
}

function publishedPorts(flags: Flags): PublishedPorts {
  const ports: PublishedPorts = { exposed: new Set(), bindings: new Map() };
  for (const text of flags.list("publish")) publish(shortForm(text), ports);
  for (const text of flags.list("expose")) expose(text, ports.exposed);
  return ports;
}

function hostConfigOf(flags: Flags, volumes: Volumes, ports: PublishedPorts): Record<string, unknown> {
  const security = securityOptions(flags.list("security-opt"));
  const capabilities = effectiveCapabilities(flags.list("cap-add"), flags.list("cap-drop"));
  const lists: Record<string, readonly string[]> = {
    ExtraHosts: flags.list("add-host"),
    VolumesFrom: flags.list("volumes-from"),
    CapAdd: capabilities.add,
    CapDrop: capabilities.drop,
    GroupAdd: flags.list("group-add"),
    Links: flags.list("link"),
    Binds: volumes.binds,
    SecurityOpt: security.options,
    DeviceCgroupRules: flags.list("device-cgroup-rule"),
  };
  const mounts = flags.values<MountSpec>("mount");
  return {
    ...Object.fromEntries(Object.entries(lists).filter(([, values]) => values.length > 0)),
    // Lists that Docker's client sends empty: `inspect` shows [] for them, and null for the others.
    Dns: flags.list("dns"),
    DnsOptions: flags.list("dns-option"),
    DnsSearch: flags.list("dns-search"),
    ContainerIDFile: flags.text("cidfile"),
    LogConfig: logConfig(flags),
    NetworkMode: flags.values<{ target: string }>("network")[0]?.target ?? "default",
    PortBindings: Object.fromEntries(ports.bindings),
    AutoRemove: flags.bool("rm"),
    VolumeDriver: flags.text("volume-driver"),
    IpcMode: flags.text("ipc"),
    OomScoreAdj: flags.number("oom-score-adj"),
    PidMode: flags.text("pid"),
    Privileged: flags.bool("privileged"),
    PublishAllPorts: flags.bool("publish-all"),
    ReadonlyRootfs: flags.bool("read-only"),
    UTSMode: flags.text("uts"),
    UsernsMode: flags.text("userns"),
    CgroupnsMode: flags.text("cgroupns"),
    ShmSize: flags.number("shm-size"),
    Runtime: flags.text("runtime"),
    ...(flags.text("isolation") === "" ? {} : { Isolation: flags.text("isolation") }),
    ...(mounts.length === 0 ? {} : { Mounts: mounts }),
    ...(security.maskedPaths === undefined
      ? {}
      : { MaskedPaths: security.maskedPaths, ReadonlyPaths: security.maskedPaths }),
    ...(flags.changed("init") ? { Init: flags.bool("init") } : {}),
    ...pairs("Tmpfs", flags.list("tmpfs"), ":"),
    ...pairs("Sysctls", flags.list("sysctl"), "="),
    ...pairs("Annotations", flags.list("annotation"), "="),
    ...storageOptions(flags.list("storage-opt")),
    ...resources(flags),
  };
}

function pairs(name: string, texts: readonly string[], separator: string): Record<string, unknown> {
  if (texts.length === 0) return {};
  return {
    [name]: Object.fromEntries(
      texts.map((text) => {
        const at = text.indexOf(separator);
        return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
      }),
    ),
  };
}

function storageOptions(texts: readonly string[]): Record<string, unknown> {
  if (texts.some((text) => !text.includes("="))) throw new Error("invalid storage option");
  return pairs("StorageOpt", texts, "=");
}

function logConfig(flags: Flags): { Type: string; Config: Record<string, string> } {
  const driver = flags.text("log-driver");
  const options = flags.list("log-opt");
  if (driver === "none" && options.length > 0) throw new Error(`invalid logging opts for driver ${driver}`);
  return { Type: driver, Config: (pairs("Config", options, "=")["Config"] as Record<string, string>) ?? {} };
}

/** API names of the limits that are plain numbers, by flag. */
const numbers: Readonly<Record<string, string>> = {
  "cpu-shares": "CpuShares",
  memory: "Memory",
  cpus: "NanoCpus",
  "blkio-weight": "BlkioWeight",
  "cpu-period": "CpuPeriod",
  "cpu-quota": "CpuQuota",
  "cpu-rt-period": "CpuRealtimePeriod",
  "cpu-rt-runtime": "CpuRealtimeRuntime",
  "memory-reservation": "MemoryReservation",
  "memory-swap": "MemorySwap",
  "memory-swappiness": "MemorySwappiness",
  "pids-limit": "PidsLimit",
  "cpu-count": "CpuCount",
  "cpu-percent": "CpuPercent",
  "io-maxiops": "IOMaximumIOps",
  "io-maxbandwidth": "IOMaximumBandwidth",
};

function resources(flags: Flags): Record<string, unknown> {
  const limits: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(numbers)) {
    if (flags.changed(name)) limits[field] = flags.number(name);
  }
  const rates: Readonly<Record<string, string>> = {
    "device-read-bps": "BlkioDeviceReadBps",
    "device-write-bps": "BlkioDeviceWriteBps",
    "device-read-iops": "BlkioDeviceReadIOps",
    "device-write-iops": "BlkioDeviceWriteIOps",
  };
  for (const [name, field] of Object.entries(rates)) {
    limits[field] = flags.values<ThrottleDevice>(name);
  }
  limits["BlkioWeightDevice"] = flags.values<WeightDevice>("blkio-weight-device");
  const ulimits = new Map(flags.values<Ulimit>("ulimit").map((ulimit) => [ulimit.Name, ulimit]));
  limits["Ulimits"] = [...ulimits.values()].sort((one, other) => (one.Name < other.Name ? -1 : 1));
  const devices = deviceMapping(flags.list("device"));
  const requests = [...gpuRequest(flags.list("gpus")), ...devices.requests];
  limits["Devices"] = devices.mappings;
  if (requests.length > 0) limits["DeviceRequests"] = requests;
  if (flags.text("cgroup-parent") !== "") limits["CgroupParent"] = flags.text("cgroup-parent");
  if (flags.text("cpuset-cpus") !== "") limits["CpusetCpus"] = flags.text("cpuset-cpus");
  if (flags.text("cpuset-mems") !== "") limits["CpusetMems"] = flags.text("cpuset-mems");
  if (flags.changed("oom-kill-disable")) limits["OomKillDisable"] = flags.bool("oom-kill-disable");
  return limits;
}
