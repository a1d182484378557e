import assert from "node:assert/strict";
import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { silentLog } from "#base/log.ts";
import { findDisagreements } from "../../src/daemon/fsck.ts";
import { call } from "../peers/engine-call.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";

function disagreements({ dataRoot, execRoot }: TestDaemon): Promise<string[]> {
  return findDisagreements({ dataRoot, execRoot, log: silentLog });
}

/** A tar of one file: enough of an image for rows and directories. */
function tinyTar(): Buffer {
  const header = Buffer.alloc(512);
  header.write("file", 0);
  header.write("0000644\0", 100);
  header.write("0000000\0", 108);
  header.write("0000000\0", 116);
  header.write("00000000000\0", 124);
  header.write("00000000000\0", 136);
  header.write("        ", 148);
  header.write("0", 156);
  header.write("ustar\x0000", 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return Buffer.concat([header, Buffer.alloc(1024)]);
}

test("the state of a daemon agrees with the disk, and each kind of damage is found", async () => {
  await using daemon = await startSkiffd();
  const imported = await call(daemon.socket, "POST", "/images/create?fromSrc=-&repo=tiny", tinyTar(), {
    "Content-Type": "application/x-tar",
  });
  assert.equal(imported.status, 200, imported.text);
  await call(daemon.socket, "POST", "/volumes/create", { Name: "vol" });
  const created = await call<{ Id: string }>(daemon.socket, "POST", "/containers/create", {
    Image: "tiny",
    Cmd: ["x"],
    HostConfig: { Binds: ["vol:/data"] },
  });
  assert.equal(created.status, 201, created.text);
  await daemon.stop();
  assert.deepEqual(await disagreements(daemon), []);

  const id = created.body?.Id ?? "";
  const aside = join(daemon.home, "aside");
  const moved = async (path: string, expected: RegExp): Promise<void> => {
    renameSync(join(daemon.dataRoot, path), aside);
    const found = await disagreements(daemon);
    assert.ok(
      found.some((line) => expected.test(line)),
      `${path}: ${found.join("; ")}`,
    );
    renameSync(aside, join(daemon.dataRoot, path));
  };
  await moved(`containers/${id}`, /^state directory of container \w+ has a row and is not on the disk$/);
  await moved(`overlay2/w-${id}`, /^writable layer of container \w+ has a row/);
  await moved("volumes/vol", /^volume vol has a row and is not on the disk$/);
  await moved("content/blobs/sha256", /^blob \w+ is needed and not there$/);

  const stranger = join(daemon.dataRoot, "volumes/stranger");
  mkdirSync(stranger);
  const leftover = join(daemon.dataRoot, "overlay2/tmp/x");
  writeFileSync(leftover, "");
  const blob = join(daemon.dataRoot, "content/blobs/sha256", "a".repeat(64));
  writeFileSync(blob, "not that");
  const found = await disagreements(daemon);
  for (const line of [
    "volume stranger is on the disk and has no row",
    "overlay2/tmp/x is left over",
    `blob ${"a".repeat(64)} does not have its digest`,
    `blob ${"a".repeat(64)} is of no use to any image`,
  ]) {
    assert.ok(found.includes(line), `${line}: ${found.join("; ")}`);
  }
  for (const path of [stranger, leftover, blob]) rmSync(path, { recursive: true });

  const database = new DatabaseSync(join(daemon.dataRoot, "state.db"));
  database.exec("DELETE FROM image; DELETE FROM volume");
  database.close();
  const lost = (await disagreements(daemon)).join("\n");
  assert.match(lost, /name .*tiny.* points at sha256:\w+, which is no image/);
  assert.match(lost, /container \w+ was made from sha256:\w+, which is no image/);
  assert.match(lost, /container \w+ mounts the volume vol, which is not there/);
  assert.match(lost, /layer \w+ is part of no image/);
});
