import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { EngineError } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import { type DaemonConfig, readConfig } from "./config.ts";
import { reloadAttributes, reloadConfig } from "./reload.ts";

const directory = mkdtempSync(join(tmpdir(), "skiff-reload-"));
test.after(() => rmSync(directory, { recursive: true }));
const path = join(directory, "daemon.json");

function configOf(text: string, ...argv: string[]): () => DaemonConfig {
  writeFileSync(path, text);
  return () => readConfig([...argv, "--config-file", path], {});
}

interface Outcome {
  readonly config: DaemonConfig;
  readonly lines: readonly [level: string, message: string, fields?: unknown][];
  readonly applied: readonly DaemonConfig[];
}

async function reload(
  current: DaemonConfig,
  read: () => DaemonConfig,
  reconfigure: (config: DaemonConfig) => Promise<void> = async () => {},
): Promise<Outcome> {
  const lines: [string, string, unknown?][] = [];
  const tell = (level: string) => (message: string, fields?: unknown) => lines.push([level, message, fields]);
  const log: Log = {
    debug: tell("debug"),
    info: tell("info"),
    warn: tell("warn"),
    error: tell("error"),
    child: () => log,
  };
  const applied: DaemonConfig[] = [];
  const targets = {
    reconfigure,
    useTls: (config: DaemonConfig) => {
      applied.push(config);
    },
  };
  return { config: await reloadConfig(current, targets, log, read), lines, applied };
}

test("an error of a system call leaves everything as it was, in one line", async () => {
  const before = configOf('{"labels":["a=1"]}')();
  const missing = Object.assign(new Error("ENOENT: no such file"), { code: "ENOENT" });
  const { config, lines } = await reload(before, configOf('{"labels":["b=2"]}'), () =>
    Promise.reject(missing),
  );
  assert.equal(config, before);
  assert.deepEqual(lines, [["error", "the configuration was not reloaded: ENOENT: no such file", undefined]]);
});

test("what can change while the daemon runs does, what cannot is named", async () => {
  const before = configOf('{"labels":["a=1"],"data-root":"/one"}')();
  const read = configOf(
    '{"debug":true,"labels":["b=2"],"data-root":"/two","insecure-registries":["r:1"],"max-concurrent-downloads":9,"shutdown-timeout":3}',
  );
  const { config, lines, applied } = await reload(before, read);
  assert.deepEqual(
    [config.debug, config.logLevel, config.labels, config.insecureRegistries, config.shutdownTimeoutMs],
    [true, "debug", ["b=2"], ["r:1"], 3000],
  );
  assert.equal(config.dataRoot, "/one");
  assert.deepEqual(applied, [config]);
  assert.deepEqual(lines, [
    [
      "info",
      "configuration reloaded",
      {
        changed: [
          "logLevel",
          "debug",
          "insecureRegistries",
          "maxConcurrentDownloads",
          "labels",
          "shutdownTimeoutMs",
        ],
        needsRestart: ["dataRoot"],
      },
    ],
  ]);
});

test("what is no longer in the file has its default again", async () => {
  const before = configOf('{"debug":true,"registry-mirrors":["https://m"]}')();
  const { config } = await reload(before, configOf("{}"));
  assert.deepEqual([config.debug, config.logLevel, config.registryMirrors], [false, "info", []]);
});

for (const [what, text] of [
  ["no JSON", "{"],
  ["an unknown key", '{"frob":1,"debug":true}'],
  ["a value of the wrong type", '{"debug":"yes"}'],
  ["a value out of range", '{"debug":true,"max-concurrent-downloads":0}'],
  ["a key that a flag has set", '{"debug":true,"labels":["x=1"]}'],
  ["a certificate that is not there", '{"debug":true,"tlscert":"/nonexistent/cert"}'],
] as const) {
  test(`${what}: one line, and everything stays as it was`, async () => {
    const flags = ["--label", "a=1", "--tlsverify"];
    const before = configOf("{}", ...flags)();
    const { config, lines, applied } = await reload(before, configOf(text, ...flags));
    assert.equal(config, before);
    assert.deepEqual(applied, []);
    assert.equal(lines.length, 1);
    const [level, message] = lines[0]!;
    assert.equal(level, "error");
    assert.match(message, /^the configuration was not reloaded: [^\n]+$/);
  });
}

test("a runtime that does not work keeps the old configuration; a bug is no bad configuration", async () => {
  const before = configOf("{}")();
  const read = configOf('{"debug":true}');
  const { config, lines } = await reload(before, read, async () => {
    throw new EngineError("invalid", "runtime own: /x not found");
  });
  assert.equal(config, before);
  assert.equal(lines[0]?.[1], "the configuration was not reloaded: runtime own: /x not found");
  await assert.rejects(
    reload(before, read, async () => {
      throw new TypeError("a bug");
    }),
    /a bug/,
  );
});

test("the event has dockerd's attributes", () => {
  const config = configOf('{"labels":["bar=foo"],"shutdown-timeout":10,"max-concurrent-downloads":1}')();
  const attributes = reloadAttributes(config, {
    runtimes: [{ name: "crun", path: "/usr/bin/crun", kind: "crun", version: "1" }],
  });
  assert.equal(attributes["labels"], '["bar=foo"]');
  assert.equal(attributes["shutdown-timeout"], "10");
  assert.equal(attributes["max-concurrent-downloads"], "1");
  assert.equal(attributes["default-runtime"], "crun");
  assert.equal(attributes["runtimes"], '{"crun":{"path":"/usr/bin/crun"}}');
  assert.equal(attributes["insecure-registries"], "[]");
});
