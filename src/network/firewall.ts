import { type Nft, NftError, type NftObject } from "#sys/nft.ts";
import type { Bridge } from "./bridge.ts";
import { formatIpv4, formatSubnet, type Ipv4 } from "./ipv4.ts";
import type { PortBinding, Protocol } from "./network.ts";
import { canonicalHost } from "./port-allocator.ts";

/**
 * This daemon's own nftables table: masquerading, published ports and the guard in front of the containers. Every
 * change is one transaction (invariant 2). Two maps hold the published ports, one by host address, one for every
 * address; a port is one element, and the rules never change.
 */
export interface Firewall {
  /** Puts the chains in, keeping the elements of maps that are there: ports of running containers stay open. */
  install(): void;
  /** Adds the elements of one container's bindings. */
  publish(address: Ipv4, bindings: readonly PortBinding[]): void;
  /** Removes them; what is gone already is no error. */
  withdraw(address: Ipv4, bindings: readonly PortBinding[]): void;
  /** Makes the maps hold exactly these elements. */
  synchronise(published: readonly PublishedPorts[]): void;
  /** Whether every chain and rule is still there. */
  intact(): boolean;
  /** Removes the table. */
  remove(): void;
}

export interface PublishedPorts {
  readonly address: Ipv4;
  readonly bindings: readonly PortBinding[];
}

const protocolNumbers: Readonly<Record<Protocol, number>> = { tcp: 6, udp: 17, sctp: 132 };

interface Chain {
  readonly name: string;
  readonly hook: string;
  readonly rules: readonly string[];
}

// Every packet to a local address goes through the maps: the exact address first.
const translate = [
  "fib daddr type local dnat ip to meta l4proto . ip daddr . th dport map @published",
  "fib daddr type local dnat ip to meta l4proto . th dport map @published-any",
];

function chainsFor(bridge: Bridge): Chain[] {
  const subnet = formatSubnet(bridge.subnet);
  const link = `"${bridge.name}"`;
  return [
    {
      // Before any translation: with route_localnet a forged 127/8 would reach the host's own services, or a port
      // that is published on 127.0.0.1 (invariant 4).
      name: "guard",
      hook: "type filter hook prerouting priority -300; policy accept;",
      rules: ['iifname != "lo" ip daddr 127.0.0.0/8 drop', 'iifname != "lo" ip saddr 127.0.0.0/8 drop'],
    },
    {
      name: "prerouting",
      hook: "type nat hook prerouting priority -100; policy accept;",
      rules: translate,
    },
    {
      // nft 1.0.6 does not know the name dstnat in this hook.
      name: "output",
      hook: "type nat hook output priority -100; policy accept;",
      rules: translate,
    },
    {
      name: "postrouting",
      hook: "type nat hook postrouting priority 100; policy accept;",
      rules: [
        `ip saddr ${subnet} oifname != ${link} masquerade`,
        // A container that calls a published port of its own network: the answer has to come back through here. By
        // address, since a bridged packet has no input interface in this hook.
        `ip saddr ${subnet} oifname ${link} ct status dnat masquerade`,
        `ip saddr 127.0.0.0/8 oifname ${link} masquerade`,
      ],
    },
    {
      // Containers of one bridge see each other; from elsewhere only published ports and answers come in.
      name: "forward",
      hook: "type filter hook forward priority 0; policy accept;",
      rules: [
        `iifname ${link} oifname ${link} accept`,
        `oifname ${link} ct state established,related accept`,
        `oifname ${link} ct status dnat accept`,
        `oifname ${link} drop`,
      ],
    },
  ];
}

function element(address: Ipv4, binding: PortBinding): { map: string; text: string } {
  const target = `${formatIpv4(address)} . ${binding.containerPort}`;
  const protocol = protocolNumbers[binding.protocol];
  const host = canonicalHost(binding.hostAddress);
  return host === "0.0.0.0"
    ? { map: "published-any", text: `${protocol} . ${binding.hostPort} : ${target}` }
    : { map: "published", text: `${protocol} . ${host} . ${binding.hostPort} : ${target}` };
}

class TableFirewall implements Firewall {
  readonly #nft: Nft;
  readonly #table: string;
  readonly #chains: readonly Chain[];

  constructor(nft: Nft, table: string, bridge: Bridge) {
    this.#nft = nft;
    this.#table = `ip ${table}`;
    this.#chains = chainsFor(bridge);
  }

  install(): void {
    const commands = this.#installCommands();
    try {
      this.#nft.run(commands.join("\n"));
    } catch (error) {
      if (!(error instanceof NftError)) throw error;
      // A table of another shape, from another version: replaced whole. `synchronise` fills the maps again.
      this.#nft.run([`add table ${this.#table}`, `delete table ${this.#table}`, ...commands].join("\n"));
    }
  }

  publish(address: Ipv4, bindings: readonly PortBinding[]): void {
    if (bindings.length > 0) this.#nft.run(this.#elementCommands("add", address, bindings).join("\n"));
  }

  withdraw(address: Ipv4, bindings: readonly PortBinding[]): void {
    if (bindings.length === 0) return;
    const commands = this.#elementCommands("delete", address, bindings);
    try {
      this.#nft.run(commands.join("\n"));
    } catch (error) {
      if (!(error instanceof NftError && error.missing)) throw error;
      for (const command of commands) this.#runUnlessMissing(command);
    }
  }

  synchronise(published: readonly PublishedPorts[]): void {
    const wanted = new Set(
      published.flatMap(({ address, bindings }) =>
        bindings.map((binding) => {
          const { map, text } = element(address, binding);
          return `${map} { ${text} }`;
        }),
      ),
    );
    const present = new Set(["published", "published-any"].flatMap((map) => this.#elements(map)));
    const commands = [
      ...[...present.difference(wanted)].map((entry) => `delete element ${this.#table} ${entry}`),
      ...[...wanted.difference(present)].map((entry) => `add element ${this.#table} ${entry}`),
    ];
    if (commands.length > 0) this.#nft.run(commands.join("\n"));
  }

  intact(): boolean {
    let objects: NftObject[];
    try {
      objects = this.#nft.list(`list table ${this.#table}`, { terse: true });
    } catch (error) {
      if (error instanceof NftError && error.missing) return false;
      throw error;
    }
    const rules = objects.flatMap((object) =>
      object["rule"] === undefined ? [] : [object["rule"]["chain"]],
    );
    return this.#chains.every(
      (chain) => rules.filter((name) => name === chain.name).length === chain.rules.length,
    );
  }

  remove(): void {
    this.#runUnlessMissing(`delete table ${this.#table}`);
  }

  #runUnlessMissing(command: string): void {
    try {
      this.#nft.run(command);
    } catch (error) {
      if (!(error instanceof NftError && error.missing)) throw error;
    }
  }

  #installCommands(): string[] {
    const table = this.#table;
    const commands = [
      `add table ${table}`,
      `add map ${table} published { type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service ; }`,
      `add map ${table} published-any { type inet_proto . inet_service : ipv4_addr . inet_service ; }`,
    ];
    for (const chain of this.#chains) {
      commands.push(
        `add chain ${table} ${chain.name} { ${chain.hook} }`,
        `flush chain ${table} ${chain.name}`,
        ...chain.rules.map((rule) => `add rule ${table} ${chain.name} ${rule}`),
      );
    }
    return commands;
  }

  #elementCommands(verb: "add" | "delete", address: Ipv4, bindings: readonly PortBinding[]): string[] {
    return bindings.map((binding) => {
      const { map, text } = element(address, binding);
      return `${verb} element ${this.#table} ${map} { ${text} }`;
    });
  }

  /** The elements of a map in the spelling of `element`, with the map's name. */
  #elements(map: string): string[] {
    const [answer] = this.#nft.list(`list map ${this.#table} ${map}`);
    const elements = answer?.["map"]?.["elem"];
    if (!Array.isArray(elements)) return [];
    return elements.map(([key, value]: [Concatenation, Concatenation]) => {
      const [protocol, ...rest] = key.concat;
      const parts = [protocolNumber(protocol), ...rest].join(" . ");
      return `${map} { ${parts} : ${value.concat.join(" . ")} }`;
    });
  }
}

interface Concatenation {
  readonly concat: readonly (string | number)[];
}

// nft 1.0.6 names a protocol inside a concatenation whatever it is asked for.
function protocolNumber(protocol: string | number | undefined): number | string {
  return Object.hasOwn(protocolNumbers, String(protocol))
    ? protocolNumbers[protocol as Protocol]
    : (protocol ?? "");
}

export function createFirewall(nft: Nft, table: string, bridge: Bridge): Firewall {
  return new TableFirewall(nft, table, bridge);
}
