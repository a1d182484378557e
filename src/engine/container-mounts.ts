/** Mounts of a create request: `Binds`, `Mounts`, `Tmpfs`, and the image's volumes. Pure but for the wording of errors. */
import { posix } from "node:path";
import { EngineError } from "#base/errors.ts";
import type { HostConfig, MountSpec } from "#wire/container-schema.ts";
import type { MountPoint } from "./container-document.ts";

const propagations: readonly string[] = ["rprivate", "private", "rshared", "shared", "rslave", "slave"];
const volumeNamePattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

/** A volume that create must make (or find) before the container's row is written. */
export interface VolumeWish {
  readonly labels: Readonly<Record<string, string>> | null;
  readonly options: Readonly<Record<string, string>> | null;
}

export interface PlannedMount extends MountPoint {
  /** Only for volumes. */
  readonly wish?: VolumeWish;
}

function refuse(message: string, code = "bad-mount"): EngineError {
  return new EngineError("invalid", message, { code });
}

const plainMount = {
  name: "",
  source: "",
  driver: "",
  mode: "",
  readOnly: false,
  propagation: "",
  nonRecursive: false,
  createSource: false,
  copyUp: false,
  anonymous: false,
  tmpfsOptions: "",
  hidden: false,
  fromVolumesFrom: false,
} as const;

/** One `Binds` entry: `[source:]destination[:mode]`. */
export function parseBind(spec: string, volumeDriver: string): PlannedMount {
  const parts = spec.split(":");
  const bad = (): EngineError => refuse(`invalid volume specification: '${spec}'`);
  if (spec === "" || parts.length > 3 || parts.some((part) => part === "")) throw bad();
  const [first, second, third] = parts as [string, string | undefined, string | undefined];
  if (second === undefined) return anonymousVolume(checkDestination("volume", first, spec), volumeDriver);
  // `destination:mode` without a source is an anonymous volume, as Docker reads it.
  if (third === undefined && parseMode(second, first.startsWith("/") ? "volume" : "bind") !== undefined) {
    return anonymousVolume(checkDestination("volume", first, spec), volumeDriver, second);
  }
  const isBind = first.startsWith("/");
  const kind = isBind ? "bind" : "volume";
  const mode = parseMode(third ?? "", kind);
  if (mode === undefined) throw refuse(`invalid mode: ${third}`);
  const destination = checkDestination(kind, second, spec);
  if (isBind) {
    return {
      ...plainMount,
      kind: "bind",
      source: posix.normalize(first),
      destination,
      mode: third ?? "",
      readOnly: mode.readOnly,
      propagation: mode.propagation || "rprivate",
      createSource: true,
    };
  }
  checkVolumeName(first);
  return {
    ...plainMount,
    kind: "volume",
    name: first,
    destination,
    driver: checkVolumeDriver(first, volumeDriver),
    mode: third ?? "z",
    readOnly: mode.readOnly,
    copyUp: !mode.noCopy,
    wish: { labels: null, options: null },
  };
}

function anonymousVolume(destination: string, driver: string, mode = ""): PlannedMount {
  return {
    ...plainMount,
    kind: "volume",
    destination,
    driver: checkVolumeDriver("", driver),
    mode,
    readOnly: mode.split(",").includes("ro"),
    copyUp: true,
    anonymous: true,
    wish: { labels: null, options: null },
  };
}

/** An anonymous volume for an image's (or the request's) `Volumes` entry. */
export function imageVolume(destination: string, driver: string): PlannedMount {
  const absolute = destination.startsWith("/") ? destination : `/${destination}`;
  return anonymousVolume(checkDestination("volume", absolute, destination), driver);
}

function checkVolumeName(name: string): void {
  if (volumeNamePattern.test(name)) return;
  if (name.length === 1) {
    throw refuse("volume name is too short, names should be at least two alphanumeric characters");
  }
  throw refuse(
    `create ${name}: "${name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`,
  );
}

function checkVolumeDriver(name: string, driver: string): string {
  if (driver === "" || driver === "local") return "local";
  // Not 404, which Docker answers: `docker run` takes a 404 of create for a missing image and pulls.
  throw new EngineError(
    "invalid",
    `create ${name}: error looking up volume plugin ${driver}: plugin "${driver}" not found`,
    { code: "no-such-plugin" },
  );
}

function checkDestination(kind: string, destination: string, spec: string): string {
  const where = `invalid volume specification: '${spec}': invalid mount config for type "${kind}"`;
  if (!destination.startsWith("/")) {
    throw refuse(`${where}: invalid mount path: '${destination}' mount path must be absolute`);
  }
  const path = tidyPath(destination);
  if (path === "/") throw refuse(`${where}: invalid specification: destination can't be '/'`);
  return path;
}

function tidyPath(path: string): string {
  const normal = posix.normalize(path);
  return normal.length > 1 && normal.endsWith("/") ? normal.slice(0, -1) : normal;
}

interface BindMode {
  readonly readOnly: boolean;
  readonly propagation: string;
  readonly noCopy: boolean;
}

/** `ro,rw,z,Z,nocopy,<propagation>,cached,delegated,consistent`; undefined where it is no mode. */
export function parseMode(text: string, kind: "bind" | "volume"): BindMode | undefined {
  let readOnly: boolean | undefined;
  let propagation = "";
  let noCopy = false;
  let labels = 0;
  let consistency = 0;
  for (const word of text === "" ? [] : text.split(",")) {
    if (word === "ro" || word === "rw") {
      if (readOnly !== undefined) return undefined;
      readOnly = word === "ro";
    } else if (word === "z" || word === "Z") labels += 1;
    else if (word === "nocopy" && kind === "volume" && !noCopy) noCopy = true;
    else if (propagations.includes(word) && kind === "bind" && propagation === "") propagation = word;
    else if (/^(cached|delegated|consistent)$/.test(word) && kind === "bind") consistency += 1;
    else return undefined;
  }
  if (labels > 1 || consistency > 1) return undefined;
  return { readOnly: readOnly ?? false, propagation, noCopy };
}

/** One `Mounts` entry. `sourceExists` is asked for binds that must be there. */
export function parseMount(spec: MountSpec, sourceExists: (path: string) => boolean): PlannedMount {
  const fail = (why: string): EngineError => refuse(`invalid mount config for type "${spec.Type}": ${why}`);
  if (!["bind", "volume", "tmpfs"].includes(spec.Type)) {
    if (["image", "npipe", "cluster"].includes(spec.Type)) {
      throw refuse(`mounts of type "${spec.Type}" are not supported`, "not-supported");
    }
    throw fail("mount type unknown");
  }
  if (spec.Target === "") throw fail("field Target must not be empty");
  if (!spec.Target.startsWith("/")) {
    if (spec.Type !== "tmpfs" || spec.Source === "") {
      throw fail(`invalid mount path: '${spec.Target}' mount path must be absolute`);
    }
  }
  const destination = tidyPath(spec.Target);
  if (destination === "/") throw fail("invalid specification: destination can't be '/'");
  checkOptionsOfOtherTypes(spec, fail);
  if (spec.Type === "bind") return bindMount(spec, destination, fail, sourceExists);
  if (spec.Type === "volume") return volumeMount(spec, destination, fail);
  if (spec.Source !== "") throw fail("field Source must not be specified");
  return {
    ...plainMount,
    kind: "tmpfs",
    destination,
    readOnly: spec.ReadOnly,
    tmpfsOptions: tmpfsOptionsOf(spec, fail),
  };
}

function checkOptionsOfOtherTypes(spec: MountSpec, fail: (why: string) => EngineError): void {
  if (spec.BindOptions !== null && spec.Type !== "bind")
    throw fail("field BindOptions must not be specified");
  if (spec.VolumeOptions !== null && spec.Type !== "volume")
    throw fail("field VolumeOptions must not be specified");
  if (spec.TmpfsOptions !== null && spec.Type !== "tmpfs")
    throw fail("field TmpfsOptions must not be specified");
  if (spec.ImageOptions !== null) throw fail("field ImageOptions must not be specified");
}

function bindMount(
  spec: MountSpec,
  destination: string,
  fail: (why: string) => EngineError,
  sourceExists: (path: string) => boolean,
): PlannedMount {
  if (spec.Source === "") throw fail("field Source must not be empty");
  if (!spec.Source.startsWith("/")) {
    throw fail(`invalid mount path: '${spec.Source}' mount path must be absolute`);
  }
  const options = spec.BindOptions;
  const propagation = options?.Propagation ?? "";
  if (propagation !== "" && !propagations.includes(propagation)) {
    throw fail(`invalid propagation mode: ${propagation}`);
  }
  for (const name of ["ReadOnlyNonRecursive", "ReadOnlyForceRecursive"] as const) {
    if (options?.[name]) throw refuse(`BindOptions.${name} is not supported`, "not-supported");
  }
  const source = posix.normalize(spec.Source);
  if (!options?.CreateMountpoint && !sourceExists(source)) {
    throw fail(`bind source path does not exist: ${spec.Source}`);
  }
  return {
    ...plainMount,
    kind: "bind",
    source,
    destination,
    readOnly: spec.ReadOnly,
    propagation: propagation || "rprivate",
    nonRecursive: options?.NonRecursive ?? false,
    createSource: options?.CreateMountpoint ?? false,
  };
}

function volumeMount(spec: MountSpec, destination: string, fail: (why: string) => EngineError): PlannedMount {
  const options = spec.VolumeOptions;
  if (options?.Subpath) throw refuse("VolumeOptions.Subpath is not supported", "not-supported");
  const anonymous = spec.Source === "";
  if (anonymous && spec.ReadOnly) {
    throw fail("must not set ReadOnly mode when using anonymous volumes");
  }
  if (!anonymous) checkVolumeName(spec.Source);
  return {
    ...plainMount,
    kind: "volume",
    name: spec.Source,
    destination,
    driver: checkVolumeDriver(spec.Source, options?.DriverConfig?.Name ?? ""),
    mode: "z",
    readOnly: spec.ReadOnly,
    copyUp: !(options?.NoCopy ?? false),
    anonymous,
    wish: { labels: options?.Labels ?? null, options: options?.DriverConfig?.Options ?? null },
  };
}

function tmpfsOptionsOf(spec: MountSpec, fail: (why: string) => EngineError): string {
  const options = spec.TmpfsOptions;
  const words = ["nosuid", "nodev", "noexec"];
  if (spec.ReadOnly) words.push("ro");
  if (options === null) return words.join(",");
  if (options.SizeBytes < 0) throw fail("invalid tmpfs size: must not be negative");
  if (options.Mode !== 0) words.push(`mode=${options.Mode.toString(8)}`);
  if (options.SizeBytes !== 0) words.push(`size=${options.SizeBytes}`);
  for (const [key, value] of options.Options ?? []) {
    if (key === undefined || !/^[a-z0-9_]+$/i.test(key) || (value ?? "").includes(",")) {
      throw fail(`invalid option: ${key}`);
    }
    words.push(value === undefined ? key : `${key}=${value}`);
  }
  return words.join(",");
}

/** One `--tmpfs` entry. Docker adds noexec, nosuid and nodev unless the opposite is asked for. */
export function parseTmpfs(path: string, options: string): PlannedMount {
  if (!path.startsWith("/")) throw refuse(`invalid mount path: '${path}' mount path must be absolute`);
  const destination = tidyPath(path);
  if (destination === "/") throw refuse("invalid specification: destination can't be '/'");
  const asked = options === "" ? [] : options.split(",");
  const words = [
    ["noexec", "exec"],
    ["nosuid", "suid"],
    ["nodev", "dev"],
  ].flatMap(([strict, loose]) => (asked.includes(loose!) || asked.includes(strict!) ? [] : [strict!]));
  return {
    ...plainMount,
    kind: "tmpfs",
    destination,
    readOnly: asked.includes("ro"),
    tmpfsOptions: [...words, ...asked].join(","),
    hidden: true,
  };
}

/** `container[:ro|rw|…]` of `VolumesFrom`. */
export function parseVolumesFrom(spec: string): {
  reference: string;
  readOnly: boolean | undefined;
  mode: string;
} {
  const colon = spec.indexOf(":");
  const reference = colon < 0 ? spec : spec.slice(0, colon);
  const mode = colon < 0 ? "" : spec.slice(colon + 1);
  if (reference === "") throw refuse("volumes-from specification cannot be an empty string");
  const parsed = parseMode(mode, "volume");
  if (parsed === undefined || parsed.noCopy) throw refuse(`invalid mode: ${mode}`);
  const words = mode.split(",");
  const explicit = words.includes("ro") || words.includes("rw");
  return { reference, readOnly: explicit ? parsed.readOnly : undefined, mode };
}

/**
 * Everything that is mounted, a destination once. Order of precedence as Docker's: image volumes give way to
 * volumes-from, those to `Binds`, `Mounts` and `Tmpfs`; two of the explicit ones on one destination are an error.
 */
export function planMounts(request: {
  readonly host: HostConfig;
  readonly volumes: readonly string[];
  readonly inherited: readonly PlannedMount[];
  readonly sourceExists: (path: string) => boolean;
}): PlannedMount[] {
  const { host } = request;
  const planned = new Map<string, PlannedMount>();
  const explicit = [
    ...(host.Binds ?? []).map((spec) => parseBind(spec, host.VolumeDriver)),
    ...(host.Mounts ?? []).map((spec) => parseMount(spec, request.sourceExists)),
    ...Object.entries(host.Tmpfs ?? {}).map(([path, options]) => parseTmpfs(path, options)),
  ];
  for (const mount of explicit) {
    if (planned.has(mount.destination)) throw refuse(`Duplicate mount point: ${mount.destination}`);
    planned.set(mount.destination, mount);
  }
  for (const mount of request.inherited) {
    if (!planned.has(mount.destination)) planned.set(mount.destination, mount);
  }
  for (const path of request.volumes) {
    const mount = imageVolume(path, host.VolumeDriver);
    if (!planned.has(mount.destination)) planned.set(mount.destination, mount);
  }
  return [...planned.values()];
}
