import assert from "node:assert/strict";
import { test } from "node:test";
import type { NetworkId } from "#base/ids.ts";
import type { EndpointSettings, NetworkDescription, NetworkManager } from "#network/network.ts";
import { parseFilters } from "#wire/filters.ts";
import { createNetworkEngine } from "./networks.ts";

const network = (name: string, driver: NetworkDescription["driver"], digit: string): NetworkDescription => ({
  id: digit.repeat(64) as NetworkId,
  name,
  driver,
  created: "2026-01-01T00:00:00Z",
  options: {},
});
const all = [network("bridge", "bridge", "a"), network("host", "host", "b"), network("none", "null", "c")];

const endpoint: EndpointSettings = {
  networkId: all[0]!.id,
  networkName: "bridge",
  endpointId: "e".repeat(64),
  gateway: "172.17.0.1",
  ipAddress: "172.17.0.2",
  prefixLength: 16,
  macAddress: "02:42:ac:11:00:02",
  aliases: [],
  dnsNames: [],
};

const engine = createNetworkEngine({
  // Only what the use cases call; the networks themselves are tested on a real kernel.
  networks: {
    list: () => all,
    resolve: (name: string) => all.find((one) => one.name === name)!,
  } as unknown as NetworkManager,
  runningContainers: () => [
    { id: "2", name: "web", endpoints: [endpoint] },
    { id: "1", name: "db", endpoints: [{ ...endpoint, networkId: all[2]!.id }] },
  ],
});

const accepted = new Set(["dangling", "driver", "id", "label", "name", "scope", "type"]);
const list = (filters: Record<string, string[]>): string =>
  engine
    .list(parseFilters(JSON.stringify(filters), accepted))
    .map((one) => one.name)
    .join(" ");

test("filters as Docker's", () => {
  const table: readonly [Record<string, string[]>, string][] = [
    [{}, "bridge host none"],
    [{ driver: ["bridge"] }, "bridge"],
    [{ driver: ["bridge", "null"] }, "bridge none"],
    [{ name: ["o"] }, "host none"],
    [{ name: ["^none$"], driver: ["bridge"] }, ""],
    [{ id: ["bbb"] }, "host"],
    [{ scope: ["local"] }, "bridge host none"],
    [{ scope: ["swarm"] }, ""],
    [{ type: ["builtin"] }, "bridge host none"],
    [{ type: ["custom"] }, ""],
    [{ dangling: ["true"] }, ""],
    [{ dangling: ["0"] }, "bridge host none"],
    [{ label: ["a"] }, ""],
  ];
  for (const [filters, expected] of table) assert.equal(list(filters), expected, JSON.stringify(filters));
  assert.throws(() => list({ type: ["x"] }), /invalid filter: 'type'='x'/);
  assert.throws(() => list({ dangling: ["x"] }), /invalid value for filter 'dangling'/);
});

test("inspect names the running containers on the network", () => {
  const { connected } = engine.inspect("bridge");
  assert.deepEqual(
    connected.map((entry) => [entry.containerName, entry.endpoint.ipAddress]),
    [["web", "172.17.0.2"]],
  );
});

test("the predefined networks cannot be made or removed; others are not there yet", () => {
  assert.throws(() => engine.remove("bridge"), {
    kind: "forbidden",
    message: "bridge is a pre-defined network and cannot be removed",
  });
  assert.throws(() => engine.create("host"), {
    kind: "forbidden",
    message: "operation is not permitted on predefined host network",
  });
  assert.throws(() => engine.create("mine"), { kind: "notImplemented", message: /not supported yet/ });
  assert.throws(() => engine.connect("bridge"), { kind: "notImplemented" });
  assert.deepEqual(engine.prune(), { deleted: [] });
});
