/** Our registry as a process of its own: `skiff-registry-process.ts <root> <port> <unix socket>`; prints its port. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createLog } from "#base/log.ts";
import { openRegistry } from "#registry-server/registry.ts";

const [root = "", port = "", socket = ""] = process.argv.slice(2);
const log = createLog("info", (line) => process.stderr.write(line));
const registry = await openRegistry({
  root,
  log,
  observe: ({ method, url, status }) => {
    if (status >= 500) log.error("answered", { method, url, status });
  },
});
for (const where of [{ port: Number(port), host: "127.0.0.1" }, { path: socket }]) {
  const server = createServer((request, response) => registry.handle(request, response));
  server.requestTimeout = 0;
  await new Promise<void>((resolve) => server.listen(where, resolve));
  if ("port" in where) process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
}
process.once("SIGTERM", () => {
  registry.close().then(() => process.exit(0));
});
