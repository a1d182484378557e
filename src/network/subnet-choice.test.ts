import assert from "node:assert/strict";
import { test } from "node:test";
import { formatSubnet, parseSubnet } from "./ipv4.ts";
import {
  candidateSubnets,
  chooseSubnet,
  conflictingRoute,
  defaultAddressRanges,
  parseRoutes,
} from "./subnet-choice.ts";

const choose = (...inUse: string[]): string =>
  formatSubnet(chooseSubnet(defaultAddressRanges, inUse.map(parseSubnet)));

test("Docker's default pools in Docker's order", () => {
  const all = [...candidateSubnets(defaultAddressRanges)].map(formatSubnet);
  assert.equal(all.length, 15 + 16);
  assert.deepEqual(all.slice(0, 4), ["172.17.0.0/16", "172.18.0.0/16", "172.19.0.0/16", "172.20.0.0/16"]);
  assert.equal(all[14], "172.31.0.0/16");
  assert.equal(all.at(-1), "192.168.240.0/20");
});

test("skips what a route of the host touches", () => {
  const table: readonly [string[], string][] = [
    [[], "172.17.0.0/16"],
    [["172.17.0.0/16"], "172.18.0.0/16"],
    [["172.17.5.0/24"], "172.18.0.0/16"],
    [["172.16.0.0/12"], "192.168.0.0/20"],
    [["172.16.0.0/12", "192.168.1.0/24"], "192.168.16.0/20"],
  ];
  for (const [inUse, expected] of table) assert.equal(choose(...inUse), expected, inUse.join(" "));
  assert.throws(() => choose("172.16.0.0/12", "192.168.0.0/16"), /non-overlapping/);
});

test("a range that cannot be cut is refused", () => {
  assert.throws(() => [...candidateSubnets([{ base: "10.0.0.0/16", size: 8 }])], /does not fit/);
  assert.throws(() => [...candidateSubnets([{ base: "10.0.0.0/16", size: 31 }])], /does not fit/);
});

const procNetRoute = `Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
`;

test("routes from /proc/net/route, without the default route", () => {
  const routes = parseRoutes(procNetRoute);
  assert.deepEqual(
    routes.map((route) => `${route.interfaceName} ${formatSubnet(route.subnet)}`),
    ["eth0 192.0.2.0/24", "docker0 172.17.0.0/16"],
  );
  assert.equal(conflictingRoute(parseSubnet("172.17.3.0/24"), "skiff0", routes), "172.17.0.0/16 on docker0");
  assert.equal(conflictingRoute(parseSubnet("172.17.3.0/24"), "docker0", routes), undefined);
});
