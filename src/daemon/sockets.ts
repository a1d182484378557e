import { chmodSync, chownSync, lstatSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { connect, type Server } from "node:net";
import { dirname } from "node:path";
import { describeErrno, errnoOf, messageOf } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import { StartupError } from "./roots.ts";

const defaultGroup = "skiff";

/**
 * The numeric id of the group that owns the sockets. Whoever may write to a socket is root on this host, so a named
 * group must exist; the default one need not.
 */
export function socketGroupId(name: string | undefined, groupFile = "/etc/group"): number | undefined {
  if (name !== undefined && /^\d{1,10}$/.test(name)) return Number(name);
  for (const line of readFileSync(groupFile, "utf8").split("\n")) {
    const [entry, , id] = line.split(":");
    if (entry === (name ?? defaultGroup)) return Number(id);
  }
  if (name !== undefined) throw new StartupError(`group ${name} not found`);
  return undefined;
}

/** True when somebody answers at the socket. */
function isServed(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const probe = connect({ path });
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", (error) => {
      if (errnoOf(error) === "ECONNREFUSED" || errnoOf(error) === "ENOENT") resolve(false);
      else reject(error);
    });
  });
}

/** Removes a socket that a dead daemon left; one that is served, and what is no socket, is left alone and refused. */
async function clearStaleSocket(path: string): Promise<void> {
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status === undefined) return;
  if (!status.isSocket())
    throw new StartupError(`can't create unix socket ${path}: it is there and is no socket`);
  if (await isServed(path))
    throw new StartupError(`can't create unix socket ${path}: another daemon serves it`);
  rmSync(path);
}

/** Listens at `path`, mode 0660 from its first moment on. */
export async function listenOnSocket(
  server: Server,
  path: string,
  groupId: number | undefined,
  log: Log,
): Promise<void> {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  } catch (error) {
    throw new StartupError(`can't create unix socket ${path}: ${describeErrno(errnoOf(error) ?? "EIO")}`);
  }
  await clearStaleSocket(path);
  await new Promise<void>((resolve, reject) => {
    const failed = (error: Error): void => {
      reject(new StartupError(`can't create unix socket ${path}: ${messageOf(error)}`));
    };
    server.once("error", failed);
    // bind(2) happens inside listen(): nobody but root can connect before owner and mode are set.
    const before = process.umask(0o177);
    try {
      server.listen({ path, backlog: 511 });
    } finally {
      process.umask(before);
    }
    server.once("listening", () => {
      server.off("error", failed);
      server.on("error", (error) => log.error("a connection could not be accepted", { path, error }));
      chownSync(path, 0, groupId ?? 0);
      chmodSync(path, 0o660);
      resolve();
    });
  });
  log.info(`API listen on ${path}`);
}
