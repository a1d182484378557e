import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { EngineError, errnoOf } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import { formatIpv4, formatSubnet, type Ipv4, parseCidr, type Subnet, subnetOf } from "./ipv4.ts";
import type { NamespaceHelper } from "./namespace-helper.ts";
import { type AddressRange, chooseSubnet, conflictingRoute, readHostRoutes } from "./subnet-choice.ts";

export interface Bridge {
  readonly name: string;
  /** The link's index in the kernel. */
  readonly index: number;
  readonly subnet: Subnet;
  /** The bridge's own address, the containers' gateway. */
  readonly gateway: Ipv4;
  /** False: it was there before Skiff and stays when Skiff goes. */
  readonly own: boolean;
}

export interface BridgeOptions {
  readonly name: string;
  /** Marks this daemon's bridge: a bridge with another address is somebody else's. */
  readonly identity: string;
  /** `--bip`: address and prefix of the bridge. */
  readonly address: string | undefined;
  readonly ranges: readonly AddressRange[];
  readonly log: Log;
}

const choiceAttempts = 20;

/** The bridge's MAC address, from the daemon's identity. */
export function bridgeMac(identity: string): string {
  const hash = createHash("sha256").update(identity).digest("hex");
  return `02:42:${hash.slice(0, 8).match(/../g)!.join(":")}`;
}

/**
 * Makes the bridge, or takes over the one that is there with its address, so that containers that outlived the daemon
 * keep theirs. Throws when `--bip` overlaps a route of the host.
 */
export async function setUpBridge(helper: NamespaceHelper, options: BridgeOptions): Promise<Bridge> {
  const { value: index, words } = await helper.request("bridge", options.name, bridgeMac(options.identity));
  const own = words[0] !== "foreign";
  const present = await currentAddress(helper, options.name);
  const wanted = options.address === undefined ? undefined : parseBridgeAddress(options.address);
  if (present !== undefined && (wanted === undefined || sameAddress(present, wanted))) {
    return describe(options.name, index, own, present);
  }
  if (present !== undefined) {
    const { words: ports } = await helper.request("ports", options.name);
    if (ports.length > 0 || !own) {
      options.log.warn("the bridge keeps its address while it is in use", {
        bridge: options.name,
        wanted: options.address,
      });
      return describe(options.name, index, own, present);
    }
    await helper.request("address", options.name, "del", formatIpv4(present.address), present.prefixLength);
  }
  const chosen =
    wanted === undefined ? await chooseAddress(helper, options) : await takeAddress(helper, options, wanted);
  return describe(options.name, index, own, chosen);
}

interface BridgeAddress {
  readonly address: Ipv4;
  readonly prefixLength: number;
}

function sameAddress(a: BridgeAddress, b: BridgeAddress): boolean {
  return a.address === b.address && a.prefixLength === b.prefixLength;
}

function describe(name: string, index: number, own: boolean, address: BridgeAddress): Bridge {
  const subnet = subnetOf(address.address, address.prefixLength);
  return { name, index, subnet, gateway: address.address, own };
}

/** `--bip`: an address with room for at least two containers beside it. */
export function parseBridgeAddress(text: string): BridgeAddress {
  const { address, prefixLength } = parseCidr(text);
  if (prefixLength < 8 || prefixLength > 29 || address === subnetOf(address, prefixLength).base) {
    throw new EngineError(
      "invalid",
      `invalid bridge address ${text}: give a host address with a prefix of 8 to 29`,
      {
        code: "bad-address",
      },
    );
  }
  return { address, prefixLength };
}

async function currentAddress(helper: NamespaceHelper, name: string): Promise<BridgeAddress | undefined> {
  const { words } = await helper.request("addresses", name);
  return words[0] === undefined ? undefined : parseCidr(words[0]);
}

async function takeAddress(
  helper: NamespaceHelper,
  options: BridgeOptions,
  wanted: BridgeAddress,
): Promise<BridgeAddress> {
  const subnet = subnetOf(wanted.address, wanted.prefixLength);
  const conflict = conflictingRoute(subnet, options.name, readHostRoutes());
  if (conflict !== undefined) {
    throw new EngineError("invalid", `the bridge's subnet ${formatSubnet(subnet)} overlaps ${conflict}`, {
      code: "address-conflict",
    });
  }
  await helper.request("address", options.name, "add", formatIpv4(wanted.address), wanted.prefixLength);
  return wanted;
}

/**
 * Daemons that start together may choose the same subnet. Each looks once more after its address is in: the later of
 * two always sees the earlier, gives its address back, and tries again after a random pause. No lock is needed.
 */
async function chooseAddress(helper: NamespaceHelper, options: BridgeOptions): Promise<BridgeAddress> {
  for (let attempt = 0; attempt < choiceAttempts; attempt += 1) {
    const inUse = readHostRoutes()
      .filter((route) => route.interfaceName !== options.name)
      .map((route) => route.subnet);
    const skip = attempt === 0 ? 0 : Math.floor(Math.random() * 4);
    const subnet = chooseSubnet(options.ranges, inUse, skip);
    const chosen = { address: subnet.base + 1, prefixLength: subnet.prefixLength };
    const words = [formatIpv4(chosen.address), chosen.prefixLength] as const;
    await helper.request("address", options.name, "add", ...words);
    if (conflictingRoute(subnet, options.name, readHostRoutes()) === undefined) return chosen;
    await helper.request("address", options.name, "del", ...words);
    await sleep(5 + Math.random() * 45);
  }
  throw new EngineError("system", "no free subnet could be taken for the bridge: set one with --bip", {
    code: "no-address-pool",
  });
}

/**
 * Lets the host pass packets on, and packets to 127.0.0.1 out to the bridge. Only to be called when the firewall drops
 * forged 127/8 (invariant 4).
 */
export function enableForwarding(bridgeName: string): void {
  writeSysctl(`net/ipv4/conf/${bridgeName}/route_localnet`, "1");
  if (readFileSync("/proc/sys/net/ipv4/ip_forward", "latin1").trim() === "0") {
    writeSysctl("net/ipv4/ip_forward", "1");
  }
}

function writeSysctl(path: string, value: string): void {
  try {
    writeFileSync(`/proc/sys/${path}`, value);
  } catch (cause) {
    const errno = errnoOf(cause) ?? "EIO";
    throw new EngineError("system", `cannot set ${path.replaceAll("/", ".")}=${value}: ${errno}`, {
      code: errno,
      cause,
    });
  }
}

/** Takes back a bridge of this daemon's own that no container is on. For a start that failed. */
export async function removeUnusedBridge(
  helper: NamespaceHelper,
  name: string,
  identity: string,
): Promise<void> {
  const { words } = await helper.request("bridge", name, bridgeMac(identity));
  if (words[0] === "foreign") return;
  const { words: ports } = await helper.request("ports", name);
  if (ports.length === 0) await helper.request("delete", name);
}
