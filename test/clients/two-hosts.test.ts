/** Client and daemon on two hosts: mutual TLS, ssh, contexts; certificates that are refused; a cable that is cut. */
import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type ServerResponse } from "node:http";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { within } from "../integration/network-lab.ts";
import { imageOf, layerTar } from "../integration/scripted-registry.ts";
import { olderDockerClient, provideDockerCli } from "../peers/peer-cache.ts";
import { until } from "./real-lab.ts";
import {
  ended,
  far,
  near,
  type Outcome,
  openTwoHosts,
  skiff,
  type TwoHosts,
  tlsPort,
} from "./two-hosts-lab.ts";

const driver = join(import.meta.dirname, "cli-terminal.py");
const clients = [
  ["skiff", skiff],
  ["docker", "docker"],
] as const;
const sha = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

describe("two hosts", () => {
  let lab: TwoHosts;
  let severed: Severed | undefined;
  const content = randomBytes(6_000_000);

  before(async () => {
    provideDockerCli();
    lab = await openTwoHosts();
    mkdirSync(join(lab.folder, "context"));
    writeFileSync(
      join(lab.folder, "context/Dockerfile"),
      "FROM busybox\nCOPY data /data\nRUN sha256sum /data\n",
    );
    writeFileSync(join(lab.folder, "context/data"), content);
  });
  after(async () => {
    severed?.close();
    await lab?.[Symbol.asyncDispose]();
  });

  const tls = (kind = "good", host = far.address): NodeJS.ProcessEnv => ({
    DOCKER_HOST: `tcp://${host}:${tlsPort}`,
    DOCKER_TLS_VERIFY: "1",
    DOCKER_CERT_PATH: lab.certificates(kind),
  });
  const ssh = (): NodeJS.ProcessEnv => ({ DOCKER_HOST: `ssh://root@${far.address}${lab.daemon.socket}` });
  const ok = async (
    words: readonly string[],
    env: NodeJS.ProcessEnv,
    stdin?: Uint8Array,
  ): Promise<string> => {
    const outcome = await lab.run(words, env, stdin);
    assert.equal(outcome.code, 0, `${words.join(" ")}: ${outcome.stderr}`);
    return outcome.stdout.toString();
  };

  /** What people do with a daemon, by one client over one transport; what only prepares takes the short way. */
  const everyday = async (program: string, name: string, env: NodeJS.ProcessEnv): Promise<void> => {
    const direct = (...words: string[]): Promise<string> =>
      ok([skiff, ...words], { DOCKER_HOST: lab.daemon.host });
    const script = "echo one; until [ -e /go ]; do sleep 0.05; done; echo two";
    await direct("run", "-d", "--name", name, "busybox", "sh", "-c", script);
    const following = lab.run([program, "logs", "-f", name], env);
    // The end of stdin travels, and what comes after it travels back.
    const summed = await ok([program, "run", "--rm", "-i", "busybox", "sha256sum"], env, content);
    assert.equal(summed, `${sha(content)}  -\n`);
    await ok([program, "cp", "-", `${name}:/`], env, tarWith("data", content));
    const copied = (await lab.run([program, "cp", `${name}:/data`, "-"], env)).stdout;
    assert.equal(sha(copied.subarray(512, 512 + content.length)), sha(content));
    const built = await ok([program, "build", "--no-cache", join(lab.folder, "context")], env);
    assert.match(built, new RegExp(sha(content)));
    const steps = JSON.stringify([["# ", "type", "stty size; exit 7\n"]]);
    const terminal = await ok(["python3", driver, steps, program, "exec", "-it", name, "sh"], env);
    const { output, code } = JSON.parse(terminal) as { output: string; code: number };
    assert.match(output, /33 99/);
    assert.equal(code, 7);
    await direct("exec", name, "touch", "/go");
    assert.equal((await following).stdout.toString(), "one\ntwo\n");
    await direct("rm", "-f", name);
  };

  // The cable that is cut: begun first and looked at last, since silence has to be waited for.
  test("work begins over the cable that will be cut", async () => {
    severed = await beginSevered(lab, { ...tls("good", far.cutAddress), SKIFF_KEEPALIVE_SECONDS: "2" });
    lab.cut();
    const at = performance.now();
    for (const [name, work] of severed.works)
      severed.ends.set(
        name,
        work.then((outcome) => ({ outcome, afterMs: performance.now() - at })),
      );
  });

  for (const [name, program] of clients) {
    test(`${name}: run, exec -it, logs -f, cp, build over mutual TLS`, () =>
      everyday(program, `${name}-tls`, tls()));
    // Only a current client of Docker's takes a socket's path in such a host.
    const skip = name === "docker" ? olderDockerClient() : false;
    test(`${name}: the same over ssh`, { skip }, () => everyday(program, `${name}-ssh`, ssh()));
  }

  test("a daemon is found by name, by IPv6 address, by a context of either client", async () => {
    const { DOCKER_HOST: _, ...variables } = tls();
    for (const host of [far.name, `[${far.address6}]`])
      assert.match(
        await ok([skiff, "-H", `tcp://${host}`, "version", "--format", "{{.Server.Os}}"], variables),
        /linux/,
      );
    const pem = (file: string): string => `${file}=${join(lab.certificates("good"), `${file}.pem`)}`;
    const endpoint = `host=tcp://${far.address}:${tlsPort},${["ca", "cert", "key"].map(pem).join(",")}`;
    const names = { skiff: "from-skiff", docker: "from-docker" };
    for (const [name, program] of clients)
      await ok([program, "context", "create", names[name], "--docker", endpoint], {});
    for (const [name, program] of clients) {
      for (const context of Object.values(names)) {
        const args = ["--context", context, "version", "--format", "{{.Server.Os}}"];
        assert.equal(await ok([program, ...args], {}), "linux\n", `${name} with ${context}`);
      }
      const archive = join(lab.folder, `${name}.tar`);
      await ok([program, "context", "export", names.skiff, archive], {});
      const [, other] = clients[name === "skiff" ? 1 : 0];
      await ok([other, "context", "import", `over-${name}`, archive], {});
      assert.equal(await ok([other, "context", "rm", "-f", `over-${name}`], {}), `over-${name}\n`);
    }
  });

  test("who has no good certificate is refused, and so is a daemon that has none", async () => {
    const call = (env: NodeJS.ProcessEnv, ...words: string[]): Promise<Outcome> =>
      lab.run([...words, "ps"], env);
    const { DOCKER_TLS_VERIFY: _, ...plain } = tls();
    const refusals: [NodeJS.ProcessEnv, RegExp][] = [
      [tls("expired"), /error during connect: .*(expired certificate|EOF|bad certificate|reset)/],
      [
        tls("foreign"),
        /error during connect: .*(certificate required|unknown certificate authority|EOF|reset)/,
      ],
      [tls("distrustful"), /x509: certificate signed by unknown authority/],
      [tls("good", "wrong.test"), /certificate is valid for far.test, not wrong.test|no such host/],
      [plain, /error during connect|Client sent an HTTP request to an HTTPS server/],
    ];
    for (const [, program] of clients) {
      for (const [env, expected] of refusals) {
        const outcome = await call(env, program);
        assert.equal(outcome.code, 1, `${program}: ${outcome.stdout.toString()}`);
        assert.match(outcome.stderr, expected);
      }
      const bare = ["-H", `tcp://${far.address}:${tlsPort}`, "--tlsverify"];
      const outcome = await call(
        {},
        program,
        ...bare,
        "--tlscacert",
        join(lab.certificates("good"), "ca.pem"),
      );
      assert.equal(outcome.code, 1);
      assert.match(outcome.stderr, /certificate required|EOF|reset/);
    }
  });

  test("ssh that cannot work says why, and its host is never an option", async () => {
    const call = (host: string): Promise<Outcome> => lab.run([skiff, "-H", host, "ps"]);
    assert.match((await call("ssh://-oProxyCommand=touch")).stderr, /invalid SSH URL: .*begins with "-"/);
    // Nobody knows the key of the host under its name.
    assert.match(
      (await call(`ssh://root@${far.name}`)).stderr,
      /exit status 255.*Host key verification failed/s,
    );
    const absent = await call(`ssh://root@${far.address}/nowhere/skiff.sock`);
    assert.equal(absent.code, 1);
    assert.match(absent.stderr, /Cannot connect to the Docker daemon at unix:\/\/\/nowhere\/skiff.sock/);
  });

  test("nothing hangs behind the cut", async () => {
    for (const [name, end] of severed!.ends) {
      const { outcome, afterMs } = await end;
      assert.notEqual(outcome.code, 0, `${name}: ${outcome.stdout.toString()}`);
      assert.match(outcome.stderr, /error during connect|unexpected EOF|ETIMEDOUT|lost|Cannot connect/, name);
      // 2 s of silence, 10 s of probes, some for a machine that has other things to do.
      assert.ok(afterMs < 30_000, `${name} ended ${afterMs} ms after the cut`);
    }
    // The container is not the client's: it goes on.
    assert.match(await ok([skiff, "ps", "--format", "{{.Names}}"], tls()), /^held$/m);
    // The daemon gives its side up within half a minute of silence: each connection has a probe set.
    const left = (): string[] => connections(lab.farPid, far.cutAddress);
    for (const line of left()) assert.match(line, / 0[124]:[0-9A-F]{8} /, "a connection without a timer");
    if (process.env["SKIFF_PROVE"] !== undefined) {
      await until("the daemon closes what was cut", () => left().length === 0, 60_000);
    }
  });
});

/** Established connections to an address, as /proc/net/tcp6 of a process's namespace has them. */
function connections(pid: number, address: string): string[] {
  const hex = address
    .split(".")
    .map((part) => Number(part).toString(16).toUpperCase().padStart(2, "0"))
    .toReversed()
    .join("");
  return readFileSync(`/proc/${pid}/net/tcp6`, "latin1")
    .split("\n")
    .filter((line) => line.includes(`0000${hex}:`) && / 01 [0-9A-F]{8}:/.test(line));
}

/** A tar with one file. */
function tarWith(name: string, bytes: Buffer): Buffer {
  const header = Buffer.alloc(512);
  header.write(name, 0);
  header.write("0000644\0", 100);
  header.write("0000000\0", 108);
  header.write("0000000\0", 116);
  header.write(`${bytes.length.toString(8).padStart(11, "0")}\0`, 124);
  header.write("00000000000\0", 136);
  header.write("        ", 148);
  header.write("0", 156);
  header.write("ustar\x0000", 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return Buffer.concat([header, bytes, Buffer.alloc(512 - (bytes.length % 512) + 1024)]);
}

interface Severed {
  readonly works: ReadonlyMap<string, Promise<Outcome>>;
  /** How each ended, and how long after the cut. */
  readonly ends: Map<string, Promise<{ outcome: Outcome; afterMs: number }>>;
  close(): void;
}

/** A run, an exec that sends, a pull and a build, each in its middle. */
async function beginSevered(lab: TwoHosts, env: NodeJS.ProcessEnv): Promise<Severed> {
  const works = new Map<string, Promise<Outcome>>();
  const begin = (name: string, ...words: string[]): ChildProcess => {
    const child = lab.start([skiff, ...words], env);
    child.stdin!.on("error", () => {});
    works.set(name, ended(child));
    return child;
  };
  const { server, asked } = stuckRegistry(lab);
  const context = join(lab.folder, "endless");
  mkdirSync(context);
  writeFileSync(join(context, "Dockerfile"), "FROM busybox\nRUN echo begun && sleep 1000\n");
  const heard = (child: ChildProcess, text: string): Promise<void> =>
    new Promise((resolve) => {
      let said = "";
      child.stdout!.on("data", (chunk: Buffer) => {
        said += chunk.toString();
        if (said.includes(text)) resolve();
      });
    });
  const run = begin("run", "run", "--name", "held", "busybox", "sh", "-c", "echo begun; sleep 1000");
  const build = begin("build", "build", context);
  begin("pull", "pull", `${near.address}:5000/stuck:1`);
  await Promise.all([heard(run, "begun"), heard(build, "begun"), asked]);
  const upload = begin("exec", "exec", "-i", "held", "sh", "-c", "cat > /dev/null");
  let sent = 0;
  const block = Buffer.alloc(65_536);
  // Without end: when the cable goes, some of it is under way.
  const feed = (): void => {
    while (upload.stdin!.writable && upload.stdin!.write(block)) sent += block.length;
    upload.stdin!.once("drain", feed);
  };
  feed();
  await until("the upload runs", () => sent > 1_000_000);
  return {
    works,
    ends: new Map(),
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** A registry on the near host that never sends a layer's second half. */
function stuckRegistry(lab: TwoHosts): { server: ReturnType<typeof createServer>; asked: Promise<void> } {
  const { promise: asked, resolve } = Promise.withResolvers<void>();
  const image = imageOf([layerTar("stuck", 200_000)]);
  const send = (answer: ServerResponse, type: string, bytes: Buffer): void => {
    answer.writeHead(200, { "Content-Type": type, "Content-Length": bytes.length });
    answer.end(bytes);
  };
  const server = createServer((question, answer) => {
    const digest = /\/blobs\/(sha256:\w+)$/.exec(question.url ?? "")?.[1];
    if (digest === undefined && !question.url!.includes("/manifests/")) answer.end("{}");
    else if (digest === undefined)
      send(answer, "application/vnd.oci.image.manifest.v1+json", image.manifest.bytes);
    else if (digest === image.config.digest) send(answer, "application/octet-stream", image.config.bytes);
    else {
      const bytes = image.blobs.get(digest)!;
      answer.writeHead(200, { "Content-Type": "application/octet-stream", "Content-Length": bytes.length });
      answer.write(bytes.subarray(0, bytes.length / 2));
      resolve();
    }
  });
  within(lab.nearNetwork, () => server.listen(5000));
  return { server, asked };
}
