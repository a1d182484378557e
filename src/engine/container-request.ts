/** From a container's document to what the runtime is asked for. Pure but for look-ups of volumes and other containers. */
import { EngineError } from "#base/errors.ts";
import type { Attachment } from "#network/network.ts";
import type { NamespaceMode, Resources, Runtime, SandboxMount, SandboxRequest } from "#runtime/runtime.ts";
import { defaultMaskedPaths, defaultReadonlyPaths } from "#runtime/security-profile.ts";
import type { HostConfig, ResourcesConfig } from "#wire/container-schema.ts";
import type { Container } from "./container.ts";
import { effectiveEnv } from "./container-config.ts";
import { type ContainerContext, logPathOf, runDirOf, stateDirOf } from "./container-context.ts";
import type { ContainerDocument, MountPoint } from "./container-document.ts";
import { shimLogConfig } from "./container-log-config.ts";
import { containerOfMode } from "./container-references.ts";

const privateNamespace: NamespaceMode = { kind: "private" };
const hostNamespace: NamespaceMode = { kind: "host" };

/** The parts of the request that the runtime can judge before there is a container. */
export function validatedBySandbox(document: ContainerDocument): Parameters<Runtime["validate"]>[0] {
  const host = document.hostConfig;
  return {
    capAdd: host.CapAdd ?? [],
    capDrop: host.CapDrop ?? [],
    securityOpt: host.SecurityOpt ?? [],
    sysctls: new Map(Object.entries(host.Sysctls ?? {})),
    resources: resourcesOf(host),
    ulimits: ulimitsOf(host),
    devices: devicesOf(host),
    privileged: host.Privileged,
    network: host.NetworkMode === "host" ? hostNamespace : privateNamespace,
    ipcNamespace: host.IpcMode === "host" ? hostNamespace : privateNamespace,
    runtimeName: host.Runtime,
    ...(host.CgroupParent !== "" && { cgroupParent: host.CgroupParent }),
  };
}

export function resourcesOf(host: ResourcesConfig): Resources {
  const cpu = cpuOf(host);
  return {
    ...(host.Memory !== 0 && { memoryBytes: host.Memory }),
    ...(host.MemorySwap !== 0 && { memorySwapBytes: host.MemorySwap }),
    ...(host.MemoryReservation !== 0 && { memoryReservationBytes: host.MemoryReservation }),
    ...(host.MemorySwappiness !== null &&
      host.MemorySwappiness !== -1 && { memorySwappiness: host.MemorySwappiness }),
    ...(host.OomKillDisable && { oomKillDisable: true }),
    ...(host.CpuShares !== 0 && { cpuShares: host.CpuShares }),
    ...cpu,
    ...(host.CpusetCpus !== "" && { cpusetCpus: host.CpusetCpus }),
    ...(host.CpusetMems !== "" && { cpusetMems: host.CpusetMems }),
    ...(host.PidsLimit !== null && host.PidsLimit > 0 && { pidsMax: host.PidsLimit }),
    ...(host.BlkioWeight !== 0 && { blkioWeight: host.BlkioWeight }),
  };
}

/** `NanoCpus` is a quota of a 100 ms period (moby `getCPUResources`). */
function cpuOf(host: ResourcesConfig): { cpuQuotaUs?: number; cpuPeriodUs?: number } {
  if (host.NanoCpus > 0) {
    return { cpuPeriodUs: 100_000, cpuQuotaUs: Math.floor((host.NanoCpus * 100_000) / 1e9) };
  }
  return {
    ...(host.CpuQuota !== 0 && { cpuQuotaUs: host.CpuQuota }),
    ...(host.CpuPeriod !== 0 && { cpuPeriodUs: host.CpuPeriod }),
  };
}

function ulimitsOf(host: HostConfig): { name: string; soft: number; hard: number }[] {
  return (host.Ulimits ?? []).map((limit) => ({ name: limit.Name, soft: limit.Soft, hard: limit.Hard }));
}

function devicesOf(host: HostConfig): SandboxRequest["devices"][number][] {
  return (host.Devices ?? []).map((device) => ({
    hostPath: device.PathOnHost,
    containerPath: device.PathInContainer || device.PathOnHost,
    permissions: device.CgroupPermissions || "rwm",
  }));
}

/** The lists that inspect shows by default mean "the default" when a client sends them back. */
function unlessDefault(
  paths: readonly string[] | null,
  defaults: readonly string[],
): readonly string[] | undefined {
  if (paths === null) return undefined;
  const same = paths.length === defaults.length && paths.every((path) => defaults.includes(path));
  return same ? undefined : paths;
}

/** `attachment` is undefined for host networking and another container's network. */
export function sandboxRequest(
  ctx: ContainerContext,
  container: Container,
  attachment: Attachment | undefined,
): SandboxRequest {
  const { document } = container;
  const { config, hostConfig: host } = document;
  const image = ctx.images.get(document.imageId);
  if (image === undefined) {
    throw new EngineError("system", `the image ${document.imageId} of this container is gone`, {
      code: "image-gone",
    });
  }
  const layers = image.layers.map((layer) => ctx.snapshotter.pathOf(layer.key)).reverse();
  const writable = ctx.snapshotter.writableOf(document.id);
  const masked = unlessDefault(host.MaskedPaths, defaultMaskedPaths);
  const readonly = unlessDefault(host.ReadonlyPaths, defaultReadonlyPaths);
  const [rows = 0, columns = 0] = host.ConsoleSize ?? [];
  const ulimits = ulimitsOf(host);
  return {
    id: document.id,
    runDir: runDirOf(ctx, document.id),
    stateDir: stateDirOf(ctx, document.id),
    lowerDirs: layers,
    upperDir: writable.upperDir,
    workDir: writable.workDir,
    volatile: host.AutoRemove || document.buildStep !== undefined,
    runtimeName: host.Runtime,
    ...(host.CgroupParent !== "" && { cgroupParent: host.CgroupParent }),
    args: [document.path, ...document.args],
    env: [...effectiveEnv(config.Env), ...container.secretEnv],
    workingDir: config.WorkingDir,
    user: config.User,
    groupAdd: host.GroupAdd ?? [],
    hostname: config.Hostname,
    domainname: config.Domainname,
    terminal: config.Tty,
    ...(rows > 0 && columns > 0 && { terminalSize: { rows, columns } }),
    openStdin: config.OpenStdin,
    stdinOnce: config.StdinOnce,
    readonlyRootfs: host.ReadonlyRootfs,
    mounts: sandboxMounts(ctx, document),
    shmSizeBytes: host.ShmSize,
    privileged: host.Privileged,
    capAdd: host.CapAdd ?? [],
    capDrop: host.CapDrop ?? [],
    securityOpt: securityOptOf(ctx, host),
    ...(masked !== undefined && { maskedPaths: masked }),
    ...(readonly !== undefined && { readonlyPaths: readonly }),
    devices: devicesOf(host),
    deviceCgroupRules: host.DeviceCgroupRules ?? [],
    sysctls: new Map(Object.entries(host.Sysctls ?? {})),
    ulimits: [
      ...ctx.defaults.ulimits.filter((limit) => !ulimits.some((own) => own.name === limit.name)),
      ...ulimits,
    ],
    resources: resourcesOf(host),
    ...(host.CgroupParent !== "" && { cgroupParent: host.CgroupParent }),
    oomScoreAdj: host.OomScoreAdj,
    init: host.Init ?? ctx.defaults.init,
    network: networkNamespace(ctx, document, attachment),
    pidNamespace: namespaceOf(ctx, host.PidMode, "pid"),
    ipcNamespace: namespaceOf(ctx, host.IpcMode, "ipc"),
    utsNamespace: host.UTSMode === "host" ? hostNamespace : privateNamespace,
    cgroupNamespace: host.CgroupnsMode === "private" ? privateNamespace : hostNamespace,
    ports: attachment?.reservations ?? [],
    log: shimLogConfig(document, logPathOf(ctx, document.id)),
  };
}

function securityOptOf(ctx: ContainerContext, host: HostConfig): string[] {
  const options = host.SecurityOpt ?? [];
  const asked = options.some((option) => option.startsWith("no-new-privileges"));
  return ctx.defaults.noNewPrivileges && !asked && !host.Privileged
    ? [...options, "no-new-privileges"]
    : [...options];
}

function networkNamespace(
  ctx: ContainerContext,
  document: ContainerDocument,
  attachment: Attachment | undefined,
): NamespaceMode {
  if (attachment !== undefined) return { kind: "path", path: attachment.namespacePath };
  return namespaceOf(ctx, document.hostConfig.NetworkMode, "net");
}

function namespaceOf(ctx: ContainerContext, mode: string, type: "net" | "pid" | "ipc"): NamespaceMode {
  if (mode === "host") return hostNamespace;
  const other = containerOfMode(ctx.table, mode);
  if (other === undefined) return privateNamespace;
  if (other.sandbox === undefined || other.state.pid === 0 || !other.isUp) {
    const what = type === "net" ? "network" : type.toUpperCase();
    throw new EngineError("conflict", `cannot join ${what} of a non running container: ${other.id}`, {
      code: "not-running",
    });
  }
  return { kind: "path", path: `/proc/${other.state.pid}/ns/${type}` };
}

function sandboxMounts(ctx: ContainerContext, document: ContainerDocument): SandboxMount[] {
  const mounts = document.mounts.map((mount) => sandboxMount(ctx, mount));
  const covered = new Set(mounts.map((mount) => mount.target));
  for (const [target, source] of etcFiles(ctx, document)) {
    if (covered.has(target)) continue;
    mounts.push(bindOf(source, target, document.hostConfig.ReadonlyRootfs));
  }
  // A parent is mounted before what lies in it.
  return mounts.sort((a, b) => depth(a.target) - depth(b.target));
}

function depth(path: string): number {
  return path.split("/").length;
}

function bindOf(source: string, target: string, readOnly: boolean): SandboxMount {
  return { type: "bind", source, target, readOnly, propagation: "rprivate", nonRecursive: false };
}

/** `/etc/resolv.conf`, `/etc/hostname`, `/etc/hosts`: of the container whose network it is. */
export function etcFiles(
  ctx: ContainerContext,
  document: ContainerDocument,
): [target: string, source: string][] {
  const owner = stateDirOf(ctx, document.networkContainer || document.id);
  return [
    ["/etc/resolv.conf", `${owner}/resolv.conf`],
    ["/etc/hostname", `${owner}/hostname`],
    ["/etc/hosts", `${owner}/hosts`],
  ];
}

function sandboxMount(ctx: ContainerContext, mount: MountPoint): SandboxMount {
  if (mount.kind === "tmpfs") {
    return {
      type: "tmpfs",
      source: "tmpfs",
      target: mount.destination,
      readOnly: mount.readOnly,
      propagation: "rprivate",
      nonRecursive: false,
      tmpfsOptions: mount.tmpfsOptions,
    };
  }
  const bind = (source: string): SandboxMount => ({
    type: "bind",
    source,
    target: mount.destination,
    readOnly: mount.readOnly,
    propagation: (mount.propagation || "rprivate") as SandboxMount["propagation"],
    nonRecursive: mount.nonRecursive,
  });
  if (mount.kind === "bind") return bind(mount.source);
  const source = ctx.volumes.mountSource(mount.name);
  if (source.kind === "directory") return bind(source.path);
  return volumeWithOptions(mount, source, bind);
}

/** A local volume with driver options: tmpfs and bind are honoured, other file systems are refused by name. */
function volumeWithOptions(
  mount: MountPoint,
  source: { readonly type: string; readonly device: string; readonly options: string },
  bind: (source: string) => SandboxMount,
): SandboxMount {
  const words = source.options.split(",").filter((word) => word !== "");
  if (source.type === "tmpfs") {
    return { ...bind("tmpfs"), type: "tmpfs", tmpfsOptions: words.join(",") };
  }
  if (words.includes("bind") || words.includes("rbind")) {
    return { ...bind(source.device), readOnly: mount.readOnly || words.includes("ro") };
  }
  throw new EngineError(
    "invalid",
    `error while mounting volume '${mount.name}': file systems of type ${source.type} are not supported`,
    { code: "not-supported" },
  );
}

/** For a container that is not being started: other containers may be gone, and no namespace of theirs is named. */
export function requestByItself(ctx: ContainerContext, container: Container): SandboxRequest {
  const { document } = container;
  const before = document.hostConfig;
  const plain = (mode: string): string => (mode.startsWith("container:") ? "" : mode);
  document.hostConfig = {
    ...before,
    NetworkMode: plain(before.NetworkMode),
    IpcMode: plain(before.IpcMode),
    PidMode: plain(before.PidMode),
  };
  try {
    return sandboxRequest(ctx, container, undefined);
  } finally {
    document.hostConfig = before;
  }
}
