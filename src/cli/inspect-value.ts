/**
 * Inspected objects as template values. A template runs first over the object as Go's types have it (maps where the
 * API has maps, absent optional fields as nil), then, when that fails, over plain decoded JSON, as Docker does.
 */
import { jsonNames, nilMap, nilSlice } from "#wire/template-value.ts";

/** Fields that are maps in the API; all other objects are structs. */
const mapFields: ReadonlySet<string> = new Set([
  "Annotations",
  "Attributes",
  "AuxiliaryAddresses",
  "Containers",
  "Data",
  "Details",
  "DriverOpts",
  "ExposedPorts",
  "IndexConfigs",
  "Labels",
  "Networks",
  "Options",
  "PortBindings",
  "Ports",
  "Runtimes",
  "Services",
  "Status",
  "StorageOpt",
  "Sysctls",
  "Tmpfs",
  "Volumes",
]);

/** Go's field names where they differ from JSON's, by the field that holds the struct ("" for the object itself). */
const fieldNames: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  "": { Id: "ID" },
  HostConfig: {
    CpuCount: "CPUCount",
    CpuPercent: "CPUPercent",
    CpuPeriod: "CPUPeriod",
    CpuQuota: "CPUQuota",
    CpuRealtimePeriod: "CPURealtimePeriod",
    CpuRealtimeRuntime: "CPURealtimeRuntime",
    CpuShares: "CPUShares",
    Dns: "DNS",
    DnsOptions: "DNSOptions",
    DnsSearch: "DNSSearch",
    NanoCpus: "NanoCPUs",
  },
};

/** Fields where null is a nil pointer, not a nil slice. */
const pointerFields: ReadonlySet<string> = new Set([
  "BindOptions",
  "ClusterVolume",
  "Descriptor",
  "GraphDriver",
  "Health",
  "Healthcheck",
  "IPAMConfig",
  "ImageManifestDescriptor",
  "Init",
  "MemorySwappiness",
  "NetworkSettings",
  "OomKillDisable",
  "PidsLimit",
  "SizeRootFs",
  "SizeRw",
  "StopTimeout",
  "TmpfsOptions",
  "UsageData",
  "VolumeOptions",
]);

export type InspectedKind = "container" | "image" | "network" | "volume" | "other";

/** Optional fields that JSON leaves out, with what Go's types hold then; they are there, but not printed as JSON. */
const absent: Readonly<Record<InspectedKind, Readonly<Record<string, Readonly<Record<string, unknown>>>>>> = {
  container: {
    "": { SizeRw: null, SizeRootFs: null },
    State: { Health: null },
    Config: {
      ExposedPorts: nilMap,
      Healthcheck: null,
      StopSignal: "",
      StopTimeout: null,
      Shell: nilSlice,
      NetworkDisabled: false,
      ArgsEscaped: false,
    },
    HostConfig: {
      Annotations: nilMap,
      Init: null,
      Mounts: nilSlice,
      StorageOpt: nilMap,
      Sysctls: nilMap,
      Tmpfs: nilMap,
    },
  },
  image: {
    "": { RepoDigests: nilSlice, Variant: "", OsVersion: "" },
    Config: {
      ArgsEscaped: false,
      Cmd: nilSlice,
      Entrypoint: nilSlice,
      Env: nilSlice,
      ExposedPorts: nilMap,
      Healthcheck: null,
      Labels: nilMap,
      OnBuild: nilSlice,
      Shell: nilSlice,
      StopSignal: "",
      User: "",
      Volumes: nilMap,
      WorkingDir: "",
    },
  },
  network: { "": { Peers: nilSlice, Services: nilMap, EnableIPv4: false } },
  volume: { "": { ClusterVolume: null, Status: nilMap, UsageData: null } },
  other: {},
};

/** As Go's types hold it. */
export function typedValue(json: unknown, kind: InspectedKind): unknown {
  const value = convert(json, "");
  if (typeof value !== "object" || value === null) return value;
  const root = renameFields(value as Record<string, unknown>, fieldNames[""]!);
  if (kind === "image") root["Config"] = imageConfig(root["Config"]);
  for (const [path, fields] of Object.entries(absent[kind])) {
    const target = path === "" ? root : root[path];
    if (typeof target !== "object" || target === null || target instanceof Map) continue;
    for (const [name, filler] of Object.entries(fields)) {
      if (!Object.hasOwn(target, name))
        Object.defineProperty(target, name, { value: filler, enumerable: false });
    }
  }
  return root;
}

/** Gives fields Go's names and remembers JSON's. */
function renameFields(
  value: Record<string, unknown>,
  names: Readonly<Record<string, string>>,
): Record<string, unknown> {
  const back: Record<string, string> = {};
  const renamed = Object.fromEntries(
    Object.entries(value).map(([name, item]) => {
      const goName = names[name];
      if (goName === undefined) return [name, item];
      back[goName] = name;
      return [goName, item];
    }),
  );
  return Object.defineProperty(renamed, jsonNames, { value: back, enumerable: false });
}

/** An image's config is an OCI config: what is empty is not there. */
function imageConfig(config: unknown): unknown {
  if (typeof config !== "object" || config === null) return config;
  const fields = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "ArgsEscaped",
    "Healthcheck",
    "OnBuild",
    "Shell",
  ];
  const given = config as Record<string, unknown>;
  const kept: Record<string, unknown> = {};
  for (const name of fields) {
    const value = given[name];
    const empty =
      value === undefined ||
      value === null ||
      value === "" ||
      value === false ||
      (Array.isArray(value) && value.length === 0) ||
      (value instanceof Map && value.size === 0);
    if (!empty) kept[name] = value;
  }
  return kept;
}

function convert(json: unknown, field: string): unknown {
  if (json === null) {
    if (mapFields.has(field)) return nilMap;
    return pointerFields.has(field) ? null : nilSlice;
  }
  if (Array.isArray(json)) return json.map((item) => convert(item, ""));
  if (typeof json !== "object") return json;
  const entries = Object.entries(json);
  if (mapFields.has(field)) return new Map(entries.map(([name, item]) => [name, convert(item, "")]));
  // A logging configuration's `Config` is a map, any other a struct.
  const inner = (name: string): string => (field === "LogConfig" && name === "Config" ? "Options" : name);
  const struct = Object.fromEntries(entries.map(([name, item]) => [name, convert(item, inner(name))]));
  const names = field === "" ? undefined : fieldNames[field];
  return names === undefined ? struct : renameFields(struct, names);
}

/** Plain decoded JSON: maps throughout, null stays null. */
export function rawValue(json: unknown): unknown {
  if (Array.isArray(json)) return json.map(rawValue);
  if (typeof json !== "object" || json === null) return json;
  return new Map(Object.entries(json).map(([name, item]) => [name, rawValue(item)]));
}
