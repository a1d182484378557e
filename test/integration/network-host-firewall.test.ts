import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import {
  askFrom,
  askFromHost,
  attachRequest,
  enterOwnNetwork,
  eventually,
  hostAddress,
  makeDataRoot,
  type Outside,
  openManager,
  openOutside,
  outsideAddress,
  pings,
  run,
  serveTcp,
  skiffTables,
} from "./network-lab.ts";

enterOwnNetwork();
let outside: Outside;

before(async () => {
  outside = await openOutside();
});

afterEach(() => run("nft", "flush", "ruleset"));

after(async () => {
  await outside[Symbol.asyncDispose]();
});

function nft(...commands: string[]): void {
  for (const command of commands) run("nft", command);
}

const drop = [
  "add table ip filter",
  "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }",
];

/** Whether a container of this daemon reaches the outside, and the outside its published port. */
async function works(manager: Awaited<ReturnType<typeof openManager>>): Promise<[boolean, boolean]> {
  const attachment = await manager.attach(attachRequest([{ hostPort: 8300 }]));
  const server = serveTcp(attachment.namespacePath, 80, "in");
  await attachment.publish();
  const out = await pings(attachment.namespacePath, outsideAddress);
  const published = (await askFrom(outside.namespacePath, hostAddress, 8300)) === "in";
  await server[Symbol.asyncDispose]();
  await attachment.release();
  return [out, published];
}

test("a host that forwards everything: its firewall is left alone", async () => {
  nft(
    "add table ip filter",
    "add chain ip filter FORWARD { type filter hook forward priority 0; policy accept; }",
  );
  using dataRoot = makeDataRoot();
  await using manager = await openManager(dataRoot.path);
  assert.deepEqual(manager.foreignRules, []);
  assert.equal(rules("ip filter FORWARD").length, 0);
  assert.deepEqual(await works(manager), [true, true]);
});

test("policy drop: accept rules go in, are listed, and go out with the daemon", async () => {
  nft(...drop);
  using dataRoot = makeDataRoot();
  const manager = await openManager(dataRoot.path);
  const bridge = manager.resolve("bridge").options["com.docker.network.bridge.name"];
  assert.deepEqual(manager.foreignRules, [
    `ip filter FORWARD: iifname "${bridge}" accept`,
    `ip filter FORWARD: oifname "${bridge}" accept`,
  ]);
  assert.deepEqual(await works(manager), [true, true]);
  await manager[Symbol.asyncDispose]();
  assert.deepEqual(rules("ip filter FORWARD"), []);
});

test("policy drop, switched off: nothing is touched, and nothing gets through", async () => {
  nft(...drop);
  using dataRoot = makeDataRoot();
  await using manager = await openManager(dataRoot.path, { manageHostFirewall: false });
  assert.deepEqual(manager.foreignRules, []);
  assert.deepEqual(rules("ip filter FORWARD"), []);
  assert.deepEqual(await works(manager), [false, false]);
});

test("the administrator's rules in DOCKER-USER come before ours, its final return after", async () => {
  nft(
    ...drop,
    "add chain ip filter DOCKER-USER",
    "add rule ip filter FORWARD counter jump DOCKER-USER",
    `add rule ip filter DOCKER-USER ip daddr ${outsideAddress} ip protocol icmp drop`,
    "add rule ip filter DOCKER-USER counter return",
  );
  using dataRoot = makeDataRoot();
  const manager = await openManager(dataRoot.path);
  const listed = rules("ip filter DOCKER-USER");
  assert.match(listed[0]!, /daddr.*drop/);
  assert.match(listed[1]!, /iifname.*accept comment "skiff-/);
  assert.match(listed[2]!, /oifname.*accept comment "skiff-/);
  assert.match(listed[3]!, /return/);
  assert.deepEqual(await works(manager), [false, true], "what the administrator forbids stays forbidden");

  await manager[Symbol.asyncDispose]();
  assert.equal(rules("ip filter DOCKER-USER").length, 2);
});

test("a chain that ends with a refusal, as firewalld's does", async () => {
  nft(
    "add table inet firewalld",
    "add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy accept; }",
    "add rule inet firewalld filter_FORWARD ct state established,related accept",
    "add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited",
  );
  using dataRoot = makeDataRoot();
  await using manager = await openManager(dataRoot.path);
  assert.equal(manager.foreignRules.length, 2);
  assert.match(rules("inet firewalld filter_FORWARD").at(-1)!, /reject/);
  assert.deepEqual(await works(manager), [true, true]);
});

test("a firewall that closes after us is noticed, and one that opens again too", async () => {
  using dataRoot = makeDataRoot();
  await using manager = await openManager(dataRoot.path);
  assert.deepEqual(manager.foreignRules, []);
  nft(...drop);
  assert.ok(await eventually(() => manager.foreignRules.length === 2));
  assert.deepEqual(await works(manager), [true, true]);
  nft("add chain ip filter FORWARD { policy accept; }");
  assert.ok(await eventually(() => manager.foreignRules.length === 0));
  assert.deepEqual(rules("ip filter FORWARD"), []);
});

test("after kill -9 the rules are found again by their mark", async () => {
  nft(...drop);
  using dataRoot = makeDataRoot();
  const first = await openManager(dataRoot.path);
  await first.close({ keep: true });
  assert.equal(rules("ip filter FORWARD").length, 2);
  const second = await openManager(dataRoot.path);
  assert.equal(rules("ip filter FORWARD").length, 2, "not twice");
  await second.close({ keep: false });
  assert.deepEqual(rules("ip filter FORWARD"), []);
});

test("a flush of the whole ruleset under traffic opens nothing for long", async () => {
  using dataRoot = makeDataRoot();
  await using manager = await openManager(dataRoot.path);
  const attachment = await manager.attach(attachRequest([{ hostPort: 8301 }]));
  const server = serveTcp(attachment.namespacePath, 80, "in");
  await attachment.publish();
  const before = normalised();
  for (let round = 0; round < 5; round += 1) {
    nft("flush ruleset");
    assert.ok(await eventually(() => /skiff-/.test(skiffTables()) && normalised() === before));
    assert.equal(await askFromHost("127.0.0.1", 8301), "in");
  }
  const table = /skiff-\w+/.exec(skiffTables())![0];
  nft(`delete rule ip ${table} forward handle ${handleOf(`ip ${table} forward`, /drop/)}`);
  assert.ok(await eventually(() => normalised() === before), "one rule missing");
  // Not even noticed yet: publishing and releasing come through all the same.
  const other = await manager.attach(attachRequest([{ hostPort: 8302 }]));
  nft("flush ruleset");
  await other.publish();
  assert.equal(await askFromHost("127.0.0.1", 8301), "in");
  nft("flush ruleset");
  await other.release();
  assert.ok(await eventually(() => normalised() === before));
  await server[Symbol.asyncDispose]();
  await attachment.release();
});

function normalised(): string {
  return run("nft", "list", "ruleset");
}

function rules(chain: string): string[] {
  const lines = run("nft", "list", "chain", ...chain.split(" "))
    .split("\n")
    .map((line) => line.trim());
  return lines.filter(
    (line) => /\b(accept|drop|return|reject|jump)\b/.test(line) && !/policy|chain/.test(line),
  );
}

function handleOf(chain: string, pattern: RegExp): string {
  const lines = run("nft", "-a", "list", "chain", ...chain.split(" ")).split("\n");
  return /handle (\d+)/.exec(lines.find((line) => pattern.test(line))!)![1]!;
}
