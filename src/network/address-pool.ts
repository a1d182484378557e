import { EngineError } from "#base/errors.ts";
import { contains, formatIpv4, type Ipv4, type Subnet, subnetSize } from "./ipv4.ts";

/**
 * The addresses of one subnet. Allocation walks upward and starts again at the bottom, so that an address that was
 * given back rests as long as possible: packets under way for its last owner do not reach the next.
 */
export class AddressPool {
  readonly subnet: Subnet;
  readonly gateway: Ipv4;
  readonly #used = new Set<Ipv4>();
  #next: Ipv4;

  constructor(subnet: Subnet, gateway: Ipv4) {
    this.subnet = subnet;
    this.gateway = gateway;
    this.#next = subnet.base + 1;
  }

  /** Addresses that a container can have: neither the network's, the broadcast's nor the gateway's. */
  get capacity(): number {
    return Math.max(0, subnetSize(this.subnet) - 3);
  }

  get free(): number {
    return this.capacity - this.#used.size;
  }

  /** The next free address, or undefined when there is none. */
  allocate(): Ipv4 | undefined {
    if (this.free <= 0) return undefined;
    const last = this.subnet.base + subnetSize(this.subnet) - 2;
    for (;;) {
      if (this.#next > last) this.#next = this.subnet.base + 1;
      const address = this.#next;
      this.#next += 1;
      if (address === this.gateway || this.#used.has(address)) continue;
      this.#used.add(address);
      return address;
    }
  }

  /** Takes one address. False when somebody has it; throws when it is no address of this subnet. */
  claim(address: Ipv4): boolean {
    const offset = address - this.subnet.base;
    if (
      !contains(this.subnet, address) ||
      offset === 0 ||
      offset === subnetSize(this.subnet) - 1 ||
      address === this.gateway
    ) {
      throw new EngineError(
        "invalid",
        `invalid address ${formatIpv4(address)}: it doesn't belong to any of the network's subnets`,
        { code: "bad-address" },
      );
    }
    if (this.#used.has(address)) return false;
    this.#used.add(address);
    return true;
  }

  release(address: Ipv4): void {
    this.#used.delete(address);
  }
}
