import type { CommandGroup } from "./command.ts";
import { entry } from "./command-entry.ts";

/** `skiff tls …`; ours, Docker has none. */
export const tlsGroup: CommandGroup = {
  name: "tls",
  summary: "Make certificates for a daemon on TCP and its clients",
  commands: [
    entry(
      "client",
      "Make a certificate for another client",
      async () => (await import("./commands-tls.ts")).makeClient,
    ),
    entry(
      "init",
      "Make an authority and certificates for a daemon and a client",
      async () => (await import("./commands-tls.ts")).initTls,
    ),
    entry(
      "server",
      "Make a certificate for the daemon of another machine, or a new one",
      async () => (await import("./commands-tls.ts")).makeServer,
    ),
  ],
};
