import { messageOf } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import { type RegistryServer, serveRegistry } from "#registry-server/serve.ts";
import { type ServeSettings, SettingsError } from "#registry-server/settings.ts";
import { StartupError } from "./roots.ts";

/**
 * The registry that the daemon serves besides its API, until disposed. It shares nothing with it but the process: it has
 * an address, a root and users of its own. Throws `StartupError`.
 */
export async function serveBesides(settings: ServeSettings, log: Log): Promise<AsyncDisposable> {
  const own = log.child({ part: "registry" });
  let server: RegistryServer;
  try {
    server = await serveRegistry(settings, own);
  } catch (error) {
    if (error instanceof SettingsError) throw new StartupError(`registry: ${messageOf(error)}`);
    throw error;
  }
  const { host, port } = server.listen;
  own.info("the registry is ready", { listen: `${host}:${port}`, root: settings.root });
  const reload = (): void => {
    void server.reload();
  };
  process.on("SIGHUP", reload);
  return {
    async [Symbol.asyncDispose]() {
      process.off("SIGHUP", reload);
      await server[Symbol.asyncDispose]();
    },
  };
}
