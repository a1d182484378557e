import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { newContainerId } from "#base/ids.ts";
import type { BridgeNetworkManager } from "#network/bridge-network-manager.ts";
import type { AttachmentRecord } from "#network/network.ts";
import {
  askFrom,
  askFromHost,
  attachRequest,
  enterOwnNetwork,
  eventually,
  hold,
  hostAddress,
  linkNames,
  makeDataRoot,
  nativeProgram,
  type Outside,
  openManager,
  openOutside,
  pings,
  serveTcp,
  skiffTables,
} from "./network-lab.ts";

enterOwnNetwork();
let outside: Outside;

before(async () => {
  outside = await openOutside();
});

after(async () => {
  await outside[Symbol.asyncDispose]();
  assert.ok(
    await eventually(() => linkNames().every((name) => !name.startsWith("sk"))),
    linkNames().join(" "),
  );
  assert.equal(skiffTables(), "");
});

/** A daemon in a process of its own: attaches, says what it has, and then does nothing until it is killed. */
const daemonScript = `
import { createNetworkManager } from "#network/manager.ts";
import { newContainerId } from "#base/ids.ts";
import { silentLog } from "#base/log.ts";
const [dataRoot, binaryPath] = process.argv.slice(2);
const manager = await createNetworkManager({ dataRoot, binaryPath, poolSize: 4, log: silentLog });
const ports = [{ containerPort: 80, protocol: "tcp", hostAddress: "", hostPort: 8080, hostPortEnd: 8080 },
  { containerPort: 80, protocol: "tcp", hostAddress: "127.0.0.1", hostPort: 8081, hostPortEnd: 8081 }];
const request = { containerId: newContainerId(), containerName: "web", hostname: "web", networkName: "bridge", sysctls: new Map() };
const attached = [];
for (const wanted of [ports, [{ ...ports[0], hostPort: 8090, hostPortEnd: 8090 }]]) {
  const one = await manager.attach({ ...request, ports: wanted });
  await one.publish();
  attached.push({ path: one.namespacePath, record: one.record });
}
console.log(JSON.stringify(attached));
setInterval(() => {}, 1000);
`;

interface Attached {
  readonly path: string;
  readonly record: AttachmentRecord;
}

async function startDaemon(dataRoot: string) {
  const child = spawn(process.execPath, ["--input-type=module-typescript", "-", dataRoot, nativeProgram], {
    cwd: `${import.meta.dirname}/../..`,
    stdio: ["pipe", "pipe", "inherit"],
  });
  child.stdin.end(daemonScript);
  const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
  return { child, attached: JSON.parse(line) as Attached[] };
}

async function kill(child: ReturnType<typeof spawn>): Promise<void> {
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await ended;
}

test("kill -9 of the daemon: running containers keep their network, and the next daemon takes it over", async () => {
  using dataRoot = makeDataRoot();
  const { child, attached } = await startDaemon(dataRoot.path);
  const [running, starting] = attached as [Attached, Attached];
  await using container = await hold(running.path);
  await using _server = serveTcp(container.namespacePath, 80, "alive");
  await kill(child);

  // No daemon: everything still works, and a container that was just being started finds its namespace.
  assert.equal(await askFromHost("127.0.0.1", 8080), "alive");
  assert.equal(await askFrom(outside.namespacePath, hostAddress, 8080), "alive");
  assert.ok(existsSync(starting.path), "kept for the start under way");
  const bridge = linkNames().find((name) => name.startsWith("skiff"))!;

  await using manager = await openManager(dataRoot.path);
  assert.equal(await askFromHost("127.0.0.1", 8080), "alive", "between start and recovery");
  const recovered = await manager.recover(newContainerId(), running.record);
  await manager.reconcile();
  assert.deepEqual(recovered.record, running.record);
  assert.equal(await askFromHost("127.0.0.1", 8080), "alive");
  assert.equal(await askFromHost("127.0.0.1", 8081), "alive");
  assert.equal(await askFrom(outside.namespacePath, hostAddress, 8081), "");
  assert.deepEqual(elements(), ["127.0.0.1 . 8081", "8080"], "what nobody owns is gone");
  assert.ok(!linkNames().includes(starting.record.hostInterface), "and its link");
  assert.ok(linkNames().includes(running.record.hostInterface));
  assert.ok(linkNames().includes(bridge));

  // Address and ports are held, and free again after release.
  const { ipAddress } = running.record.endpoints[0]!;
  await assert.rejects(manager.attach(attachRequest([], { ipAddress })), /already in use/i);
  await assert.rejects(manager.attach(attachRequest([{ hostPort: 8080 }])), /port is already allocated/);
  await container[Symbol.asyncDispose]();
  await recovered.release();
  const next = await manager.attach(attachRequest([{ hostPort: 8080 }], { ipAddress }));
  assert.ok(await pings(next.namespacePath, next.endpoints[0]!.gateway));
  await next.release();
  assert.deepEqual(elements(), []);
});

test("kill -9 with nothing running: the next daemon cleans up and goes without a trace", async () => {
  using dataRoot = makeDataRoot();
  const { child } = await startDaemon(dataRoot.path);
  await kill(child);
  const manager = await openManager(dataRoot.path);
  await manager.reconcile();
  assert.deepEqual(elements(), []);
  await manager[Symbol.asyncDispose]();
  assert.equal(skiffTables(), "");
  assert.ok(
    await eventually(() => linkNames().every((name) => !name.startsWith("sk"))),
    linkNames().join(" "),
  );
});

test("a graceful stop leaves a running container its network", async () => {
  using dataRoot = makeDataRoot();
  const first = await openManager(dataRoot.path);
  const attachment = await first.attach(attachRequest([{ hostPort: 8085 }]));
  await using container = await hold(attachment.namespacePath);
  await using _server = serveTcp(container.namespacePath, 80, "alive");
  await attachment.publish();
  attachment.adopted();
  await first[Symbol.asyncDispose]();
  assert.equal(await askFromHost("127.0.0.1", 8085), "alive");

  await using second = await openManager(dataRoot.path);
  const recovered = await second.recover(newContainerId(), attachment.record);
  await second.reconcile();
  assert.equal(await askFromHost("127.0.0.1", 8085), "alive");
  await container[Symbol.asyncDispose]();
  await recovered.release();
});

test("the helper is killed: containers live, the pool comes back", async () => {
  using dataRoot = makeDataRoot();
  await using manager = await openManager(dataRoot.path);
  const attachment = await manager.attach(attachRequest());
  await using container = await hold(attachment.namespacePath);
  attachment.adopted();
  const helper = Number((await probe(manager)).split("/")[2]);
  assert.ok(await eventually(() => manager.ready.bridged === 4));
  process.kill(helper, "SIGKILL");
  assert.ok(await eventually(async () => !(await probe(manager)).startsWith(`/proc/${helper}/`)));
  assert.ok(await eventually(() => manager.ready.bridged === 4));
  const next = await manager.attach(attachRequest());
  assert.ok(await pings(next.namespacePath, next.endpoints[0]!.gateway));
  assert.ok(await pings(container.namespacePath, next.endpoints[0]!.ipAddress));
  await next.release();
  await container[Symbol.asyncDispose]();
  await attachment.release();
});

async function probe(manager: BridgeNetworkManager): Promise<string> {
  const attachment = await manager.attach(attachRequest());
  const path = attachment.namespacePath;
  await attachment.release();
  return path;
}

test("two daemons at once disturb each other in nothing", async () => {
  using rootA = makeDataRoot();
  using rootB = makeDataRoot();
  const [a, b] = await Promise.all([openManager(rootA.path), openManager(rootB.path)]);
  assert.notEqual(a.resolve("bridge").subnet, b.resolve("bridge").subnet);
  const inA = await a.attach(attachRequest([{ hostPort: 8101 }]));
  const inB = await b.attach(attachRequest([{ hostPort: 8102 }]));
  const serverA = serveTcp(inA.namespacePath, 80, "a");
  const serverB = serveTcp(inB.namespacePath, 80, "b");
  await Promise.all([inA.publish(), inB.publish()]);
  assert.equal(await askFromHost("127.0.0.1", 8101), "a");
  assert.equal(await askFromHost("127.0.0.1", 8102), "b");
  assert.equal(await askFrom(inA.namespacePath, hostAddress, 8102), "b", "by the published port");
  assert.equal(await askFrom(inA.namespacePath, inB.endpoints[0]!.ipAddress, 80), "", "not directly");
  await serverA[Symbol.asyncDispose]();
  await inA.release();
  await a[Symbol.asyncDispose]();
  assert.equal(await askFromHost("127.0.0.1", 8102), "b");
  await serverB[Symbol.asyncDispose]();
  await inB.release();
  await b[Symbol.asyncDispose]();
});

test("eight daemons that start together choose eight subnets", async () => {
  const roots = Array.from({ length: 8 }, () => makeDataRoot());
  const managers = await Promise.all(roots.map((root) => openManager(root.path, { poolSize: 1 })));
  assert.equal(new Set(managers.map((manager) => manager.resolve("bridge").subnet)).size, 8);
  await Promise.all(managers.map((manager) => manager[Symbol.asyncDispose]()));
  for (const root of roots) root[Symbol.dispose]();
});

test("--bip, a small subnet to its end, and a subnet that is taken", async () => {
  using dataRoot = makeDataRoot();
  await using manager = await openManager(dataRoot.path, { bip: "10.88.0.1/29", poolSize: 4 });
  assert.deepEqual(
    [manager.resolve("bridge").subnet, manager.resolve("bridge").gateway],
    ["10.88.0.0/29", "10.88.0.1"],
  );
  const all = [];
  for (let count = 0; count < 5; count += 1) all.push(await manager.attach(attachRequest()));
  assert.equal(new Set(all.map((one) => one.endpoints[0]!.ipAddress)).size, 5);
  await assert.rejects(manager.attach(attachRequest()), /no available IPv4 addresses/);
  await all[0]!.release();
  const again = await manager.attach(attachRequest());
  await Promise.all([...all, again].map((one) => one.release()));

  using other = makeDataRoot();
  await assert.rejects(
    openManager(other.path, { bip: "10.88.0.5/24" }),
    /overlaps 10\.88\.0\.0\/29 on skiff-/,
  );
  await assert.rejects(openManager(other.path, { bip: "198.51.100.9/24" }), /overlaps/);
  await assert.rejects(openManager(other.path, { bip: "nonsense" }), /invalid CIDR/);
  assert.equal(
    linkNames().filter((name) => name.startsWith("skiff")).length,
    1,
    "nothing of the refused is left",
  );
});

test("a bridge whose 1,023 ports are taken says so", async () => {
  using dataRoot = makeDataRoot();
  await using manager = await openManager(dataRoot.path, { poolSize: 0 });
  const bridge = manager.resolve("bridge").options["com.docker.network.bridge.name"]!;
  // Pairs with both ends on the bridge are the cheapest ports there are.
  const pairs = Array.from({ length: 511 }, (_, index) => [`pa${index}`, `pb${index}`]);
  const batch = pairs.map(
    ([a, b]) => `link add ${a} master ${bridge} type veth peer name ${b}\nlink set ${b} master ${bridge}`,
  );
  execFileSync("ip", ["-batch", "-"], { input: batch.join("\n") });
  const last = await manager.attach(attachRequest());
  await assert.rejects(
    manager.attach(attachRequest()),
    /network bridge is full: a Linux bridge takes 1,023 ports/,
  );
  await last.release();
  execFileSync("ip", ["-batch", "-"], { input: pairs.map(([a]) => `link del ${a}`).join("\n") });
});

test("ports: in use, ranges, any, and the next after another program's", async () => {
  using dataRoot = makeDataRoot();
  await using manager = await openManager(dataRoot.path);
  const fixed = await manager.attach(attachRequest([{ hostPort: 8200 }]));
  await assert.rejects(
    manager.attach(attachRequest([{ hostPort: 8201 }, { hostPort: 8200 }])),
    /^EngineError: driver failed programming external connectivity on endpoint web \([0-9a-f]{64}\): Bind for 0\.0\.0\.0:8200 failed: port is already allocated$/,
  );
  const range = { hostPort: 8200, hostPortEnd: 8202 };
  const first = await manager.attach(attachRequest([range]));
  assert.equal(first.bindings[0]!.hostPort, 8201, "the refused request gave 8201 back");
  assert.equal(await manager.rebind(first, first.reservations[0]!), first);
  assert.equal(first.bindings[0]!.hostPort, 8202);
  assert.equal(await manager.rebind(first, first.reservations[0]!), undefined, "the range is at its end");
  assert.equal(await manager.rebind(fixed, fixed.reservations[0]!), undefined, "a fixed port has no other");
  const any = await manager.attach(attachRequest([{}, {}]));
  const [one, two] = any.bindings.map((binding) => binding.hostPort) as [number, number];
  assert.equal(one, 32768);
  assert.equal(two, 32769);
  await manager.rebind(any, any.reservations[0]!);
  assert.equal(any.bindings[0]!.hostPort, 32770);
  await using _server = serveTcp(any.namespacePath, 80, "any");
  await any.publish();
  assert.equal(await askFromHost("127.0.0.1", 32770), "any");
  assert.equal(await askFromHost("127.0.0.1", 32769), "any");
  await Promise.all([fixed, first, any].map((attachment) => attachment.release()));
  assert.deepEqual(elements(), []);
});

test("networks: names, ids, prefixes", async () => {
  using dataRoot = makeDataRoot();
  await using manager = await openManager(dataRoot.path);
  assert.deepEqual(
    manager.list().map((network) => network.name),
    ["bridge", "host", "none"],
  );
  const bridge = manager.resolve("default");
  assert.equal(bridge.name, "bridge");
  assert.equal(manager.resolve(bridge.id.slice(0, 12)).name, "bridge");
  assert.throws(() => manager.resolve("nope"), /^EngineError: network nope not found$/);
  assert.throws(() => manager.resolve(""), /not found/);
  await assert.rejects(manager.attach(attachRequest([], { networkName: "host" })), /needs no attachment/);
});

/** Keys of the published ports, of all tables of Skiff. */
function elements(): string[] {
  const text = execFileSync("nft", ["list", "ruleset"], { encoding: "utf8" });
  // Protocols have names only where the machine has /etc/protocols.
  return [...text.matchAll(/(?:tcp|udp|6|17) \. ((?:[\d.]+ \. )?\d+) : /g)].map(([, key]) => key!).sort();
}
