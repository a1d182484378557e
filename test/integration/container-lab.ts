import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { request } from "node:http";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { childrenOf, objectsLeft, removeCgroups } from "../peers/leaks.ts";

/** A daemon of its own on temporary roots, with `busybox:latest` in it, that may be killed and started again. */
export interface ContainerLab extends AsyncDisposable {
  readonly root: string;
  readonly socket: string;
  readonly dataRoot: string;
  readonly execRoot: string;
  readonly cgroupParent: string;
  /** What the daemon wrote to its log so far. */
  log(): string;
  /** SIGKILL: containers go on. */
  kill(): Promise<void>;
  /** SIGTERM: a graceful stop; containers go on. */
  stop(): Promise<void>;
  start(): Promise<void>;
}

const daemonBinary = join(import.meta.dirname, "../../bin/skiffd");

/** The static program and a link for each applet; `/data` holds a file for copy-up, `/vol` is an image volume. */
function busyboxTar(root: string): string {
  const tree = join(root, "busybox");
  for (const folder of ["bin", "tmp", "etc", "data", "root"])
    mkdirSync(join(tree, folder), { recursive: true });
  copyFileSync("/bin/busybox", join(tree, "bin/busybox"));
  for (const applet of execFileSync("/bin/busybox", ["--list"], { encoding: "utf8" }).trim().split("\n")) {
    if (applet !== "busybox") symlinkSync("busybox", join(tree, "bin", applet));
  }
  execFileSync("sh", ["-c", `echo from-image >${join(tree, "data/file")}`]);
  const tar = join(root, "busybox.tar");
  execFileSync("tar", ["-C", tree, "--owner=0", "--group=0", "-cf", tar, "."]);
  return tar;
}

export async function openLab(): Promise<ContainerLab> {
  const root = mkdtempSync(join(tmpdir(), "skiff-lab-"));
  const socket = join(root, "skiff.sock");
  const dataRoot = join(root, "data");
  const execRoot = join(root, "run");
  const cgroupParent = `/skiff-lab-${basename(root).slice(-6)}`;
  let daemon: ChildProcess | undefined;
  const children: string[] = [];
  let log = "";
  const start = async (): Promise<void> => {
    const child = spawn(
      daemonBinary,
      [
        ...["-H", `unix://${socket}`, "--data-root", dataRoot, "--exec-root", execRoot],
        ...["--pidfile", join(root, "pid"), "--cgroup-parent", cgroupParent, "--log-level", "warn"],
      ],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    child.stderr.on("data", (chunk: Buffer) => {
      log += chunk.toString("utf8");
    });
    daemon = child;
    for (const deadline = Date.now() + 60_000; ; await sleep(20)) {
      if (child.exitCode !== null || Date.now() > deadline) throw new Error(`skiffd did not start:\n${log}`);
      const answer = await call({ socket }, "GET", "/_ping").catch(() => undefined);
      if (answer?.status !== 200) continue;
      children.push(...childrenOf(child.pid!));
      return;
    }
  };
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    if (daemon === undefined || daemon.exitCode !== null || daemon.signalCode !== null) return;
    const gone = once(daemon, "exit");
    daemon.kill(signal);
    await gone;
  };
  const lab: ContainerLab = {
    root,
    socket,
    dataRoot,
    execRoot,
    cgroupParent,
    log: () => log,
    kill: () => end("SIGKILL"),
    stop: () => end("SIGTERM"),
    start,
    [Symbol.asyncDispose]: async () => {
      if (daemon?.exitCode !== null || daemon.signalCode !== null) await start();
      const left = await docker(lab, ["ps", "-aq"]);
      const ids = left.stdout.split("\n").filter((id) => id !== "");
      if (ids.length > 0) await docker(lab, ["rm", "-fv", ...ids]);
      await end("SIGTERM");
      const leaks = await objectsLeft({ home: root, dataRoot, cgroupParent, children });
      removeCgroups(cgroupParent);
      rmSync(root, { recursive: true, force: true });
      if (leaks.length > 0) throw new Error(`left over after the daemon:\n${leaks.join("\n")}\n${log}`);
    },
  };
  await start();
  const tar = busyboxTar(root);
  const made = await docker(lab, ["import", "-c", 'CMD ["sh"]', "-c", "ENV LAB=1", tar, "busybox"]);
  if (made.code !== 0) throw new Error(`no image: ${made.stderr}`);
  return lab;
}

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The real docker CLI against the lab. */
export async function docker(
  lab: Pick<ContainerLab, "socket">,
  args: readonly string[],
  input = "",
): Promise<Ran> {
  const child = spawn("docker", ["-H", `unix://${lab.socket}`, ...args], { stdio: "pipe", timeout: 60_000 });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => stderr.push(chunk));
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  const [code] = (await once(child, "close")) as [number | null];
  return {
    code: code ?? -1,
    stdout: Buffer.concat(stdout).toString("utf8"),
    stderr: Buffer.concat(stderr).toString("utf8"),
  };
}

/** As `docker`, for a command that must succeed; gives its output without the last newline. */
export async function ok(
  lab: Pick<ContainerLab, "socket">,
  args: readonly string[],
  input = "",
): Promise<string> {
  const ran = await docker(lab, args, input);
  if (ran.code !== 0) throw new Error(`docker ${args.join(" ")}: ${ran.code}\n${ran.stdout}${ran.stderr}`);
  return ran.stdout.trimEnd();
}

export interface Answer {
  readonly status: number;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into bodies of many shapes.
  json(): any;
}

/** One API request. `onHead` is called when the head of the answer is there. */
export function call(
  lab: Pick<ContainerLab, "socket">,
  method: string,
  path: string,
  body?: unknown,
  onHead?: () => void,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const text = body === undefined ? "" : JSON.stringify(body);
    const outgoing = request({
      socketPath: lab.socket,
      method,
      path,
      agent: false,
      headers: { "content-type": "application/json", "content-length": Buffer.byteLength(text) },
    });
    outgoing.on("error", reject);
    outgoing.on("response", (response) => {
      onHead?.();
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        const whole = Buffer.concat(chunks).toString("utf8");
        resolve({ status: response.statusCode ?? 0, text: whole, json: () => JSON.parse(whole) });
      });
    });
    outgoing.end(text);
  });
}

/** Asks until it holds; generous, for it only guards against waiting forever. */
export async function until(holds: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (const deadline = performance.now() + 30_000; !(await holds()); await sleep(20)) {
    if (performance.now() > deadline) throw new Error(`did not happen within 30 s: ${what}`);
  }
}

/** What a stream has brought so far, from now on. */
export function collect(socket: Socket): { text(): string; ended: Promise<unknown> } {
  const chunks: Buffer[] = [];
  const ended = once(socket, "end");
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  socket.resume();
  return { text: () => Buffer.concat(chunks).toString(), ended };
}

/** Takes a connection over (`101 UPGRADED`) and gives it with whatever came behind the head. */
export async function hijack(lab: Pick<ContainerLab, "socket">, path: string, body = ""): Promise<Socket> {
  const socket = connect({ path: lab.socket, allowHalfOpen: true });
  socket.write(
    `POST ${path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  );
  let head = Buffer.alloc(0);
  for (;;) {
    const [chunk] = (await once(socket, "data")) as [Buffer];
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf("\r\n\r\n");
    if (end < 0) continue;
    socket.pause();
    const rest = head.subarray(end + 4);
    if (rest.length > 0) socket.unshift(rest);
    if (!head.toString("latin1").startsWith("HTTP/1.1 101")) throw new Error(head.toString("latin1"));
    return socket;
  }
}

/** Everything until the other side ends. */
export async function drain(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  socket.resume();
  await once(socket, "end");
  socket.destroy();
  return Buffer.concat(chunks);
}
