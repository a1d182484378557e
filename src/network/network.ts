/**
 * Networks: isolated link-layer segments with addresses, name service and published ports.
 *
 * Vocabulary: an *endpoint* is one container's place on one network (interface, addresses, names). A container has a
 * *namespace* and any number of endpoints in it (one today; user networks come later and use the same calls).
 *
 * 1. Every kernel object (bridge, veth, nft set element) has a name derived from the daemon's and endpoint's identity:
 *    `reconcile` finds and removes what no living container owns.
 * 2. nft changes are one transaction each, in Skiff's own table of this daemon only.
 * 3. Nothing waits for teardown: a namespace goes with its last reference.
 * 4. Before route_localnet is on, the drop of forged 127/8 is in place.
 */
import type { ContainerId, NetworkId } from "#base/ids.ts";
import type { PortReservation } from "#runtime/shim.ts";

export type Protocol = "tcp" | "udp" | "sctp";

/** One requested publication. `hostPort` 0: any free port; a range is expanded by the caller into alternatives. */
export interface PortRequest {
  readonly containerPort: number;
  readonly protocol: Protocol;
  /** "" or "0.0.0.0": every IPv4 address. */
  readonly hostAddress: string;
  readonly hostPort: number;
  /** End of a range from which one port is taken, or equal to hostPort. */
  readonly hostPortEnd: number;
}

export interface PortBinding {
  readonly containerPort: number;
  readonly protocol: Protocol;
  readonly hostAddress: string;
  readonly hostPort: number;
}

export interface EndpointSettings {
  readonly networkId: NetworkId;
  readonly networkName: string;
  readonly endpointId: string;
  readonly gateway: string;
  readonly ipAddress: string;
  readonly prefixLength: number;
  readonly macAddress: string;
  readonly aliases: readonly string[];
  readonly dnsNames: readonly string[];
}

export interface AttachmentRequest {
  readonly containerId: ContainerId;
  readonly containerName: string;
  readonly hostname: string;
  /** `bridge` (or `default`), `none`; later the name or id of a user network. `host` and `container:` need no attachment. */
  readonly networkName: string;
  readonly ipAddress?: string;
  readonly macAddress?: string;
  readonly aliases?: readonly string[];
  readonly ports: readonly PortRequest[];
  readonly sysctls: ReadonlyMap<string, string>;
}

/** A container's namespace with its endpoints, made or taken from the pool. JSON-safe `record` goes into the container's row. */
export interface Attachment {
  /** `/proc/<pid>/fd/<n>`: valid until `adopted` or `release`. */
  readonly namespacePath: string;
  readonly sandboxId: string;
  readonly endpoints: readonly EndpointSettings[];
  readonly bindings: readonly PortBinding[];
  /** What the shim must hold. */
  readonly reservations: readonly PortReservation[];
  readonly record: AttachmentRecord;
  /** The nft elements are in: call after the shim holds the reservations. */
  publish(): Promise<void>;
  /** The container's process holds the namespace now: the pool's descriptor is dropped. */
  adopted(): void;
  /** Gives addresses and ports back, removes nft elements; the namespace itself vanishes with its processes. Idempotent. */
  release(): Promise<void>;
}

/** What recovery needs to take an attachment over. */
export interface AttachmentRecord {
  readonly sandboxId: string;
  readonly hostInterface: string;
  readonly endpoints: readonly EndpointSettings[];
  readonly bindings: readonly PortBinding[];
}

export interface NetworkDescription {
  readonly id: NetworkId;
  readonly name: string;
  readonly driver: "bridge" | "host" | "null";
  readonly created: string;
  readonly subnet?: string;
  readonly gateway?: string;
  readonly options: Readonly<Record<string, string>>;
}

export interface NetworkManager extends AsyncDisposable {
  /** bridge, host, none first. */
  list(): NetworkDescription[];
  /** By name, id or unique prefix; `network x not found`. */
  resolve(nameOrId: string): NetworkDescription;
  /** Throws `system` with Docker's words when a published port is taken: see `portInUse`. */
  attach(request: AttachmentRequest): Promise<Attachment>;
  /** After a daemon restart, for each running container: addresses, ports and rules are taken over. */
  recover(containerId: ContainerId, record: AttachmentRecord): Promise<Attachment>;
  /** After all `recover` calls: removes rules, links and pool leftovers that nobody owns. */
  reconcile(): Promise<void>;
  /** Host rules that were added outside our own table (hosts whose FORWARD policy is DROP), for `info`. */
  readonly foreignRules: readonly string[];
  /** Next ephemeral choice after the shim said EADDRINUSE for a binding with hostPort 0 or a range; undefined: none left. */
  rebind(attachment: Attachment, failed: PortReservation): Promise<Attachment | undefined>;
  /**
   * Ends the namespace helper. `keep`: the bridge and the rules stay for containers that go on running; otherwise
   * nothing is left on the host. Disposal keeps them exactly when an attachment is not released.
   */
  close(options: { readonly keep: boolean }): Promise<void>;
}
