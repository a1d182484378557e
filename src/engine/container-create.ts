/** Use case: create. One durable commit, with the directories made beside it. */
import { mkdir, rm, stat } from "node:fs/promises";
import { EngineError, messageOf } from "#base/errors.ts";
import { newContainerId, shortId } from "#base/ids.ts";
import type { Image } from "#image/image.ts";
import {
  type ContainerConfig,
  containerConfigSchema,
  type EndpointConfig,
  type HostConfig,
} from "#wire/container-schema.ts";
import { Container } from "./container.ts";
import { commandOf, mergeImageConfig } from "./container-config.ts";
import { type ContainerContext, containerEvent, stateDirOf } from "./container-context.ts";
import { type ContainerDocument, freshState, type MountPoint } from "./container-document.ts";
import { dropEarly, prepareEarly } from "./container-early.ts";
import { writeEarlyFiles } from "./container-files.ts";
import { type PlannedMount, parseVolumesFrom, planMounts } from "./container-mounts.ts";
import { parseLinks, resolveModes } from "./container-references.ts";
import { validatedBySandbox } from "./container-request.ts";
import { checkCreateRequest, withHostDefaults } from "./container-validate.ts";
import { checkContainerName, generateContainerName } from "./names.ts";

export interface CreateRequest {
  /** "": one is made up. */
  readonly name: string;
  /** `os/arch[/variant]`, or "". */
  readonly platform: string;
  readonly config: ContainerConfig;
  readonly hostConfig: HostConfig;
  readonly endpoints: Readonly<Record<string, EndpointConfig>>;
  /** Made by a build. */
  readonly buildStep?: "runs" | "idle";
  /** Variables that are no part of the container's description. */
  readonly secretEnv?: readonly string[];
}

export interface Created {
  readonly id: string;
  readonly warnings: string[];
}

/**
 * Makes a container. Errors, each before anything stays: `invalid` for what cannot work, `notFound`
 * `No such image: x:latest`, `conflict` for a name in use.
 */
export async function createContainer(ctx: ContainerContext, request: CreateRequest): Promise<Created> {
  if (request.config.Image === "") {
    throw new EngineError("invalid", "config cannot be empty in order to create a container", {
      code: "empty-config",
    });
  }
  const warnings = checkCreateRequest(request.config, request.hostConfig);
  const existing = await existingSources(request.hostConfig);
  const image = ctx.images.resolve(request.config.Image);
  checkPlatform(ctx, request, image, warnings);
  const { document, planned } = describe(ctx, request, image, existing);
  warnings.push(...ctx.runtime.validate(validatedBySandbox(document)));
  const container = new Container(document);
  container.secretEnv = request.secretEnv ?? [];
  ctx.table.reserve(container);
  await using undo = new AsyncDisposableStack();
  undo.defer(() => ctx.table.release(container));
  const made = planned.length > 0 ? await makeVolumes(ctx, document, planned, undo) : [];
  await makeDurable(ctx, container, made);
  undo.move();
  container.published = true;
  containerEvent(ctx, container, "create");
  return { id: container.id, warnings };
}

/** Row, writable layer and state directory side by side; what was made of them is undone when one fails. */
async function makeDurable(
  ctx: ContainerContext,
  container: Container,
  madeVolumes: readonly string[],
): Promise<void> {
  const stateDir = stateDirOf(ctx, container.id);
  const writable = ctx.snapshotter.createWritable(container.id);
  const files = mkdir(stateDir, { recursive: true, mode: 0o710 }).then(() => writeEarlyFiles(ctx, container));
  // The commit waits for the disk; the sandbox is made meanwhile.
  const early = Promise.all([writable, files]).then(() => prepareEarly(ctx, container));
  // From the commit on the volumes stand for themselves.
  const row = ctx.table.insert(
    container,
    madeVolumes.map((name) => ctx.volumes.belongsTo(name, undefined)),
  );
  const settled = await Promise.allSettled([row, writable, files, early]);
  const failed = settled.find((result) => result.status === "rejected");
  if (failed === undefined) return;
  await dropEarly(ctx, container);
  const undone = await Promise.allSettled([
    settled[0].status === "fulfilled" ? ctx.table.erase(container) : undefined,
    ctx.snapshotter.removeWritable(container.id),
    rm(stateDir, { recursive: true, force: true }),
  ]);
  for (const result of undone) {
    if (result.status === "fulfilled") continue;
    ctx.log.warn("undoing a failed create", { container: container.id, error: messageOf(result.reason) });
  }
  throw failed.reason;
}

/** Which of the `Mounts` entries' host paths are there: asked before anything is decided, since a stat can sleep. */
async function existingSources(host: HostConfig): Promise<ReadonlySet<string>> {
  const sources = (host.Mounts ?? [])
    .filter((mount) => mount.Type === "bind" && mount.Source.startsWith("/"))
    .map((mount) => mount.Source);
  if (sources.length === 0) return new Set();
  const found = await Promise.all(
    sources.map((source) =>
      stat(source).then(
        () => true,
        () => false,
      ),
    ),
  );
  return new Set(sources.filter((_, index) => found[index]));
}

const hostArchitectures: Readonly<Record<string, string>> = { x64: "amd64", arm64: "arm64" };

function checkPlatform(
  _ctx: ContainerContext,
  request: CreateRequest,
  image: Image,
  warnings: string[],
): void {
  const { os, architecture, variant } = image.config;
  const native = hostArchitectures[process.arch] ?? process.arch;
  const shown = `${os}/${architecture}${variant ? `/${variant}` : ""}`;
  if (request.platform !== "") {
    const [wantedOs, wantedArch, wantedVariant] = request.platform.toLowerCase().split("/");
    const matches =
      (wantedOs === os || wantedOs === architecture) &&
      (wantedArch === undefined || wantedArch === architecture) &&
      (wantedVariant === undefined || variant === undefined || wantedVariant === variant);
    if (matches) return;
    throw new EngineError(
      "notFound",
      `image with reference ${request.config.Image} was found but its platform (${shown}) does not match the specified platform (${request.platform})`,
      { code: "wrong-platform" },
    );
  }
  if (os === "linux" && architecture === native) return;
  warnings.push(
    `The requested image's platform (${shown}) does not match the detected host platform (linux/${native}) and no specific platform was requested`,
  );
}

/** The row of the container to be, and the mounts whose volumes are still to be made. Pure but for look-ups. */
function describe(
  ctx: ContainerContext,
  request: CreateRequest,
  image: Image,
  existing: ReadonlySet<string>,
): { document: ContainerDocument; planned: PlannedMount[] } {
  const id = newContainerId();
  const config = mergeImageConfig(request.config, image.config.config);
  const host = withHostDefaults(request.hostConfig, {
    shmSizeBytes: ctx.defaults.shmSizeBytes,
    logDriver: ctx.defaults.logDriver,
    logOptions: ctx.defaults.logOptions,
    runtimeName: ctx.runtime.runtimes[0]?.name ?? "runc",
    cgroupVersion: ctx.runtime.cgroupVersion,
  });
  const modes = resolveModes(ctx.table, host);
  config.Hostname = hostnameFor(ctx, config, host, id, modes.networkContainer);
  if (host.Mounts?.length === 0) host.Mounts = null;
  const planned = planMounts({
    host,
    volumes: Object.keys(config.Volumes ?? {}),
    inherited: inheritedMounts(ctx, host),
    sourceExists: (path) => existing.has(path),
  });
  const { path, args } = commandOf(config);
  const name =
    request.name === ""
      ? generateContainerName((candidate) => ctx.table.isNameFree(candidate))
      : checkContainerName(request.name);
  const document: ContainerDocument = {
    version: 1,
    id,
    name,
    created: ctx.clock.now(),
    imageId: image.id,
    imageReference: request.config.Image,
    platform: image.config.os,
    path,
    args,
    config: normalConfig(config),
    hostConfig: host,
    mounts: planned.map(({ wish: _, ...mount }) => mount),
    endpoint: endpointOf(ctx, request, host, config),
    state: freshState(),
    network: null,
    networkId: "",
    networkContainer: modes.networkContainer?.id ?? "",
    ...(request.buildStep === undefined ? {} : { buildStep: request.buildStep }),
  };
  return { document, planned: planned.filter((mount) => mount.kind === "volume") };
}

/** Fields in Docker's order, without those of the request body that belong elsewhere. */
function normalConfig(config: ContainerConfig): ContainerConfig {
  const normal = containerConfigSchema.zero();
  for (const key of Object.keys(normal) as (keyof ContainerConfig)[]) {
    (normal as Record<string, unknown>)[key] = config[key];
  }
  return normal;
}

function hostnameFor(
  ctx: ContainerContext,
  config: ContainerConfig,
  host: HostConfig,
  id: string,
  networkContainer: Container | undefined,
): string {
  if (config.Hostname !== "") return config.Hostname;
  if (networkContainer !== undefined) return networkContainer.document.config.Hostname;
  if (host.NetworkMode === "host" || host.UTSMode === "host") return ctx.defaults.hostname;
  return shortId(id);
}

function inheritedMounts(ctx: ContainerContext, host: HostConfig): PlannedMount[] {
  const inherited: PlannedMount[] = [];
  for (const spec of host.VolumesFrom ?? []) {
    const { reference, readOnly } = parseVolumesFrom(spec);
    const from = ctx.table.lookup(reference);
    if (from === undefined) {
      throw new EngineError("invalid", `No such container: ${reference}`, { code: "no-such-container" });
    }
    for (const mount of from.document.mounts) {
      if (mount.kind === "tmpfs") continue;
      inherited.push({
        ...mount,
        readOnly: readOnly ?? mount.readOnly,
        copyUp: false,
        fromVolumesFrom: true,
      });
    }
  }
  return inherited;
}

/** The one endpoint a container is made with; more than one, or one of another network, is refused. */
function endpointOf(
  ctx: ContainerContext,
  request: CreateRequest,
  host: HostConfig,
  config: ContainerConfig,
): ContainerDocument["endpoint"] {
  const names = Object.keys(request.endpoints);
  const [name] = names;
  const plain = {
    aliases: [],
    ipAddress: "",
    macAddress: config.MacAddress,
    links: parseLinks(ctx.table, host),
  };
  if (name === undefined) return plain;
  const mode = host.NetworkMode;
  const sameNetwork =
    name === mode ||
    name === request.hostConfig.NetworkMode ||
    (name === "default" && mode === "bridge") ||
    isSameNetwork(ctx, name, mode);
  if (names.length > 1 || !sameNetwork) {
    throw new EngineError(
      "invalid",
      `Container cannot be connected to network endpoints: ${names.join(", ")}`,
      { code: "bad-endpoints" },
    );
  }
  const settings = request.endpoints[name]!;
  if (Object.keys(settings.DriverOpts ?? {}).length > 0) {
    throw new EngineError("invalid", "EndpointSettings.DriverOpts is not supported", {
      code: "not-supported",
    });
  }
  const address = settings.IPAMConfig?.IPv4Address ?? "";
  const userDefined = !["bridge", "host", "none"].includes(mode);
  if (address !== "" && !userDefined) {
    throw new EngineError("invalid", "user specified IP address is supported on user defined networks only", {
      code: "bad-endpoints",
    });
  }
  if (settings.Aliases?.length && !userDefined) {
    throw new EngineError(
      "invalid",
      "network-scoped alias is supported only for containers in user defined networks",
      { code: "bad-endpoints" },
    );
  }
  return {
    ...plain,
    aliases: settings.Aliases ?? [],
    ipAddress: address,
    macAddress: settings.MacAddress || config.MacAddress,
  };
}

function isSameNetwork(ctx: ContainerContext, name: string, mode: string): boolean {
  try {
    return ctx.networks.resolve(name).id === ctx.networks.resolve(mode).id;
  } catch (error) {
    if (error instanceof EngineError) return false;
    throw error;
  }
}

/**
 * Makes the volumes that are not there yet, and gives their names. What was made belongs to the container, so that a
 * daemon's death takes it back, and is removed again when create fails later.
 */
async function makeVolumes(
  ctx: ContainerContext,
  document: ContainerDocument,
  planned: readonly PlannedMount[],
  undo: AsyncDisposableStack,
): Promise<string[]> {
  const made: string[] = [];
  for (const mount of planned) {
    const wish = mount.wish;
    if (wish === undefined) continue;
    if (mount.name !== "" && wish.options === null && ctx.volumes.find(mount.name) !== undefined) continue;
    const isNew = mount.name === "" || ctx.volumes.find(mount.name) === undefined;
    const volume = await ctx.volumes.create({
      name: mount.name,
      driver: mount.driver,
      labels: mount.name === "" ? { "com.docker.volume.anonymous": "", ...wish.labels } : wish.labels,
      options: wish.options,
      anonymous: mount.anonymous,
      owner: document.id,
    });
    const index = document.mounts.findIndex((entry) => entry.destination === mount.destination);
    const named: MountPoint = { ...document.mounts[index]!, name: volume.name };
    document.mounts[index] = named;
    if (!isNew) continue;
    made.push(volume.name);
    ctx.events.publish("volume", "create", volume.name, { driver: volume.driver });
    undo.defer(() =>
      ctx.volumes.remove(volume.name, { force: true, usedBy: [] }).catch((error: unknown) => {
        ctx.log.warn("a volume of a failed create stays", { volume: volume.name, error: messageOf(error) });
      }),
    );
  }
  return made;
}
