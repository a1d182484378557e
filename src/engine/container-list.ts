/** Use case: the container list. What does not change between two calls is serialised once a container. */
import { parseTime } from "#base/clock.ts";
import type { ImageId } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";
import type { PortJson } from "#wire/container-json.ts";
import { type Filters, filterPattern, invalidFilter, matchLabels } from "#wire/filters.ts";
import type { Container } from "./container.ts";
import type { ContainerContext } from "./container-context.ts";
import { mountsJson, networksJson, sizes } from "./container-inspect.ts";
import { exposedPorts, parseContainerPorts } from "./container-ports.ts";
import { statusText } from "./container-status-text.ts";
import { isContainerStatus } from "./transitions.ts";

export const listFilters: ReadonlySet<string> = new Set([
  "ancestor",
  "before",
  "exited",
  "expose",
  "health",
  "id",
  "is-task",
  "isolation",
  "label",
  "name",
  "network",
  "publish",
  "since",
  "status",
  "volume",
]);

export interface ListOptions {
  readonly all: boolean;
  /** The newest so many, up or not; 0 or less: no limit. */
  readonly limit: number;
  readonly size: boolean;
  readonly filters: Filters;
}

type Test = (container: Container) => boolean;

/** The list as JSON text, newest first. */
export async function listContainers(ctx: ContainerContext, options: ListOptions): Promise<string> {
  const tests = filterTests(ctx, options.filters);
  const all = options.all || options.limit > 0 || options.filters.has("status");
  const chosen: Container[] = [];
  for (const container of newestFirst(ctx)) {
    if (!all && !container.isUp) continue;
    if (!tests.every((test) => test(container))) continue;
    chosen.push(container);
    if (options.limit > 0 && chosen.length >= options.limit) break;
  }
  const names = new Map<string, string>();
  const nowNs = ctx.clock.nowNs();
  const items: string[] = [];
  for (const container of chosen) {
    const extra = options.size ? withoutZero(await sizes(ctx, container)) : undefined;
    items.push(itemJson(ctx, container, nowNs, names, extra));
  }
  return `[${items.join(",")}]`;
}

/** The list leaves a size of nothing out; inspect does not. */
function withoutZero({ SizeRw, SizeRootFs }: { SizeRw: number; SizeRootFs: number }): object {
  return { ...(SizeRw !== 0 && { SizeRw }), ...(SizeRootFs !== 0 && { SizeRootFs }) };
}

function newestFirst(ctx: ContainerContext): Container[] {
  const containers = [...ctx.table.all()].filter((container) => container.published);
  return containers.sort((a, b) => compareTimes(b.document.created, a.document.created));
}

/** RFC 3339 with any number of digits of a second. */
function compareTimes(a: string, b: string): number {
  const first = parseTime(a) ?? 0n;
  const second = parseTime(b) ?? 0n;
  return first < second ? -1 : first > second ? 1 : 0;
}

function itemJson(
  ctx: ContainerContext,
  container: Container,
  nowNs: bigint,
  names: Map<string, string>,
  extra: object | undefined,
): string {
  container.listFragment ??= fragment(ctx, container);
  const { head, tail } = container.listFragment;
  const image = JSON.stringify(imageName(ctx, container, names));
  const status = JSON.stringify(statusText(container.state, nowNs, container.health?.status));
  const sizes = extra === undefined ? "" : JSON.stringify(extra).slice(1, -1);
  const counted = sizes === "" ? "" : `${sizes},`;
  return `${head}"Image":${image},"Status":${status},${counted}${tail}`;
}

/** Everything but the image's name (which a tag can change) and the status text (which time changes). */
function fragment(ctx: ContainerContext, container: Container): { head: string; tail: string } {
  const { document, state } = container;
  const head = JSON.stringify({ Id: document.id, Names: [`/${document.name}`] });
  const tail = JSON.stringify({
    ImageID: document.imageId,
    Command: commandText(document.path, document.args),
    Created: Number((parseTime(document.created) ?? 0n) / 1_000_000_000n),
    Ports: portsJson(container),
    Labels: document.config.Labels ?? {},
    State: state.status,
    HostConfig: { NetworkMode: document.hostConfig.NetworkMode },
    NetworkSettings: { Networks: networksJson(document) },
    Mounts: mountsJson(ctx, document),
  });
  return { head: `${head.slice(0, -1)},`, tail: tail.slice(1) };
}

function commandText(path: string, args: readonly string[]): string {
  return [path, ...args.map((word) => (word.includes(" ") ? `'${word}'` : word))].join(" ");
}

/** The name it was made with while that still names its image, else the image's id. */
function imageName(ctx: ContainerContext, container: Container, names: Map<string, string>): string {
  const { imageReference, imageId } = container.document;
  const known = names.get(imageReference);
  const current = known ?? resolvedId(ctx, imageReference);
  if (known === undefined) names.set(imageReference, current);
  return current === imageId ? imageReference : imageId;
}

function resolvedId(ctx: ContainerContext, reference: string): ImageId | "" {
  try {
    return ctx.images.resolve(reference).id;
  } catch (error) {
    if (error instanceof EngineError) return "";
    throw error;
  }
}

function portsJson(container: Container): PortJson[] {
  const { document } = container;
  if (!container.isUp) return [];
  const bindings = document.network?.bindings ?? [];
  const ports: PortJson[] = bindings.map((binding) => ({
    IP: binding.hostAddress || "0.0.0.0",
    PrivatePort: binding.containerPort,
    PublicPort: binding.hostPort,
    Type: binding.protocol,
  }));
  for (const { port, protocol } of exposedPorts(document.config)) {
    if (bindings.some((binding) => binding.containerPort === port && binding.protocol === protocol)) continue;
    ports.push({ PrivatePort: port, Type: protocol });
  }
  return ports;
}

/** One test a filter key; a container passes when every one holds. Values of one key are alternatives. */
function filterTests(ctx: ContainerContext, filters: Filters): Test[] {
  const tests: Test[] = [];
  for (const [key, values] of filters) {
    if (values.length > 0) tests.push(filterTest(ctx, key, values));
  }
  return tests;
}

function filterTest(ctx: ContainerContext, key: string, values: readonly string[]): Test {
  const anyOf = (make: (value: string) => Test): Test => {
    const alternatives = values.map(make);
    return (container) => alternatives.some((test) => test(container));
  };
  switch (key) {
    case "id":
      return anyOf((value) => {
        const matches = filterPattern(key, value);
        return (container) => matches(container.id);
      });
    case "name":
      return anyOf((value) => {
        const matches = filterPattern(key, value);
        return (container) => matches(container.name) || matches(`/${container.name}`);
      });
    case "label":
      return (container) => matchLabels(values, container.document.config.Labels);
    case "status":
      return anyOf((value) => {
        if (!isContainerStatus(value)) throw invalidFilter(key, value);
        return (container) => container.state.status === value;
      });
    case "exited":
      return anyOf(exitedTest);
    case "health":
      return anyOf((value) => {
        if (!["none", "starting", "healthy", "unhealthy"].includes(value)) throw invalidFilter(key, value);
        return (container) => (container.health?.status ?? "none") === value;
      });
    case "is-task":
      return anyOf((value) => {
        if (!/^(true|false|1|0)$/i.test(value)) throw invalidFilter(key, value);
        // There are no Swarm tasks here.
        return () => /^(false|0)$/i.test(value);
      });
    case "isolation":
      return anyOf((value) => () => value === "default" || value === "");
    default:
      return lookupTest(ctx, key, values, anyOf);
  }
}

function exitedTest(value: string): Test {
  if (!/^-?\d+$/.test(value)) {
    throw new EngineError("invalid", `strconv.Atoi: parsing ${JSON.stringify(value)}: invalid syntax`, {
      code: "bad-filter",
    });
  }
  const code = Number(value);
  return ({ state }) => state.status === "exited" && state.exitCode === code;
}

/** Filters that name something else: an image, a container, a network, a volume, a port. */
function lookupTest(
  ctx: ContainerContext,
  key: string,
  values: readonly string[],
  anyOf: (make: (value: string) => Test) => Test,
): Test {
  switch (key) {
    case "ancestor":
      return ancestorTest(ctx, values);
    case "before":
    case "since":
      return orderTest(ctx, key, values);
    case "volume":
      return anyOf(
        (value) =>
          ({ document }) =>
            document.mounts.some(
              (mount) => mount.name === value || mount.source === value || mount.destination === value,
            ),
      );
    case "network":
      return anyOf((value) => {
        const id = networkIdOf(ctx, value);
        return ({ document }) =>
          document.networkId !== "" && document.networkId === id
            ? true
            : document.hostConfig.NetworkMode === value ||
              Object.keys(networksJson(document)).includes(value);
      });
    case "publish":
      return anyOf((value) => portTest(value, "published"));
    case "expose":
      return anyOf((value) => portTest(value, "exposed"));
    default:
      throw invalidFilter(key);
  }
}

function networkIdOf(ctx: ContainerContext, value: string): string {
  try {
    return ctx.networks.resolve(value).id;
  } catch (error) {
    if (error instanceof EngineError) return "";
    throw error;
  }
}

/** Images that a container's image is, or was built on: the layers of the ancestor are the first of its own. */
function ancestorTest(ctx: ContainerContext, values: readonly string[]): Test {
  const ancestors = values.flatMap((value) => {
    try {
      return [ctx.images.resolve(value)];
    } catch (error) {
      if (error instanceof EngineError) return [];
      throw error;
    }
  });
  return ({ document }) => {
    const own = ctx.images.get(document.imageId);
    return ancestors.some((ancestor) => {
      if (ancestor.id === document.imageId) return true;
      let parent = own?.parent;
      for (let depth = 0; parent !== undefined && depth < 256; depth += 1) {
        if (parent === ancestor.id) return true;
        parent = ctx.images.get(parent)?.parent;
      }
      const last = ancestor.layers.at(-1);
      return last !== undefined && own?.layers[ancestor.layers.length - 1]?.chainId === last.chainId;
    });
  };
}

function orderTest(ctx: ContainerContext, key: "before" | "since", values: readonly string[]): Test {
  const marks = values.map((value) => ctx.table.resolve(value).document.created);
  return ({ document }) =>
    marks.some((mark) => {
      const order = compareTimes(document.created, mark);
      return key === "before" ? order < 0 : order > 0;
    });
}

function portTest(value: string, which: "published" | "exposed"): Test {
  const { first, last, protocol } = parseContainerPorts(value);
  const within = (port: number, kind: string): boolean => port >= first && port <= last && kind === protocol;
  return ({ document }) => {
    const bindings = document.network?.bindings ?? [];
    if (which === "published") {
      return bindings.some((binding) => within(binding.hostPort, binding.protocol));
    }
    return (
      exposedPorts(document.config).some(({ port, protocol: kind }) => within(port, kind)) ||
      bindings.some((binding) => within(binding.containerPort, binding.protocol))
    );
  };
}
