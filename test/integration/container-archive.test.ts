import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { type IncomingMessage, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { TarEntry } from "#archive/tar-format.ts";
import { TarReader } from "#archive/tar-read.ts";
import { TarWriter } from "#archive/tar-write.ts";
import { bytesOfText } from "#base/byte-string.ts";
import { type ContainerLab, docker, ok, openLab } from "./container-lab.ts";

interface Reply {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  readonly body: Buffer;
  readonly message: string;
}

interface Wanted {
  readonly path: string;
  readonly type?: TarEntry["type"];
  readonly content?: string;
  readonly link?: string;
  readonly mode?: number;
}

function tarOf(entries: readonly Wanted[]): Buffer {
  const chunks: Buffer[] = [];
  const tar = new TarWriter((chunk) => chunks.push(Buffer.from(chunk)));
  for (const { path, type = "file", content = "", link = "", mode } of entries) {
    tar.entry({
      path: bytesOfText(path),
      type,
      mode: mode ?? (type === "directory" ? 0o755 : 0o644),
      uid: 7,
      gid: 8,
      sizeBytes: type === "file" ? content.length : 0,
      mtimeNs: 1_000_000_000n,
      linkPath: bytesOfText(link),
      deviceMajor: 0,
      deviceMinor: 0,
    });
    if (type === "file") tar.data(Buffer.from(content));
  }
  tar.finish();
  return Buffer.concat(chunks);
}

/** Names to contents (or link targets) of an archive. */
function entriesOf(archive: Buffer): Map<string, string> {
  const found = new Map<string, string>();
  let current: TarEntry | undefined;
  const tar = new TarReader({
    entry: (entry) => {
      current = entry;
      found.set(entry.path, entry.linkPath);
    },
    data: (chunk) => {
      const name = current?.path ?? "";
      found.set(name, (found.get(name) ?? "") + Buffer.from(chunk).toString("latin1"));
    },
    end: () => {},
  });
  tar.push(archive);
  tar.finish();
  return found;
}

describe("files of containers", () => {
  let lab: ContainerLab;
  let canary: string;

  before(async () => {
    lab = await openLab();
    canary = mkdtempSync(join(tmpdir(), "skiff-canary-"));
    writeFileSync(join(canary, "secret"), "outside\n");
    mkdirSync(join(canary, "deep"));
  });
  after(async () => {
    rmSync(canary, { recursive: true, force: true });
    await lab[Symbol.asyncDispose]();
  });

  function send(
    method: string,
    id: string,
    query: Readonly<Record<string, string>>,
    body?: Buffer,
  ): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const path = `/containers/${id}/archive?${new URLSearchParams(query)}`;
      const outgoing = request({
        socketPath: lab.socket,
        method,
        path,
        agent: false,
        headers: { "content-type": "application/x-tar", "content-length": body?.length ?? 0 },
      });
      outgoing.on("error", reject);
      outgoing.on("response", (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => {
          const whole = Buffer.concat(chunks);
          const isJson = whole.length > 0 && response.headers["content-type"] === "application/json";
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: whole,
            message: isJson ? (JSON.parse(whole.toString()) as { message: string }).message : "",
          });
        });
      });
      outgoing.end(body);
    });
  }

  const get = (id: string, path: string): Promise<Reply> => send("GET", id, { path });
  const put = (
    id: string,
    path: string,
    entries: readonly Wanted[],
    query: Readonly<Record<string, string>> = {},
  ): Promise<Reply> => send("PUT", id, { path, ...query }, tarOf(entries));

  /** A container that has made its files. */
  async function running(name: string, script: string, ...flags: string[]): Promise<void> {
    const command = `${script}; touch /ready; while :; do sleep 100; done`;
    await ok(lab, ["run", "-d", "--name", name, ...flags, "busybox", "sh", "-c", command]);
    await appears(name, "/ready");
  }

  async function appears(name: string, path: string): Promise<void> {
    const deadline = performance.now() + 20_000;
    while ((await get(name, path)).status !== 200) {
      assert.ok(performance.now() < deadline, `${path} does not appear in ${name}`);
    }
  }

  test("volumes, binds, tmpfs are seen alike in a running, a paused and a stopped container", async () => {
    const shared = mkdtempSync(join(tmpdir(), "skiff-bind-"));
    writeFileSync(join(shared, "from-host"), "host\n");
    const mounts = ["-v", "arc:/data", "-v", `${shared}:/bind`, "-v", `${shared}:/fixed:ro`];
    try {
      await ok(lab, ["create", "--name", "arc", ...mounts, "busybox", "sleep", "100"]);
      const contents = async (): Promise<(string | undefined)[]> => {
        const [data, bind] = [await get("arc", "/data/."), await get("arc", "/bind")];
        return [entriesOf(data.body).get("./file"), entriesOf(bind.body).get("bind/from-host")];
      };
      // Created and never started: the volume has what the image has there.
      assert.deepEqual(await contents(), ["from-image\n", "host\n"]);
      assert.equal((await put("arc", "/data", [{ path: "stopped", content: "1" }])).status, 200);
      await ok(lab, ["start", "arc"]);
      assert.equal((await ok(lab, ["exec", "arc", "cat", "/data/stopped"])).trim(), "1");
      assert.deepEqual(await contents(), ["from-image\n", "host\n"]);
      await ok(lab, ["pause", "arc"]);
      assert.deepEqual(await contents(), ["from-image\n", "host\n"]);
      assert.equal((await put("arc", "/", [{ path: "frozen", content: "2" }])).status, 200);
      await ok(lab, ["unpause", "arc"]);
      assert.equal((await ok(lab, ["exec", "arc", "cat", "/frozen"])).trim(), "2");
      for (const state of ["running", "stopped"]) {
        const refused = await put("arc", "/fixed", [{ path: "x" }]);
        assert.deepEqual(
          [refused.status, refused.message],
          [500, "mounted volume is marked read-only"],
          state,
        );
        const busy = await put("arc", "/etc", [{ path: "hosts", content: "mine" }]);
        assert.equal(busy.message, "unlinkat /etc/hosts: device or resource busy", state);
        // By way of a link in a writable place: the mount itself refuses.
        const link = [
          { path: "way", type: "symlink", link: "/fixed" } as const,
          { path: "way/x", content: "1" },
        ];
        assert.match((await put("arc", "/tmp", link)).message, /read-only file system/, state);
        if (state === "running") await ok(lab, ["stop", "-t", "0", "arc"]);
      }
      assert.deepEqual(readdirSync(shared), ["from-host"]);
      assert.equal(
        existsSync(join(lab.execRoot, "containers", await ok(lab, ["inspect", "-f", "{{.Id}}", "arc"]))),
        false,
      );
    } finally {
      await ok(lab, ["rm", "-fv", "arc"]);
      rmSync(shared, { recursive: true });
    }
  });

  test("a read-only root file system is refused, a volume in it is not, running or not", async () => {
    await running("fixed", "true", "--read-only", "--tmpfs", "/ready", "-v", "/vol");
    for (const state of ["running", "stopped"]) {
      const refused = await put("fixed", "/data", [{ path: "x" }]);
      assert.deepEqual(
        [refused.status, refused.message],
        [500, "container rootfs is marked read-only"],
        state,
      );
      const through = [{ path: "way", type: "symlink", link: "/vol/../tmp" } as const, { path: "way/x" }];
      assert.match((await put("fixed", "/vol", through)).message, /read-only file system/, state);
      assert.equal((await put("fixed", "/vol", [{ path: "y", content: state }])).status, 200, state);
      assert.equal(entriesOf((await get("fixed", "/vol/y")).body).get("y"), state);
      if (state === "running") await ok(lab, ["stop", "-t", "0", "fixed"]);
    }
    await ok(lab, ["rm", "-fv", "fixed"]);
  });

  test("archives unpack as Docker's: names, owners, what replaces what", async () => {
    await running("words", "mkdir -p /d/sub; echo f >/d/f; ln -s /d /ld; ln -s /gone /broken", "-u", "0");
    const message = async (path: string, entries: readonly Wanted[], query = {}): Promise<string> =>
      (await put("words", path, entries, query)).message;
    const strict = { noOverwriteDirNonDir: "true" };
    assert.equal(await message("/gone", []), "Could not find the file /gone in container words");
    assert.equal(await message("/d/f", []), "extraction point is not a directory");
    assert.equal(await message("/d", [{ path: "../x" }]), '"../x" is outside of "/d"');
    assert.equal(
      await message("/d", [{ path: "l", type: "symlink", link: "../../x" }]),
      'invalid symlink "/d/l" -> "../../x"',
    );
    assert.equal(
      await message("/d", [{ path: "h", type: "link", link: "../etc/passwd" }]),
      'invalid hardlink "/etc/passwd" -> "../etc/passwd"',
    );
    assert.equal(
      await message("/", [{ path: "d" }], strict),
      'cannot overwrite directory "/d" with non-directory "/"',
    );
    assert.equal(
      await message("/d", [{ path: "f", type: "directory" }], strict),
      'cannot overwrite non-directory "/d/f" with directory "/d"',
    );
    assert.equal(await message("/proc", [{ path: "x" }]), "extraction point is not a directory");
    const sysctl = [{ path: "w", type: "symlink", link: "/proc/sys" } as const, { path: "w/x" }];
    assert.match(await message("/d", sysctl), /operation not permitted/);
    assert.equal(
      await message("/ld", [
        { path: "a/b", content: "1" },
        { path: "sub", content: "2" },
      ]),
      "",
    );
    assert.equal(
      await ok(lab, ["exec", "words", "sh", "-c", "stat -c %u:%g:%Y /d/a/b; cat /d/sub"]),
      "7:8:1\n2",
    );
    const cut = tarOf([{ path: "big", content: "x".repeat(5000) }]).subarray(0, 3000);
    const truncated = await send("PUT", "words", { path: "/d" }, cut);
    assert.deepEqual([truncated.status, truncated.message], [500, "unexpected EOF"]);
    assert.equal((await get("words", "/d/big")).status, 404, "a file that is not whole does not stay");
    await ok(lab, ["rm", "-f", "words"]);
  });

  test("the kernel's file systems stay as they are where an archive names their mount points", async () => {
    await running("points", "true");
    const look = (): Promise<string> =>
      ok(lab, ["exec", "points", "stat", "-c", "%n %a %u %g", "/proc", "/sys", "/dev/pts"]);
    const before = await look();
    const unpacked = await put("points", "/", [
      { path: "sys/", type: "directory", mode: 0o700 },
      { path: "proc/", type: "directory", mode: 0o700 },
      { path: "dev/pts/", type: "directory", mode: 0o700 },
      { path: "plain/", type: "directory", mode: 0o700 },
      { path: "plain/file", content: "1" },
    ]);
    assert.deepEqual([unpacked.status, unpacked.message], [200, ""]);
    assert.equal(await look(), before);
    assert.equal(
      (await ok(lab, ["exec", "points", "sh", "-c", "stat -c '%a %u %Y' /plain; cat /plain/file"])).trim(),
      "700 7 1\n1",
    );
    await ok(lab, ["rm", "-f", "points"]);
  });

  test("status of a path; the kernel's own files are not there", async () => {
    await running("look", "mkdir /d; echo hi >/d/f; chmod 4755 /d/f; ln -s ../d/f /d/l; ln -s /a/b /broken");
    const stat = async (path: string): Promise<unknown> => {
      const { status, headers } = await send("HEAD", "look", { path });
      const header = headers["x-docker-container-path-stat"];
      if (status !== 200) return status;
      const { name, mode, linkTarget } = JSON.parse(Buffer.from(String(header), "base64").toString());
      return [name, mode, linkTarget];
    };
    assert.deepEqual(await stat("/d/f"), ["f", 2 ** 23 + 0o755, ""]);
    assert.deepEqual(await stat("d/"), ["d", 2 ** 31 + 0o755, ""]);
    assert.deepEqual(await stat("/d/."), [".", 2 ** 31 + 0o755, ""]);
    assert.deepEqual(await stat("/d/l"), ["l", 2 ** 27 + 0o777, "/d/f"]);
    assert.deepEqual(await stat("/broken"), ["broken", 2 ** 27 + 0o777, "/a/b"]);
    assert.deepEqual(await stat("/proc/version"), 404);
    assert.deepEqual(await stat("/d/f/"), 500);
    const root = entriesOf((await get("look", "/")).body);
    assert.equal(root.get("/d/f"), "hi\n");
    const kernel = [...root.keys()].filter((name) => /^\/(proc|sys|dev)\/./.test(name));
    assert.deepEqual(kernel, []);
    await ok(lab, ["rm", "-f", "look"]);
  });

  test("a container that swaps directories for links to the host leads no copy out of its root", async () => {
    const up = `../../../../../../../..${canary}`;
    const swap = (name: string, link: string): string =>
      // Each round begins with a directory, whatever a copy did to the names meanwhile.
      `mkdir -p /s/${name}/deep; (cd /s; while :; do rm -rf ${name}.d ${name}.k; [ -d ${name} -a ! -L ${name} ] || { rm -rf ${name}; mkdir -p ${name}/deep; }; mv ${name} ${name}.d; ln -s ${link} ${name}; mv ${name}.d ${name}.k; rm -f ${name}; mv ${name}.k ${name}; done) 2>/dev/null & true`;
    await running("swap", `${swap("abs", canary)}; ${swap("rel", up)}`);
    const before = readFileSync(join(canary, "secret"));
    const replies = { read: 0, written: 0 };
    const attack = async (name: string): Promise<void> => {
      const enough = (): boolean => replies.read > 0 && replies.written > 0;
      for (let round = 0; round < 40 || (round < 1000 && !enough()); round += 1) {
        const path = round % 2 === 0 ? `/s/${name}/` : `/s/${name}/deep`;
        const read = await get("swap", path).catch(() => undefined);
        if (read?.status === 200) {
          replies.read += 1;
          assert.equal(read.body.includes("outside"), false, "the host's file was read");
        }
        const written = await put("swap", path, [
          { path: "planted", content: "x" },
          { path: "deep/sub/planted", content: "x" },
          { path: "secret", content: "overwritten" },
        ]).catch(() => undefined);
        if (written?.status === 200) replies.written += 1;
        // Replaced directories are removed first: a removal must not wander off either.
        await put("swap", "/s", [{ path: `${name}/deep/sub`, content: "file" }]).catch(() => undefined);
      }
    };
    await Promise.all([attack("abs"), attack("rel")]);
    assert.ok(replies.read > 0 && replies.written > 0, "some copies succeeded");
    assert.deepEqual(readdirSync(canary).sort(), ["deep", "secret"]);
    assert.deepEqual(readdirSync(join(canary, "deep")), []);
    assert.deepEqual(readFileSync(join(canary, "secret")), before);
    await ok(lab, ["rm", "-f", "swap"]);
  });

  test("a link that another container swaps in a shared volume never moves what is read-only", async () => {
    const fixed = mkdtempSync(join(tmpdir(), "skiff-fixed-"));
    writeFileSync(join(fixed, "from-host"), "host\n");
    const swap =
      "mkdir -p /vol/one/x /vol/two/x; (cd /vol; while :; do for to in one two; do ln -s $to new; mv -T new way; done; done) & until [ -L /vol/way ]; do :; done";
    await running("swapper", swap, "-v", "swapped:/vol");
    const mounts = ["-v", "swapped:/vol", "-v", `${fixed}:/vol/way/x:ro`];
    await ok(lab, ["create", "--name", "stopped", ...mounts, "busybox", "true"]);
    const link = (to: string): Wanted[] => [
      { path: "l", type: "symlink", link: `/vol/${to}/x` },
      { path: "l/planted", content: "1" },
    ];
    for (let round = 0; round < 20; round += 1) {
      const { status, message } = await put("stopped", "/tmp", link(round % 2 === 0 ? "one" : "two"));
      // Where the bind went to the other directory, this one is the volume's own.
      if (status !== 200) assert.match(message, /read-only file system/);
    }
    assert.deepEqual(readdirSync(fixed), ["from-host"]);
    await ok(lab, ["rm", "-fv", "swapper", "stopped"]);
    await ok(lab, ["volume", "rm", "swapped"]);
    rmSync(fixed, { recursive: true });
  });

  /** Begins a copy and stops reading or sending; gives what ends it. */
  function stalled(
    method: "GET" | "PUT",
    id: string,
    path: string,
  ): Promise<{ ended: Promise<string>; cut(): void; read(): void }> {
    return new Promise((resolve) => {
      const outgoing = request({
        socketPath: lab.socket,
        method,
        path: `/containers/${id}/archive?${new URLSearchParams({ path })}`,
        agent: false,
        headers: method === "PUT" ? { "content-type": "application/x-tar", "content-length": 1e9 } : {},
      });
      const cut = (): void => void outgoing.destroy();
      const ended = new Promise<string>((done) => {
        outgoing.on("error", () => done("broken"));
        outgoing.on("response", (response) => {
          response.on("error", () => done("broken"));
          if (method === "GET") {
            response.pause();
            resolve({ ended, cut, read: () => response.resume() });
            return;
          }
          const chunks: Buffer[] = [];
          response.on("data", (chunk: Buffer) => chunks.push(chunk));
          response.on("end", () => done(`${response.statusCode} ${Buffer.concat(chunks)}`));
        });
      });
      if (method === "GET") outgoing.end();
      else {
        outgoing.write(tarOf([{ path: "begun", content: "1" }]).subarray(0, 1024), () =>
          resolve({ ended, cut, read: () => {} }),
        );
      }
    });
  }

  test("a daemon that is killed in the midst of copies leaves a stopped container as it was", async () => {
    await running("struck", "dd if=/dev/zero of=/big bs=1M count=24 2>/dev/null", "-v", "/vol");
    await ok(lab, ["stop", "-t", "0", "struck"]);
    const copies = [await stalled("GET", "struck", "/big"), await stalled("PUT", "struck", "/vol")];
    await appears("struck", "/vol/begun");
    await lab.kill();
    copies[0]!.read();
    assert.deepEqual(await Promise.all(copies.map(({ ended }) => ended)), ["broken", "broken"]);
    await lab.start();
    assert.equal((await put("struck", "/vol", [{ path: "after", content: "2" }])).status, 200);
    assert.equal(entriesOf((await get("struck", "/vol/after")).body).get("after"), "2");
    await ok(lab, ["start", "struck"]);
    assert.equal(
      (await ok(lab, ["exec", "struck", "sh", "-c", "stat -c %s /big; cat /vol/after"])).trim(),
      `${24 * 2 ** 20}\n2`,
    );
    await ok(lab, ["rm", "-fv", "struck"]);
    assert.deepEqual(readdirSync(join(lab.execRoot, "containers")), []);
  });

  test("a start waits for copies, a removal ends them, and a client that goes leaves nothing", async () => {
    await ok(lab, ["create", "--name", "busy", "busybox", "sh", "-c", "cat /late"]);
    const first = await stalled("PUT", "busy", "/");
    await appears("busy", "/begun");
    const starting = docker(lab, ["start", "-a", "busy"]);
    // Its client goes: the start, which waited for it, goes on.
    first.cut();
    assert.match((await starting).stderr, /can't open '\/late'/);
    await ok(lab, ["rm", "busy"]);
    await running("gone", "dd if=/dev/zero of=/big bs=1M count=24 2>/dev/null");
    const [reading, writing] = [await stalled("GET", "gone", "/big"), await stalled("PUT", "gone", "/")];
    await appears("gone", "/begun");
    await ok(lab, ["rm", "-f", "gone"]);
    reading.read();
    assert.equal(await reading.ended, "broken");
    assert.match(await writing.ended, /^409 .*the copy was ended: the container is removed/);
  });
});
