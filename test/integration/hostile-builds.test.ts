/** Images and Dockerfiles that are after more than their own files (SECURITY.md §1.7 and §1.10). */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";
import { call } from "../peers/engine-call.ts";
import { busyboxRoot, tarOf } from "../peers/images.ts";
import { leftOver } from "../peers/left-over.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";
import { build } from "./build-lab.ts";

let daemon: TestDaemon;
/** On the host, beside everything that a build may touch. */
let canary: string;
let folder: string;

async function importBase(name: string, marker: string): Promise<void> {
  const root = mkdtempSync(join(folder, "root-"));
  busyboxRoot(root);
  writeFileSync(join(root, "marker"), marker);
  const path = `/images/create?fromSrc=-&repo=${name}&tag=latest`;
  const type = { "Content-Type": "application/x-tar" };
  const answer = await call(daemon.socket, "POST", path, tarOf(root), type);
  assert.equal(answer.status, 200, answer.text);
}

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "skiff-hostile-build-"));
  canary = join(folder, "canary");
  mkdirSync(canary);
  writeFileSync(join(canary, "file"), "host secret\n", { mode: 0o640 });
  daemon = await startSkiffd({ env: { SKIFF_TEST_SECRET: "of the daemon" } });
  await importBase("busybox", "one");
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

function assertUntouched(before: object): void {
  assert.deepEqual(canaryState(), before);
}

function canaryState(): object {
  const { ino, mode, uid, mtimeMs } = statSync(join(canary, "file"));
  return {
    ino,
    mode,
    uid,
    mtimeMs,
    text: readFileSync(join(canary, "file"), "utf8"),
    folder: statSync(canary).ino,
  };
}

test("a variable without a value takes none from the daemon: in an image, a build and a container", async () => {
  const archive = mkdtempSync(join(folder, "archive-"));
  const layer = mkdtempSync(join(folder, "layer-"));
  busyboxRoot(layer);
  const tar = tarOf(layer);
  writeFileSync(join(archive, "layer.tar"), tar);
  const config = {
    architecture: process.arch === "arm64" ? "arm64" : "amd64",
    os: "linux",
    config: {
      Env: ["SKIFF_TEST_SECRET", "PATH=/bin"],
      Cmd: ["env"],
      // Labels that other engines take for settings.
      Labels: {
        "io.podman.annotations.privileged": "TRUE",
        "com.docker.compose.project": "../../x",
        "io.containers.autoupdate": "registry",
        __proto__: "x",
      },
    },
    rootfs: { type: "layers", diff_ids: [`sha256:${createHash("sha256").update(tar).digest("hex")}`] },
  };
  writeFileSync(join(archive, "c.json"), JSON.stringify(config));
  const manifest = [{ Config: "c.json", RepoTags: ["bare:latest"], Layers: ["layer.tar"] }];
  writeFileSync(join(archive, "manifest.json"), JSON.stringify(manifest));
  const type = { "Content-Type": "application/x-tar" };
  const loaded = await call(daemon.socket, "POST", "/images/load", tarOf(archive), type);
  assert.match(loaded.text, /Loaded image: bare:latest/);
  const created = await call<{ Id: string }>(daemon.socket, "POST", "/containers/create", {
    Image: "bare",
    Env: ["SKIFF_TEST_SECRET", "OTHER"],
    Tty: true,
  });
  const id = created.body!.Id;
  assert.equal((await call(daemon.socket, "POST", `/containers/${id}/start`)).status, 204);
  await call(daemon.socket, "POST", `/containers/${id}/wait`);
  const shown = await call(daemon.socket, "GET", `/containers/${id}/logs?stdout=1`);
  assert.match(shown.text, /PATH=\/bin/);
  assert.doesNotMatch(shown.text, /SECRET|daemon/);
  const inspected = await call<{ HostConfig: { Privileged: boolean } }>(
    daemon.socket,
    "GET",
    `/containers/${id}/json`,
  );
  assert.equal(inspected.body!.HostConfig.Privileged, false);
  await call(daemon.socket, "DELETE", `/containers/${id}`);
  const built = await build(daemon, {
    Dockerfile: "FROM bare\nARG SKIFF_TEST_SECRET\nRUN echo in=$SKIFF_TEST_SECRET; env\n",
  });
  assert.match(built.output, /in=\n/);
  assert.doesNotMatch(built.output, /of the daemon/);
});

test("mounts of a RUN stay beneath their source and beneath the step's root, whatever the links say", async () => {
  const before = canaryState();
  const name = basename(canary);
  const lines = [
    "FROM busybox AS links",
    `RUN ln -s / /all && ln -s ${folder} /folder && ln -s ../../../../..${folder} /climb && ln -s /proc/1/root /proc1`,
    "FROM busybox",
    `RUN ln -s ${folder} /folder`,
    // Sources of a bind.
    `RUN --mount=type=bind,from=links,source=/all,target=/m ls /m${folder} 2>/dev/null || echo nothing-there`,
    // Targets below a link of the image.
    `RUN --mount=type=cache,target=/folder/${name} echo mine > /folder/${name}/file; echo wrote-cache`,
    `RUN --mount=type=tmpfs,target=/folder/${name}/deep echo mine > /folder/${name}/deep/file; echo wrote-tmpfs`,
  ];
  const result = await build(daemon, { Dockerfile: `${lines.join("\n")}\n` });
  assert.doesNotMatch(result.output, /host secret/);
  assert.match(result.output, /nothing-there/);
  assertUntouched(before);
  for (const source of [`/folder/${name}/file`, `/climb/${name}/file`, `/proc1${canary}/file`]) {
    const stage = lines.slice(0, 2).join("\n");
    const refused = await build(daemon, {
      Dockerfile: `${stage}\nFROM busybox\nRUN --mount=type=bind,from=links,source=${source},target=/m cat /m\n`,
    });
    assert.notEqual(refused.error, "", source);
    assert.doesNotMatch(refused.output, /host secret/, source);
    const copied = await build(daemon, {
      Dockerfile: `${stage}\nFROM busybox\nCOPY --from=links ${source} /m\nRUN cat /m\n`,
    });
    assert.notEqual(copied.error, "", source);
    assert.doesNotMatch(copied.output, /host secret/, source);
  }
  assertUntouched(before);
});

test("what a step puts in the place of a mount's parents is not followed when it is cleared up", async () => {
  const before = canaryState();
  const name = basename(canary);
  const result = await build(daemon, {
    Dockerfile: `FROM busybox
RUN --mount=type=cache,target=/a/${name} mv /a /moved && ln -s ${folder} /a && echo replaced
RUN --mount=type=bind,target=/b/${name} (mv /b /moved2 && ln -s ${folder} /b); echo done
RUN --mount=type=tmpfs,target=/c/${name} (mv /c /moved3 && ln -s ${folder} /c); echo done
`,
  });
  assert.equal(result.error, "");
  assert.match(result.output, /^replaced$/m);
  assertUntouched(before);
});

test("two steps that exchange what is in one cache mount, over and over, reach nothing else", async () => {
  const before = canaryState();
  const swap = (mine: string): string =>
    `RUN --mount=type=cache,id=shared,target=/c i=0; while [ $i -lt 300 ]; do i=$((i+1)); rm -rf /c/x; ln -s ${canary} /c/x 2>/dev/null; mkdir /c/x 2>/dev/null; mv /c/x /c/y-${mine} 2>/dev/null; rm -rf /c/y-${mine}; done; echo ${mine}-done`;
  const result = await build(daemon, {
    Dockerfile: `FROM busybox AS a\n${swap("a")}\nFROM busybox AS b\n${swap("b")}\nFROM busybox\nRUN --mount=type=cache,id=shared,target=/c/x/y true\nCOPY --from=a /bin/true /a\nCOPY --from=b /bin/true /b\n`,
  });
  assert.equal(result.error, "");
  assertUntouched(before);
  // Giving the cache back follows nothing that lies in it.
  await build(daemon, {
    Dockerfile: `FROM busybox\nRUN --mount=type=cache,id=shared,target=/c rm -rf /c/x; ln -s ${canary} /c/x; ln -s / /c/all\n`,
  });
  const pruned = await call(daemon.socket, "POST", "/build/prune?all=1");
  assert.equal(pruned.status, 200);
  assertUntouched(before);
});

test("a base with other content under the same name and history is a miss", async () => {
  const dockerfile = { Dockerfile: "FROM twin\nRUN cat /marker > /seen\nRUN cat /seen\n" };
  await importBase("twin", "first");
  const first = await build(daemon, dockerfile);
  assert.match(first.output, /first/);
  await importBase("twin", "second");
  const second = await build(daemon, dockerfile);
  assert.doesNotMatch(second.output, /Using cache/);
  assert.match(second.output, /second/);
});

test("nothing half made stays", async () => {
  await call(daemon.socket, "POST", "/images/prune");
  await call(daemon.socket, "POST", "/build/prune?all=1");
  assert.deepEqual(await leftOver(daemon), []);
});
