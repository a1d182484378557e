import { resolve } from "node:path";
import { parseBool, parseCsvLine } from "./flag-types.ts";
import { parseSize } from "./units.ts";

/** One entry of `HostConfig.Mounts`. */
export interface MountSpec {
  Type: string;
  Source?: string;
  Target: string;
  ReadOnly?: boolean;
  Consistency?: string;
  BindOptions?: {
    Propagation?: string;
    NonRecursive?: boolean;
    ReadOnlyNonRecursive?: boolean;
    ReadOnlyForceRecursive?: boolean;
  };
  VolumeOptions?: {
    NoCopy?: boolean;
    Labels?: Record<string, string>;
    Subpath?: string;
    DriverConfig?: { Name?: string; Options?: Record<string, string> };
  };
  ImageOptions?: { Subpath?: string };
  TmpfsOptions?: { SizeBytes?: number; Mode?: number };
}

/** `--mount type=…,source=…,target=…` (CSV). Throws Docker's messages. */
export function parseMount(text: string): MountSpec {
  const mount: MountSpec = { Type: "volume", Target: "" };
  if (text.trim() === "") throw new Error("value is empty");
  for (const field of parseCsvLine(text)) {
    const equals = field.indexOf("=");
    const rawKey = equals < 0 ? field : field.slice(0, equals);
    const key = rawKey.toLowerCase();
    if (equals < 0) {
      if (!setSwitch(mount, key)) throw new Error(`invalid field '${field}' must be a key=value pair`);
      continue;
    }
    const value = field.slice(equals + 1);
    setField(mount, key, value, field);
  }
  return finish(mount);
}

function setSwitch(mount: MountSpec, key: string): boolean {
  switch (key) {
    case "readonly":
    case "ro":
      mount.ReadOnly = true;
      return true;
    case "volume-nocopy":
      mount.VolumeOptions = { ...mount.VolumeOptions, NoCopy: true };
      return true;
    case "bind-nonrecursive":
      mount.BindOptions = { ...mount.BindOptions, NonRecursive: true };
      return true;
    default:
      return false;
  }
}

function booleanField(key: string, value: string): boolean {
  const parsed = parseBool(value);
  if (parsed === undefined) throw new Error(`invalid value for ${key}: ${value}`);
  return parsed;
}

function pair(value: string): [string, string] {
  const equals = value.indexOf("=");
  return equals < 0 ? [value, ""] : [value.slice(0, equals), value.slice(equals + 1)];
}

const recursions: Readonly<Record<string, MountSpec["BindOptions"] & object>> = {
  enabled: {},
  disabled: { NonRecursive: true },
  writable: { ReadOnlyNonRecursive: true },
  readonly: { ReadOnlyForceRecursive: true },
};

function setField(mount: MountSpec, key: string, value: string, field: string): void {
  switch (key) {
    case "type":
      mount.Type = value.toLowerCase();
      break;
    case "source":
    case "src":
      mount.Source = /^\.\.?(\/|$)/.test(value) ? resolve(value) : value;
      break;
    case "target":
    case "dst":
    case "destination":
      mount.Target = value;
      break;
    case "readonly":
    case "ro":
      mount.ReadOnly = booleanField(key, value);
      break;
    case "consistency":
      mount.Consistency = value.toLowerCase();
      break;
    default:
      if (!setTypeField(mount, key, value)) {
        throw new Error(`unexpected key '${key}' in '${field}'`);
      }
  }
}

function setTypeField(mount: MountSpec, key: string, value: string): boolean {
  switch (key) {
    case "bind-propagation":
      mount.BindOptions = { ...mount.BindOptions, Propagation: value.toLowerCase() };
      return true;
    case "bind-nonrecursive":
      mount.BindOptions = { ...mount.BindOptions, NonRecursive: booleanField(key, value) };
      return true;
    case "bind-recursive": {
      const options = recursions[value];
      if (options === undefined) {
        throw new Error(
          `invalid value for ${key}: ${value} (must be "enabled", "disabled", "writable", or "readonly")`,
        );
      }
      mount.BindOptions = { ...mount.BindOptions, ...options };
      return true;
    }
    case "volume-nocopy":
      mount.VolumeOptions = { ...mount.VolumeOptions, NoCopy: booleanField(key, value) };
      return true;
    case "volume-subpath":
      mount.VolumeOptions = { ...mount.VolumeOptions, Subpath: value };
      return true;
    case "volume-label": {
      const [name, text] = pair(value);
      mount.VolumeOptions = {
        ...mount.VolumeOptions,
        Labels: { ...mount.VolumeOptions?.Labels, [name]: text },
      };
      return true;
    }
    case "volume-driver":
      mount.VolumeOptions = {
        ...mount.VolumeOptions,
        DriverConfig: { ...mount.VolumeOptions?.DriverConfig, Name: value },
      };
      return true;
    case "volume-opt": {
      const [name, text] = pair(value);
      const driver = mount.VolumeOptions?.DriverConfig;
      mount.VolumeOptions = {
        ...mount.VolumeOptions,
        DriverConfig: { ...driver, Options: { ...driver?.Options, [name]: text } },
      };
      return true;
    }
    case "image-subpath":
      mount.ImageOptions = { ...mount.ImageOptions, Subpath: value };
      return true;
    case "tmpfs-size":
      mount.TmpfsOptions = { ...mount.TmpfsOptions, SizeBytes: sizeField(key, value) };
      return true;
    case "tmpfs-mode": {
      if (!/^[0-7]+$/.test(value)) throw new Error(`invalid value for ${key}: ${value}`);
      mount.TmpfsOptions = { ...mount.TmpfsOptions, Mode: Number.parseInt(value, 8) };
      return true;
    }
    default:
      return false;
  }
}

function sizeField(key: string, value: string): number {
  try {
    return parseSize(value);
  } catch {
    throw new Error(`invalid value for ${key}: ${value}`);
  }
}

function finish(mount: MountSpec): MountSpec {
  if (mount.Target === "") throw new Error("target is required");
  const belongs = (type: string, options: unknown): void => {
    if (options !== undefined && mount.Type !== type) {
      throw new Error(`cannot mix '${type}-*' options with mount type '${mount.Type}'`);
    }
  };
  belongs("bind", mount.BindOptions);
  belongs("volume", mount.VolumeOptions);
  belongs("image", mount.ImageOptions);
  belongs("tmpfs", mount.TmpfsOptions);
  const bind = mount.BindOptions;
  if (bind?.ReadOnlyNonRecursive === true && mount.ReadOnly !== true) {
    throw new Error("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction");
  }
  if (bind?.ReadOnlyForceRecursive === true) {
    if (mount.ReadOnly !== true) {
      throw new Error("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction");
    }
    if (bind.Propagation !== "rprivate") {
      throw new Error(
        "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction",
      );
    }
  }
  return mount;
}

/** `source:target[:options]` of `-v`, as far as the client looks at it. */
export interface VolumeOption {
  readonly source: string;
  readonly target: string;
  readonly rest: string;
  readonly parts: number;
}

/**
 * Splits a `-v` value. A source that starts with `.` or `~` is made absolute by the caller's shell or here; the
 * daemon checks the rest. Throws Docker's messages.
 */
export function parseVolume(text: string): VolumeOption {
  if (text === "") throw new Error("invalid empty volume spec");
  const parts = text.split(":");
  if (parts[0] === "" && parts.length > 1) {
    throw new Error(`invalid spec: ${text}: empty section between colons`);
  }
  if (parts.length > 3) return { source: text, target: "", rest: "", parts: parts.length };
  const [source, target = "", rest = ""] = parts as [string, string?, string?];
  if (parts.length === 1) return { source: "", target: source, rest: "", parts: 1 };
  const path = /^\.\.?(\/|$)/.test(source) ? resolve(source) : source;
  return { source: path, target, rest, parts: parts.length };
}
