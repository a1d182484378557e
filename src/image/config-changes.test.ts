import assert from "node:assert/strict";
import { test } from "node:test";
import { EngineError } from "#base/errors.ts";
import type { ImageRunConfig } from "#wire/oci-image.ts";
import { applyChanges } from "./config-changes.ts";

const cases: readonly (readonly [string, readonly string[], ImageRunConfig])[] = [
  ["CMD in JSON", ['CMD ["sh", "-c", "a b"]'], { Cmd: ["sh", "-c", "a b"] }],
  ["CMD as shell", ["CMD echo  hi"], { Cmd: ["/bin/sh", "-c", "echo  hi"] }],
  ["broken JSON is shell", ["CMD [sh]"], { Cmd: ["/bin/sh", "-c", "[sh]"] }],
  ["ENTRYPOINT", ['entrypoint ["/a"]'], { Entrypoint: ["/a"] }],
  ["ENV pairs", ["ENV A=1 B=\"x y\" C='z'"], { Env: ["A=1", "B=x y", "C=z"] }],
  ["ENV old form", ["ENV A x y"], { Env: ["A=x y"] }],
  // biome-ignore lint/suspicious/noTemplateCurlyInString: a Dockerfile's variables
  ["ENV sees earlier ones", ["ENV A=1", "ENV B=$A-${A}-${Q:-d}-${A:+s}"], { Env: ["A=1", "B=1-1-d-s"] }],
  ["ENV again replaces", ["ENV A=1 B=2", "ENV A=3"], { Env: ["A=3", "B=2"] }],
  [
    "EXPOSE",
    ["EXPOSE 80 53/udp 8000-8001"],
    { ExposedPorts: { "80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {} } },
  ],
  ["LABEL", ["LABEL a=b c='d e'"], { Labels: { a: "b", c: "d e" } }],
  // biome-ignore lint/suspicious/noTemplateCurlyInString: a Dockerfile's variables
  ["USER", ["ENV U=me", "USER ${U}"], { Env: ["U=me"], User: "me" }],
  ["VOLUME", ['VOLUME ["/a","/b"]', "VOLUME /c /d"], { Volumes: { "/a": {}, "/b": {}, "/c": {}, "/d": {} } }],
  ["WORKDIR", ["WORKDIR /a", "WORKDIR b"], { WorkingDir: "/a/b" }],
  ["STOPSIGNAL", ["STOPSIGNAL SIGKILL"], { StopSignal: "SIGKILL" }],
  [
    "HEALTHCHECK",
    ["HEALTHCHECK --interval=5s --retries=3 CMD curl -f x"],
    { Healthcheck: { Interval: 5e9, Retries: 3, Test: ["CMD-SHELL", "curl -f x"] } },
  ],
  ["HEALTHCHECK NONE", ["HEALTHCHECK NONE"], { Healthcheck: { Test: ["NONE"] } }],
  ["ONBUILD", ["ONBUILD RUN a"], { OnBuild: ["RUN a"] }],
  ["several lines, blanks and comments", ["USER a\n\n# x\nWORKDIR /w"], { User: "a", WorkingDir: "/w" }],
];

test("instructions change the config as a Dockerfile's do", () => {
  for (const [what, changes, expected] of cases) assert.deepEqual(applyChanges({}, changes), expected, what);
});

test("what is no change command, or broken, is refused", () => {
  const bad: readonly (readonly [string, RegExp])[] = [
    ["RUN x", /^run is not a valid change command$/],
    ["FROM x", /not a valid change command/],
    ["__proto__ x", /not a valid change command/],
    ["CMD", /requires at least one argument/],
    ["ENV A", /must have two arguments/],
    ["ENV A=1 B", /can't find = in "B"/],
    ["ENV =x", /names can not be blank/],
    ["EXPOSE a", /invalid containerPort: a/],
    ["EXPOSE 70000", /invalid containerPort/],
    ["EXPOSE 80/x", /invalid proto: x/],
    ["LABEL a='b", /unexpected end/],
    ["USER ${A", /missing .}. in substitution/],
    ["HEALTHCHECK x", /Unknown type "x"/],
    ["HEALTHCHECK CMD", /Missing command/],
    ["HEALTHCHECK --interval=1 CMD x", /invalid duration/],
    ["ONBUILD ONBUILD x", /Chaining/],
    ["ONBUILD FROM x", /isn't allowed/],
  ];
  for (const [change, message] of bad) {
    assert.throws(
      () => applyChanges({}, [change]),
      (error) => error instanceof EngineError && error.kind === "invalid" && message.test(error.message),
      change,
    );
  }
});

test("the config that is given is not touched", () => {
  const config: ImageRunConfig = { Env: ["A=1"], Labels: { a: "b" } };
  applyChanges(config, ["ENV B=2", "LABEL c=d"]);
  assert.deepEqual(config, { Env: ["A=1"], Labels: { a: "b" } });
});
