import { readFileSync } from "node:fs";
import { EngineError } from "#base/errors.ts";
import { formatSubnet, maskOf, overlap, parseSubnet, type Subnet, subnetOf } from "./ipv4.ts";

/** A range that is cut into subnets: `--default-address-pool base=…,size=…`. */
export interface AddressRange {
  readonly base: string;
  /** Prefix length of each subnet. */
  readonly size: number;
}

/** Docker's default local address pools (daemon `default-address-pools`). */
export const defaultAddressRanges: readonly AddressRange[] = [
  { base: "172.17.0.0/16", size: 16 },
  { base: "172.18.0.0/16", size: 16 },
  { base: "172.19.0.0/16", size: 16 },
  { base: "172.20.0.0/14", size: 16 },
  { base: "172.24.0.0/14", size: 16 },
  { base: "172.28.0.0/14", size: 16 },
  { base: "192.168.0.0/16", size: 20 },
];

/** Every subnet that the ranges hold, in order. Lazily: a /8 cut into /28 has a million. */
export function* candidateSubnets(ranges: readonly AddressRange[]): Generator<Subnet> {
  for (const range of ranges) {
    const base = parseSubnet(range.base);
    if (range.size < base.prefixLength || range.size > 29) {
      throw new EngineError(
        "invalid",
        `invalid default address pool: size ${range.size} does not fit in ${range.base}`,
        { code: "bad-address-pool" },
      );
    }
    const count = 2 ** (range.size - base.prefixLength);
    for (let index = 0; index < count; index += 1) {
      yield subnetOf(base.base + index * 2 ** (32 - range.size), range.size);
    }
  }
}

/** The first candidate that touches nothing in use; `skip` leaves out that many free ones. */
export function chooseSubnet(ranges: readonly AddressRange[], inUse: readonly Subnet[], skip = 0): Subnet {
  let left = skip;
  for (const candidate of candidateSubnets(ranges)) {
    if (inUse.some((used) => overlap(used, candidate))) continue;
    if (left === 0) return candidate;
    left -= 1;
  }
  throw new EngineError(
    "system",
    "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
    { code: "no-address-pool" },
  );
}

export interface HostRoute {
  readonly interfaceName: string;
  readonly subnet: Subnet;
}

/** The main table's IPv4 routes without the default ones, from the text of /proc/net/route (proc_net(5)). */
export function parseRoutes(text: string): HostRoute[] {
  const routes: HostRoute[] = [];
  for (const line of text.split("\n").slice(1)) {
    const columns = line.trim().split(/\s+/);
    const [interfaceName, destination, , , , , , mask] = columns;
    if (interfaceName === undefined || destination === undefined || mask === undefined) continue;
    const prefixLength = prefixOf(hostOrder(mask));
    if (prefixLength === 0) continue;
    routes.push({ interfaceName, subnet: subnetOf(hostOrder(destination), prefixLength) });
  }
  return routes;
}

// The kernel prints the words as they lie in memory; both machines that Skiff runs on are little-endian.
function hostOrder(hex: string): number {
  return Number.parseInt(hex.match(/../g)?.toReversed().join("") ?? "0", 16) >>> 0;
}

function prefixOf(mask: number): number {
  for (let length = 0; length <= 32; length += 1) if (maskOf(length) === mask) return length;
  return 32;
}

export function readHostRoutes(): HostRoute[] {
  return parseRoutes(readFileSync("/proc/net/route", "latin1"));
}

/** Which interface else has a route that overlaps; undefined: none. */
export function conflictingRoute(
  subnet: Subnet,
  ownInterface: string,
  routes: readonly HostRoute[],
): string | undefined {
  const other = routes.find((route) => route.interfaceName !== ownInterface && overlap(route.subnet, subnet));
  return other === undefined ? undefined : `${formatSubnet(other.subnet)} on ${other.interfaceName}`;
}
