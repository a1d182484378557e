import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { BridgeNetworkManager } from "#network/bridge-network-manager.ts";
import {
  askFrom,
  askFromHost,
  askUdp,
  attachRequest,
  echoUdp,
  enterOwnNetwork,
  eventually,
  hostAddress,
  linkNames,
  makeDataRoot,
  type Outside,
  openManager,
  openOutside,
  openUdp,
  outsideAddress,
  pings,
  run,
  serveTcp,
  skiffTables,
  within,
} from "./network-lab.ts";

enterOwnNetwork();
const dataRoot = makeDataRoot();
let outside: Outside;
let manager: BridgeNetworkManager;

before(async () => {
  outside = await openOutside();
  manager = await openManager(dataRoot.path);
});

after(async () => {
  await manager.close({ keep: false });
  await outside[Symbol.asyncDispose]();
  dataRoot[Symbol.dispose]();
  // Leak check: no link, table or namespace helper of Skiff is left.
  assert.ok(
    await eventually(() => linkNames().every((name) => !name.startsWith("sk"))),
    linkNames().join(" "),
  );
  assert.equal(skiffTables(), "");
});

test("the pool fills, hands out, and refills", async () => {
  assert.ok(await eventually(() => manager.ready.bridged === 4 && manager.ready.isolated === 1));
  await using first = await releasing(await manager.attach(attachRequest()));
  await using second = await releasing(await manager.attach(attachRequest()));
  assert.notEqual(first.it.endpoints[0]!.ipAddress, second.it.endpoints[0]!.ipAddress);
  assert.match(first.it.namespacePath, /^\/proc\/\d+\/fd\/\d+$/);
  assert.equal(first.it.endpoints[0]!.prefixLength, 16);
  assert.ok(await eventually(() => manager.ready.bridged === 4));
  assert.ok(await pings(first.it.namespacePath, first.it.endpoints[0]!.gateway));
  assert.ok(
    await pings(first.it.namespacePath, second.it.endpoints[0]!.ipAddress),
    "containers see each other",
  );
});

test("more containers than the pool holds are made on the spot", async () => {
  const many = await Promise.all(Array.from({ length: 12 }, () => manager.attach(attachRequest())));
  assert.equal(new Set(many.map((one) => one.endpoints[0]!.ipAddress)).size, 12);
  assert.ok(await pings(many[11]!.namespacePath, many[11]!.endpoints[0]!.gateway));
  await Promise.all(many.map((one) => one.release()));
});

test("inside: one link named eth0, no IPv6 but on lo, Docker's sysctls", async () => {
  await using held = await releasing(await manager.attach(attachRequest()));
  const inside = (...command: string[]): string =>
    within(held.it.namespacePath, () => run(command[0]!, ...command.slice(1)));
  assert.match(inside("ip", "-br", "link"), /^lo .*\neth0@/);
  assert.equal(inside("ip", "-6", "addr", "show", "dev", "eth0"), "");
  assert.match(inside("ip", "-6", "addr", "show", "dev", "lo"), /::1/);
  const sysctl = (name: string): string => inside("cat", `/proc/sys/${name}`).trim();
  assert.equal(sysctl("net/ipv6/conf/all/disable_ipv6"), "1");
  assert.equal(sysctl("net/ipv4/ip_unprivileged_port_start"), "0");
  assert.equal(sysctl("net/ipv4/ping_group_range"), "0\t2147483647");
  assert.equal(inside("ip", "-br", "link", "show", "eth0").includes(held.it.endpoints[0]!.macAddress), true);
});

test("none: a namespace with only lo, up", async () => {
  await using held = await releasing(await manager.attach(attachRequest([], { networkName: "none" })));
  const links = within(held.it.namespacePath, () => run("ip", "-br", "link"));
  assert.match(links, /^lo +UNKNOWN.*\n$/);
  assert.ok(await pings(held.it.namespacePath, "127.0.0.1"));
  assert.equal(held.it.endpoints[0]!.networkName, "none");
});

test("an address and a MAC of one's own, also when the pool holds the address", async () => {
  assert.ok(await eventually(() => manager.ready.bridged === 4));
  const subnet = manager.resolve("bridge").subnet!.replace(/\.0\.0\/16$/, "");
  const wanted = { ipAddress: `${subnet}.77.7`, macAddress: "02:00:00:00:00:77" };
  await using held = await releasing(await manager.attach(attachRequest([], wanted)));
  assert.equal(held.it.endpoints[0]!.ipAddress, wanted.ipAddress);
  assert.ok(await pings(held.it.namespacePath, held.it.endpoints[0]!.gateway));
  const address = within(held.it.namespacePath, () => run("cat", "/proc/net/arp"));
  assert.match(address, /eth0/);
  await assert.rejects(manager.attach(attachRequest([], wanted)), /already in use/i);
  await assert.rejects(manager.attach(attachRequest([], { ipAddress: "10.1.2.3" })), /belong/);
  // Sooner or later every address is one that waits in the pool.
  const pooled = Array.from({ length: 40 }, (_, index) => `${subnet}.0.${index + 2}`);
  for (const ipAddress of pooled) {
    try {
      await using other = await releasing(await manager.attach(attachRequest([], { ipAddress })));
      assert.equal(other.it.endpoints[0]!.ipAddress, ipAddress);
    } catch (error) {
      assert.match(String(error), /in use/);
    }
  }
});

test("traffic to the world outside is masqueraded", async () => {
  await using server = serveTcp(outside.namespacePath, 9000, "outside");
  await using held = await releasing(await manager.attach(attachRequest()));
  assert.equal(await askFrom(held.it.namespacePath, outsideAddress, 9000), "outside");
  assert.deepEqual(server.peers, [hostAddress]);
});

test("a published port: from loopback, the host's address, outside, and the container itself", async () => {
  await using held = await releasing(await manager.attach(attachRequest([{ hostPort: 8080 }])));
  await using neighbour = await releasing(await manager.attach(attachRequest()));
  await using server = serveTcp(held.it.namespacePath, 80, "hello");
  assert.deepEqual(held.it.reservations, [{ protocol: "tcp", address: "0.0.0.0", port: 8080 }]);
  assert.equal(await askFromHost("127.0.0.1", 8080), "ECONNREFUSED", "before publish");
  await held.it.publish();
  const { gateway } = held.it.endpoints[0]!;
  assert.equal(await askFromHost("127.0.0.1", 8080), "hello");
  assert.equal(await askFromHost(hostAddress, 8080), "hello");
  assert.equal(await askFromHost(gateway, 8080), "hello");
  assert.equal(await askFrom(outside.namespacePath, hostAddress, 8080), "hello");
  assert.equal(await askFrom(held.it.namespacePath, hostAddress, 8080), "hello", "hairpin");
  assert.equal(await askFrom(held.it.namespacePath, gateway, 8080), "hello", "hairpin by the gateway");
  assert.equal(await askFrom(neighbour.it.namespacePath, hostAddress, 8080), "hello", "from a neighbour");
  assert.equal(
    server.peers.filter((peer) => peer === outsideAddress).length,
    1,
    "the outside address is kept",
  );
  await held.it.release();
  assert.equal(await askFromHost("127.0.0.1", 8080), "ECONNREFUSED");
});

test("what is not published cannot be reached from outside", async () => {
  await using held = await releasing(await manager.attach(attachRequest([{ hostPort: 8081 }])));
  await using _published = serveTcp(held.it.namespacePath, 80, "published");
  await using _private = serveTcp(held.it.namespacePath, 81, "private");
  await held.it.publish();
  const { ipAddress, gateway } = held.it.endpoints[0]!;
  within(outside.namespacePath, () => run("ip", "route", "add", `${gateway}/32`, "via", hostAddress));
  within(outside.namespacePath, () => run("ip", "route", "add", `${ipAddress}/32`, "via", hostAddress));
  assert.equal(await askFrom(outside.namespacePath, ipAddress, 81), "");
  assert.equal(
    await askFrom(outside.namespacePath, ipAddress, 80),
    "",
    "not by the container's address either",
  );
  assert.equal(await pings(outside.namespacePath, ipAddress), false);
  assert.equal(await askFromHost(ipAddress, 81), "private", "the host itself may");
  assert.equal(await askFrom(outside.namespacePath, hostAddress, 8081), "published");
});

test("published on 127.0.0.1: for the host alone, whatever a neighbour forges", async () => {
  await using held = await releasing(
    await manager.attach(attachRequest([{ hostPort: 8082, hostAddress: "127.0.0.1" }])),
  );
  await using server = serveTcp(held.it.namespacePath, 80, "local");
  await held.it.publish();
  assert.equal(await askFromHost("127.0.0.1", 8082), "local");
  assert.equal(await askFrom(outside.namespacePath, hostAddress, 8082), "");
  // Forged: the neighbour sends packets for 127.0.0.1 over the wire.
  within(outside.namespacePath, () => {
    run("ip", "link", "set", "lo", "down");
    run("ip", "addr", "flush", "dev", "lo");
    run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/wire/route_localnet");
    run("ip", "rule", "add", "pref", "5", "lookup", "local");
    run("ip", "rule", "del", "pref", "0");
    run("ip", "rule", "add", "pref", "1", "to", "127.0.0.0/8", "lookup", "77");
    run("ip", "route", "add", "127.0.0.0/8", "via", hostAddress, "dev", "wire", "table", "77");
  });
  assert.equal(await askFrom(outside.namespacePath, "127.0.0.1", 8082), "");
  assert.equal(server.peers.length, 1);
  await withoutGuard(async () => {
    assert.equal(await askFrom(outside.namespacePath, "127.0.0.1", 8082), "local");
  });
});

test("a container cannot reach the host's own loopback services", async () => {
  await using held = await releasing(await manager.attach(attachRequest()));
  await using server = serveTcp("/proc/thread-self/ns/net", 9100, "host only");
  assert.equal(await askFromHost("127.0.0.1", 9100), "host only");
  within(held.it.namespacePath, () => {
    run("ip", "link", "set", "lo", "down");
    run("ip", "addr", "flush", "dev", "lo");
    run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet");
    run("ip", "rule", "add", "pref", "5", "lookup", "local");
    run("ip", "rule", "del", "pref", "0");
    run("ip", "rule", "add", "pref", "1", "to", "127.0.0.0/8", "lookup", "77");
    run("ip", "route", "add", "127.0.0.0/8", "via", held.it.endpoints[0]!.gateway, "table", "77");
  });
  assert.equal(await askFrom(held.it.namespacePath, "127.0.0.1", 9100), "");
  assert.equal(server.peers.length, 1);
  await withoutGuard(async () => {
    assert.equal(await askFrom(held.it.namespacePath, "127.0.0.1", 9100), "host only");
  });
});

test("udp, and the next owner of a udp port gets its flows", async (t) => {
  const port = 5353;
  const client = await openUdp(outside.namespacePath, 0);
  t.after(() => client.close());
  // Nobody listens yet: the kernel tracks this flow to the host itself.
  assert.equal(await askUdp(client, hostAddress, port), "");
  const request = attachRequest([{ hostPort: port, containerPort: 53, protocol: "udp" }]);
  for (const greeting of ["first", "second"]) {
    await using held = await releasing(await manager.attach(request));
    const server = await openUdp(held.it.namespacePath, 53);
    t.after(() => server.close());
    echoUdp(server, greeting);
    await held.it.publish();
    assert.equal(await askUdp(client, hostAddress, port), greeting);
  }
});

test("publishing a udp port leaves flows to other ports alone", async (t) => {
  await using held = await releasing(await manager.attach(attachRequest()));
  const client = await openUdp(held.it.namespacePath, 0);
  const server = await openUdp(outside.namespacePath, 7001);
  t.after(() => [client, server].map((socket) => socket.close()));
  echoUdp(server, "far");
  assert.equal(await askUdp(client, outsideAddress, 7001), "far");
  const tracked = (): boolean => run("cat", "/proc/net/nf_conntrack").includes("dport=7001");
  assert.ok(tracked());
  await using other = await releasing(
    await manager.attach(attachRequest([{ hostPort: 7002, protocol: "udp" }])),
  );
  await other.it.publish();
  assert.ok(tracked());
});

/** Shows that an attack would succeed but for the guard: a test that cannot fail proves nothing. */
async function withoutGuard(attack: () => Promise<void>): Promise<void> {
  const table = /skiff-\w+/.exec(skiffTables())![0];
  run("nft", "insert", "rule", "ip", table, "guard", "accept");
  await attack();
  const [, handle] = /accept # handle (\d+)/.exec(run("nft", "-a", "list", "chain", "ip", table, "guard"))!;
  run("nft", "delete", "rule", "ip", table, "guard", "handle", handle!);
}

async function releasing<T extends { release(): Promise<void> }>(
  it: T,
): Promise<{ it: T } & AsyncDisposable> {
  return { it, [Symbol.asyncDispose]: () => it.release() };
}
