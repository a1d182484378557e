/**
 * Request bodies of the container endpoints, in the field order of the Engine API's answers: a decoded value prints as
 * Docker prints it. Types come from the schemas; what a field means is `docs/api` of the Engine API, v1.51.
 */
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { boolean, type Infer, integer, list, nullable, type Schema, string, struct } from "./go-json.ts";

/** A list of strings, or one string: Go's strslice. null stays null: for an entrypoint it means "the image's". */
const stringSlice: Schema<string[] | null> = {
  zero: () => null,
  decode: (value, path) => (typeof value === "string" ? [value] : boundedList(string).decode(value, path)),
};

function boundedList<T>(item: Schema<T>): Schema<T[]> {
  const inner = list(item);
  return {
    zero: inner.zero,
    decode: (value, path) => {
      const items = inner.decode(value, path);
      if (items.length > limits.listItemsMax) {
        throw new EngineError("invalid", `${path}: more than ${limits.listItemsMax} items`, {
          code: "too-many",
        });
      }
      return items;
    },
  };
}

/** A string-keyed map as a plain object with its keys sorted, as Go prints maps. Every key is an own property. */
export function record<T>(item: Schema<T>): Schema<Record<string, T>> {
  return {
    zero: () => ({}),
    decode: (value, path) => {
      if (typeof value !== "object" || value === null || Array.isArray(value)) {
        throw new EngineError(
          "invalid",
          `invalid JSON: json: cannot unmarshal ${Array.isArray(value) ? "array" : typeof value} into Go struct field ${path} of type map`,
          { code: "bad-json" },
        );
      }
      const entries = Object.entries(value).map(([key, entry]): [string, T] => [
        key,
        entry === null ? item.zero() : item.decode(entry, `${path}.${key}`),
      ]);
      if (entries.length > limits.listItemsMax) {
        throw new EngineError("invalid", `${path}: more than ${limits.listItemsMax} items`, {
          code: "too-many",
        });
      }
      entries.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
      return Object.fromEntries(entries);
    },
  };
}

const strings = nullable(boundedList(string));
const stringMap = nullable(record(string));
const emptyObject = struct("struct {}", {});
const emptyObjectMap = nullable(record(emptyObject));

export const healthcheckSchema = struct("HealthConfig", {
  Test: strings,
  Interval: integer,
  Timeout: integer,
  StartPeriod: integer,
  StartInterval: integer,
  Retries: integer,
});

/** Docker's `container.Config`. */
const configShape = {
  Hostname: string,
  Domainname: string,
  User: string,
  AttachStdin: boolean,
  AttachStdout: boolean,
  AttachStderr: boolean,
  ExposedPorts: emptyObjectMap,
  Tty: boolean,
  OpenStdin: boolean,
  StdinOnce: boolean,
  Env: strings,
  Cmd: stringSlice,
  Healthcheck: nullable(healthcheckSchema),
  ArgsEscaped: boolean,
  Image: string,
  Volumes: emptyObjectMap,
  WorkingDir: string,
  Entrypoint: stringSlice,
  NetworkDisabled: boolean,
  MacAddress: string,
  OnBuild: strings,
  Labels: stringMap,
  StopSignal: string,
  StopTimeout: nullable(integer),
  Shell: stringSlice,
} as const;

export const containerConfigSchema = struct("Config", configShape);
export type ContainerConfig = Infer<typeof containerConfigSchema>;
export type HealthcheckConfig = Infer<typeof healthcheckSchema>;

const portBinding = struct("PortBinding", { HostIp: string, HostPort: string });
const restartPolicy = struct("RestartPolicy", { Name: string, MaximumRetryCount: integer });
const weightDevice = struct("WeightDevice", { Path: string, Weight: integer });
const throttleDevice = struct("ThrottleDevice", { Path: string, Rate: integer });

const mountSchema = struct("Mount", {
  Type: string,
  Source: string,
  Target: string,
  ReadOnly: boolean,
  Consistency: string,
  BindOptions: nullable(
    struct("BindOptions", {
      Propagation: string,
      NonRecursive: boolean,
      CreateMountpoint: boolean,
      ReadOnlyNonRecursive: boolean,
      ReadOnlyForceRecursive: boolean,
    }),
  ),
  VolumeOptions: nullable(
    struct("VolumeOptions", {
      NoCopy: boolean,
      Labels: stringMap,
      DriverConfig: nullable(struct("Driver", { Name: string, Options: stringMap })),
      Subpath: string,
    }),
  ),
  ImageOptions: nullable(struct("ImageOptions", { Subpath: string })),
  TmpfsOptions: nullable(
    struct("TmpfsOptions", { SizeBytes: integer, Mode: integer, Options: nullable(list(list(string))) }),
  ),
  ClusterOptions: nullable(emptyObject),
});
export type MountSpec = Infer<typeof mountSchema>;

/** The part of the host configuration that `update` takes too. */
const resourcesShape = {
  CpuShares: integer,
  Memory: integer,
  NanoCpus: integer,
  CgroupParent: string,
  BlkioWeight: integer,
  BlkioWeightDevice: nullable(list(weightDevice)),
  BlkioDeviceReadBps: nullable(list(throttleDevice)),
  BlkioDeviceWriteBps: nullable(list(throttleDevice)),
  BlkioDeviceReadIOps: nullable(list(throttleDevice)),
  BlkioDeviceWriteIOps: nullable(list(throttleDevice)),
  CpuPeriod: integer,
  CpuQuota: integer,
  CpuRealtimePeriod: integer,
  CpuRealtimeRuntime: integer,
  CpusetCpus: string,
  CpusetMems: string,
  Devices: nullable(
    boundedList(
      struct("DeviceMapping", { PathOnHost: string, PathInContainer: string, CgroupPermissions: string }),
    ),
  ),
  DeviceCgroupRules: strings,
  DeviceRequests: nullable(
    list(
      struct("DeviceRequest", {
        Driver: string,
        Count: integer,
        DeviceIDs: strings,
        Capabilities: nullable(list(list(string))),
        Options: stringMap,
      }),
    ),
  ),
  MemoryReservation: integer,
  MemorySwap: integer,
  MemorySwappiness: nullable(integer),
  OomKillDisable: nullable(boolean),
  PidsLimit: nullable(integer),
  Ulimits: nullable(boundedList(struct("Ulimit", { Name: string, Hard: integer, Soft: integer }))),
  CpuCount: integer,
  CpuPercent: integer,
  IOMaximumIOps: integer,
  IOMaximumBandwidth: integer,
} as const;

/** Docker's `container.HostConfig`. */
export const hostConfigSchema = struct("HostConfig", {
  Binds: strings,
  ContainerIDFile: string,
  LogConfig: struct("LogConfig", { Type: string, Config: record(string) }),
  NetworkMode: string,
  PortBindings: nullable(record(nullable(boundedList(portBinding)))),
  RestartPolicy: restartPolicy,
  AutoRemove: boolean,
  VolumeDriver: string,
  VolumesFrom: strings,
  ConsoleSize: nullable(list(integer)),
  Annotations: stringMap,
  CapAdd: stringSlice,
  CapDrop: stringSlice,
  CgroupnsMode: string,
  Dns: strings,
  DnsOptions: strings,
  DnsSearch: strings,
  ExtraHosts: strings,
  GroupAdd: strings,
  IpcMode: string,
  Cgroup: string,
  Links: strings,
  OomScoreAdj: integer,
  PidMode: string,
  Privileged: boolean,
  PublishAllPorts: boolean,
  ReadonlyRootfs: boolean,
  SecurityOpt: strings,
  StorageOpt: stringMap,
  Tmpfs: stringMap,
  UTSMode: string,
  UsernsMode: string,
  ShmSize: integer,
  Sysctls: stringMap,
  Runtime: string,
  Isolation: string,
  ...resourcesShape,
  Mounts: nullable(boundedList(mountSchema)),
  MaskedPaths: strings,
  ReadonlyPaths: strings,
  Init: nullable(boolean),
});
export type HostConfig = Infer<typeof hostConfigSchema>;

const endpointSchema = struct("EndpointSettings", {
  IPAMConfig: nullable(
    struct("EndpointIPAMConfig", { IPv4Address: string, IPv6Address: string, LinkLocalIPs: strings }),
  ),
  Links: strings,
  Aliases: strings,
  MacAddress: string,
  DriverOpts: stringMap,
  GwPriority: integer,
});
export type EndpointConfig = Infer<typeof endpointSchema>;

export const containerCreateSchema = struct("CreateRequest", {
  ...configShape,
  HostConfig: nullable(hostConfigSchema),
  NetworkingConfig: nullable(
    struct("NetworkingConfig", { EndpointsConfig: nullable(record(endpointSchema)) }),
  ),
});
export type ContainerCreateBody = Infer<typeof containerCreateSchema>;

export const containerUpdateSchema = struct("UpdateConfig", {
  ...resourcesShape,
  RestartPolicy: restartPolicy,
});
export type ContainerUpdateBody = Infer<typeof containerUpdateSchema>;
export type ResourcesConfig = Omit<ContainerUpdateBody, "RestartPolicy">;

export const execCreateSchema = struct("ExecOptions", {
  User: string,
  Privileged: boolean,
  Tty: boolean,
  ConsoleSize: nullable(list(integer)),
  AttachStdin: boolean,
  AttachStderr: boolean,
  AttachStdout: boolean,
  Detach: boolean,
  DetachKeys: string,
  Env: strings,
  WorkingDir: string,
  Cmd: stringSlice,
});
export type ExecCreateBody = Infer<typeof execCreateSchema>;

export const execStartSchema = struct("ExecStartOptions", {
  Detach: boolean,
  Tty: boolean,
  ConsoleSize: nullable(list(integer)),
});
export type ExecStartBody = Infer<typeof execStartSchema>;
