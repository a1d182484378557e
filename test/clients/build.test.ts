/** `build` by Docker's client and by ours, on dockerd and on Skiff: one output, one exit code. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
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
  writeFileSync(join(context, ".dockerignore"), "*.md\n.dockerignore\n");
});
after(async () => {
  await Promise.all([dockerd?.[Symbol.asyncDispose](), skiffd?.[Symbol.asyncDispose]()]);
  rmSync(folder, { recursive: true, force: true });
});

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
    const argv = ["build", "--no-cache", ...(one.args ?? []), one.context ?? "."];
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
