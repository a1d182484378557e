/** The command tree. Only names and one-line summaries live here: a command's module is loaded when it is used. */
import type { CommandEntry, CommandGroup } from "./command.ts";
import { both, entry, type Loader } from "./command-entry.ts";
import { contextGroup } from "./group-context.ts";
import { registryGroup } from "./group-registry.ts";
import { tlsGroup } from "./group-tls.ts";

const containerInspect = entry(
  "inspect",
  "Show everything about one or more containers",
  async () => (await import("./commands-inspect.ts")).inspectContainers,
);

const onContainers: readonly CommandEntry[][] = [
  both(
    "container",
    "attach",
    "attach",
    "Attach the terminal to a running container",
    async () => (await import("./commands-attach.ts")).attach,
  ),
  both(
    "container",
    "commit",
    "commit",
    "Make an image from a container's changes",
    async () => (await import("./commands-archive.ts")).commit,
  ),
  both(
    "container",
    "cp",
    "cp",
    "Copy files between a container and this machine",
    async () => (await import("./commands-cp.ts")).copy,
  ),
  both(
    "container",
    "create",
    "create",
    "Create a container without starting it",
    async () => (await import("./commands-create.ts")).create,
  ),
  both(
    "container",
    "diff",
    "diff",
    "List what changed in a container's file system",
    async () => (await import("./commands-process.ts")).diff,
  ),
  both(
    "container",
    "exec",
    "exec",
    "Run a command in a running container",
    async () => (await import("./commands-exec.ts")).exec,
  ),
  both(
    "container",
    "export",
    "export",
    "Write a container's file system as a tar archive",
    async () => (await import("./commands-archive.ts")).exportContainer,
  ),
  both(
    "container",
    "kill",
    "kill",
    "Send a signal to one or more running containers",
    async () => (await import("./commands-lifecycle.ts")).kill,
  ),
  both(
    "container",
    "logs",
    "logs",
    "Show what a container has written",
    async () => (await import("./commands-logs.ts")).logs,
  ),
  both(
    "container",
    "pause",
    "pause",
    "Freeze all processes of one or more containers",
    async () => (await import("./commands-lifecycle.ts")).pause,
  ),
  both(
    "container",
    "port",
    "port",
    "Show a container's published ports",
    async () => (await import("./commands-process.ts")).port,
  ),
  both(
    "container",
    "rename",
    "rename",
    "Give a container another name",
    async () => (await import("./commands-process.ts")).rename,
  ),
  both(
    "container",
    "restart",
    "restart",
    "Stop and start one or more containers",
    async () => (await import("./commands-lifecycle.ts")).restart,
  ),
  both(
    "container",
    "rm",
    "rm",
    "Remove one or more containers",
    async () => (await import("./commands-lifecycle.ts")).remove,
    ["remove"],
  ),
  both(
    "container",
    "run",
    "run",
    "Create a container from an image and run it",
    async () => (await import("./commands-run.ts")).run,
  ),
  both(
    "container",
    "start",
    "start",
    "Start one or more stopped containers",
    async () => (await import("./commands-start.ts")).start,
  ),
  both(
    "container",
    "stats",
    "stats",
    "Show what containers use, live",
    async () => (await import("./commands-later.ts")).stats,
  ),
  both(
    "container",
    "stop",
    "stop",
    "Stop one or more running containers",
    async () => (await import("./commands-lifecycle.ts")).stop,
  ),
  both(
    "container",
    "top",
    "top",
    "Show the processes of a container",
    async () => (await import("./commands-process.ts")).top,
  ),
  both(
    "container",
    "unpause",
    "unpause",
    "Let frozen containers go on",
    async () => (await import("./commands-lifecycle.ts")).unpause,
  ),
  both(
    "container",
    "update",
    "update",
    "Change limits of one or more containers",
    async () => (await import("./commands-update.ts")).update,
  ),
  both(
    "container",
    "wait",
    "wait",
    "Wait for containers to stop and print their exit codes",
    async () => (await import("./commands-lifecycle.ts")).wait,
  ),
];

const listContainers: Loader = async () => (await import("./commands-ps.ts")).ps;
const psPaths = ["container ls", "container list", "container ps", "ps"];
const containerList = entry("ls", "List containers", listContainers, {
  aliases: ["list", "ps"],
  paths: psPaths,
});
const ps = entry("ps", "List containers", listContainers, { paths: psPaths });

const listImages: Loader = async () => (await import("./commands-images.ts")).images;
const imagesPaths = ["image ls", "image list", "images"];
const imageList = entry("ls", "List images", listImages, { aliases: ["list"], paths: imagesPaths });
const images = entry("images", "List images", listImages, { paths: imagesPaths });

const removeImages: Loader = async () => (await import("./commands-image.ts")).removeImages;
const rmiPaths = ["image rm", "image remove", "rmi"];
const imageRemove = entry("rm", "Remove one or more images", removeImages, {
  aliases: ["remove"],
  paths: rmiPaths,
});
const rmi = entry("rmi", "Remove one or more images", removeImages, { paths: rmiPaths });

const onImages: readonly CommandEntry[][] = [
  both(
    "image",
    "history",
    "history",
    "Show how an image was made",
    async () => (await import("./commands-history.ts")).history,
  ),
  both(
    "image",
    "import",
    "import",
    "Make an image from a tar archive of a file system",
    async () => (await import("./commands-archive.ts")).importImage,
  ),
  both(
    "image",
    "load",
    "load",
    "Read images from an archive",
    async () => (await import("./commands-archive.ts")).load,
  ),
  both(
    "image",
    "pull",
    "pull",
    "Fetch an image from a registry",
    async () => (await import("./commands-pull.ts")).pull,
  ),
  both(
    "image",
    "push",
    "push",
    "Send an image to a registry",
    async () => (await import("./commands-pull.ts")).push,
  ),
  both(
    "image",
    "save",
    "save",
    "Write one or more images to an archive",
    async () => (await import("./commands-archive.ts")).save,
  ),
  both(
    "image",
    "tag",
    "tag",
    "Give an image another name",
    async () => (await import("./commands-image.ts")).tag,
  ),
];
const build = both(
  "image",
  "build",
  "build",
  "Build an image from a Dockerfile",
  async () => (await import("./commands-build.ts")).build,
);

const events = both(
  "system",
  "events",
  "events",
  "Show what happens on the daemon, as it happens",
  async () => (await import("./commands-events.ts")).events,
);
const info = both(
  "system",
  "info",
  "info",
  "Show how the daemon is set up",
  async () => (await import("./commands-info.ts")).info,
);

const topLevelOf = (pairs: readonly CommandEntry[][]): CommandEntry[] => pairs.map((pair) => pair[1]!);
const groupedOf = (pairs: readonly CommandEntry[][]): CommandEntry[] => pairs.map((pair) => pair[0]!);

export const groups: readonly CommandGroup[] = [
  {
    name: "builder",
    summary: "Manage builds",
    commands: [
      entry(
        "build",
        "Build an image from a Dockerfile",
        async () => (await import("./commands-build.ts")).build,
        {
          paths: ["image build", "build", "builder build"],
        },
      ),
      entry("prune", "Remove build cache", async () => (await import("./commands-prune.ts")).pruneBuilder),
    ],
  },
  {
    name: "container",
    summary: "Manage containers",
    commands: [
      ...groupedOf(onContainers),
      containerInspect,
      containerList,
      entry(
        "prune",
        "Remove all stopped containers",
        async () => (await import("./commands-prune.ts")).pruneContainers,
      ),
    ],
  },
  {
    name: "image",
    summary: "Manage images",
    commands: [
      ...groupedOf(onImages),
      build[0]!,
      entry(
        "inspect",
        "Show everything about one or more images",
        async () => (await import("./commands-inspect.ts")).inspectImages,
      ),
      imageList,
      entry("prune", "Remove unused images", async () => (await import("./commands-prune.ts")).pruneImages),
      imageRemove,
    ],
  },
  {
    name: "volume",
    summary: "Manage volumes",
    usage: "volume COMMAND",
    commands: [
      entry("create", "Create a volume", async () => (await import("./commands-volume.ts")).createVolume),
      entry(
        "inspect",
        "Show everything about one or more volumes",
        async () => (await import("./commands-inspect.ts")).inspectVolumes,
      ),
      entry("ls", "List volumes", async () => (await import("./commands-volume.ts")).listVolumes, {
        aliases: ["list"],
        paths: ["volume ls", "volume list"],
      }),
      entry("prune", "Remove unused volumes", async () => (await import("./commands-prune.ts")).pruneVolumes),
      entry(
        "rm",
        "Remove one or more volumes",
        async () => (await import("./commands-volume.ts")).removeVolumes,
        { aliases: ["remove"], paths: ["volume rm", "volume remove"] },
      ),
    ],
  },
  {
    name: "network",
    summary: "Manage networks",
    commands: [
      entry(
        "connect",
        "Connect a container to a network",
        async () => (await import("./commands-network.ts")).connectNetwork,
      ),
      entry(
        "create",
        "Create a network",
        async () => (await import("./commands-network-create.ts")).createNetwork,
      ),
      entry(
        "disconnect",
        "Disconnect a container from a network",
        async () => (await import("./commands-network.ts")).disconnectNetwork,
      ),
      entry(
        "inspect",
        "Show everything about one or more networks",
        async () => (await import("./commands-inspect.ts")).inspectNetworks,
      ),
      entry("ls", "List networks", async () => (await import("./commands-network.ts")).listNetworks, {
        aliases: ["list"],
        paths: ["network ls", "network list"],
      }),
      entry(
        "prune",
        "Remove all unused networks",
        async () => (await import("./commands-prune.ts")).pruneNetworks,
      ),
      entry(
        "rm",
        "Remove one or more networks",
        async () => (await import("./commands-network.ts")).removeNetworks,
        { aliases: ["remove"], paths: ["network rm", "network remove"] },
      ),
    ],
  },
  {
    name: "system",
    summary: "Manage the daemon",
    commands: [
      entry("df", "Show how much disk is used", async () => (await import("./commands-df.ts")).diskUsage),
      entry(
        "dial-stdio",
        "Join stdin and stdout to the daemon; what ssh:// runs on the far side",
        async () => (await import("./commands-dial.ts")).dialStdio,
        { hidden: true },
      ),
      entry(
        "doctor",
        "Look at this machine and say what to do about what is missing",
        async () => (await import("./commands-doctor.ts")).doctor,
      ),
      events[0]!,
      info[0]!,
      entry(
        "prune",
        "Remove all that is unused",
        async () => (await import("./commands-prune.ts")).pruneSystem,
      ),
    ],
  },
  registryGroup,
  tlsGroup,
  contextGroup,
];

const login = entry("login", "Log in to a registry", async () => (await import("./commands-login.ts")).login);
const logout = entry(
  "logout",
  "Log out of a registry",
  async () => (await import("./commands-login.ts")).logout,
);
const search = entry(
  "search",
  "Search Docker Hub for images",
  async () => (await import("./commands-search.ts")).search,
);
const version = entry(
  "version",
  "Show versions of the client and the daemon",
  async () => (await import("./commands-version.ts")).versionCommand,
);
const inspect = entry(
  "inspect",
  "Show everything about objects of any kind",
  async () => (await import("./commands-inspect.ts")).inspect,
);

const topContainers = topLevelOf(onContainers);
const topImages = topLevelOf(onImages);
const named = (name: string): CommandEntry =>
  [...topContainers, ...topImages].find((candidate) => candidate.name === name)!;

/** In the order of the help. */
export const commonCommands: readonly CommandEntry[] = [
  named("run"),
  named("exec"),
  ps,
  build[1]!,
  named("pull"),
  named("push"),
  images,
  login,
  logout,
  search,
  version,
  info[1]!,
];

export const otherCommands: readonly CommandEntry[] = [
  ...topContainers,
  ...topImages,
  rmi,
  events[1]!,
  inspect,
].filter((candidate) => !commonCommands.includes(candidate));

/** Not in the help, as Docker's is not. */
const completion = entry(
  "completion",
  "Print a script that completes commands in a shell",
  async () => (await import("./commands-completion.ts")).completion,
  { hidden: true },
);

export const topCommands: readonly CommandEntry[] = [...commonCommands, ...otherCommands, completion];
