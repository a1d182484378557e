/** `build` by Docker's client and by ours, on dockerd and on Skiff: one output, one exit code. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type PeerDaemon, startDockerd } from "../peers/dockerd.ts";
import { busyboxRoot, tarOf } from "../peers/images.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";

interface Case {
  readonly name: string;
  readonly dockerfile: string;
  readonly args?: readonly string[];
  /** "." unless said. */
  readonly context?: string;
  readonly stdin?: string;
}

const ours = join(import.meta.dirname, "../../bin/skiff");
const folder = mkdtempSync(join(tmpdir(), "skiff-build-cli-"));
let dockerd: PeerDaemon;
let skiffd: TestDaemon;
let gitUrl = "";
let gitServer: Server;

before(async () => {
  const root = join(folder, "root");
  mkdirSync(root);
  busyboxRoot(root);
  const base = tarOf(root);
  rmSync(root, { recursive: true });
  [dockerd, skiffd] = await Promise.all([startDockerd(), startSkiffd()]);
  for (const { host } of [dockerd, skiffd]) {
    execFileSync("docker", ["-H", host, "import", "-c", 'CMD ["sh"]', "-", "busybox:latest"], {
      input: base,
    });
  }
  const context = join(folder, "context");
  mkdirSync(join(context, "d/e"), { recursive: true });
  writeFileSync(join(context, "f"), "hello\n");
  writeFileSync(join(context, "d/h"), "h\n");
  writeFileSync(join(context, "d/e/g"), "g\n");
  symlinkSync("../f", join(context, "d/link"));
  writeFileSync(join(context, "hidden.md"), "x");
  writeFileSync(join(folder, "Elsewhere"), "FROM busybox\nCOPY f /f\nRUN cat /f\n");
  gitUrl = await serveRepository();
  writeFileSync(join(context, ".dockerignore"), "*.md\n.dockerignore\n");
});
after(async () => {
  gitServer?.close();
  await Promise.all([dockerd?.[Symbol.asyncDispose](), skiffd?.[Symbol.asyncDispose]()]);
  rmSync(folder, { recursive: true, force: true });
});

/** A repository by git's plain http: Docker's client fetches it itself, and so does ours. */
async function serveRepository(): Promise<string> {
  const root = join(folder, "served");
  const work = join(root, "r.git");
  mkdirSync(work, { recursive: true });
  writeFileSync(join(work, "Dockerfile"), "FROM busybox\nCOPY . /r\nRUN ls -A /r; cat /r/x\n");
  writeFileSync(join(work, ".dockerignore"), "*.md\n.git\n");
  writeFileSync(join(work, "a.md"), "");
  writeFileSync(join(work, "x"), "from git\n");
  const env = { PATH: process.env["PATH"], HOME: folder, GIT_CONFIG_NOSYSTEM: "1" };
  const git = (...args: readonly string[]): void => {
    execFileSync("git", ["-c", "user.name=a", "-c", "user.email=a", "-C", work, ...args], {
      env,
      stdio: "ignore",
    });
  };
  git("init", "-q", "-b", "main");
  git("add", "-A");
  git("commit", "-q", "-m", "x");
  git("update-server-info");
  gitServer = createServer((request, response) => {
    const path = join(
      root,
      new URL(request.url ?? "/", "http://x").pathname.replace("r.git/", "r.git/.git/"),
    );
    if (existsSync(path)) response.end(readFileSync(path));
    else response.writeHead(404).end();
  }).listen(0, "127.0.0.1");
  await once(gitServer, "listening");
  return `http://127.0.0.1:${(gitServer.address() as AddressInfo).port}/r.git#main`;
}

const cases: readonly Case[] = [
  {
    name: "all metadata",
    dockerfile:
      'FROM busybox\nMAINTAINER a <b@c>\nENV A=1 B="2 3"\nLABEL x=y\nEXPOSE 80 443/udp\nVOLUME /v\nUSER 1\nWORKDIR /w/x\nSTOPSIGNAL 9\nSHELL ["/bin/sh","-ec"]\nHEALTHCHECK CMD true\nONBUILD RUN echo\nENTRYPOINT ["a"]\nCMD ["b"]',
  },
  {
    name: "files",
    dockerfile:
      "FROM busybox\nCOPY . /all/\nCOPY f d/h /two/\nCOPY d /d\nADD f /\nRUN cd /all && find . | sort && ls -l /d/link /f",
  },
  {
    name: "several stages",
    dockerfile:
      "FROM busybox AS one\nRUN echo x > /x\nFROM busybox AS two\nCOPY --from=one /x /y\nCOPY --from=0 /x /z\nRUN cat /y /z",
  },
  {
    name: "target",
    dockerfile: "FROM busybox AS one\nENV A=1\nFROM busybox\nENV B=2",
    args: ["--target", "one"],
  },
  {
    name: "arguments",
    dockerfile: "ARG V=latest\nFROM busybox:$V\nARG W=2\nARG V\nRUN echo $W-$V",
    args: ["--build-arg", "W=3", "--build-arg", "UNUSED=1"],
  },
  {
    name: "labels and tags",
    dockerfile: "FROM busybox\nENV A=1",
    args: ["--label", "z=1", "--label", "a=b c", "-t", "named", "-t", "named:2"],
  },
  { name: "quiet", dockerfile: "FROM busybox\nENV Q=1", args: ["-q"] },
  {
    name: "quiet, and a step that fails",
    dockerfile: "FROM busybox\nRUN echo why; false",
    args: ["-q", "--force-rm"],
  },
  {
    name: "a step that fails",
    dockerfile: "FROM busybox\nRUN echo out; echo err >&2; exit 42",
    args: ["--force-rm"],
  },
  { name: "a missing file", dockerfile: "FROM busybox\nCOPY nope /x" },
  { name: "a hidden file", dockerfile: "FROM busybox\nCOPY hidden.md /x" },
  { name: "no pattern matches", dockerfile: "FROM busybox\nCOPY nope* /x" },
  { name: "outside the context", dockerfile: "FROM busybox\nCOPY ../x /x" },
  { name: "an unknown target", dockerfile: "FROM busybox", args: ["--target", "none"] },
  { name: "an empty Dockerfile", dockerfile: "" },
  { name: "a file as context", dockerfile: "FROM busybox", context: "f" },
  { name: "no such context", dockerfile: "FROM busybox", context: "none" },
  { name: "no such Dockerfile", dockerfile: "FROM busybox", args: ["-f", "Other"] },
  {
    name: "a Dockerfile by stdin",
    dockerfile: "",
    context: "-",
    stdin: "FROM busybox\nRUN echo from stdin\n",
  },
  {
    name: "a Dockerfile by stdin with a context",
    dockerfile: "",
    args: ["-f", "-"],
    stdin: "FROM busybox\nCOPY f /f\n",
  },
  {
    name: "limits",
    dockerfile:
      "FROM busybox\nRUN ulimit -n; df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2; cat /sys/fs/cgroup/memory/memory.limit_in_bytes",
    args: ["--ulimit", "nofile=100:100", "--shm-size", "32m", "-m", "128m"],
  },
  { name: "containers that stay", dockerfile: "FROM busybox\nENV A=1\nRUN true", args: ["--rm=false"] },
  {
    name: "a Dockerfile from elsewhere",
    dockerfile: "FROM busybox\nRUN false",
    args: ["-f", "../Elsewhere"],
  },
  { name: "a compressed context", dockerfile: "FROM busybox\nCOPY f /", args: ["--compress"] },
  {
    name: "a git repository",
    dockerfile: "",
    context: "git",
  },
  { name: "no network", dockerfile: "FROM busybox\nRUN ls /sys/class/net", args: ["--network", "none"] },
  {
    name: "an added host",
    dockerfile: "FROM busybox\nRUN grep added /etc/hosts",
    args: ["--add-host", "added:1.2.3.4"],
  },
];

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function settle(text: string): string {
  return text
    .replace(/DEPRECATED: The legacy builder[\s\S]*?(?:environment-variable\.|buildx\/)\n+/, "")
    .replace(/Sending build context to Docker daemon +[\d.]+k?B/g, "Sending <n>")
    .replace(/\.dockerfile\.[0-9a-f]+/g, "<dockerfile>")
    .replace(/\b(?:[0-9a-f]{64}|[0-9a-f]{12})\b/g, "<id>");
}

function run(program: string, host: string, one: Case): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const context = one.context === "git" ? gitUrl : (one.context ?? ".");
    const argv = ["build", "--no-cache", ...(one.args ?? []), context];
    const env = {
      ...process.env,
      DOCKER_HOST: host,
      DOCKER_BUILDKIT: "0",
      DOCKER_CONFIG: join(folder, "config"),
    };
    const child = spawn(program, argv, {
      cwd: join(folder, "context"),
      env,
      stdio: ["pipe", "pipe", "pipe"],
      timeout: 60_000,
    });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (chunk: Buffer) => {
      stdout += chunk.toString("utf8");
    });
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString("utf8");
    });
    child.stdin.on("error", () => {});
    child.stdin.end(one.stdin ?? "");
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout: settle(stdout), stderr: settle(stderr) }));
  });
}

/** Streams of one step come over two channels: how they interleave is not told. */
function sorted({ code, stdout, stderr }: Outcome): object {
  const red = stdout.includes("\x1b[91merr\n\x1b[0m");
  const lines = stdout.replaceAll("\x1b[91m", "").replaceAll("\x1b[0m", "");
  return { code, red, stdout: lines.split("\n").sort(), stderr: stderr.trim() };
}

/** What `docker history` says of a build, on each side. */
test("history tells of every step in the same words", async () => {
  const lines = [
    "FROM busybox",
    "ARG V=1",
    "RUN echo $V",
    "COPY f /one",
    "COPY d /dir/",
    "COPY f d/h /many/",
    "COPY --chown=1:2 f /owned",
    "ADD --chown=3 d /ownedd/",
    "COPY --from=busybox /bin/busybox /b",
    "ENV A=b",
    'CMD ["x"]',
  ];
  writeFileSync(join(folder, "context/Dockerfile"), lines.join("\n"));
  const told = async (program: string, host: string): Promise<string[]> => {
    const one = { name: "", dockerfile: "", args: ["-q", "-t", `told-${program.length}`] };
    assert.equal((await run(program, host, one)).code, 0);
    const format = [
      "history",
      "--no-trunc",
      "--format",
      "{{.CreatedBy}}|{{.Comment}}",
      `told-${program.length}`,
    ];
    return settle(execFileSync("docker", ["-H", host, ...format], { encoding: "utf8" })).split("\n");
  };
  const [peer, docker, skiff] = await Promise.all([
    told("docker", dockerd.host),
    told("docker", skiffd.host),
    told(ours, skiffd.host),
  ]);
  assert.deepEqual(docker, peer);
  assert.deepEqual(skiff, peer);
});

for (const one of cases) {
  test(one.name, async () => {
    writeFileSync(join(folder, "context/Dockerfile"), one.dockerfile);
    const [peer, docker, skiff] = await Promise.all([
      run("docker", dockerd.host, one),
      run("docker", skiffd.host, one),
      run(ours, skiffd.host, one),
    ]);
    assert.deepEqual(sorted(docker), sorted(peer));
    assert.deepEqual(sorted(skiff), sorted(docker));
  });
}
