import assert from "node:assert/strict";
import { test } from "node:test";
import type { Digest } from "#base/digest.ts";
import type { Descriptor, Platform } from "#wire/oci-image.ts";
import { choosePlatform, formatPlatform, parsePlatformText, platformSatisfies } from "./platform.ts";

function entry(name: string, text?: string): Descriptor {
  const [os = "", architecture = "", variant] = (text ?? "").split("/");
  const platform: Platform = { os, architecture, ...(variant === undefined ? {} : { variant }) };
  return {
    mediaType: "",
    digest: name as Digest,
    size: 1,
    ...(text === undefined ? {} : { platform }),
  };
}

test("platforms as Docker spells them", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["linux/amd64", "linux/amd64"],
    ["linux/x86_64", "linux/amd64"],
    ["amd64", "linux/amd64"],
    ["linux/arm64/v8", "linux/arm64"],
    ["aarch64", "linux/arm64"],
    ["linux/arm", "linux/arm/v7"],
    ["linux/arm/6", "linux/arm/v6"],
    ["LINUX/AMD64", "linux/amd64"],
    ["windows/amd64", "windows/amd64"],
  ];
  for (const [text, expected] of cases) assert.equal(formatPlatform(parsePlatformText(text)), expected);
  for (const bad of ["", "linux/", "a/b/c/d", "linux/am d64", "*"])
    assert.throws(() => parsePlatformText(bad));
});

test("the best entry is chosen", () => {
  const pick = (wanted: string, ...texts: string[]): string =>
    choosePlatform(
      texts.map((text) => entry(text, text)),
      parsePlatformText(wanted),
    ).digest;
  assert.equal(pick("linux/amd64", "linux/arm64", "linux/amd64"), "linux/amd64");
  assert.equal(pick("linux/amd64", "linux/386", "linux/amd64/v2", "linux/amd64"), "linux/amd64");
  assert.equal(pick("linux/amd64", "linux/386", "linux/arm64"), "linux/386");
  assert.equal(pick("linux/amd64/v3", "linux/amd64", "linux/amd64/v2", "linux/amd64/v4"), "linux/amd64/v2");
  assert.equal(pick("linux/arm64", "linux/arm/v7", "linux/arm64/v8"), "linux/arm64/v8");
  assert.equal(pick("linux/arm/v6", "linux/arm/v7", "linux/arm/v5"), "linux/arm/v5");
  assert.throws(() => pick("linux/arm64", "linux/amd64", "unknown/unknown"), {
    kind: "notFound",
    message: "no matching manifest for linux/arm64 in the manifest list entries",
  });
  assert.throws(() => pick("windows/amd64", "linux/amd64"), {
    message: /^no matching manifest for windows\/amd64/,
  });
  assert.equal(choosePlatform([entry("only")], parsePlatformText("linux/amd64")).digest, "only");
  assert.throws(() => choosePlatform([], parsePlatformText("linux/amd64")));
});

test("an image of another platform does not satisfy", () => {
  assert.equal(
    platformSatisfies(
      { os: "linux", architecture: "arm64", variant: "v8" },
      parsePlatformText("linux/arm64"),
    ),
    true,
  );
  assert.equal(
    platformSatisfies({ os: "linux", architecture: "amd64" }, parsePlatformText("linux/arm64")),
    false,
  );
});
