import type { ContainerId } from "#base/ids.ts";
import type { PortReservation } from "#runtime/shim.ts";
import type { Ipv4 } from "./ipv4.ts";
import type { HeldNamespace } from "./namespace-pool.ts";
import type { Attachment, AttachmentRecord, EndpointSettings, PortBinding, PortRequest } from "./network.ts";
import { canonicalHost } from "./port-allocator.ts";

/** What an attachment needs of the manager that made it. */
export interface AttachmentOwner {
  publish(attachment: ContainerAttachment): Promise<void>;
  release(attachment: ContainerAttachment): Promise<void>;
}

/** One published port: what was asked for, and what it got. */
export interface GrantedPort {
  readonly request: PortRequest;
  readonly binding: PortBinding;
  /** Ports that turned out to be another program's. */
  readonly refusals: number;
}

export class ContainerAttachment implements Attachment {
  readonly containerId: ContainerId;
  readonly containerName: string;
  readonly sandboxId: string;
  readonly endpoints: readonly EndpointSettings[];
  readonly hostInterface: string;
  /** On the bridge; undefined for `none`. */
  readonly address: Ipv4 | undefined;
  readonly #owner: AttachmentOwner;
  #namespace: HeldNamespace | undefined;
  #ports: readonly GrantedPort[];
  #released: Promise<void> | undefined;
  /** The nft elements are in, or have to be. */
  published = false;

  constructor(
    owner: AttachmentOwner,
    parts: {
      readonly containerId: ContainerId;
      readonly containerName: string;
      readonly sandboxId: string;
      readonly endpoints: readonly EndpointSettings[];
      readonly hostInterface: string;
      readonly address: Ipv4 | undefined;
      readonly namespace: HeldNamespace | undefined;
      readonly ports: readonly GrantedPort[];
    },
  ) {
    this.#owner = owner;
    this.containerId = parts.containerId;
    this.containerName = parts.containerName;
    this.sandboxId = parts.sandboxId;
    this.endpoints = parts.endpoints;
    this.hostInterface = parts.hostInterface;
    this.address = parts.address;
    this.#namespace = parts.namespace;
    this.#ports = parts.ports;
  }

  get namespacePath(): string {
    const held = this.#namespace;
    return held === undefined ? "" : `/proc/${held.helper.pid}/fd/${held.descriptor}`;
  }

  get ports(): readonly GrantedPort[] {
    return this.#ports;
  }

  get bindings(): readonly PortBinding[] {
    return this.#ports.map(({ binding }) => binding);
  }

  get reservations(): readonly PortReservation[] {
    return this.bindings.flatMap(({ protocol, hostAddress, hostPort }) =>
      protocol === "sctp" ? [] : [{ protocol, address: canonicalHost(hostAddress), port: hostPort }],
    );
  }

  get record(): AttachmentRecord {
    return {
      sandboxId: this.sandboxId,
      hostInterface: this.hostInterface,
      endpoints: this.endpoints,
      bindings: this.bindings,
    };
  }

  get released(): boolean {
    return this.#released !== undefined;
  }

  async publish(): Promise<void> {
    if (!this.released) await this.#owner.publish(this);
  }

  adopted(): void {
    const held = this.#namespace;
    this.#namespace = undefined;
    // A helper that ended has dropped it already.
    held?.helper.request("drop", held.descriptor).catch(() => {});
  }

  release(): Promise<void> {
    this.#released ??= this.#owner.release(this);
    return this.#released;
  }

  replacePort(old: GrantedPort, granted: GrantedPort): void {
    this.#ports = this.#ports.map((port) => (port === old ? granted : port));
  }
}
