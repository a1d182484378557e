/** The bodies that our command line sends are those that Docker's client sends: a recording server takes both. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { olderDockerClient } from "../peers/peer-cache.ts";
import { commandLines, requests } from "./cli-lines.ts";

interface Recorded {
  readonly method: string;
  readonly path: string;
  readonly query: Record<string, string>;
  readonly body: unknown;
}

/** Go writes zero values, we leave them out: both mean the same to a daemon. */
function withoutZeros(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutZeros);
  if (typeof value !== "object" || value === null) return value;
  const kept = Object.entries(value)
    .map(([name, item]) => [name, withoutZeros(item)] as const)
    .filter(([, item]) => !isZero(item));
  return Object.fromEntries(kept.sort(([one], [other]) => (one < other ? -1 : 1)));
}

function isZero(value: unknown): boolean {
  if (value === null || value === "" || value === 0 || value === false) return true;
  return typeof value === "object" && value !== null && Object.keys(value).length === 0;
}

/** Spelled otherwise, meaning the same: unset swappiness, the terminal's size, and a check that old daemons made. */
const equivalent: ReadonlySet<string> = new Set([
  "MemorySwappiness:-1",
  "ConsoleSize:0,0",
  "CheckDuplicate:true",
]);

function comparable(body: unknown): unknown {
  const walk = (value: unknown): unknown => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
    return Object.fromEntries(
      Object.entries(value)
        .filter(([name, item]) => !equivalent.has(`${name}:${String(item)}`))
        // Docker's client keeps `Env` in a map on its way, whose order is a new one each time; ours keeps the order given.
        .map(([name, item]) => [name, name === "Env" && Array.isArray(item) ? [...item].sort() : walk(item)]),
    );
  };
  return withoutZeros(walk(body));
}

describe("requests of our command line and of Docker's client", { skip: olderDockerClient() }, () => {
  const home = mkdtempSync(join(tmpdir(), "skiff-cli-"));
  const alias = join(home, "docker");
  const socket = join(home, "api.sock");
  let server: Server;
  let recorded: Recorded[] = [];

  before(async () => {
    symlinkSync(join(import.meta.dirname, "../../bin/skiff"), alias);
    writeFileSync(join(home, "ef"), "# comment\nA=1\nFOO\n B=2 x\nNOPE\n");
    writeFileSync(join(home, "lf"), "l1=v1\nl2\n");
    writeFileSync(join(home, "sec.json"), '{ "a" : 1 }');
    server = createServer((request, response) => {
      let text = "";
      request.on("data", (chunk) => {
        text += chunk;
      });
      request.on("end", () => {
        response.setHeader("Api-Version", "1.50");
        response.setHeader("Ostype", "linux");
        if (request.url!.endsWith("_ping")) {
          response.end("OK");
          return;
        }
        const url = new URL(request.url!, "http://x");
        recorded.push({
          method: request.method!,
          path: url.pathname.replace(/^\/v[\d.]+/, ""),
          query: Object.fromEntries([...url.searchParams].sort()),
          body: text === "" ? null : comparable(JSON.parse(text)),
        });
        response.setHeader("Content-Type", "application/json");
        response.statusCode = /create|exec/.test(url.pathname) ? 201 : 200;
        response.end('{"Id":"abc","Name":"v","Warnings":null}');
      });
    });
    await new Promise<void>((resolve) => server.listen(socket, resolve));
  });

  after(() => {
    server.closeAllConnections();
    server.close();
    rmSync(home, { recursive: true, force: true });
  });

  const record = async (
    program: string,
    words: readonly string[],
  ): Promise<{ sent: Recorded[]; code: number | null }> => {
    recorded = [];
    const child = spawn(program, [...words], {
      cwd: home,
      env: {
        ...process.env,
        DOCKER_HOST: `unix://${socket}`,
        DOCKER_CONFIG: join(home, "config"),
        FOO: "from-env",
      },
      stdio: "ignore",
    });
    const code = await new Promise<number | null>((resolve) => child.on("exit", resolve));
    return { sent: recorded, code };
  };

  for (const words of commandLines(requests)) {
    test(words.join(" "), async () => {
      const theirs = await record("docker", words);
      const mine = await record(alias, words);
      assert.ok(theirs.sent.length > 0 || theirs.code !== 0, "the peer sent nothing");
      assert.deepEqual(mine, theirs);
    });
  }
});
