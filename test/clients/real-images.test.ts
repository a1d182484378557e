/** Real programs of a real distribution, run through Docker's client and ours: Python, nginx, apt, and what they need. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { leftOver } from "../peers/left-over.ts";
import { type Client, clientPrograms, openRealLab, type RealLab, until } from "./real-lab.ts";

/** An HTTP server of the Python that Debian calls minimal: it has sockets but not `http.server`. */
const pythonServer = `
import socket, sys
server = socket.create_server(("0.0.0.0", 8000))
print("serving", flush=True)
while True:
    peer, _ = server.accept()
    line = peer.recv(65536).split(b"\\r\\n")[0].decode()
    print(line, flush=True)
    body = ("python %d.%d says " % sys.version_info[:2] + str(sum(range(1000)))).encode()
    peer.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
    peer.close()
`;

/** Its grandchild loses its parent and ends: the container's first process inherits a zombie. */
const orphan = `
import os, sys, time
gone, held = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        time.sleep(0.1)
    os._exit(0)
os.wait()
# Held by the grandchild alone: its end is the end of the pipe.
os.close(held)
os.read(gone, 1)
time.sleep(0.2)
for patience in range(40):
    zombies = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            zombies += open("/proc/%s/stat" % pid).read().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:
            pass
    if zombies == int(sys.argv[1]):
        break
    time.sleep(0.1)
print("zombies", zombies)
`;

function hostAddress(): string | undefined {
  return Object.entries(networkInterfaces())
    .filter(([name]) => !name.startsWith("skiff"))
    .flatMap(([, addresses]) => addresses ?? [])
    .find(({ family, internal }) => family === "IPv4" && !internal)?.address;
}

async function text(url: string): Promise<string> {
  return await (await fetch(url, { signal: AbortSignal.timeout(20_000) })).text();
}

/** The host port of a published port, as `port` prints it. */
async function publishedPort(client: Client, container: string, port: string): Promise<number> {
  const line = (await client.out("port", container, port)).split("\n")[0] ?? "";
  return Number(line.slice(line.lastIndexOf(":") + 1));
}

let lab: RealLab;
before(async () => {
  lab = await openRealLab({ pulled: false });
});
after(async () => {
  await lab?.[Symbol.asyncDispose]();
});

for (const [index, { name }] of clientPrograms.entries()) {
  describe(`a Debian image through ${name}`, () => {
    let client: Client;

    before(() => {
      client = lab.clients[index]!;
    });
    after(async () => {
      assert.equal(await client.out("ps", "-aq"), "");
      assert.deepEqual(await leftOver(lab.daemon), []);
      // The next client pulls again.
      await client.out("rmi", "-f", "debian", `${lab.registry.address}/debian:test`);
      assert.equal(await client.out("images", "-q"), "");
    });

    test("is pulled from a registry with Docker's lines, and runs Python", async () => {
      const reference = `${lab.registry.address}/debian:test`;
      const pull = await client.run(["pull", reference]);
      assert.equal(pull.code, 0, pull.stderr);
      assert.match(pull.stdout, /^test: Pulling from debian\n/);
      assert.match(pull.stdout, /^[0-9a-f]{12}: Pull complete$/m);
      assert.match(pull.stdout, /^Digest: sha256:[0-9a-f]{64}\nStatus: Downloaded newer image for /m);
      assert.equal(pull.stdout.split("\n").at(-2), reference);
      assert.match((await client.run(["pull", reference])).stdout, /Status: Image is up to date for /);
      await client.out("tag", reference, "debian");
      assert.equal(await client.out("run", "--rm", "debian", "python3", "-c", "print(2**200 % 997)"), "124");
      const failed = await client.run(["run", "--rm", "debian", "python3", "-c", "import sys; sys.exit(41)"]);
      assert.equal(failed.code, 41);
      const piped = await client.run(
        ["run", "--rm", "-i", "debian", "python3", "-c", "import sys; print(sys.stdin.read().upper())"],
        { stdin: "from the host" },
      );
      assert.equal(piped.stdout, "FROM THE HOST\n");
    });

    test("Python serves HTTP on a published port: on loopback and on the host's address", async () => {
      const script = join(lab.folder, "serve.py");
      writeFileSync(script, pythonServer);
      await client.out(
        ...["run", "-d", "--name", "py", "-p", "8000", "-v", `${script}:/serve.py:ro`],
        ...["debian", "python3", "/serve.py"],
      );
      await until("the server's first line", async () => (await client.out("logs", "py")) === "serving");
      const port = await publishedPort(client, "py", "8000");
      assert.match(await text(`http://127.0.0.1:${port}/one`), /^python 3\.\d+ says 499500$/);
      const address = hostAddress();
      if (address !== undefined) {
        assert.match(await text(`http://${address}:${port}/two`), /^python 3\.\d+ says 499500$/);
      }
      const taken = await client.run(["run", "--rm", "-p", `${port}:80`, "debian", "true"]);
      assert.equal(taken.code, 125);
      assert.match(taken.stderr, /port is already allocated/);
      const logs = await client.out("logs", "--tail", "2", "py");
      assert.ok(logs.includes("GET /one HTTP/1.1"), logs);
      // Python ignores no SIGTERM by itself, but as first process of a pid namespace it has no default action.
      const stopped = performance.now();
      await client.out("stop", "-t", "1", "py");
      assert.ok(performance.now() - stopped < 9000, "a second, not the ten of the default");
      assert.equal(await client.out("inspect", "-f", "{{.State.ExitCode}}", "py"), "137");
      await assert.rejects(text(`http://127.0.0.1:${port}/`));
      await client.out("rm", "py");
    });

    test("nginx in the foreground, with its configuration bound and its pages in a volume", async () => {
      const configuration = join(lab.folder, "nginx.conf");
      writeFileSync(
        configuration,
        "daemon off; error_log /dev/stderr notice; events {}\n" +
          "http { access_log /dev/stdout; server { listen 8080; root /pages; } }\n",
      );
      await client.out(
        ...["run", "--rm", "-v", "pages:/pages", "debian"],
        ...["sh", "-c", "echo '<h1>from a volume</h1>' > /pages/index.html"],
      );
      await client.out(
        ...["run", "-d", "--name", "web", "-p", "127.0.0.1::8080", "--stop-signal", "SIGQUIT"],
        ...["-v", `${configuration}:/etc/nginx/nginx.conf:ro`, "-v", "pages:/pages:ro"],
        ...["debian", "nginx"],
      );
      const port = await publishedPort(client, "web", "8080/tcp");
      const page = await until("nginx answers", () =>
        text(`http://127.0.0.1:${port}/`).catch(() => undefined),
      );
      assert.equal(page, "<h1>from a volume</h1>\n");
      await client.out("run", "--rm", "-v", "pages:/p", "debian", "sh", "-c", "echo changed > /p/index.html");
      assert.equal(await text(`http://127.0.0.1:${port}/`), "changed\n");
      const check = await client.run(["exec", "web", "nginx", "-t", "-g", "pid /tmp/pid;"]);
      assert.equal(check.code, 0, check.stderr);
      assert.match(check.stderr, /test is successful/);
      const processes = (await client.out("top", "web", "-o", "pid,args")).split("\n");
      assert.ok(processes.some((line) => line.includes("nginx: master process nginx")));
      const inUse = await client.run(["volume", "rm", "pages"]);
      assert.match(inUse.stderr, /volume is in use/);
      const started = performance.now();
      assert.equal(await client.out("stop", "web"), "web");
      assert.ok(performance.now() - started < 9000, "SIGQUIT ends nginx long before the timeout");
      assert.equal(await client.out("inspect", "-f", "{{.State.ExitCode}}", "web"), "0");
      const logs = await client.run(["logs", "web"]);
      assert.match(logs.stdout, /"GET \/ HTTP\/1\.1" 200 23 /);
      assert.match(logs.stderr, /signal 3 \(SIGQUIT\) received.* shutting down/);
      await client.out("rm", "-v", "web");
      assert.equal(await client.out("volume", "rm", "pages"), "pages");
    });

    test("apt installs a package over the masqueraded bridge", async (t) => {
      const copies = join(lab.folder, "apt");
      mkdirSync(copies, { recursive: true });
      // A container's /etc/resolv.conf is the host's unless that is on loopback; here the host's own is asked for.
      const resolver = join(copies, "resolv.conf");
      writeFileSync(resolver, readFileSync("/etc/resolv.conf"));
      assert.ok(existsSync("/etc/apt"), "this machine has no apt configuration");
      const binds = [
        ...["-v", "/etc/apt:/etc/apt:ro", "-v", `${resolver}:/etc/resolv.conf:ro`],
        // The index is fetched by the first client's container and serves the second's.
        ...["-v", "apt-lists:/var/lib/apt/lists"],
      ];
      const install = await client.run(
        [
          ...["run", "--name", "apt", ...binds, "debian", "sh", "-c"],
          "ls /var/lib/apt/lists/*Packages* > /dev/null 2>&1 || apt-get update -qq && apt-get install -qq -y --no-install-recommends hello && hello",
        ],
        { timeoutMs: 120_000 },
      );
      assert.equal(install.code, 0, install.stderr + install.stdout);
      assert.match(install.stdout, /Hello, world!\n$/);
      const changes = (await client.out("diff", "apt")).split("\n");
      for (const expected of ["A /usr/bin/hello", "C /usr/bin", "C /var/lib/dpkg/status"]) {
        assert.ok(changes.includes(expected), `${expected} is missing in diff`);
      }
      assert.ok(!changes.some((line) => /\/(dev|proc|sys|\.dockerenv|etc\/(hosts|mtab|apt))/.test(line)));
      t.diagnostic(`${changes.length} changed paths`);
      // The installed program is still there when the container starts again.
      await client.out("start", "apt");
      assert.equal(await client.out("wait", "apt"), "0");
      await client.out("rm", "apt");
    });

    test("users and groups are those of the image's files", async () => {
      const id = async (...options: string[]): Promise<string> =>
        await client.out("run", "--rm", ...options, "debian", "id");
      assert.equal(
        await id("-u", "www-data", "--group-add", "audio", "--group-add", "4242"),
        "uid=33(www-data) gid=33(www-data) groups=33(www-data),29(audio),4242",
      );
      assert.equal(await id("-u", "1234"), "uid=1234 gid=0(root) groups=0(root)");
      assert.equal(await id("-u", "1234:games"), "uid=1234 gid=60(games) groups=60(games)");
      for (const [user, message] of [
        ["nobody2", /unable to find user nobody2: no matching entries in passwd file/],
        ["root:nope", /unable to find group nope: no matching entries in group file/],
      ] as const) {
        const refused = await client.run(["run", "--rm", "-u", user, "debian", "id"]);
        assert.equal(refused.code, 125);
        assert.match(refused.stderr, message);
      }
      assert.equal(await client.out("ps", "-aq"), "");
    });

    test("volumes start with what the image has there; --mount and --tmpfs as asked", async () => {
      const run = async (...args: string[]): Promise<string> => await client.out("run", "--rm", ...args);
      const listing = await run("debian", "ls", "/etc/nginx");
      assert.match(listing, /^nginx\.conf$/m);
      assert.equal(await run("-v", "copied:/etc/nginx", "debian", "true"), "");
      assert.equal(await run("-v", "copied:/v:ro", "debian", "ls", "/v"), listing);
      assert.equal(await run("-v", "bare:/etc/nginx:nocopy", "debian", "ls", "/etc/nginx"), "");
      // A volume that has something keeps it.
      await run("-v", "kept:/v", "debian", "touch", "/v/mine");
      assert.equal(await run("-v", "kept:/etc/nginx", "debian", "ls", "/etc/nginx"), "mine");
      const mounted = await client.run([
        ...["run", "--rm", "--mount", "type=volume,src=copied,dst=/v,readonly"],
        ...["--mount", `type=bind,src=${lab.folder},dst=/b,readonly`],
        ...["--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1700", "--tmpfs", "/u:size=64k"],
        ...["debian", "sh", "-c"],
        "stat -c %a /t; df -k --output=size /t /u | tail -2; touch /v/x; touch /b/x; head -c 2m /dev/zero > /t/x",
      ]);
      assert.deepEqual(
        mounted.stdout.split("\n").map((line) => line.trim()),
        ["1700", "1024", "64", ""],
      );
      assert.match(mounted.stderr, /cannot touch '\/v\/x': Read-only file system/);
      assert.match(mounted.stderr, /cannot touch '\/b\/x': Read-only file system/);
      assert.match(mounted.stderr, /No space left on device/);
      // An anonymous volume goes with `--rm`, a named one stays.
      await run("-v", "/anonymous", "debian", "touch", "/anonymous/x");
      assert.equal(await client.out("volume", "ls", "-q"), "apt-lists\nbare\ncopied\nkept");
      const missing = await client.run(["run", "--rm", "--mount", "type=bind,src=/nope,dst=/n", "debian"]);
      assert.equal(missing.code, 125);
      assert.match(
        missing.stderr,
        /invalid mount config for type "bind": bind source path does not exist: \/nope/,
      );
      await client.out("volume", "rm", "bare", "copied", "kept");
    });

    test("--init reaps what its children leave behind", async () => {
      const script = join(lab.folder, "orphan.py");
      writeFileSync(script, orphan);
      const bind = `${script}:/orphan.py:ro`;
      const run = ["run", "--rm", "-v", bind];
      assert.equal(await client.out(...run, "debian", "python3", "/orphan.py", "1"), "zombies 1");
      assert.equal(await client.out(...run, "--init", "debian", "python3", "/orphan.py", "0"), "zombies 0");
      const failed = await client.run(["run", "--rm", "--init", "debian", "sh", "-c", "exit 23"]);
      assert.equal(failed.code, 23);
    });

    test("restart policies: on-failure counts, always comes back with the daemon", async () => {
      const state = async (container: string, format: string): Promise<string> =>
        await client.out("inspect", "-f", format, container);
      await client.out(
        ...["run", "-d", "--name", "fails", "--restart", "on-failure:2", "debian", "sh", "-c"],
        "echo again; exit 3",
      );
      const format = "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}";
      await until("two restarts", async () => (await state("fails", format)) === "exited 2 3");
      assert.equal(await client.out("logs", "fails"), "again\nagain\nagain");
      const policies = ["always", "unless-stopped", "no"];
      for (const policy of policies) {
        for (const fate of ["lives", "stopped", "dies"]) {
          await client.out(
            "run",
            ...["-d", "--name", `${policy}-${fate}`, "--restart", policy, "debian", "sleep", "1000"],
          );
        }
        await client.out("stop", "-t", "0", `${policy}-stopped`);
      }
      const pids = new Map<string, string>();
      for (const policy of policies) {
        for (const fate of ["lives", "dies"]) {
          pids.set(`${policy}-${fate}`, await state(`${policy}-${fate}`, "{{.State.Pid}}"));
        }
      }
      await lab.daemon.stop();
      for (const policy of policies) process.kill(Number(pids.get(`${policy}-dies`)), "SIGKILL");
      await lab.daemon.restart();
      for (const policy of policies) {
        assert.equal(await state(`${policy}-lives`, "{{.State.Pid}}"), pids.get(`${policy}-lives`));
        const back = policy !== "no";
        await until(
          `${policy}-dies is ${back ? "running" : "exited"}`,
          async () => (await state(`${policy}-dies`, "{{.State.Running}}")) === String(back),
        );
      }
      assert.equal(await state("no-dies", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
      // Docker: a stopped `always` comes back with the daemon, `unless-stopped` does not.
      await until(
        "always-stopped is running",
        async () => (await state("always-stopped", "{{.State.Running}}")) === "true",
      );
      assert.equal(await state("unless-stopped-stopped", "{{.State.Running}}"), "false");
      assert.equal(await state("no-stopped", "{{.State.Running}}"), "false");
      const all = (await client.out("ps", "-aq")).split("\n");
      await client.out("rm", "-f", ...all);
    });

    test("everyday commands on a running Debian", async () => {
      await client.out(
        ...["run", "-d", "--name", "day", "--hostname", "daybreak", "-l", "part=one", "debian", "sh", "-c"],
        "trap 'echo bye; exit 7' TERM; while :; do sleep 0.1; done",
      );
      assert.equal(await client.out("exec", "day", "hostname"), "daybreak");
      const changed = "rm /etc/issue; echo >> /etc/passwd; mkdir /new; touch /new/f";
      await client.out("exec", "day", "sh", "-c", changed);
      assert.equal(await client.out("diff", "day"), "C /etc\nD /etc/issue\nC /etc/passwd\nA /new\nA /new/f");
      await client.out("rename", "day", "night");
      assert.equal(
        await client.out("ps", "--filter", "label=part=one", "--format", "{{.Names}} {{.Image}} {{.State}}"),
        "night debian running",
      );
      await client.out("pause", "night");
      const frozen = await client.run(["exec", "night", "true"]);
      assert.equal(frozen.code, 1);
      assert.match(frozen.stderr, /is paused, unpause the container before exec/);
      await client.out("unpause", "night");
      await client.out("restart", "-t", "5", "night");
      assert.equal(await client.out("exec", "night", "cat", "/new/f"), "");
      await client.out("update", "-m", "64m", "--memory-swap", "64m", "night");
      assert.equal(await client.out("inspect", "-f", "{{.HostConfig.Memory}}", "night"), "67108864");
      const waiting = client.out("wait", "night");
      await client.out("kill", "-s", "TERM", "night");
      assert.equal(await waiting, "7");
      assert.match(await client.out("logs", "night"), /bye$/);
      // Whole seconds are compared: the current one is not over yet.
      const endS = String(Math.ceil(Date.now() / 1000) + 1);
      const events = await client.out(
        ...["events", "--since", "5m", "--until", endS, "--filter", "container=night"],
        ...["--format", "{{.Action}}"],
      );
      const actions = events.split("\n");
      for (const action of ["rename", "pause", "unpause", "restart", "kill", "die"]) {
        assert.ok(actions.includes(action), `event ${action} is missing in ${actions.join(" ")}`);
      }
      await client.out("rm", "night");
    });
  });
}
