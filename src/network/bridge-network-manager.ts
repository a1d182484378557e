import { EngineError, messageOf } from "#base/errors.ts";
import { type ContainerId, newId } from "#base/ids.ts";
import type { Log } from "#base/log.ts";
import type { PortReservation } from "#runtime/shim.ts";
import { NftError } from "#sys/nft.ts";
import { type AttachmentOwner, ContainerAttachment, type GrantedPort } from "./attachment.ts";
import type { Bridge } from "./bridge.ts";
import type { Firewall, PublishedPorts } from "./firewall.ts";
import type { HostFirewall } from "./host-firewall.ts";
import { formatIpv4, type Ipv4, parseIpv4, parseMac } from "./ipv4.ts";
import type { HelperEvent } from "./namespace-helper.ts";
import type { HeldNamespace } from "./namespace-pool.ts";
import type { NamespaceSource } from "./namespace-source.ts";
import type {
  Attachment,
  AttachmentRecord,
  AttachmentRequest,
  EndpointSettings,
  NetworkDescription,
  NetworkManager,
  PortRequest,
} from "./network.ts";
import { canonicalHost, type PortAllocator } from "./port-allocator.ts";
import { portInUse, portsExhausted } from "./port-in-use.ts";

/** How often a port that another program holds is answered with the next one. */
const rebindsMax = 256;
/** Changes of the host's firewall come in swarms: Docker's start makes a hundred. */
const firewallQuietMs = 300;

/** The networks every daemon has: `bridge`, `host`, `none`. */
export class BridgeNetworkManager implements NetworkManager, AttachmentOwner {
  readonly #networks: readonly NetworkDescription[];
  readonly #bridge: Bridge;
  readonly #source: NamespaceSource;
  readonly #firewall: Firewall;
  readonly #hostFirewall: HostFirewall;
  readonly #ports: PortAllocator;
  readonly #log: Log;
  readonly #dispose: () => void;
  readonly #attachments = new Set<ContainerAttachment>();
  /** Links found at the start that no recovered container has claimed yet. */
  readonly #leftovers: Map<Ipv4, string>;
  #firewallTimer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(parts: {
    readonly networks: readonly NetworkDescription[];
    readonly bridge: Bridge;
    readonly source: NamespaceSource;
    readonly leftovers: Map<Ipv4, string>;
    readonly firewall: Firewall;
    readonly hostFirewall: HostFirewall;
    readonly ports: PortAllocator;
    readonly log: Log;
    readonly dispose: () => void;
  }) {
    this.#networks = parts.networks;
    this.#bridge = parts.bridge;
    this.#source = parts.source;
    this.#leftovers = parts.leftovers;
    this.#firewall = parts.firewall;
    this.#hostFirewall = parts.hostFirewall;
    this.#ports = parts.ports;
    this.#log = parts.log;
    this.#dispose = parts.dispose;
  }

  get foreignRules(): readonly string[] {
    return this.#hostFirewall.rules;
  }

  /** Ready namespaces, for `info` and tests. */
  get ready(): { readonly bridged: number; readonly isolated: number } {
    return this.#source.ready;
  }

  list(): NetworkDescription[] {
    return [...this.#networks];
  }

  resolve(nameOrId: string): NetworkDescription {
    const name = nameOrId === "default" ? "bridge" : nameOrId;
    const exact = this.#networks.find((network) => network.name === name || network.id === name);
    if (exact !== undefined) return exact;
    const matches = name === "" ? [] : this.#networks.filter((network) => network.id.startsWith(name));
    if (matches.length > 1) {
      throw new EngineError(
        "invalid",
        `network ${name} is ambiguous (${matches.length} matches found based on ID prefix)`,
        { code: "ambiguous" },
      );
    }
    if (matches[0] === undefined) {
      throw new EngineError("notFound", `network ${name} not found`, { code: "no-such-network" });
    }
    return matches[0];
  }

  async attach(request: AttachmentRequest): Promise<Attachment> {
    const network = this.resolve(request.networkName);
    const endpointId = newId();
    if (network.driver === "host") {
      throw new EngineError("invalid", "the host's network needs no attachment", { code: "host-network" });
    }
    if (network.driver === "null") {
      const namespace = await this.#source.isolated();
      return this.#register(request, network, endpointId, namespace, []);
    }
    const wanted = {
      address: request.ipAddress === undefined ? undefined : parseWantedAddress(request.ipAddress),
      mac: request.macAddress === undefined ? undefined : parseMac(request.macAddress),
    };
    const ports = this.#grantPorts(request, endpointId);
    try {
      return this.#register(request, network, endpointId, await this.#source.bridged(wanted), ports);
    } catch (error) {
      this.#giveBackPorts(ports);
      throw error;
    }
  }

  async recover(containerId: ContainerId, record: AttachmentRecord): Promise<Attachment> {
    const [endpoint] = record.endpoints;
    const address = endpoint === undefined ? undefined : parseIpv4(endpoint.ipAddress);
    if (address !== undefined) {
      const free = this.#source.addresses.claim(address);
      if (!this.#leftovers.delete(address) && !free) {
        throw new EngineError("conflict", `address ${formatIpv4(address)} belongs to another container`, {
          code: "address-in-use",
        });
      }
    }
    const ports: GrantedPort[] = record.bindings.map((binding) => {
      this.#ports.claim(binding.protocol, binding.hostAddress, binding.hostPort);
      return { request: { ...binding, hostPortEnd: binding.hostPort }, binding, refusals: 0 };
    });
    const attachment = new ContainerAttachment(this, {
      containerId,
      containerName: endpoint?.dnsNames[0] ?? containerId,
      sandboxId: record.sandboxId,
      endpoints: record.endpoints,
      hostInterface: record.hostInterface,
      address,
      namespace: undefined,
      ports,
    });
    attachment.published = true;
    this.#attachments.add(attachment);
    return attachment;
  }

  async reconcile(): Promise<void> {
    this.#firewall.synchronise(this.#published());
    const leftovers = [...this.#leftovers];
    this.#leftovers.clear();
    for (const [address, name] of leftovers) {
      await this.#source.deleteLink(name);
      this.#source.addresses.release(address);
    }
  }

  async rebind(attachment: Attachment, failed: PortReservation): Promise<Attachment | undefined> {
    if (!(attachment instanceof ContainerAttachment) || attachment.released) return undefined;
    const port = attachment.ports.find(
      ({ binding }) =>
        binding.protocol === failed.protocol &&
        binding.hostPort === failed.port &&
        canonicalHost(binding.hostAddress) === canonicalHost(failed.address),
    );
    if (port === undefined || port.refusals >= rebindsMax) return undefined;
    const binding = this.#ports.allocate(port.request, failed.port);
    if (binding === undefined) return undefined;
    this.#ports.release(failed.protocol, failed.address, failed.port);
    attachment.replacePort(port, { ...port, binding, refusals: port.refusals + 1 });
    return attachment;
  }

  /** AttachmentOwner. */
  async publish(attachment: ContainerAttachment): Promise<void> {
    if (attachment.published || attachment.address === undefined) return;
    this.#openPorts(attachment, attachment.address);
    const udp = attachment.bindings.filter((binding) => binding.protocol === "udp");
    await Promise.all(udp.map((binding) => this.#source.forgetPort(binding.hostPort)));
  }

  /** AttachmentOwner. */
  async release(attachment: ContainerAttachment): Promise<void> {
    if (!this.#attachments.delete(attachment)) return;
    const { address, bindings, ports } = attachment;
    attachment.adopted();
    // Should this fail, address and ports stay taken: an open port must not come to lead to another container.
    if (address !== undefined && attachment.published) this.#firewall.withdraw(address, bindings);
    attachment.published = false;
    this.#giveBackPorts(ports);
    if (address === undefined || this.#closed) return;
    if (bindings.some((binding) => binding.protocol === "udp")) await this.#source.forgetAddress(address);
    this.#source.addresses.release(address);
  }

  /** What the helper saw of the host's firewall. */
  firewallEvent(event: HelperEvent): void {
    if (this.#closed) return;
    try {
      if (event === "firewall-lost" && !this.#firewall.intact()) {
        this.#restoreFirewall();
      }
    } catch (error) {
      this.#log.error("cannot restore the firewall table", { error: messageOf(error) });
    }
    clearTimeout(this.#firewallTimer);
    this.#firewallTimer = setTimeout(() => this.#checkHostFirewall(), firewallQuietMs).unref();
  }

  async close(options: { readonly keep: boolean }): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#firewallTimer);
    if (options.keep) {
      await this.#source.close();
    } else {
      // The bridge goes before the table that guards its route_localnet (invariant 4).
      await this.#source.closeAndRemoveBridge();
      this.#hostFirewall.remove();
      this.#firewall.remove();
    }
    this.#dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close({ keep: this.#attachments.size > 0 });
  }

  #openPorts(attachment: ContainerAttachment, address: Ipv4): void {
    attachment.published = true;
    try {
      this.#firewall.publish(address, attachment.bindings);
    } catch (error) {
      try {
        if (!(error instanceof NftError && error.missing)) throw error;
        // Another program flushed the ruleset a moment ago.
        this.#restoreFirewall();
      } catch (failure) {
        attachment.published = false;
        throw failure;
      }
    }
  }

  #restoreFirewall(): void {
    this.#log.warn("the firewall table was removed by another program and is put back");
    this.#firewall.install();
    this.#firewall.synchronise(this.#published());
  }

  #checkHostFirewall(): void {
    if (this.#closed) return;
    try {
      this.#hostFirewall.synchronise();
    } catch (error) {
      this.#log.error("cannot read the host's firewall", { error: messageOf(error) });
    }
  }

  #published(): PublishedPorts[] {
    return [...this.#attachments].flatMap(({ address, bindings, published }) =>
      published && address !== undefined ? [{ address, bindings }] : [],
    );
  }

  #grantPorts(request: AttachmentRequest, endpointId: string): GrantedPort[] {
    const granted: GrantedPort[] = [];
    for (const port of request.ports) {
      const binding = this.#allocatePort(port);
      if (binding === undefined) {
        this.#giveBackPorts(granted);
        throw exhausted(request.containerName, endpointId, port);
      }
      granted.push({ request: port, binding, refusals: 0 });
    }
    return granted;
  }

  #allocatePort(port: PortRequest): GrantedPort["binding"] | undefined {
    if (parseIpv4(canonicalHost(port.hostAddress)) === undefined) {
      throw new EngineError(
        "invalid",
        `publishing on ${port.hostAddress.slice(0, 64)} is not supported: give an IPv4 address`,
        {
          code: "bad-port",
        },
      );
    }
    return this.#ports.allocate(port);
  }

  #giveBackPorts(ports: readonly GrantedPort[]): void {
    for (const { binding } of ports) {
      this.#ports.release(binding.protocol, binding.hostAddress, binding.hostPort);
    }
  }

  #register(
    request: AttachmentRequest,
    network: NetworkDescription,
    endpointId: string,
    namespace: HeldNamespace,
    ports: readonly GrantedPort[],
  ): ContainerAttachment {
    const { link } = namespace;
    const endpoint: EndpointSettings = {
      networkId: network.id,
      networkName: network.name,
      endpointId,
      gateway: link === undefined ? "" : formatIpv4(this.#bridge.gateway),
      ipAddress: link === undefined ? "" : formatIpv4(link.address),
      prefixLength: link === undefined ? 0 : this.#bridge.subnet.prefixLength,
      macAddress: link?.mac ?? "",
      aliases: request.aliases ?? [],
      dnsNames: [],
    };
    const attachment = new ContainerAttachment(this, {
      containerId: request.containerId,
      containerName: request.containerName,
      sandboxId: newId(),
      endpoints: [endpoint],
      hostInterface: link?.hostInterface ?? "",
      address: link?.address,
      namespace,
      ports,
    });
    this.#attachments.add(attachment);
    return attachment;
  }
}

function parseWantedAddress(text: string): Ipv4 {
  const address = parseIpv4(text);
  if (address === undefined) {
    throw new EngineError("invalid", `invalid IPv4 address: ${text.slice(0, 64)}`, { code: "bad-address" });
  }
  return address;
}

function exhausted(containerName: string, endpointId: string, port: PortRequest): EngineError {
  return port.hostPort !== 0 && port.hostPortEnd <= port.hostPort
    ? portInUse(containerName, port.hostAddress, port.hostPort, endpointId)
    : portsExhausted(containerName, endpointId);
}
