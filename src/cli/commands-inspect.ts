import { ApiError } from "#sdk/api-error.ts";
import { containerPart, networkPart, volumePart } from "#sdk/path-part.ts";
import { atLeast, type Command, ExitError } from "./command.ts";
import { imagePath } from "./commands-image.ts";
import { platformJson } from "./commands-pull.ts";
import type { CliContext } from "./context.ts";
import { string } from "./flag-types.ts";
import { type FlagSpec, type Flags, flag, toggle } from "./flags.ts";
import { inspectFormatHelp } from "./format-help.ts";
import { type Inspected, inspectAll } from "./inspector.ts";

const format: FlagSpec = flag("f,format", string, inspectFormatHelp);

type Getter = (context: CliContext, name: string, size: boolean) => Promise<Inspected>;

const getters: Readonly<Record<string, Getter>> = {
  container: async (context, name, size) => ({
    text: await context.client.text("GET", `/containers/${containerPart(name)}/json`, {
      query: { size: size ? true : undefined },
    }),
    kind: "container",
  }),
  image: async (context, name) => ({
    text: await context.client.text("GET", `/images/${imagePath(name)}/json`),
    kind: "image",
  }),
  network: async (context, name) => ({
    text: await context.client.text("GET", `/networks/${networkPart(name)}`),
    kind: "network",
  }),
  volume: async (context, name) => ({
    text: await context.client.text("GET", `/volumes/${volumePart(name)}`),
    kind: "volume",
  }),
  service: async (context, name) => ({
    text: await context.client.text("GET", `/services/${encodeURIComponent(name)}`),
    kind: "other",
  }),
  task: async (context, name) => ({
    text: await context.client.text("GET", `/tasks/${encodeURIComponent(name)}`),
    kind: "other",
  }),
  node: async (context, name) => ({
    text: await context.client.text("GET", `/nodes/${encodeURIComponent(name)}`),
    kind: "other",
  }),
  plugin: async (context, name) => ({
    text: await context.client.text("GET", `/plugins/${imagePath(name)}/json`),
    kind: "other",
  }),
  secret: async (context, name) => ({
    text: await context.client.text("GET", `/secrets/${encodeURIComponent(name)}`),
    kind: "other",
  }),
  config: async (context, name) => ({
    text: await context.client.text("GET", `/configs/${encodeURIComponent(name)}`),
    kind: "other",
  }),
};

/** The order in which kinds are tried for a name of unknown kind. */
const order = [
  "container",
  "image",
  "network",
  "volume",
  "service",
  "task",
  "node",
  "plugin",
  "secret",
  "config",
] as const;

export const inspect: Command = {
  usage: "[OPTIONS] NAME|ID [NAME|ID...]",
  flags: [
    format,
    toggle("s,size", "Show how much disk a container uses"),
    flag("type", string, "Look only for objects of this kind"),
  ],
  args: atLeast(1),
  run: async (context, flags, names) => {
    const kind = flags.text("type");
    if (flags.changed("type") && kind === "")
      throw new ExitError(
        1,
        'type is empty: must be one of "config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume"',
      );
    if (kind !== "" && getters[kind] === undefined) {
      const known = Object.keys(getters)
        .sort()
        .map((name) => JSON.stringify(name))
        .join(", ");
      throw new ExitError(1, `unknown type: ${JSON.stringify(kind)}: must be one of ${known}`);
    }
    const size = flags.bool("size");
    return inspectAll(context, flags.text("format"), names, (name) => findAny(context, name, kind, size));
  },
};

async function findAny(context: CliContext, name: string, kind: string, size: boolean): Promise<Inspected> {
  if (kind !== "") return getters[kind]!(context, name, size);
  for (const candidate of order) {
    try {
      return await getters[candidate]!(context, name, size);
    } catch (error) {
      if (!canBeAnother(error)) throw error;
    }
  }
  throw new Error(`Error: No such object: ${name}`);
}

// Not found, or a kind that this daemon does not have (no swarm, no plugins): the next kind may fit.
function canBeAnother(error: unknown): boolean {
  if (!(error instanceof ApiError)) return false;
  if (error.status === 404 || error.status === 406 || error.status === 501) return true;
  return (
    error.status === 503 || error.message.includes("swarm manager") || error.message.includes("not supported")
  );
}

function inspectKind(kind: string, usage: string, flags: readonly FlagSpec[] = []): Command {
  return {
    usage: `[OPTIONS] ${usage} [${usage}...]`,
    flags: [format, ...flags],
    args: atLeast(1),
    run: (context, given, names) =>
      inspectAll(context, given.text("format"), names, (name) =>
        getters[kind]!(context, name, flags.some((spec) => spec.name === "size") && given.bool("size")),
      ),
  };
}

export const inspectContainers: Command = inspectKind("container", "CONTAINER", [
  toggle("s,size", "Show how much disk the container uses"),
]);
export const inspectVolumes: Command = inspectKind("volume", "VOLUME");
export const inspectNetworks: Command = inspectKind("network", "NETWORK", [
  toggle("v,verbose", "Show more, for diagnostics"),
]);

export const inspectImages: Command = {
  usage: "[OPTIONS] IMAGE [IMAGE...]",
  flags: [format, flag("platform", string, "Show one platform of an image")],
  args: atLeast(1),
  run: (context: CliContext, flags: Flags, names: readonly string[]) =>
    inspectAll(context, flags.text("format"), names, async (name) => ({
      text: await context.client.text("GET", `/images/${imagePath(name)}/json`, {
        query: { platform: platformJson(flags.text("platform")) },
      }),
      kind: "image",
    })),
};
