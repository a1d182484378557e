import { setTimeout as sleep } from "node:timers/promises";
import { EngineError, errnoOf } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import { AddressPool } from "./address-pool.ts";
import type { Bridge } from "./bridge.ts";
import { formatIpv4, type Ipv4, macOf } from "./ipv4.ts";
import { type HelperEvent, type NamespaceHelper, startNamespaceHelper } from "./namespace-helper.ts";
import { type HeldNamespace, NamespacePool } from "./namespace-pool.ts";

const teardownWaitMs = 2000;

/** Where namespaces come from: the helper (started again when it ended), the two pools, and the bridge's addresses. */
export class NamespaceSource {
  readonly addresses: AddressPool;
  readonly #bridge: Bridge;
  /** Of host interfaces; the address in hexadecimal follows. */
  readonly #prefix: string;
  readonly #log: Log;
  readonly #startHelper: () => Promise<NamespaceHelper>;
  readonly #bridged: NamespacePool;
  readonly #isolated: NamespacePool;
  #helper: NamespaceHelper;
  #restarting: Promise<NamespaceHelper> | undefined;
  #closed = false;

  constructor(options: {
    readonly helper: NamespaceHelper;
    readonly startHelper: () => Promise<NamespaceHelper>;
    readonly bridge: Bridge;
    readonly prefix: string;
    readonly poolSize: number;
    readonly log: Log;
  }) {
    this.#bridge = options.bridge;
    this.#prefix = options.prefix;
    this.#log = options.log;
    this.#startHelper = options.startHelper;
    this.addresses = new AddressPool(options.bridge.subnet, options.bridge.gateway);
    const give = (namespace: HeldNamespace): void => this.#giveBack(namespace);
    this.#bridged = new NamespacePool({
      // A small subnet's addresses are for containers, not for waiting.
      target: Math.min(options.poolSize, Math.floor(this.addresses.capacity / 4)),
      make: () => this.#makeBridged(),
      give,
      log: options.log,
    });
    this.#isolated = new NamespacePool({
      target: Math.ceil(options.poolSize / 4),
      make: () => this.#makeIsolated(),
      give,
      log: options.log,
    });
    this.#helper = options.helper;
    this.#watchEnd(options.helper);
  }

  /** Ready namespaces of both kinds. */
  get ready(): { readonly bridged: number; readonly isolated: number } {
    return { bridged: this.#bridged.size, isolated: this.#isolated.size };
  }

  /** Starts filling the pools; resolves when they are full. */
  async fill(): Promise<void> {
    await Promise.all([this.#bridged.fill(), this.#isolated.fill()]);
  }

  /** A namespace with only `lo`. */
  async isolated(): Promise<HeldNamespace> {
    return this.#taken(this.#isolated.take() ?? (await this.#makeIsolated()));
  }

  /** A namespace on the bridge. With an address or a MAC of one's own it is made on the spot. */
  async bridged(
    wanted: { address?: Ipv4 | undefined; mac?: string | undefined } = {},
  ): Promise<HeldNamespace> {
    if (wanted.address === undefined && wanted.mac === undefined) {
      return this.#taken(this.#bridged.take() ?? (await this.#makeOrAwait()));
    }
    if (wanted.address !== undefined) await this.#claim(wanted.address);
    return this.#taken(await this.#makeBridged(wanted.address, wanted.mac));
  }

  /** UDP packets to this port go where they are sent now: a flow that is tracked keeps its old way for minutes. */
  forgetPort(port: number): Promise<void> {
    return this.#forget("forget-udp-port", port);
  }

  /** Flows to a container that is gone. */
  forgetAddress(address: Ipv4): Promise<void> {
    return this.#forget("forget", formatIpv4(address));
  }

  /** Addresses of this daemon's links on the bridge, with the links' names. */
  async links(): Promise<Map<Ipv4, string>> {
    const { words } = await (await this.#alive()).request("ports", this.#bridge.name);
    const found = new Map<Ipv4, string>();
    for (const name of words) {
      const hex = name.startsWith(this.#prefix) ? name.slice(this.#prefix.length) : "";
      if (/^[0-9a-f]{8}$/.test(hex)) found.set(Number.parseInt(hex, 16), name);
    }
    return found;
  }

  async deleteLink(name: string): Promise<void> {
    await (await this.#alive()).request("delete", name);
  }

  /** Ends the helper. What is pooled goes with it; containers keep theirs. */
  async close(): Promise<void> {
    await this.#closePools();
    this.#helper.close();
  }

  /** For when no container is left: waits until the links are gone, removes the bridge, ends the helper. */
  async closeAndRemoveBridge(): Promise<void> {
    await this.#closePools();
    const helper = this.#helper.alive ? this.#helper : await this.#startHelper();
    const deadline = performance.now() + teardownWaitMs;
    for (;;) {
      const { words } = await helper.request("ports", this.#bridge.name);
      const own = words.filter((name) => name.startsWith(this.#prefix));
      if (own.length === 0) break;
      if (performance.now() > deadline) {
        for (const name of own) await helper.request("delete", name);
        break;
      }
      await sleep(10);
    }
    if (this.#bridge.own) await helper.request("delete", this.#bridge.name);
    helper.close();
    await helper.ended;
  }

  async #closePools(): Promise<void> {
    this.#closed = true;
    await Promise.all([this.#bridged.close(), this.#isolated.close()]);
  }

  async #forget(verb: "forget" | "forget-udp-port", what: string | number): Promise<void> {
    try {
      await (await this.#alive()).request(verb, what);
    } catch (error) {
      // A kernel before 5.8 cannot: such flows end by themselves.
      this.#log.debug("cannot forget tracked flows", { what, errno: errnoOf(error) });
    }
  }

  #watchEnd(helper: NamespaceHelper): void {
    void helper.ended.then(() => {
      if (this.#closed) return;
      this.#log.warn("the network namespace helper ended and is started again");
      this.#bridged.dropDead();
      this.#isolated.dropDead();
      void this.fill();
    });
  }

  async #alive(): Promise<NamespaceHelper> {
    if (this.#helper.alive) return this.#helper;
    this.#restarting ??= this.#startHelper()
      .then((helper) => {
        this.#helper = helper;
        this.#watchEnd(helper);
        return helper;
      })
      .finally(() => {
        this.#restarting = undefined;
      });
    return this.#restarting;
  }

  #taken(namespace: HeldNamespace): HeldNamespace {
    // From here on it outlives the daemon for a while; if that fails the helper is gone, and the start will say so.
    namespace.helper.request("take", namespace.descriptor).catch(() => {});
    return namespace;
  }

  #giveBack(namespace: HeldNamespace): void {
    namespace.helper.request("drop", namespace.descriptor).catch(() => {});
    if (namespace.link !== undefined) this.addresses.release(namespace.link.address);
  }

  async #claim(address: Ipv4): Promise<void> {
    if (this.addresses.claim(address)) return;
    const pooled = this.#bridged.takeAddress(address);
    if (pooled === undefined) {
      throw new EngineError("forbidden", "Address already in use", { code: "address-in-use" });
    }
    // The address stays claimed: it goes from the pooled namespace to the one that is made for it.
    await pooled.helper.request("drop", pooled.descriptor);
  }

  async #makeOrAwait(): Promise<HeldNamespace> {
    // The last address may just be on its way into the pool.
    if (this.addresses.free > 0) return this.#makeBridged();
    await this.#bridged.settled();
    return this.#bridged.take() ?? this.#makeBridged();
  }

  async #makeIsolated(): Promise<HeldNamespace> {
    const helper = await this.#alive();
    return { helper, descriptor: (await helper.request("none")).value };
  }

  /** `given` is claimed already; it is released again when making fails. */
  async #makeBridged(given?: Ipv4, wantedMac?: string): Promise<HeldNamespace> {
    const address = given ?? this.addresses.allocate();
    if (address === undefined) {
      throw new EngineError("system", "no available IPv4 addresses on this network's address pools: bridge", {
        code: "no-address",
      });
    }
    try {
      const helper = await this.#alive();
      const hostInterface = `${this.#prefix}${address.toString(16).padStart(8, "0")}`;
      const link = { address, mac: wantedMac ?? macOf(address), hostInterface };
      return { helper, descriptor: await this.#makeLinked(helper, link), link };
    } catch (error) {
      this.addresses.release(address);
      throw describeFailure(error);
    }
  }

  async #makeLinked(helper: NamespaceHelper, link: NonNullable<HeldNamespace["link"]>): Promise<number> {
    const words = [
      this.#bridge.index,
      link.hostInterface,
      formatIpv4(link.address),
      this.#bridge.subnet.prefixLength,
      formatIpv4(this.#bridge.gateway),
      link.mac,
    ] as const;
    try {
      return (await helper.request("make", ...words)).value;
    } catch (error) {
      if (errnoOf(error) !== "EEXIST") throw error;
      // The address is free, so the link is what is left of a namespace that is still being taken apart.
      await helper.request("delete", link.hostInterface);
      return (await helper.request("make", ...words)).value;
    }
  }
}

function describeFailure(cause: unknown): unknown {
  if (errnoOf(cause) !== "EXFULL") return cause;
  return new EngineError("system", "network bridge is full: a Linux bridge takes 1,023 ports", {
    code: "bridge-full",
    cause,
  });
}

/** Starts the helper and lets it report changes of the firewall. */
export async function startWatchingHelper(options: {
  readonly binaryPath: string;
  readonly table: string;
  readonly onEvent: (event: HelperEvent) => void;
  readonly log: Log;
}): Promise<NamespaceHelper> {
  const helper = await startNamespaceHelper(options);
  await helper.request("watch", options.table);
  return helper;
}
