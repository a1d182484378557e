import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { call } from "../peers/engine-call.ts";
import type { TestDaemon } from "../peers/skiffd.ts";
import { build, contextTar, said, startBuildDaemon } from "./build-lab.ts";

/** Builds over the wire against a real daemon: what comes out, what is cached, what bad input and interruptions leave. */
let daemon: TestDaemon;
before(async () => {
  daemon = await startBuildDaemon();
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
});

const dated = { buildargs: JSON.stringify({ SOURCE_DATE_EPOCH: "1700000000" }) };

interface ImageJson {
  readonly Id: string;
  readonly Parent: string;
  readonly RootFS: { readonly Layers: readonly string[] };
  readonly Config: {
    readonly Env: readonly string[];
    readonly Labels: Readonly<Record<string, string>> | null;
  };
}

async function inspect(name: string): Promise<ImageJson> {
  const answer = await call<ImageJson>(daemon.socket, "GET", `/images/${name}/json`);
  assert.equal(answer.status, 200, answer.text);
  return answer.body!;
}

/** Nothing of a build may stay but images and cache. */
async function assertNothingLeft(): Promise<void> {
  const temporary = join(daemon.dataRoot, "tmp");
  for (let attempt = 0; ; attempt += 1) {
    const containers = await call<unknown[]>(daemon.socket, "GET", "/containers/json?all=1");
    const files = existsSync(temporary) ? readdirSync(temporary) : [];
    const writable = readdirSync(join(daemon.dataRoot, "overlay2")).filter((name) => name.startsWith("w-"));
    if (containers.body?.length === 0 && files.length === 0 && writable.length === 0) return;
    if (attempt > 300)
      assert.deepEqual(
        { containers: containers.body, files, writable },
        { containers: [], files: [], writable: [] },
      );
    await sleep(100);
  }
}

test("every step is an image with an id and a parent; the last one is the result", async () => {
  const result = await build(
    daemon,
    { Dockerfile: "FROM busybox\nENV A=1\nRUN echo $A > /a\nCOPY f /f\n", f: "hello" },
    { t: "steps:1" },
  );
  assert.equal(result.error, "");
  const ids = [...result.output.matchAll(/^ ---> ([0-9a-f]{12})$/gm)].map((match) => match[1]!);
  assert.equal(ids.length, 4);
  assert.match(result.output, new RegExp(`Successfully built ${ids[3]}\nSuccessfully tagged steps:1\n$`));
  let image = await inspect("steps:1");
  assert.equal(image.Id, result.id);
  for (const id of ids.reverse()) {
    assert.ok(image.Id.startsWith(`sha256:${id}`));
    if (id !== ids.at(-1)) image = await inspect(image.Parent);
  }
  const config = readFileSync(join(daemon.dataRoot, "content/blobs/sha256", result.id.slice(7)));
  assert.equal(`sha256:${createHash("sha256").update(config).digest("hex")}`, result.id);
  await assertNothingLeft();
});

test("a second build takes everything from the cache and gives the same image", async () => {
  const context = { Dockerfile: "FROM busybox\nCOPY d /d\nRUN cat /d/f > /g\nWORKDIR /w\n", "d/f": "same" };
  const first = await build(daemon, context);
  const touched = await build(daemon, contextTar(context, 1_800_000_000));
  assert.equal(touched.output.match(/Using cache/g)?.length, 3);
  assert.equal(touched.id, first.id);
  const changed = await build(daemon, { ...context, "d/f": "else" });
  assert.equal(changed.output.match(/Using cache/g), null);
  assert.notEqual(changed.id, first.id);
  const fresh = await build(daemon, context, { nocache: "1" });
  assert.equal(fresh.output.match(/Using cache/g), null);
});

test("equal inputs give equal digests, also without a cache, with a lost one and with a damaged one", async () => {
  const context = {
    Dockerfile:
      "FROM busybox AS a\nRUN mkdir /x && echo hi > /x/f && ln /x/f /x/g && ln -s f /x/l && rm /etc/group\nFROM busybox\nCOPY --from=a /x /y/\nCOPY d /d/\nWORKDIR /new/dir\nRUN touch /d/later\n",
    "d/f": "one",
    "d/s": { link: "f" },
  } as const;
  const first = await build(daemon, context, dated);
  assert.equal(first.error, "");
  const again = await build(daemon, context, { ...dated, nocache: "1" });
  assert.equal(again.id, first.id);
  await call(daemon.socket, "POST", "/build/prune?all=1");
  assert.equal((await build(daemon, context, dated)).id, first.id);
  await daemon.stop();
  const database = new DatabaseSync(join(daemon.dataRoot, "state.db"));
  const rows = database.prepare("SELECT key, document FROM build_cache").all() as {
    key: string;
    document: string;
  }[];
  assert.ok(rows.length > 0);
  for (const [index, { key, document }] of rows.entries()) {
    const damaged = [
      "{",
      "null",
      document.replace(/"key":"[0-9a-f]+"/, '"key":"x"'),
      document.slice(5),
      document.replaceAll(/[0-9a-f]{64}/g, "0".repeat(64)),
    ];
    database
      .prepare("UPDATE build_cache SET document = ? WHERE key = ?")
      .run(damaged[index % damaged.length]!, key);
  }
  database.close();
  await daemon.restart();
  const after = await build(daemon, context, dated);
  assert.equal(after.error, "");
  assert.equal(after.id, first.id);
});

test("layers pack again to the bytes that their digests are of", async () => {
  await build(daemon, {
    Dockerfile:
      "FROM busybox\nCOPY z a /m/\nADD t.tar.gz /u/\nRUN rm /etc/passwd; mkdir -p /q/r; mv /m/a /q\n",
    z: "z",
    a: "a",
    "t.tar.gz": { mode: 0o600, text: "" },
  }).catch(() => undefined);
  const inner = contextTar({
    "b/": { directory: true },
    "b/y": "y",
    "b/x": "x",
    "b/l": { link: "/etc/passwd" },
    "b/h": { hardlink: "b/x" },
  });
  const zipped = gzipSync(inner);
  const entries = contextTar({
    Dockerfile:
      "FROM busybox\nCOPY z a /m/\nADD t.tar.gz /u/\nRUN rm /etc/passwd; mkdir -p /q/r; mv /m/a /q; ls -l /u/b\n",
    z: "z",
    a: "a",
  });
  const withArchive = Buffer.concat([
    entries.subarray(0, -1024),
    rawEntry("t.tar.gz", zipped),
    Buffer.alloc(1024),
  ]);
  const result = await build(daemon, withArchive, { t: "packed:1" });
  assert.equal(result.error, "");
  assert.match(result.output, /l -> \/etc\/passwd/);
  const { RootFS } = await inspect("packed:1");
  const saved = await new Promise<Buffer>((resolve, reject) => {
    import("node:http").then(({ get }) => {
      get({ socketPath: daemon.socket, path: "/images/packed:1/get", agent: false }, (answer) => {
        const chunks: Buffer[] = [];
        answer.on("data", (chunk: Buffer) => chunks.push(chunk));
        answer.on("end", () => resolve(Buffer.concat(chunks)));
      }).on("error", reject);
    }, reject);
  });
  for (const layer of RootFS.Layers)
    assert.ok(
      saved.includes(`blobs/sha256/${layer.slice(7)}`),
      `${layer} is in the archive under its own digest`,
    );
});

/** A tar entry of raw bytes. */
function rawEntry(name: string, bytes: Buffer): Buffer {
  const header = contextTar({ [name]: "x".repeat(bytes.length) }).subarray(0, 512);
  return Buffer.concat([header, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]);
}

test("stages that are independent run at the same time and speak in order", async () => {
  // Each waits for the others: one after the other they would never meet.
  const wait =
    "for i in $(seq 400); do test -e /m/a -a -e /m/b -a -e /m/c && echo from NAME && exit 0; sleep 0.05; done; exit 1";
  const stage = (name: string): string =>
    `FROM busybox AS ${name}\nRUN --mount=type=cache,target=/m,id=meet touch /m/${name}; ${wait.replace("NAME", name)}\n`;
  const result = await build(
    daemon,
    {
      Dockerfile: `${stage("a")}${stage("b")}${stage("c")}FROM busybox\nCOPY --from=a /bin/busybox /a\nCOPY --from=c /bin/busybox /c\n`,
    },
    { nocache: "1" },
  );
  assert.equal(result.error, "");
  assert.deepEqual(said(result.output), ["from a", "from b", "from c"]);
  const steps = [...result.output.matchAll(/^Step (\d+)\/9/gm)].map((match) => Number(match[1]));
  assert.deepEqual(steps, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test("a client that goes away ends the running step, and nothing stays", async () => {
  let seen = false;
  await build(
    daemon,
    { Dockerfile: "FROM busybox\nRUN echo started; sleep 100\n" },
    { nocache: "1" },
    (output) => {
      seen ||= output.includes("started");
      return seen ? "stop" : undefined;
    },
  );
  assert.ok(seen);
  await assertNothingLeft();
});

test("a client that goes away while its build waits for a locked cache mount holds up nobody", async () => {
  const mount = "RUN --mount=type=cache,target=/c,id=waited,sharing=locked";
  const holder = Promise.withResolvers<void>();
  const holding = build(
    daemon,
    { Dockerfile: `FROM busybox\n${mount} echo holding; until [ -e /c/go ]; do sleep 0.1; done\n` },
    { nocache: "1" },
    (output) => {
      if (said(output).includes("holding")) holder.resolve();
      return undefined;
    },
  );
  await holder.promise;
  await build(daemon, { Dockerfile: `FROM busybox\n${mount} true\n` }, { nocache: "1" }, (output) =>
    output.includes("Step 2/2") ? "stop" : undefined,
  );
  const next = build(daemon, { Dockerfile: `FROM busybox\n${mount} echo next\n` }, { nocache: "1" });
  const go = `FROM busybox\n${mount.replace(",sharing=locked", "")} touch /c/go\n`;
  assert.equal((await build(daemon, { Dockerfile: go }, { nocache: "1" })).error, "");
  assert.deepEqual([(await holding).error, said((await next).output)], ["", ["next"]]);
  await assertNothingLeft();
});

test("a daemon that is killed in the middle of a step leaves nothing behind", async () => {
  const context = { Dockerfile: "FROM busybox\nENV A=1\nRUN echo started; sleep 100\n" };
  await build(daemon, context, {}, (output) => {
    if (output.includes("started")) void daemon.kill();
    return undefined;
  });
  await daemon.restart();
  await assertNothingLeft();
  assert.match(daemon.log(), /skiffd is ready/);
});

test("127 layers are built and run; the 128th is refused before its work is done", async () => {
  const copies = Array.from({ length: 126 }, (_, index) => `COPY <<E /f${index}\n${index}\nE\n`).join("");
  const full = await build(
    daemon,
    { Dockerfile: `FROM busybox\n${copies}CMD ["cat", "/f125"]\n` },
    { t: "full:1" },
  );
  assert.equal(full.error, "");
  assert.equal((await inspect("full:1")).RootFS.Layers.length, 127);
  const container = await call<{ Id: string }>(daemon.socket, "POST", "/containers/create", {
    Image: "full:1",
  });
  const id = container.body!.Id;
  assert.equal((await call(daemon.socket, "POST", `/containers/${id}/start`)).status, 204);
  const exit = await call<{ StatusCode: number }>(daemon.socket, "POST", `/containers/${id}/wait`);
  assert.equal(exit.body!.StatusCode, 0);
  assert.match((await call(daemon.socket, "GET", `/containers/${id}/logs?stdout=1`)).text, /125\n$/);
  const commit = await call(daemon.socket, "POST", `/commit?container=${id}&repo=more`);
  assert.equal(commit.status, 201, "nothing was changed: no layer is added");
  await call(daemon.socket, "DELETE", `/containers/${id}?force=1`);
  const more = await build(daemon, { Dockerfile: "FROM full:1\nRUN echo never\n" });
  assert.match(more.error, /max depth exceeded/);
  assert.deepEqual(said(more.output), []);
  const run = await build(daemon, { Dockerfile: `FROM busybox\n${copies}` }, { t: "full:1" });
  assert.equal(run.output.match(/Using cache/g)?.length, 126);
});

test("RUN mounts: cache stays, tmpfs and bind leave nothing in the image", async () => {
  const lines = [
    "FROM busybox",
    "RUN --mount=type=cache,target=/c,id=one echo 1 >> /c/n; wc -l < /c/n",
    "RUN --mount=type=cache,target=/other,id=one,sharing=locked echo 2 >> /other/n; wc -l < /other/n",
    "RUN --mount=type=tmpfs,target=/t touch /t/x",
    "RUN --mount=type=bind,source=d,target=/b cat /b/f; touch /b/no 2>/dev/null || echo read-only",
    "RUN ls -d /c /other /t /b 2>/dev/null; echo none",
  ];
  const result = await build(daemon, { Dockerfile: lines.join("\n"), "d/f": "bound\n" });
  assert.equal(result.error, "");
  assert.deepEqual(
    said(result.output).map((line) => line.trim()),
    ["1", "2", "bound", "read-only", "none"],
  );
  const changed = await build(daemon, { Dockerfile: lines.join("\n"), "d/f": "changed\n" });
  // The step with the other files runs again; it changes nothing, so what follows is the same as before.
  assert.match(changed.output, /^changed$/m);
  assert.equal(changed.output.match(/Using cache/g)?.length, 4);
});

test("the filter is on in every RUN, and nothing grants more", async () => {
  const result = await build(daemon, {
    Dockerfile: "FROM busybox\nRUN grep -E 'Seccomp:|CapEff' /proc/self/status\n",
  });
  assert.match(result.output, /Seccomp:\s+2/);
  assert.match(result.output, /CapEff:\s+00000000a80425fb/);
  const insecure = await build(daemon, { Dockerfile: "FROM busybox\nRUN --security=insecure true\n" });
  assert.match(insecure.error, /security.insecure is not allowed/);
});

test("hostile contexts reach nothing outside of themselves", async () => {
  const canary = join(daemon.home, "canary");
  writeFileSync(canary, "secret\n");
  const cases: readonly (readonly [string, Parameters<typeof build>[1], RegExp])[] = [
    ["climbing entry", { Dockerfile: "FROM busybox\n", "../x": "x" }, /outside of/],
    [
      "absolute link",
      { Dockerfile: "FROM busybox\nCOPY l /l\n", l: { link: canary } },
      /file does not exist/,
    ],
    [
      "climbing link",
      { Dockerfile: "FROM busybox\nCOPY l /l\n", l: { link: `../../../../../../..${canary}` } },
      /file does not exist/,
    ],
    [
      "link as a directory",
      { Dockerfile: "FROM busybox\nCOPY d/canary /l\n", d: { link: daemon.home } },
      /file does not exist/,
    ],
    [
      "links in a circle",
      { Dockerfile: "FROM busybox\nCOPY a /l\n", a: { link: "b" }, b: { link: "a" } },
      /symbolic links/,
    ],
    [
      "Dockerfile as a link to the host",
      { Dockerfile: { link: canary } },
      /Cannot locate specified Dockerfile/,
    ],
    [
      "climbing source",
      { Dockerfile: "FROM busybox\nCOPY ../x /l\n" },
      /forbidden path outside the build context/,
    ],
    [
      "whiteout as a file",
      { Dockerfile: "FROM busybox\nCOPY . /l\n", "d/.wh.x": "" },
      /cannot be stored in a layer/,
    ],
    [
      "hard link to nothing",
      { Dockerfile: "FROM busybox\n", h: { hardlink: "/etc/passwd" } },
      /missing file/,
    ],
    [
      "bind of a link to the host",
      { Dockerfile: "FROM busybox\nRUN --mount=type=bind,source=l,target=/l cat /l\n", l: { link: canary } },
      /file does not exist/,
    ],
    ["not an archive", Buffer.from("x".repeat(3000)), /tar/],
    [
      "half an archive",
      contextTar({ Dockerfile: "FROM busybox\n", big: "x".repeat(5000) }).subarray(0, 2500),
      /unexpected EOF/,
    ],
    ["nothing", Buffer.alloc(0), /Cannot locate specified Dockerfile/],
  ];
  for (const [name, entries, expected] of cases) {
    const result = await build(daemon, entries);
    assert.match(result.error, expected, name);
    assert.ok(!result.output.includes("secret"), name);
  }
  const stored = await build(daemon, {
    Dockerfile: "FROM busybox\nCOPY . /l\nRUN cat /l/host 2>&1 || echo not ours\n",
    host: { link: canary },
  });
  assert.deepEqual(said(stored.output).at(-1), "not ours");
  assert.equal(readFileSync(canary, "utf8"), "secret\n");
  await assertNothingLeft();
});

test("malformed requests are refused by what is wrong with them", async () => {
  const good = { Dockerfile: "FROM busybox\n" };
  const cases: readonly (readonly [Readonly<Record<string, string>>, RegExp])[] = [
    [{ buildargs: "{" }, /buildargs/],
    [{ buildargs: "[1]" }, /buildargs/],
    [{ labels: '{"a":1}' }, /labels/],
    [{ ulimits: '[{"Name":1}]' }, /ulimits/],
    [{ t: "UPPER" }, /invalid|reference/],
    [{ t: `a@sha256:${"0".repeat(64)}` }, /digest/],
    [{ memory: "x" }, /invalid syntax/],
    [{ cachefrom: "{}" }, /cachefrom/],
    [{ allow: "everything" }, /unknown entitlement/],
    [{ platform: "a/b/c/d" }, /platform/],
    [{ target: "none" }, /failed to reach build target none/],
    [{ dockerfile: "../../etc/passwd" }, /Cannot locate|outside/],
    [{ version: "2" }, /BuildKit/],
    [{ remote: "ext::sh -c id" }, /neither an http URL nor a git repository/],
    [{ remote: "--upload-pack=x" }, /neither an http URL nor a git repository/],
    [{ remote: "file:///etc/passwd" }, /neither an http URL nor a git repository/],
    [{ remote: "file:///etc/x.git" }, /neither an http URL nor a git repository/],
    [{ remote: "ssh://-oProxyCommand=x/r.git" }, /invalid git address/],
    [{ remote: "http://127.0.0.1:1/r.git#--upload-pack=x" }, /invalid git ref/],
  ];
  for (const [query, expected] of cases) {
    const result = await build(daemon, good, query);
    assert.match(result.error, expected, JSON.stringify(query));
    assert.ok(
      (result.status >= 400 && result.status < 500) || result.status === 501,
      `${JSON.stringify(query)}: ${result.status}`,
    );
  }
  const proto = await build(
    daemon,
    { Dockerfile: "FROM busybox\nARG __proto__\nARG constructor\nENV A=$constructor-$toString\n" },
    {
      buildargs: '{"__proto__":"x","constructor":"y"}',
      t: "proto:1",
      labels: '{"constructor":"z","1":"one"}',
    },
  );
  assert.equal(proto.error, "");
  const { Config } = await inspect("proto:1");
  assert.ok(Config.Env.includes("A=y-"));
  assert.deepEqual(Config.Labels, { 1: "one", constructor: "z" });
});

test("the cache is counted, and giving it back frees the disk", async () => {
  const built = await build(
    daemon,
    { Dockerfile: "FROM busybox\nRUN head -c 3000000 /dev/urandom > /big\n" },
    { t: "big:1", nocache: "1" },
  );
  assert.equal(built.error, "");
  const layer = (await inspect("big:1")).RootFS.Layers.at(-1)!.slice(7);
  const directory = join(daemon.dataRoot, "overlay2", layer);
  const used = async (): Promise<number> => {
    const df = await call<{ BuildCache: { Size: number; Shared: boolean }[] }>(
      daemon.socket,
      "GET",
      "/system/df",
    );
    return df.body!.BuildCache.filter(({ Shared }) => !Shared).reduce((sum, { Size }) => sum + Size, 0);
  };
  const before = await used();
  await call(daemon.socket, "DELETE", "/images/big:1");
  assert.equal(await used(), before + 3_000_000);
  assert.ok(existsSync(directory));
  const pruned = await call<{ SpaceReclaimed: number; CachesDeleted: string[] }>(
    daemon.socket,
    "POST",
    "/build/prune",
  );
  assert.equal(pruned.body!.SpaceReclaimed, before + 3_000_000);
  assert.equal(await used(), 0);
  assert.ok(!existsSync(directory));
});

test("cache mounts are counted and go by the same filters", async () => {
  type Usage = { ID: string; Type: string; Size: number; InUse: boolean };
  const usage = async (): Promise<Usage[]> =>
    (await call<{ BuildCache: Usage[] }>(daemon.socket, "GET", "/system/df")).body!.BuildCache;
  const prune = async (
    filters: object,
    query = "",
  ): Promise<{ status: number; deleted: string[]; bytes: number }> => {
    const text = encodeURIComponent(JSON.stringify(filters));
    const answer = await call<{ CachesDeleted: string[]; SpaceReclaimed: number }>(
      daemon.socket,
      "POST",
      `/build/prune?filters=${text}${query}`,
    );
    return {
      status: answer.status,
      deleted: answer.body?.CachesDeleted ?? [],
      bytes: answer.body?.SpaceReclaimed ?? 0,
    };
  };
  await prune({}, "&all=1");
  const dockerfile = [
    "FROM busybox",
    "RUN --mount=type=cache,target=/c,id=counted head -c 100000 /dev/zero > /c/f; ln -s /etc /c/l",
    "RUN head -c 5000 /dev/urandom > /r",
  ].join("\n");
  await build(daemon, { Dockerfile: dockerfile }, { t: "counted:1" });
  const mount = (await usage()).find(({ Type }) => Type === "exec.cachemount");
  assert.equal(mount?.Size, 100_000);
  assert.deepEqual(await prune({ until: ["1h"] }), { status: 200, deleted: [], bytes: 0 });
  assert.deepEqual(await prune({ type: ["source.local"] }), { status: 200, deleted: [], bytes: 0 });
  assert.deepEqual(await prune({ inuse: ["true"] }), { status: 200, deleted: [], bytes: 0 });
  // Two at once: one of them has it, and neither fails.
  const only = { type: ["exec.cachemount"] };
  const both = await Promise.all([prune(only), prune(only)]);
  assert.deepEqual(
    both.map(({ status }) => status),
    [200, 200],
  );
  assert.deepEqual(
    both.flatMap(({ deleted }) => deleted),
    [mount!.ID],
  );
  assert.equal(both[0]!.bytes + both[1]!.bytes, 100_000);
  assert.deepEqual(
    readdirSync(join(daemon.dataRoot, "build-cache")).filter((name) => name.startsWith("gone-")),
    [],
  );
  assert.equal((await usage()).length, 1);
  // An image has the layers: they go from the cache only by `all`, and free nothing.
  assert.deepEqual((await prune({ shared: ["true"] })).deleted, []);
  const shared = await prune({ description: ["/bin/sh -c head -c 5000 /dev/urandom > /r"] }, "&all=1");
  assert.equal(shared.deleted.length, 1);
  assert.equal(shared.bytes, 0);
  assert.equal((await prune({ nonsense: ["1"] })).status, 400);
  assert.equal((await prune({ id: ["a", "b"] })).status, 400);
});
