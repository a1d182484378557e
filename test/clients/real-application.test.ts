/**
 * `examples/visits` as a user has it: built by Docker's client and by ours on a Debian base, with apt in its steps; run;
 * pushed to our registry and to Debian's; pulled from them and run by dockerd and by podman. At full size (SKIFF_PROVE) our client builds
 * everything anew, and each engine pulls from each registry.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type PeerDaemon, startDockerd } from "../peers/dockerd.ts";
import { call } from "../peers/engine-call.ts";
import { forwardPort } from "../peers/forward.ts";
import { leftOver } from "../peers/left-over.ts";
import { type PeerPodman, startPodman } from "../peers/podman.ts";
import { startRegistryServe } from "../peers/registry-serve.ts";
import { type Client, openRealLab, type RealLab, until } from "./real-lab.ts";

const example = join(import.meta.dirname, "../../examples/visits");
const names = ["counter", "web"] as const;
const proving = process.env["SKIFF_PROVE"] !== undefined;

const parts = new AsyncDisposableStack();
let lab: RealLab;
let docker: Client;
let skiff: Client;
let dockerd: PeerDaemon;
let podman: PeerPodman;
/** `host:port` of each, reachable under it from every engine. */
let registries: readonly string[];

before(async () => {
  lab = parts.use(await openRealLab());
  [docker, skiff] = lab.clients as [Client, Client];
  docker.env["DOCKER_BUILDKIT"] = "0";
  const ours = parts.use(await startRegistryServe());
  registries = [ours.address, lab.registry.address];
  [dockerd, podman] = await Promise.all([startDockerd(), startPodman(registries)]);
  parts.use(dockerd);
  parts.use(podman);
  for (const { pid } of [dockerd, podman]) {
    for (const registry of registries) {
      parts.use(await forwardPort(pid, Number(registry.split(":")[1])));
    }
  }
});
after(() => parts.disposeAsync());

function build(target: string, ...options: string[]): string[] {
  return [
    "build",
    ...options,
    "--build-arg",
    "BASE=base",
    "--target",
    target,
    "-t",
    `visits/${target}`,
    example,
  ];
}

async function idOf(reference: string): Promise<string> {
  return await docker.out("inspect", "-f", "{{.Id}}", reference);
}

test("the base knows where this machine gets its packages from", async () => {
  const context = join(lab.folder, "base");
  mkdirSync(context);
  cpSync("/etc/apt", join(context, "apt"), { recursive: true, dereference: true });
  writeFileSync(join(context, "Dockerfile"), "FROM debian\nRUN rm -r /etc/apt\nCOPY apt /etc/apt\n");
  await docker.out("build", "-q", "-t", "base", context);
});

test("Docker's client builds it; ours gets the same images from what is built", async () => {
  const first = await docker.run(build("counter"), { timeoutMs: 150_000 });
  assert.equal(first.code, 0, first.stdout + first.stderr);
  assert.match(first.stdout, /Setting up python3 /);
  assert.match(first.stdout, /Setting up nodejs /);
  const counter = await idOf("visits/counter");
  const second = await skiff.run(build("web"), { timeoutMs: 150_000 });
  assert.equal(second.code, 0, second.stdout + second.stderr);
  assert.match(second.stdout, /Successfully tagged visits\/web:latest\n$/);
  assert.doesNotMatch(second.stdout, /Setting up/);
  const web = await idOf("visits/web");
  assert.equal((await skiff.out(...build("counter", "-q"))).trim(), counter);
  assert.equal((await docker.out(...build("web", "-q"))).trim(), web);
  // Lists and archives of packages went into cache mounts.
  const kept = ["find", "/var/lib/apt/lists", "/var/cache/apt", "-type", "f", "-size", "+0"];
  assert.equal(await docker.out("run", "--rm", "-u", "root", "visits/web", ...kept), "");
});

if (proving) {
  test("ours builds it from nothing, with the packages that the cache mounts kept", async () => {
    for (const name of names) {
      const built = await skiff.run(build(name, "--no-cache"), { timeoutMs: 300_000 });
      assert.equal(built.code, 0, built.stdout + built.stderr);
      assert.match(built.stdout, /Setting up nodejs /);
    }
  });
}

test("it runs: the page counts, and the count outlives the container", async () => {
  const start = async (): Promise<number> => {
    await docker.out(
      ...["run", "-d", "--name", "counter", "-v", "visits:/data", "-p", "127.0.0.1::8080", "visits/counter"],
    );
    await until(
      "the counter is healthy",
      async () => {
        const health = await docker.out("inspect", "-f", "{{.State.Health.Status}}", "counter");
        return health === "healthy";
      },
      30_000,
    );
    await skiff.out("run", "-d", "--name", "web", "--network", "container:counter", "visits/web");
    await until("the page's server listens", async () => (await skiff.out("logs", "web")) !== "");
    return Number((await docker.out("port", "counter", "8080")).split(":").at(-1));
  };
  const page = async (port: number): Promise<string> =>
    await (await fetch(`http://127.0.0.1:${port}/`)).text();
  const port = await start();
  assert.match(await page(port), /<h1>Visits<\/h1>\n<p>You are visitor 1\.<\/p>/);
  assert.match(await page(port), /You are visitor 2\./);
  assert.equal(await docker.out("exec", "web", "id", "-un"), "visits");
  await docker.out("stop", "web", "counter");
  assert.equal(await docker.out("inspect", "-f", "{{.State.ExitCode}}", "web"), "0");
  assert.match(await docker.out("logs", "counter"), /stopped$/);
  await docker.out("rm", "web", "counter");
  assert.match(await page(await start()), /You are visitor 3\./);
  await docker.out("rm", "-f", "web", "counter");
  await docker.out("volume", "rm", "visits");
});

/** Digest of each image at a registry, as the push told it. */
const pushed = new Map<string, string>();

test("it is pushed to both registries, with one digest", async () => {
  for (const [index, registry] of registries.entries()) {
    const client = [docker, skiff][index]!;
    for (const name of names) {
      const reference = `${registry}/visits/${name}:1`;
      await client.out("tag", `visits/${name}`, reference);
      const push = await client.run(["push", reference], { timeoutMs: 120_000 });
      assert.equal(push.code, 0, push.stderr);
      const digest = /^1: digest: (sha256:[0-9a-f]{64}) size: \d+$/m.exec(push.stdout)?.[1];
      assert.ok(digest !== undefined, push.stdout);
      pushed.set(reference, digest);
    }
  }
  for (const name of names) {
    assert.equal(new Set(registries.map((registry) => pushed.get(`${registry}/visits/${name}:1`))).size, 1);
  }
});

/** Asks the page from inside, where the engine has no way out. */
const ask = `import urllib.request
for _ in range(100):
    try:
        print(urllib.request.urlopen("http://127.0.0.1:8080/").read().decode())
        break
    except OSError:
        __import__("time").sleep(0.1)`;

interface Engine {
  readonly name: string;
  run(...args: string[]): string;
}

const engines = (): readonly Engine[] => [
  {
    name: "dockerd",
    run: (...args) =>
      execFileSync("docker", ["-H", dockerd.host, ...args], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "pipe"],
      }),
  },
  {
    name: "podman",
    run: (...args) => {
      const { status, stdout, stderr } = podman.cli(...args);
      assert.equal(status, 0, `podman ${args.join(" ")}: ${stderr}`);
      return stdout;
    },
  },
];

for (const [index, name] of ["dockerd", "podman"].entries()) {
  test(`${name} pulls it and runs it`, async () => {
    const { run } = engines()[index]!;
    for (const registry of proving ? registries : [registries[index]!]) {
      for (const part of names) {
        const reference = `${registry}/visits/${part}:1`;
        run("pull", "-q", reference);
        const told = run(
          "inspect",
          "--type",
          "image",
          "-f",
          "{{.Id}} {{json .RepoDigests}}",
          reference,
        ).trim();
        const [id = "", digests = ""] = told.split(" ");
        assert.equal(id.replace("sha256:", ""), (await idOf(`visits/${part}`)).replace("sha256:", ""));
        assert.ok(digests.includes(pushed.get(reference)!), told);
      }
      run("run", "-d", "--name", "counter", "--network", "none", `${registry}/visits/counter:1`);
      run("run", "-d", "--name", "web", "--network", "container:counter", `${registry}/visits/web:1`);
      assert.match(run("exec", "counter", "python3", "-c", ask), /You are visitor 1\./);
      run("kill", "web", "counter");
      run("rm", "-f", "-v", "web");
      run("rm", "-f", "-v", "counter");
      run("rmi", ...names.map((part) => `${registry}/visits/${part}:1`));
    }
  });
}

test("nothing stays: images, cache and cache mounts give all of it back", async () => {
  const images = (await docker.out("images", "-q")).split("\n");
  await docker.out("rmi", "-f", ...new Set(images));
  await call(lab.daemon.socket, "POST", "/build/prune?all=1");
  assert.equal(await docker.out("images", "-aq"), "");
  assert.deepEqual(await leftOver(lab.daemon, { settleMs: 30_000 }), []);
});
