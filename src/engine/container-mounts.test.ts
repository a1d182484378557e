import assert from "node:assert/strict";
import { test } from "node:test";
import { hostConfigSchema } from "#wire/container-schema.ts";
import { decodeJson } from "#wire/go-json.ts";
import { parseBind, parseMode, parseTmpfs, parseVolumesFrom, planMounts } from "./container-mounts.ts";

test("binds of host paths and of volumes", () => {
  const bind = parseBind("/src/:/dst/:ro,rslave", "");
  assert.equal(bind.kind, "bind");
  assert.deepEqual(
    [bind.source, bind.destination, bind.readOnly, bind.propagation, bind.mode, bind.createSource],
    ["/src/", "/dst", true, "rslave", "ro,rslave", true],
  );
  const volume = parseBind("data:/d:nocopy", "");
  assert.deepEqual(
    [volume.kind, volume.name, volume.copyUp, volume.driver],
    ["volume", "data", false, "local"],
  );
  const anonymous = parseBind("/only", "");
  assert.deepEqual([anonymous.kind, anonymous.anonymous, anonymous.destination], ["volume", true, "/only"]);
});

test("modes", () => {
  assert.deepEqual(parseMode("ro,Z", "bind"), { readOnly: true, propagation: "", noCopy: false });
  assert.equal(parseMode("ro,rw", "bind"), undefined);
  assert.equal(parseMode("rshared", "volume"), undefined);
  assert.equal(parseMode("nocopy", "bind"), undefined);
  assert.equal(parseMode("z,Z", "bind"), undefined);
});

test("tmpfs is strict unless asked otherwise", () => {
  assert.equal(parseTmpfs("/t", "").tmpfsOptions, "noexec,nosuid,nodev");
  assert.equal(parseTmpfs("/t", "exec,size=1m").tmpfsOptions, "nosuid,nodev,exec,size=1m");
});

test("volumes-from", () => {
  assert.deepEqual(parseVolumesFrom("c"), { reference: "c", readOnly: undefined, mode: "" });
  assert.equal(parseVolumesFrom("c:ro").readOnly, true);
  assert.throws(() => parseVolumesFrom("c:xx"), { message: "invalid mode: xx" });
});

test("explicit mounts win over inherited ones, those over the image's volumes", () => {
  const host = decodeJson(
    hostConfigSchema,
    JSON.stringify({
      Binds: ["/h:/a"],
      Mounts: [{ Type: "volume", Source: "vol", Target: "/b/" }],
      Tmpfs: { "/c": "" },
    }),
  );
  const inherited = [{ ...parseBind("other:/a", ""), fromVolumesFrom: true }, parseBind("shared:/d", "")];
  const planned = planMounts({
    host,
    volumes: ["/a", "/b", "/d", "/e"],
    inherited,
    sourceExists: () => true,
  });
  assert.deepEqual(
    planned.map((mount) => [mount.destination, mount.kind, mount.name || mount.source]),
    [
      ["/a", "bind", "/h"],
      ["/b", "volume", "vol"],
      ["/c", "tmpfs", ""],
      ["/d", "volume", "shared"],
      ["/e", "volume", ""],
    ],
  );
});
