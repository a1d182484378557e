import { createHash } from "node:crypto";
import { readFileSync, realpathSync, statSync } from "node:fs";
import { formatTime } from "#base/clock.ts";
import { errnoOf } from "#base/errors.ts";
import type { NetworkId } from "#base/ids.ts";
import type { Log } from "#base/log.ts";
import { openNft } from "#sys/nft.ts";
import { type Bridge, enableForwarding, removeUnusedBridge, setUpBridge } from "./bridge.ts";
import { BridgeNetworkManager } from "./bridge-network-manager.ts";
import { createFirewall } from "./firewall.ts";
import { HostFirewall } from "./host-firewall.ts";
import { contains, formatIpv4, formatSubnet } from "./ipv4.ts";
import type { HelperEvent } from "./namespace-helper.ts";
import { NamespaceSource, startWatchingHelper } from "./namespace-source.ts";
import type { NetworkDescription } from "./network.ts";
import { PortAllocator, readEphemeralRange } from "./port-allocator.ts";
import { type AddressRange, defaultAddressRanges } from "./subnet-choice.ts";

export interface NetworkManagerOptions {
  /** Identifies the daemon: names of its bridge, links and table derive from it. Must exist. */
  readonly dataRoot: string;
  /** The native program, `native/build/skiff-native`. */
  readonly binaryPath: string;
  /** `--bridge`; else `skiff0` for the default data root and a name of its own for every other. */
  readonly bridgeName?: string | undefined;
  /** `--bip`. */
  readonly bip?: string | undefined;
  /** `--default-address-pool`. */
  readonly addressPools?: readonly AddressRange[] | undefined;
  /** Namespaces kept ready. */
  readonly poolSize?: number | undefined;
  /** False: no accept rule is ever added to a chain of the host. */
  readonly manageHostFirewall?: boolean | undefined;
  readonly log: Log;
}

const defaultDataRoot = "/var/lib/skiff";
const defaultPoolSize = 32;

/** Names of this daemon's kernel objects (invariant 1). Interface names hold 15 characters. */
interface Names {
  readonly identity: string;
  readonly bridge: string;
  readonly table: string;
  /** Of the containers' host interfaces; eight digits follow. */
  readonly link: string;
}

function namesFor(dataRoot: string, bridgeName: string | undefined): Names {
  const identity = createHash("sha256").update(`skiff network ${dataRoot}`).digest("hex");
  return {
    identity,
    bridge: bridgeName ?? (dataRoot === defaultDataRoot ? "skiff0" : `skiff-${identity.slice(0, 8)}`),
    table: `skiff-${identity.slice(0, 8)}`,
    link: `sk${identity.slice(0, 5)}`,
  };
}

/**
 * The networks of one daemon: starts the namespace helper, makes or takes over the bridge, puts the firewall table in,
 * and begins to fill the pool. Rejects with what is missing on the host, and then leaves nothing that it made.
 */
export async function createNetworkManager(options: NetworkManagerOptions): Promise<BridgeNetworkManager> {
  const dataRoot = realpathSync(options.dataRoot);
  const names = namesFor(dataRoot, options.bridgeName);
  const log = options.log.child({ bridge: names.bridge });
  await using undo = new AsyncDisposableStack();
  const nft = undo.use(openNft());

  let manager: BridgeNetworkManager | undefined;
  const onEvent = (event: HelperEvent): void => manager?.firewallEvent(event);
  const startHelper = () =>
    startWatchingHelper({ binaryPath: options.binaryPath, table: names.table, onEvent, log });
  const helper = await startHelper();
  undo.defer(() => helper.close());
  undo.defer(() => removeUnusedBridge(helper, names.bridge, names.identity));

  const bridge = await setUpBridge(helper, {
    name: names.bridge,
    identity: names.identity,
    address: options.bip,
    ranges: options.addressPools ?? defaultAddressRanges,
    log,
  });
  const firewall = createFirewall(nft, names.table, bridge);
  firewall.install();
  enableForwarding(bridge.name);
  const enabled = options.manageHostFirewall ?? true;
  const hostFirewall = new HostFirewall({ nft, bridge: bridge.name, ownTable: names.table, enabled, log });
  hostFirewall.synchronise();
  warnOfLegacyTables(log);

  const poolSize = options.poolSize ?? defaultPoolSize;
  const source = new NamespaceSource({ helper, startHelper, bridge, prefix: names.link, poolSize, log });
  const leftovers = await source.links();
  for (const address of leftovers.keys()) {
    if (contains(bridge.subnet, address)) source.addresses.claim(address);
  }
  manager = new BridgeNetworkManager({
    networks: describeNetworks(dataRoot, names, bridge),
    bridge,
    source,
    leftovers,
    firewall,
    hostFirewall,
    ports: new PortAllocator(readEphemeralRange()),
    log,
    dispose: () => nft[Symbol.dispose](),
  });
  // All of it is the manager's now.
  undo.move();
  void source.fill();
  return manager;
}

function describeNetworks(dataRoot: string, names: Names, bridge: Bridge): NetworkDescription[] {
  // The data root is as old as the daemon's networks.
  const created = formatTime(statSync(dataRoot, { bigint: true }).birthtimeNs);
  const idOf = (name: string): NetworkId =>
    createHash("sha256").update(`${names.identity} ${name}`).digest("hex") as NetworkId;
  const options = {
    "com.docker.network.bridge.default_bridge": "true",
    "com.docker.network.bridge.enable_icc": "true",
    "com.docker.network.bridge.enable_ip_masquerade": "true",
    "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
    "com.docker.network.bridge.name": bridge.name,
    "com.docker.network.driver.mtu": "1500",
  };
  return [
    {
      id: idOf("bridge"),
      name: "bridge",
      driver: "bridge",
      created,
      subnet: formatSubnet(bridge.subnet),
      gateway: formatIpv4(bridge.gateway),
      options,
    },
    { id: idOf("host"), name: "host", driver: "host", created, options: {} },
    { id: idOf("none"), name: "none", driver: "null", created, options: {} },
  ];
}

/** libnftables does not see the tables of iptables-legacy; their DROP has to be lifted by the administrator. */
function warnOfLegacyTables(log: Log): void {
  try {
    if (!readFileSync("/proc/net/ip_tables_names", "latin1").split("\n").includes("filter")) return;
    log.warn(
      "this host has iptables-legacy rules: if its FORWARD chain drops packets, containers are cut off",
    );
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}
