import assert from "node:assert/strict";
import { test } from "node:test";
import { containerConfigSchema, hostConfigSchema } from "#wire/container-schema.ts";
import type { ContainerDocument } from "./container-document.ts";
import { checkLogConfig, shimLogConfig } from "./container-log-config.ts";

function document(options: Record<string, string>, driver = "json-file"): ContainerDocument {
  const hostConfig = hostConfigSchema.zero();
  hostConfig.LogConfig = { Type: driver, Config: options };
  const config = containerConfigSchema.zero();
  config.Labels = { app: "web", other: "x" };
  config.Env = ["TIER=gold", "NOPE"];
  const id = "a".repeat(64);
  return {
    id,
    name: "web1",
    imageId: `sha256:${"b".repeat(64)}`,
    imageReference: "web:2",
    config,
    hostConfig,
  } as unknown as ContainerDocument;
}

test("rotation: sizes as Docker reads them", () => {
  for (const [text, bytes] of [
    ["10m", 10_000_000],
    ["1.5k", 1500],
    ["3", 3],
    ["2GB", 2e9],
    ["-1", 0],
  ] as const) {
    assert.equal(shimLogConfig(document({ "max-size": text }), "/l").maxBytes, bytes, text);
  }
  assert.equal(shimLogConfig(document({ "max-size": "1m", "max-file": "3" }), "/l").maxFiles, 3);
});

test("attributes: labels, environment and tag that are asked for", () => {
  const config = shimLogConfig(
    document({ labels: "app,gone", env: "TIER,NOPE", tag: "{{.Name}}/{{.ID}}/{{ .ImageName }}" }),
    "/l",
  );
  assert.equal(config.attrsJson, `{"TIER":"gold","app":"web","tag":"web1/${"a".repeat(12)}/web:2"}`);
  assert.equal(shimLogConfig(document({}), "/l").attrsJson, "");
  assert.equal(shimLogConfig(document({}, "none"), "/l").driver, "none");
});

const refused: [string, Record<string, string>, RegExp][] = [
  ["fluentd", {}, /^logger: no log driver named 'fluentd' is registered$/],
  ["json-file", { foo: "1" }, /^unknown log opt 'foo' for json-file log driver$/],
  ["json-file", { "max-size": "zz" }, /invalid size: 'zz'/],
  ["json-file", { "max-file": "0", "max-size": "1m" }, /max-file cannot be less than 1/],
  ["json-file", { compress: "true" }, /compress/],
  ["json-file", { mode: "non-blocking" }, /non-blocking/],
  ["json-file", { "labels-regex": "^a" }, /labels-regex/],
  ["json-file", { tag: "{{json .}}" }, /tag/],
];

for (const [driver, options, message] of refused) {
  test(`refused: ${driver} ${JSON.stringify(options)}`, () => {
    assert.throws(() => checkLogConfig(driver, options), { message, kind: "invalid" });
  });
}
