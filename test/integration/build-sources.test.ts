import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer, request, type Server } from "node:http";
import { createServer as createSocketServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { call } from "../peers/engine-call.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";
import { build, contextTar, said, startBuildDaemon } from "./build-lab.ts";

/** Where a build's files come from, and what it may ask of its client. Git is served by git's own CGI program on loopback. */
let daemon: TestDaemon;
let server: Server;
let address = "";
const home = mkdtempSync(join(tmpdir(), "skiff-build-sources-"));
const skiff = join(import.meta.dirname, "../../bin/skiff");
let firstCommit = "";

function git(...args: readonly string[]): string {
  const env = { PATH: process.env["PATH"], HOME: home, GIT_CONFIG_NOSYSTEM: "1" };
  const who = ["-c", "user.name=a", "-c", "user.email=a"];
  return execFileSync("git", [...who, "-C", join(home, "work.git"), ...args], {
    env,
    encoding: "utf8",
  }).trim();
}

function commit(files: Readonly<Record<string, string>>): string {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(home, "work.git", name, ".."), { recursive: true });
    writeFileSync(join(home, "work.git", name), text);
  }
  git("add", "-A");
  git("commit", "-q", "-m", "x");
  return git("rev-parse", "HEAD");
}

/** Smart http by git-http-backend(1); other files as they are. */
function serve(): Server {
  return createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://x");
    if (!url.pathname.includes(".git/")) {
      const path = join(home, "served", url.pathname);
      if (existsSync(path)) response.end(readFileSync(path));
      else response.writeHead(404).end();
      return;
    }
    const child = spawn("/usr/lib/git-core/git-http-backend", {
      env: {
        GIT_PROJECT_ROOT: home,
        GIT_HTTP_EXPORT_ALL: "1",
        PATH_INFO: url.pathname.replace(".git/", ".git/.git/"),
        QUERY_STRING: url.search.slice(1),
        REQUEST_METHOD: request.method,
        CONTENT_TYPE: request.headers["content-type"] ?? "",
        HTTP_CONTENT_ENCODING: request.headers["content-encoding"] ?? "",
        ...(request.headers["git-protocol"] === undefined
          ? {}
          : { GIT_PROTOCOL: String(request.headers["git-protocol"]) }),
      },
    });
    request.pipe(child.stdin);
    const parts: Buffer[] = [];
    child.stdout.on("data", (chunk: Buffer) => parts.push(chunk));
    child.on("close", () => {
      const answer = Buffer.concat(parts);
      const end = answer.indexOf("\r\n\r\n");
      const heads = answer
        .toString("latin1", 0, end)
        .split("\r\n")
        .map((line) => line.split(": ") as [string, string]);
      const status = heads.find(([name]) => name === "Status")?.[1] ?? "200";
      response.writeHead(
        Number.parseInt(status, 10),
        Object.fromEntries(heads.filter(([name]) => name !== "Status")),
      );
      response.end(answer.subarray(end + 4));
    });
  });
}

before(async () => {
  daemon = await startBuildDaemon();
  mkdirSync(join(home, "work.git"));
  mkdirSync(join(home, "served"));
  git("init", "-q", "-b", "main");
  symlinkSync("/etc", join(home, "work.git/escape"));
  firstCommit = commit({
    Dockerfile: "FROM busybox\nCOPY . /all/\nRUN ls -A /all; cat /all/a.txt\n",
    ".dockerignore": "*.md\n!keep.md\nescape\n",
    "a.txt": "from git\n",
    "x.md": "x",
    "keep.md": "x",
    "sub/Dockerfile": "FROM busybox\nCOPY b.txt /\nRUN cat /b.txt\n",
    "sub/b.txt": "from sub\n",
  });
  git("tag", "v1");
  commit({ "a.txt": "newer\n" });
  server = serve();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  address = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
});
after(async () => {
  server?.close();
  await daemon?.[Symbol.asyncDispose]();
  rmSync(home, { recursive: true, force: true });
});

interface Outcome {
  readonly code: number | null;
  readonly text: string;
}

function cli(
  args: readonly string[],
  options: { input?: string; cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, DOCKER_CONFIG: home, ...options.env };
    const child = spawn(skiff, ["-H", daemon.host, ...args], {
      cwd: options.cwd ?? home,
      env,
      timeout: 60_000,
    });
    let text = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk: Buffer) => {
        text += chunk.toString("utf8");
      });
    child.stdin.on("error", () => {});
    child.stdin.end(options.input ?? "");
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, text }));
  });
}

test("a git repository as remote: ref, directory, ignore file", async () => {
  const whole = await build(daemon, Buffer.alloc(0), { remote: `${address}/work.git#v1` });
  assert.equal(whole.error, "");
  assert.deepEqual(said(whole.output), [
    ".dockerignore",
    "Dockerfile",
    "a.txt",
    "keep.md",
    "sub",
    "from git",
  ]);
  const sub = await build(daemon, Buffer.alloc(0), { remote: `${address}/work.git#main:sub` });
  assert.deepEqual(said(sub.output), ["from sub"]);
  for (const [remote, expected] of [
    [`${address}/work.git#none`, /couldn't find remote ref none/],
    [`${address}/work.git#main:escape`, /"escape" is no directory/],
    [`${address}/none.git`, /error fetching/],
  ] as const)
    assert.match((await build(daemon, Buffer.alloc(0), { remote })).error, expected);
});

test("an archive and a lone Dockerfile as remote", async () => {
  writeFileSync(
    join(home, "served/context.tar"),
    contextTar({ Dockerfile: "FROM busybox\nCOPY f /f\nRUN cat /f\n", f: "by http\n" }),
  );
  writeFileSync(join(home, "served/Dockerfile"), "FROM busybox\nRUN echo lone\n");
  assert.deepEqual(
    said((await build(daemon, Buffer.alloc(0), { remote: `${address}/context.tar` })).output).slice(1),
    ["by http"],
  );
  assert.deepEqual(
    said((await build(daemon, Buffer.alloc(0), { remote: `${address}/Dockerfile` })).output).slice(1),
    ["lone"],
  );
  assert.match((await build(daemon, Buffer.alloc(0), { remote: `${address}/none` })).error, /status 404/);
});

test("skiff build of a git repository, with -f within it", async () => {
  const done = await cli(["build", "-f", "sub/Dockerfile", `${address}/work.git#v1:`]);
  assert.match(done.text, /COPY failed|file not found/);
  const sub = await cli(["build", "--no-cache", `${address}/work.git#v1:sub`]);
  assert.equal(sub.code, 0, sub.text);
  assert.match(sub.text, /^Sending build context[\s\S]*^from sub$/m);
  const bad = await cli(["build", "git://127.0.0.1:1/x.git"]);
  assert.equal(bad.code, 1);
  assert.match(
    bad.text,
    /unable to prepare context: unable to 'git clone' to temporary context directory: error fetching/,
  );
});

test("quiet gives the id alone, and a file gets it; a failing build leaves no file", async () => {
  const folder = join(home, "quiet");
  mkdirSync(folder);
  writeFileSync(join(folder, "Dockerfile"), "FROM busybox\nENV QUIET=1\n");
  const file = join(home, "iid");
  const done = await cli(["build", "-q", "--iidfile", file, "."], { cwd: folder });
  assert.match(done.text, /^sha256:[0-9a-f]{64}\n$/);
  assert.equal(readFileSync(file, "utf8"), done.text.trim());
  writeFileSync(join(folder, "Dockerfile"), "FROM busybox\nRUN echo why; false\n");
  const failed = await cli(["build", "-q", "--iidfile", file, "."], { cwd: folder });
  assert.equal(failed.code, 1);
  assert.match(failed.text, /^why$/m);
  assert.ok(!existsSync(file));
});

test("an ignore file of one Dockerfile counts in front of the context's", async () => {
  const folder = join(home, "ignore");
  mkdirSync(folder);
  writeFileSync(join(folder, "X.Dockerfile"), "FROM busybox\nCOPY . /c/\nRUN ls -A /c\n");
  writeFileSync(join(folder, ".dockerignore"), "b\n");
  writeFileSync(join(folder, "X.Dockerfile.dockerignore"), "a\n*ockerfile*\n.dockerignore\n");
  for (const name of ["a", "b"]) writeFileSync(join(folder, name), name);
  const done = await cli(["build", "-f", join(folder, "X.Dockerfile"), folder]);
  assert.equal(done.code, 0, done.text);
  assert.deepEqual(said(done.text).slice(1), ["b"]);
});

test("ADD of git, with and without its .git; a checksum must fit", async () => {
  const lines = (flags: string): string =>
    `FROM busybox\nADD ${flags} ${address}/work.git#v1 /src\nRUN ls -A /src; cat /src/a.txt\n`;
  const plain = await build(daemon, { Dockerfile: lines("") });
  assert.equal(plain.error, "");
  assert.deepEqual(said(plain.output), [
    ".dockerignore",
    "Dockerfile",
    "a.txt",
    "escape",
    "keep.md",
    "sub",
    "x.md",
    "from git",
  ]);
  const kept = await build(daemon, {
    Dockerfile: `${lines(`--keep-git-dir=true --checksum=${firstCommit}`)}RUN cat /src/.git/HEAD\n`,
  });
  assert.equal(kept.error, "");
  assert.ok(said(kept.output).includes(firstCommit) && said(kept.output).includes(".git"));
  const again = await build(daemon, {
    Dockerfile: `${lines(`--keep-git-dir=true --checksum=${firstCommit}`)}RUN cat /src/.git/HEAD\n`,
  });
  assert.equal(again.id, kept.id);
  assert.match(
    (await build(daemon, { Dockerfile: lines(`--checksum=${"1".repeat(40)}`) })).error,
    /expected checksum to match/,
  );
});

test("ADD of a URL with a checksum", async () => {
  writeFileSync(join(home, "served/file.txt"), "content\n");
  const digest = createHash("sha256").update("content\n").digest("hex");
  const lines = (sum: string): string =>
    `FROM busybox\nADD --checksum=sha256:${sum} ${address}/file.txt /f\nRUN cat /f\n`;
  assert.deepEqual(said((await build(daemon, { Dockerfile: lines(digest) })).output), ["content"]);
  assert.match((await build(daemon, { Dockerfile: lines("0".repeat(64)) })).error, /digest mismatch/);
});

test("ADD unpacks xz and bzip2, and a context may be compressed with either", async () => {
  const inner = contextTar({ "d/f": "inner\n" });
  for (const [format, name] of [
    ["xz", "a.tar.xz"],
    ["bzip2", "a.tar.bz2"],
  ] as const) {
    const packed = execFileSync(format, ["-c"], { input: inner });
    const folder = join(home, `add-${format}`);
    mkdirSync(folder);
    writeFileSync(join(folder, name), packed);
    writeFileSync(join(folder, "Dockerfile"), `FROM busybox\nADD ${name} /x/\nRUN cat /x/d/f\n`);
    const context = execFileSync("tar", ["-C", folder, "-cf", "-", "."]);
    const result = await build(daemon, execFileSync(format, ["-c"], { input: context }));
    assert.equal(result.error, "");
    assert.deepEqual(said(result.output), ["inner"]);
  }
});

test("secrets reach the step that asks for them, and nothing else", async () => {
  const canary = "s3cret-9f1c77aa";
  writeFileSync(join(home, "token"), canary);
  const folder = join(home, "secrets");
  mkdirSync(folder);
  const lines = [
    "FROM busybox",
    "RUN --mount=type=secret,id=token,mode=0440,gid=7 stat -c '%a %u %g' /run/secrets/token; wc -c < /run/secrets/token",
    'RUN --mount=type=secret,id=var,env=TOKEN test -n "$TOKEN" && echo as a variable; test -e /run/secrets/var || echo no file',
    "RUN --mount=type=secret,id=none ls /run/secrets/none 2>/dev/null || echo not required",
    "RUN ls -A /run/secrets 2>/dev/null; env | grep -c TOKEN || true",
  ];
  writeFileSync(join(folder, "Dockerfile"), lines.join("\n"));
  const args = [
    "build",
    "-t",
    "secrets:1",
    "--secret",
    `id=token,src=${join(home, "token")}`,
    "--secret",
    "id=var,env=MY",
    ".",
  ];
  const done = await cli(args, { cwd: folder, env: { MY: canary } });
  assert.equal(done.code, 0, done.text);
  const output = said(done.text).filter((line) => !line.startsWith("Sending"));
  // The last step finds neither the directory that was made for the mount nor a variable.
  assert.deepEqual(output, ["440 0 7", "15", "as a variable", "no file", "not required", "0"]);
  const history = await cli(["history", "--no-trunc", "secrets:1"]);
  assert.ok(!history.text.includes(canary));
  // Nowhere on the daemon's disk, in its database or its log.
  const found = execFileSync(
    "sh",
    ["-c", 'grep -rl "$1" "$2" "$3" || true', "sh", canary, daemon.dataRoot, daemon.execRoot],
    { encoding: "utf8" },
  );
  assert.equal(found, "");
  assert.ok(!daemon.log().includes(canary));
  writeFileSync(
    join(folder, "Dockerfile"),
    "FROM busybox\nRUN --mount=type=secret,id=token,required=true true\n",
  );
  const missing = await cli(["build", "."], { cwd: folder });
  assert.match(missing.text, /secret token: not found/);
  assert.equal(missing.code, 1);
  const docker = await build(daemon, {
    Dockerfile: "FROM busybox\nRUN --mount=type=secret,id=token,required=true true\n",
  });
  assert.match(docker.error, /secret token: not found/);
});

const sayProgram = `
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int argc, char **argv) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  strncpy(address.sun_path, getenv("SSH_AUTH_SOCK"), sizeof address.sun_path - 1);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (argc < 2 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) return 1;
  write(fd, argv[1], strlen(argv[1]));
  char answer[256];
  ssize_t size = read(fd, answer, sizeof answer);
  if (size > 0) write(1, answer, size);
  return 0;
}`;

test("an SSH agent is reached through its socket while the step runs", async () => {
  const socket = join(home, "agent.sock");
  // What an agent hears and answers is bytes to us: this one tells what it got in capitals.
  const agent = createSocketServer({ allowHalfOpen: true }, (peer) => {
    peer.on("data", (chunk: Buffer) => peer.end(chunk.toString("utf8").toUpperCase()));
  });
  await new Promise<void>((resolve) => agent.listen(socket, resolve));
  try {
    const folder = join(home, "ssh");
    mkdirSync(folder);
    const lines = [
      "FROM busybox",
      "COPY say /",
      "RUN --mount=type=ssh,required=true,mode=0660,gid=9 stat -c '%a %g' $SSH_AUTH_SOCK; /say 'hello agent'; echo",
      "RUN ls /run/buildkit 2>/dev/null || echo gone",
    ];
    writeFileSync(join(folder, "Dockerfile"), lines.join("\n"));
    // busybox connects to no socket of a path.
    execFileSync("musl-gcc", ["-static", "-x", "c", "-o", join(folder, "say"), "-"], { input: sayProgram });
    const done = await cli(["build", "--ssh", "default", "."], {
      cwd: folder,
      env: { SSH_AUTH_SOCK: socket },
    });
    assert.equal(done.code, 0, done.text);
    assert.deepEqual(said(done.text).slice(1), ["660 9", "HELLO AGENT", "gone"]);
    const none = await cli(["build", "--no-cache", "."], { cwd: folder });
    assert.match(none.text, /no SSH agent "default" was forwarded/);
    const key = await cli(["build", "--ssh", `default=${join(folder, "Dockerfile")}`, "."], { cwd: folder });
    assert.match(key.text, /is no socket of an agent/);
  } finally {
    agent.close();
  }
});

test("what reaches beyond the container is granted or refused by name", async () => {
  const caps = "grep CapEff /proc/self/status";
  const insecure = {
    Dockerfile: `FROM busybox\nRUN --security=insecure ${caps}\nRUN --security=sandbox ${caps}\n`,
  };
  assert.match((await build(daemon, insecure)).error, /security.insecure is not allowed/);
  const granted = await build(daemon, insecure, { allow: "security.insecure" });
  assert.equal(granted.error, "");
  const [free, boxed] = said(granted.output);
  assert.match(boxed ?? "", /00000000a80425fb/);
  assert.notEqual(free, boxed);
  const host = {
    Dockerfile:
      "FROM busybox\nRUN --network=host cat /proc/sys/kernel/random/boot_id >/dev/null; ls -d /proc/net\n",
  };
  assert.match((await build(daemon, host)).error, /network.host is not allowed/);
  assert.equal((await build(daemon, host, { allow: "network.host" })).error, "");
  assert.equal((await build(daemon, host, { networkmode: "host" })).error, "");
  const none = await build(daemon, { Dockerfile: "FROM busybox\nRUN --network=none ls /sys/class/net\n" });
  assert.deepEqual(said(none.output), ["lo"]);
});

test("squash: one layer, the same files, the history of all", async () => {
  const context = {
    Dockerfile:
      "FROM busybox\nCOPY f /d/f\nRUN rm /d/f && echo new > /d/g && rm -r /etc/group && mkdir /etc/group && ln /d/g /d/h\nENV A=1\n",
    f: "gone after squashing",
  };
  const plain = await build(daemon, context, { t: "plain:1" });
  const squashed = await build(daemon, context, { t: "squashed:1", squash: "1" });
  assert.equal(squashed.error, "");
  assert.notEqual(squashed.id, plain.id);
  const inspect = async (
    name: string,
  ): Promise<{ RootFS: { Layers: string[] }; Config: { Env: string[] } }> =>
    (
      await call<{ RootFS: { Layers: string[] }; Config: { Env: string[] } }>(
        daemon.socket,
        "GET",
        `/images/${name}/json`,
      )
    ).body!;
  const base = await inspect("busybox");
  const one = await inspect("squashed:1");
  assert.equal(one.RootFS.Layers.length, base.RootFS.Layers.length + 1);
  assert.ok(one.Config.Env.includes("A=1"));
  const listing = async (name: string): Promise<string[]> =>
    said(
      (
        await build(
          daemon,
          { Dockerfile: `FROM ${name}\nRUN find /d /etc -exec stat -c '%n %F %h %s' {} +\n` },
          { nocache: "1" },
        )
      ).output,
    );
  assert.deepEqual(await listing("squashed:1"), await listing("plain:1"));
  const history = (await cli(["history", "squashed:1"])).text;
  assert.match(history, /merge sha256:[0-9a-f]+ to sha256:/);
  const directory = join(daemon.dataRoot, "overlay2", one.RootFS.Layers.at(-1)!.slice(7), "diff");
  assert.ok(existsSync(join(directory, "d/g")) && !existsSync(join(directory, "d/f")));
});

test("cache-from takes steps of an image that has come from elsewhere", async () => {
  const context = {
    Dockerfile:
      "FROM busybox\nRUN echo made > /made\nENV A=1\nCOPY f /f\nRUN cat /f\nADD f a.tar /d/\nRUN cat /d/f\n",
    f: "f\n",
    "a.tar": contextTar({ inside: "i\n" }).toString(),
  };
  const first = await build(daemon, context, { t: "cached:1", nocache: "1" });
  const archive = join(home, "cached.tar");
  execFileSync(skiff, ["-H", daemon.host, "save", "-o", archive, "cached:1", "busybox"]);
  await using other = await startSkiffd();
  execFileSync(skiff, ["-H", other.host, "load", "-qi", archive]);
  const plain = await build(
    other,
    { Dockerfile: "FROM busybox\nRUN echo other > /made\n" },
    { cachefrom: '["cached:1"]' },
  );
  assert.equal(plain.output.match(/Using cache/g), null);
  const again = await build(other, context, { cachefrom: '["none:1","cached:1"]' });
  assert.equal(again.error, "");
  assert.equal(again.output.match(/Using cache/g)?.length, 6);
  assert.equal(again.id, first.id);
  const changed = await build(other, { ...context, f: "changed\n" }, { cachefrom: '["cached:1"]' });
  assert.deepEqual(said(changed.output), ["changed", "changed"]);
  // The same words in front of another rule for archives would be a wrong answer.
  for (const flag of ["--unpack=false ", "--chmod=600 ", "--exclude=nothing "]) {
    const Dockerfile = context.Dockerfile.replace("ADD ", `ADD ${flag}`);
    const packed = await build(other, { ...context, Dockerfile }, { cachefrom: '["cached:1"]' });
    assert.equal(packed.error, "");
    assert.equal(packed.output.match(/Using cache/g)?.length, 4, flag);
  }
  // Two daemons, equal inputs, a date: equal digests, without any cache.
  const dated = { buildargs: '{"SOURCE_DATE_EPOCH":"1700000000"}', nocache: "1" };
  assert.equal((await build(other, context, dated)).id, (await build(daemon, context, dated)).id);
});

test("cache mounts: their beginning, owner, mode and sharing", async () => {
  const lines = [
    "FROM busybox AS seed",
    "RUN mkdir /s && echo seed > /s/f",
    "FROM busybox",
    "RUN --mount=type=cache,target=/c,id=seeded,from=seed,source=/s,uid=5,gid=6,mode=0711 stat -c '%a %u %g' /c; cat /c/f; echo more >> /c/f",
    "RUN --mount=type=cache,target=/c,id=seeded,from=seed,source=/s wc -l < /c/f",
    "RUN --mount=type=cache,target=/c,id=seeded ls -A /c; echo empty",
    "RUN --mount=type=cache,target=/c,id=seeded,source=../../../etc ls -A /c; echo own",
  ];
  const result = await build(daemon, { Dockerfile: lines.join("\n") });
  assert.equal(result.error, "");
  assert.deepEqual(said(result.output), ["711 5 6", "seed", "2", "empty", "own"]);
});

test("a step that swaps its cache mount for a link leads nowhere", async () => {
  const lines = [
    "FROM busybox",
    "RUN --mount=type=cache,target=/c,id=swap ln -s /etc /c/inner && rmdir /c 2>/dev/null; mv /c /d 2>/dev/null; echo tried",
    "RUN --mount=type=cache,target=/c,id=swap,source=inner ls -A /c; echo nothing",
    "RUN --mount=type=bind,from=seed,source=/link,target=/b cat /b/passwd 2>&1 | head -n 1",
  ];
  const seed = "FROM busybox AS seed\nRUN ln -s /etc /link && echo image > /etc/passwd\n";
  const result = await build(daemon, { Dockerfile: seed + lines.join("\n") });
  assert.equal(result.error, "");
  assert.deepEqual(said(result.output), ["tried", "nothing", "image"]);
});

test("symbolic modes of --chmod", async () => {
  const result = await build(daemon, {
    Dockerfile:
      "FROM busybox\nCOPY --chmod=u=rwX,go=rX d /d/\nCOPY --chmod=a+x,o-r f /f\nRUN stat -c '%a' /d/s /d/s/x /d/p /f\n",
    "d/s": { directory: true },
    "d/s/x": { mode: 0o700, text: "x" },
    "d/p": { mode: 0o666, text: "p" },
    f: { mode: 0o644, text: "f" },
  });
  assert.equal(result.error, "");
  assert.deepEqual(said(result.output), ["755", "755", "644", "751"]);
  for (const mode of ["u=q", "x", "u+", "888", "u=rw,,g=r"])
    assert.match(
      (await build(daemon, { Dockerfile: `FROM busybox\nCOPY --chmod=${mode} f /f\n`, f: "f" })).error,
      /invalid chmod parameter/,
      mode,
    );
});

test("clients that stop in the middle of a context or an archive hold up no other build", async () => {
  const half = contextTar({ Dockerfile: "FROM busybox\n", big: "x".repeat(400_000) }).subarray(0, 200_000);
  // As many imports as there are threads for work that needs no client.
  const imports = Array<string>(4).fill("/images/create?fromSrc=-");
  const stalled = ["/build?t=never", "/images/load", ...imports].map((path) => {
    const outgoing = request({
      socketPath: daemon.socket,
      method: "POST",
      path,
      agent: false,
      headers: { "content-type": "application/x-tar", "content-length": half.length * 2 },
    });
    outgoing.on("error", () => {});
    outgoing.write(half);
    return outgoing;
  });
  try {
    const { output } = await build(
      daemon,
      contextTar({ Dockerfile: "FROM busybox\nCOPY a /a\nRUN cat /a\n", a: "through" }),
    );
    assert.match(output, /through/);
  } finally {
    for (const outgoing of stalled) outgoing.destroy();
  }
});
