/** Use case: inspect. */
import { zeroTime } from "#base/clock.ts";
import type { EndpointSettings } from "#network/network.ts";
import type {
  ContainerInspectJson,
  ContainerStateJson,
  EndpointJson,
  MountJson,
} from "#wire/container-json.ts";
import { mountsAsGoPrints, withoutEmpty } from "#wire/container-json.ts";
import type { Container } from "./container.ts";
import { type ContainerContext, logPathOf } from "./container-context.ts";
import type { ContainerDocument, MountPoint } from "./container-document.ts";
import { hasOwnNetwork } from "./container-network.ts";
import { portMap } from "./container-ports.ts";
import { etcFiles } from "./container-request.ts";
import { isUp } from "./transitions.ts";

/** Docker's whole description of a container; `size` counts its bytes, which walks its layer. */
export async function inspectContainer(
  ctx: ContainerContext,
  container: Container,
  options: { readonly size: boolean },
): Promise<ContainerInspectJson> {
  const { document, state } = container;
  const everStarted = state.startedAt !== zeroTime;
  const paths = new Map(etcFiles(ctx, document));
  const pathOf = (target: string): string => (everStarted ? paths.get(target)! : "");
  const usesLog = document.hostConfig.LogConfig.Type !== "none";
  return {
    Id: document.id,
    Created: document.created,
    Path: document.path,
    Args: document.args,
    State: stateJson(container),
    Image: document.imageId,
    ResolvConfPath: pathOf("/etc/resolv.conf"),
    HostnamePath: pathOf("/etc/hostname"),
    HostsPath: pathOf("/etc/hosts"),
    LogPath: usesLog && everStarted ? logPathOf(ctx, document.id) : "",
    Name: `/${document.name}`,
    RestartCount: state.restartCount,
    Driver: ctx.snapshotter.driverName,
    Platform: document.platform,
    MountLabel: "",
    ProcessLabel: "",
    AppArmorProfile: "",
    ExecIDs: runningExecs(container),
    HostConfig: hostConfigJson(document),
    GraphDriver: graphDriver(ctx, document),
    ...(options.size && (await sizes(ctx, container))),
    Mounts: mountsJson(ctx, document),
    Config: withoutEmpty(document.config),
    NetworkSettings: networkSettings(container),
  };
}

function hostConfigJson({ hostConfig }: ContainerDocument): ContainerInspectJson["HostConfig"] {
  const { Mounts: _, ...rest } = withoutEmpty(hostConfig);
  return hostConfig.Mounts?.length ? { ...rest, Mounts: mountsAsGoPrints(hostConfig.Mounts) } : rest;
}

function stateJson(container: Container): ContainerStateJson {
  const { state, health } = container;
  return {
    Status: state.status,
    Running: isUp(state.status),
    Paused: state.status === "paused",
    Restarting: state.status === "restarting",
    OOMKilled: state.oomKilled,
    Dead: state.status === "dead",
    Pid: state.pid,
    ExitCode: state.exitCode,
    Error: state.error,
    StartedAt: state.startedAt,
    FinishedAt: state.finishedAt,
    ...(health !== undefined && {
      Health: { Status: health.status, FailingStreak: health.failingStreak, Log: health.log },
    }),
  };
}

function runningExecs(container: Container): string[] | null {
  const ids = [...container.execs.values()].filter((exec) => exec.phase !== "ended").map((exec) => exec.id);
  return ids.length === 0 ? null : ids;
}

function graphDriver(
  ctx: ContainerContext,
  document: ContainerDocument,
): ContainerInspectJson["GraphDriver"] {
  const layers = ctx.images.get(document.imageId)?.layers ?? [];
  const { upperDir, workDir } = ctx.snapshotter.writableOf(document.id);
  return {
    Data: {
      ID: document.id,
      LowerDir: layers
        .map((layer) => ctx.snapshotter.pathOf(layer.key))
        .reverse()
        .join(":"),
      MergedDir: upperDir.replace(/\/[^/]+$/, "/merged"),
      UpperDir: upperDir,
      WorkDir: workDir,
    },
    Name: ctx.snapshotter.driverName,
  };
}

/** Bytes of the writable layer, and of the whole root filesystem with the image. */
export async function sizes(
  ctx: ContainerContext,
  container: Container,
): Promise<{ SizeRw: number; SizeRootFs: number }> {
  const own = await ctx.snapshotter.writableUsage(container.id);
  const image = ctx.images.get(container.document.imageId)?.sizeBytes ?? 0;
  return { SizeRw: own, SizeRootFs: image + own };
}

export function mountsJson(ctx: ContainerContext, document: ContainerDocument): MountJson[] {
  return document.mounts.filter((mount) => !mount.hidden).map((mount) => mountJson(ctx, mount));
}

function mountJson(ctx: ContainerContext, mount: MountPoint): MountJson {
  const { kind } = mount;
  return {
    Type: kind,
    ...(kind === "volume" && { Name: mount.name }),
    Source: kind === "volume" ? (ctx.volumes.find(mount.name)?.mountpoint ?? "") : mount.source,
    Destination: mount.destination,
    ...(kind === "volume" && { Driver: mount.driver }),
    Mode: mount.mode,
    RW: !mount.readOnly,
    Propagation: mount.propagation,
  };
}

function networkSettings(container: Container): ContainerInspectJson["NetworkSettings"] {
  const { document } = container;
  const record = document.network;
  const isBridge = document.hostConfig.NetworkMode === "bridge";
  const first = isBridge ? record?.endpoints[0] : undefined;
  return {
    Bridge: "",
    SandboxID: record?.sandboxId ?? "",
    SandboxKey: container.isUp && document.state.pid > 0 ? `/proc/${document.state.pid}/ns/net` : "",
    Ports: container.isUp ? portMap(document.config, record?.bindings ?? []) : {},
    HairpinMode: false,
    LinkLocalIPv6Address: "",
    LinkLocalIPv6PrefixLen: 0,
    SecondaryIPAddresses: null,
    SecondaryIPv6Addresses: null,
    EndpointID: first?.endpointId ?? "",
    Gateway: first?.gateway ?? "",
    GlobalIPv6Address: "",
    GlobalIPv6PrefixLen: 0,
    IPAddress: first?.ipAddress ?? "",
    IPPrefixLen: first?.prefixLength ?? 0,
    IPv6Gateway: "",
    MacAddress: first?.macAddress ?? "",
    Networks: networksJson(document),
  };
}

/** One entry per network; of a container that does not run, the network's name with what is known of it. */
export function networksJson(document: ContainerDocument): Record<string, EndpointJson> {
  const mode = document.hostConfig.NetworkMode;
  const endpoints = document.network?.endpoints ?? [];
  if (endpoints.length > 0) {
    return Object.fromEntries(
      endpoints.map((endpoint) => [endpoint.networkName, endpointJson(document, endpoint)]),
    );
  }
  if (!hasOwnNetwork(mode) && mode !== "host") return {};
  return { [mode]: endpointJson(document, undefined) };
}

function endpointJson(document: ContainerDocument, endpoint: EndpointSettings | undefined): EndpointJson {
  const asked = document.endpoint;
  const up = isUp(document.state.status);
  const usable = up ? endpoint : undefined;
  return {
    IPAMConfig: asked.ipAddress === "" ? null : { IPv4Address: asked.ipAddress },
    Links: null,
    Aliases: asked.aliases.length === 0 ? null : [...asked.aliases],
    MacAddress: usable?.macAddress ?? "",
    DriverOpts: null,
    GwPriority: 0,
    NetworkID: endpoint?.networkId ?? document.networkId,
    EndpointID: usable?.endpointId ?? "",
    Gateway: usable?.gateway ?? "",
    IPAddress: usable?.ipAddress ?? "",
    IPPrefixLen: usable?.prefixLength ?? 0,
    IPv6Gateway: "",
    GlobalIPv6Address: "",
    GlobalIPv6PrefixLen: 0,
    DNSNames: usable === undefined || usable.dnsNames.length === 0 ? null : [...usable.dnsNames],
  };
}
