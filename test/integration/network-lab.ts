/**
 * A host of one's own to test networks on: the test process moves its main thread into a new network namespace, so that
 * the daemon's bridge, tables and sysctls are made there and nothing of the machine is touched. A second namespace is
 * the world outside, one link away.
 */
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { closeSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { newContainerId } from "#base/ids.ts";
import { silentLog } from "#base/log.ts";
import { createNetworkManager, type NetworkManagerOptions } from "#network/manager.ts";
import type { AttachmentRequest, PortRequest } from "#network/network.ts";
import { check, koffi, libc } from "#sys/libc.ts";

const CLONE_NEWNET = 0x40000000;
const unshare = libc.func("int unshare(int flags)");
const setns = libc.func("int setns(int fd, int nstype)");
const socket = libc.func("int socket(int domain, int type, int protocol)");
const bind = libc.func("int bind(int fd, const void *address, unsigned int length)");

/** Longer than the kernel waits before it sends a lost SYN again (1 s), so that one lost packet fails no test. */
const connectTimeoutMs = 2500;

export const hostAddress = "198.51.100.1";
export const outsideAddress = "198.51.100.2";
export const nativeProgram = join(import.meta.dirname, "../../native/build/skiff-native");

export function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/** Once a process, before anything else: the rest of the test sees only its own network. */
export function enterOwnNetwork(): void {
  check(unshare(CLONE_NEWNET), "unshare");
  run("ip", "link", "set", "lo", "up");
}

/** Runs `action` with the main thread in another namespace. Sockets that it opens stay there. */
export function within<T>(namespacePath: string, action: () => T): T {
  const here = openSync("/proc/thread-self/ns/net", "r");
  const there = openSync(namespacePath, "r");
  try {
    check(setns(there, CLONE_NEWNET), "setns");
    return action();
  } finally {
    check(setns(here, CLONE_NEWNET), "setns");
    closeSync(there);
    closeSync(here);
  }
}

export interface Outside extends AsyncDisposable {
  readonly namespacePath: string;
}

/** The neighbour: its own namespace at 198.51.100.2, with the test's host at 198.51.100.1. It has no other route. */
export async function openOutside(): Promise<Outside> {
  const holder = spawn("unshare", ["-n", "sleep", "600"], { stdio: "ignore" });
  const namespacePath = `/proc/${holder.pid}/ns/net`;
  await untilOtherNamespace(namespacePath);
  run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "wire", "netns", String(holder.pid));
  run("ip", "addr", "add", `${hostAddress}/24`, "dev", "uplink");
  run("ip", "link", "set", "uplink", "up");
  within(namespacePath, () => {
    run("ip", "addr", "add", `${outsideAddress}/24`, "dev", "wire");
    run("ip", "link", "set", "wire", "up");
    run("ip", "link", "set", "lo", "up");
  });
  return {
    namespacePath,
    [Symbol.asyncDispose]: async () => {
      run("ip", "link", "del", "uplink");
      holder.kill("SIGKILL");
    },
  };
}

async function untilOtherNamespace(path: string): Promise<void> {
  const own = run("readlink", "/proc/self/ns/net");
  for (let attempt = 0; attempt < 2000; attempt += 1) {
    try {
      if (run("readlink", path) !== own && run("readlink", path) !== "") return;
    } catch {
      // not there yet
    }
    await sleep(5);
  }
  throw new Error("the outside namespace did not come up");
}

export interface DataRoot extends Disposable {
  readonly path: string;
}

export function makeDataRoot(): DataRoot {
  const path = mkdtempSync(join(tmpdir(), "skiff-net-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true }) };
}

export function openManager(dataRoot: string, options: Partial<NetworkManagerOptions> = {}) {
  return createNetworkManager({
    dataRoot,
    binaryPath: nativeProgram,
    poolSize: 4,
    log: silentLog,
    ...options,
  });
}

export function attachRequest(
  ports: readonly Partial<PortRequest>[] = [],
  more: Partial<AttachmentRequest> = {},
): AttachmentRequest {
  return {
    containerId: newContainerId(),
    containerName: "web",
    hostname: "web",
    networkName: "bridge",
    ports: ports.map((port) => ({
      containerPort: 80,
      protocol: "tcp",
      hostAddress: "",
      hostPort: 0,
      hostPortEnd: port.hostPort ?? 0,
      ...port,
    })),
    sysctls: new Map(),
    ...more,
  };
}

/** Stands for a container: a process in the namespace that outlives the daemon's helper. */
export async function hold(namespacePath: string): Promise<Holder> {
  const child = spawn("nsenter", [`--net=${namespacePath}`, "sleep", "600"], { stdio: "ignore" });
  const path = `/proc/${child.pid}/ns/net`;
  await untilOtherNamespace(path);
  return new Holder(child, path);
}

export class Holder implements AsyncDisposable {
  readonly namespacePath: string;
  readonly #child: ChildProcess;

  constructor(child: ChildProcess, namespacePath: string) {
    this.#child = child;
    this.namespacePath = namespacePath;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.kill("SIGKILL");
    await ended;
  }
}

export interface TcpService extends AsyncDisposable {
  /** Source addresses of the connections so far. */
  readonly peers: string[];
}

/** A TCP server in a namespace that says `greeting` and closes. */
export function serveTcp(namespacePath: string, port: number, greeting: string): TcpService {
  const peers: string[] = [];
  const server: Server = createServer((connection) => {
    peers.push((connection.remoteAddress ?? "").replace("::ffff:", ""));
    connection.on("error", () => {});
    connection.end(greeting);
  });
  within(namespacePath, () => server.listen(port));
  return {
    peers,
    [Symbol.asyncDispose]: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

/** What a connection says before it ends; the error's code when there is none. From the host itself. */
export function askFromHost(address: string, port: number): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const client = connect({ host: address, port, timeout: connectTimeoutMs });
    client.on("data", (data) => {
      text += String(data);
    });
    client.on("timeout", () => {
      client.destroy();
      resolve("ETIMEDOUT");
    });
    client.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    client.on("close", () => resolve(text));
  });
}

/** The same from a namespace; "" when there is no connection within three seconds. */
export async function askFrom(namespacePath: string, address: string, port: number): Promise<string> {
  const command = [
    `--net=${namespacePath}`,
    "timeout",
    "4",
    "busybox",
    "nc",
    "-w",
    "3",
    address,
    String(port),
  ];
  try {
    return (await promisify(execFile)("nsenter", command)).stdout;
  } catch {
    return "";
  }
}

export async function pings(namespacePath: string, address: string): Promise<boolean> {
  const command = [`--net=${namespacePath}`, "busybox", "ping", "-c", "1", "-W", "1", address];
  try {
    await promisify(execFile)("nsenter", command);
    return true;
  } catch {
    return false;
  }
}

/** A UDP socket in a namespace, bound to a port of every address (0: any). */
export function openUdp(namespacePath: string, port: number): Promise<DatagramSocket> {
  const descriptor = within(namespacePath, () => {
    const fd = check(socket(2, 2, 0), "socket");
    const address = Buffer.from([2, 0, port >> 8, port & 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    check(bind(fd, koffi.as(address, "void *"), address.length), "bind");
    return fd;
  });
  const udp = createSocket("udp4");
  return new Promise((resolve) => udp.bind({ fd: descriptor }, () => resolve(udp)));
}

/** Sends a datagram and gives the answer; "" when none comes. */
export async function askUdp(client: DatagramSocket, address: string, port: number): Promise<string> {
  const answer = new Promise<string>((resolve) =>
    client.once("message", (message) => resolve(String(message))),
  );
  client.send("?", port, address);
  return Promise.race([answer, sleep(connectTimeoutMs, "", { ref: false })]);
}

export function echoUdp(server: DatagramSocket, greeting: string): void {
  server.on("message", (_, peer) => server.send(greeting, peer.port, peer.address));
}

export function linkNames(): string[] {
  return [...run("ip", "-br", "link").matchAll(/^([^\s@]+)/gm)].map(([, name]) => name!);
}

export function skiffTables(): string {
  return run("nft", "list", "tables");
}

/** Asks until the answer is right or the time is up: kernel teardown and events are asynchronous. */
export async function eventually(holds: () => boolean | Promise<boolean>, waitMs = 15_000): Promise<boolean> {
  const deadline = performance.now() + waitMs;
  while (performance.now() < deadline) {
    if (await holds()) return true;
    await sleep(20);
  }
  return holds();
}
