import type { CommandGroup } from "./command.ts";
import { entry } from "./command-entry.ts";

/** `skiff registry …`; ours, Docker has none. */
export const registryGroup: CommandGroup = {
  name: "registry",
  summary: "Serve a registry",
  commands: [
    entry(
      "gc",
      "Remove what no image needs any more",
      async () => (await import("./commands-registry.ts")).collectRegistry,
    ),
    entry(
      "passwd",
      "Set a user's password in an htpasswd file",
      async () => (await import("./commands-registry.ts")).setRegistryPassword,
    ),
    entry("serve", "Serve a registry", async () => (await import("./commands-registry.ts")).serveRegistry),
    entry(
      "status",
      "Show how a registry that is served is",
      async () => (await import("./commands-registry.ts")).registryStatus,
    ),
  ],
};
