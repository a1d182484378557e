/** `skiff registry …`: this process becomes the registry server's, which is a program of its own. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type RegistrySettingRow, registrySettings } from "#wire/registry-settings.ts";
import { type Command, ExitError, exactly, noArguments } from "./command.ts";
import type { CliContext } from "./context.ts";
import { boolean, type FlagType, integer, string } from "./flag-types.ts";
import { type FlagSpec, type Flags, flag, toggle } from "./flags.ts";

/** The server reads times itself: here they are texts. */
const time: FlagType = { ...string, label: "duration" };
const types: Readonly<Record<RegistrySettingRow["kind"], FlagType>> = {
  string,
  bool: boolean,
  integer,
  duration: time,
};

const rootFlag = flag("root", string, "Directory that holds the images", {
  shown: '"/var/lib/skiff/registry"',
});

/** From the sources one folder up, in the bundle beside us. */
function serverProgram(): string {
  const places = ["../daemon/registry-main.ts", "skiff-registry.mjs"];
  const found = places.map((place) => join(import.meta.dirname, place)).find(existsSync);
  if (found === undefined) throw new ExitError(1, "the registry server is not part of this installation");
  return found;
}

/**
 * Hands over to the server's program by execve(2): no process in between that would have to pass signals and the exit
 * code on. Never returns.
 */
function become(context: CliContext, verb: string, parameters: object): never {
  const env = Object.fromEntries(
    Object.entries(context.env).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
  const program = [process.execPath, ...process.execArgv, "--", serverProgram()];
  process.execve!(process.execPath, [...program, verb, JSON.stringify(parameters)], env);
  throw new ExitError(1, "the registry server could not be started");
}

/** The flags that were given, by their names. */
function given(flags: Flags, specs: readonly FlagSpec[]): Record<string, unknown> {
  return Object.fromEntries(
    specs.filter(({ name }) => flags.changed(name)).map(({ name }) => [name, flags.value(name)]),
  );
}

const serveFlags = registrySettings.map((row: RegistrySettingRow) =>
  flag(row.name, types[row.kind], row.help, row.shown === undefined ? {} : { shown: row.shown }),
);

export const serveRegistry: Command = {
  usage: "[OPTIONS]",
  description: `Serve a registry: images are pushed to it and pulled from it by any client that speaks the
OCI distribution protocol (docker, podman, skopeo, containerd, skiff).

It listens on loopback unless told otherwise; at other addresses it wants TLS. Without
--htpasswd or a token server (--token-realm, --token-service, --token-issuer, --token-keys)
everybody who reaches it may push. It runs in the foreground, writes its own log to standard
error and one line a request to standard output.

Signals:
  SIGTERM, SIGINT   Stop: requests under way may end, see --stop-timeout
  SIGHUP            Read certificate and key again, open the access log anew`,
  flags: serveFlags,
  args: noArguments,
  run: async (context, flags) => become(context, "serve", given(flags, serveFlags)),
};

const collectFlags = [
  toggle("delete-untagged", "Also remove manifests that no tag reaches"),
  toggle("dry-run", "Say what would be removed, and remove nothing"),
  flag("grace", time, "Keep what was pushed or asked for within this time", {
    shown: "the server's --gc-grace; 0 without a server",
  }),
  rootFlag,
];

export const collectRegistry: Command = {
  usage: "[OPTIONS]",
  description: `Remove what no image of a registry needs any more and give its space back.

A registry that is being served does it itself, while pushes and pulls go on; where none is,
this command does it.`,
  flags: collectFlags,
  args: noArguments,
  run: async (context, flags) => become(context, "gc", given(flags, collectFlags)),
};

const statusFlags = [rootFlag];

export const registryStatus: Command = {
  usage: "[OPTIONS]",
  flags: statusFlags,
  args: noArguments,
  run: async (context, flags) => become(context, "status", given(flags, statusFlags)),
};

export const setRegistryPassword: Command = {
  usage: "[OPTIONS] FILE USER",
  description: `Set a user's password in an htpasswd file, which is made when missing. The password is asked for,
or read from standard input when that is no terminal.`,
  flags: [toggle("remove", "Remove the user instead")],
  args: exactly(2),
  run: async (context, flags, [file, user]) =>
    become(context, "passwd", { file, user, remove: flags.bool("remove") }),
};
