/** Docker's CLI plugins: programs `docker-NAME` that are called with the whole command line. */
import { spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import type { CliContext } from "./context.ts";

const systemDirectories = [
  "/usr/local/lib/docker/cli-plugins",
  "/usr/local/libexec/docker/cli-plugins",
  "/usr/lib/docker/cli-plugins",
  "/usr/libexec/docker/cli-plugins",
] as const;

/** Path of the plugin for a command name, if one is installed. */
export function findPlugin(context: CliContext, name: string): string | undefined {
  if (!/^[a-z][a-z0-9]*$/.test(name)) return undefined;
  const extra = context.config["cliPluginsExtraDirs"];
  const directories = [
    ...(Array.isArray(extra) ? extra.map(String) : []),
    join(context.configDirectory, "cli-plugins"),
    ...systemDirectories,
  ];
  for (const directory of directories) {
    const path = join(directory, `docker-${name}`);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not there, or not ours to run: the next directory.
    }
  }
  return undefined;
}

/** Runs a plugin in our place: same terminal, its exit code. It finds the daemon through DOCKER_HOST. */
export function runPlugin(context: CliContext, path: string, args: readonly string[]): Promise<number> {
  const env: Record<string, string | undefined> = {
    ...context.env,
    DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND: context.program,
  };
  if (context.contextName === "default") env["DOCKER_HOST"] = context.client.endpoint.host;
  return new Promise((resolve, reject) => {
    const child = spawn(path, [...args], { stdio: "inherit", env });
    // The terminal signals the whole group; we outlive the plugin to pass its exit code on.
    for (const signal of ["SIGINT", "SIGQUIT"] as const) process.on(signal, () => {});
    for (const signal of ["SIGTERM", "SIGHUP"] as const) process.on(signal, () => child.kill(signal));
    child.on("error", reject);
    child.on("exit", (code, signal) => resolve(code ?? 128 + (signal === null ? 1 : 15)));
  });
}
