import assert from "node:assert/strict";
import { test } from "node:test";
import { containerConfigSchema } from "#wire/container-schema.ts";
import type { ImageRunConfig } from "#wire/oci-image.ts";
import { commandOf, effectiveEnv, mergeImageConfig } from "./container-config.ts";

type Request = Parameters<typeof mergeImageConfig>[0];

function request(fields: Partial<Request>): Request {
  return { ...containerConfigSchema.zero(), ...fields };
}

const image: ImageRunConfig = { Entrypoint: ["/entry"], Cmd: ["serve"], Env: ["PATH=/bin", "A=image"] };

const commands: [string, Partial<Request>, ImageRunConfig | undefined, string[]][] = [
  ["both from the image", {}, image, ["/entry", "serve"]],
  ["own command keeps the entrypoint", { Cmd: ["x", "y"] }, image, ["/entry", "x", "y"]],
  ["own entrypoint drops the image's command", { Entrypoint: ["/own"] }, image, ["/own"]],
  ["both own", { Entrypoint: ["/own"], Cmd: ["z"] }, image, ["/own", "z"]],
  ["an empty word clears the entrypoint", { Entrypoint: [""], Cmd: ["sh"] }, image, ["sh"]],
  ["an empty list clears the entrypoint and keeps the command", { Entrypoint: [] }, image, ["serve"]],
  ["no image config", { Cmd: ["true"] }, undefined, ["true"]],
];

for (const [name, fields, config, words] of commands) {
  test(`command: ${name}`, () => {
    const { path, args } = commandOf(mergeImageConfig(request(fields), config));
    assert.deepEqual([path, ...args], words);
  });
}

test("nothing to run is refused", () => {
  assert.throws(() => mergeImageConfig(request({ Entrypoint: [""] }), { Entrypoint: ["x"] }), {
    kind: "invalid",
    message: "no command specified",
  });
});

test("environment: the request's first, the image's where it has none", () => {
  const merged = mergeImageConfig(request({ Env: ["A=own", "B"] }), image);
  assert.deepEqual(merged.Env, ["A=own", "B", "PATH=/bin"]);
  assert.deepEqual(effectiveEnv(merged.Env), ["A=own", "PATH=/bin"]);
});

test("labels, volumes and ports are united, the request's value wins", () => {
  const merged = mergeImageConfig(
    request({ Labels: { b: "own" }, Volumes: { "/v": {} }, ExposedPorts: null, Cmd: ["x"] }),
    { Labels: { a: "1", b: "2", __proto__x: "3" }, Volumes: { "/w": {} }, ExposedPorts: { "80/tcp": {} } },
  );
  assert.deepEqual(merged.Labels, { __proto__x: "3", a: "1", b: "own" });
  assert.deepEqual(Object.keys(merged.Volumes ?? {}), ["/v", "/w"]);
  assert.deepEqual(Object.keys(merged.ExposedPorts ?? {}), ["80/tcp"]);
});

test("a label called __proto__ stays a label", () => {
  const labels = JSON.parse('{"__proto__":"x","constructor":"y"}');
  const merged = mergeImageConfig(request({ Cmd: ["x"] }), { Labels: labels });
  assert.deepEqual(Object.keys(merged.Labels ?? {}).sort(), ["__proto__", "constructor"]);
  assert.equal(JSON.stringify(merged.Labels), '{"__proto__":"x","constructor":"y"}');
});

test("a health check takes what it lacks from the image", () => {
  const merged = mergeImageConfig(
    request({
      Cmd: ["x"],
      Healthcheck: { Test: null, Interval: 5e9, Timeout: 0, StartPeriod: 0, StartInterval: 0, Retries: 0 },
    }),
    { Healthcheck: { Test: ["CMD-SHELL", "true"], Interval: 1e9, Retries: 4 } },
  );
  assert.deepEqual(merged.Healthcheck, {
    Test: ["CMD-SHELL", "true"],
    Interval: 5e9,
    Timeout: 0,
    StartPeriod: 0,
    StartInterval: 0,
    Retries: 4,
  });
});
