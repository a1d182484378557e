import { readFileSync } from "node:fs";
import type { PortBinding, PortRequest, Protocol } from "./network.ts";

/**
 * Host ports that this daemon's containers hold. Another program's ports are found by the shim, which binds them.
 * A port on every address excludes the same port on a single one, as bind(2) does.
 */
export class PortAllocator {
  /** `tcp:8080` to the addresses that hold it. */
  readonly #held = new Map<string, Set<string>>();
  readonly #first: number;
  readonly #last: number;
  #next: number;

  constructor(ephemeral: readonly [first: number, last: number]) {
    [this.#first, this.#last] = ephemeral;
    this.#next = this.#first;
  }

  /** Takes one port; false when it is held. */
  claim(protocol: Protocol, address: string, port: number): boolean {
    const key = `${protocol}:${port}`;
    const host = canonicalHost(address);
    const holders = this.#held.get(key);
    if (holders === undefined) {
      this.#held.set(key, new Set([host]));
      return true;
    }
    if (holders.has(host) || holders.has("0.0.0.0") || host === "0.0.0.0") return false;
    holders.add(host);
    return true;
  }

  release(protocol: Protocol, address: string, port: number): void {
    const key = `${protocol}:${port}`;
    const holders = this.#held.get(key);
    holders?.delete(canonicalHost(address));
    if (holders?.size === 0) this.#held.delete(key);
  }

  /**
   * The binding for a request: its port, the first free one of its range, or the next of the ephemeral range upward as
   * Docker gives them. `after` is the port that turned out to be held by another program. Undefined: none is left.
   */
  allocate(request: PortRequest, after?: number): PortBinding | undefined {
    const { protocol, hostAddress, containerPort } = request;
    for (const port of this.#candidates(request, after)) {
      if (!this.claim(protocol, hostAddress, port)) continue;
      if (request.hostPort === 0) this.#next = port === this.#last ? this.#first : port + 1;
      return { containerPort, protocol, hostAddress, hostPort: port };
    }
    return undefined;
  }

  *#candidates(request: PortRequest, after: number | undefined): Generator<number> {
    if (request.hostPort !== 0) {
      const first = after === undefined ? request.hostPort : after + 1;
      for (let port = first; port <= Math.max(request.hostPort, request.hostPortEnd); port += 1) yield port;
      return;
    }
    const start = this.#next;
    for (let port = start; port <= this.#last; port += 1) yield port;
    for (let port = this.#first; port < start; port += 1) yield port;
  }
}

/** "" means every address. */
export function canonicalHost(address: string): string {
  return address === "" ? "0.0.0.0" : address;
}

/** The kernel's range for ports that nobody chose; Docker's fallback where it cannot be read. */
export function readEphemeralRange(): readonly [number, number] {
  try {
    const text = readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "latin1");
    const [first = 0, last = 0] = text.trim().split(/\s+/).map(Number);
    if (first > 0 && last >= first && last <= 65535) return [first, last];
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
  return [49153, 65535];
}
