/** Port publications of a create request. Pure. */
import { isIPv4 } from "node:net";
import { EngineError } from "#base/errors.ts";
import type { PortBinding, PortRequest, Protocol } from "#network/network.ts";
import type { ContainerConfig, HostConfig } from "#wire/container-schema.ts";

const protocols: readonly string[] = ["tcp", "udp"];

function invalidPort(text: string): EngineError {
  return new EngineError("invalid", `invalid port specification: "${text}"`, { code: "bad-port" });
}

/** `80`, `80/tcp`, `80-82/udp` as `[first, last]` and the protocol. */
export function parseContainerPorts(text: string): { first: number; last: number; protocol: Protocol } {
  const slash = text.indexOf("/");
  const range = slash < 0 ? text : text.slice(0, slash);
  const protocol = (slash < 0 ? "tcp" : text.slice(slash + 1).toLowerCase()) || "tcp";
  const [first, last] = parseRange(range);
  if (first === 0) throw invalidPort(range);
  if (protocol === "sctp") {
    throw new EngineError("invalid", "publishing sctp ports is not supported", { code: "not-supported" });
  }
  if (!protocols.includes(protocol)) {
    throw new EngineError("invalid", `invalid proto: ${protocol}`, { code: "bad-port" });
  }
  return { first, last, protocol: protocol as Protocol };
}

function parseRange(text: string): [first: number, last: number] {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  if (match === null) throw invalidPort(text);
  const first = Number(match[1]);
  const last = match[2] === undefined ? first : Number(match[2]);
  if (first > 65535 || last > 65535 || last < first) throw invalidPort(text);
  return [first, last];
}

/**
 * What the network is asked to publish: `PortBindings`, and with `PublishAllPorts` every exposed port that has no
 * binding of its own on a free port of the host.
 */
export function portRequests(config: ContainerConfig, host: HostConfig): PortRequest[] {
  const requests: PortRequest[] = [];
  const bound = new Set<string>();
  for (const [key, bindings] of Object.entries(host.PortBindings ?? {})) {
    const { first, last, protocol } = parseContainerPorts(key);
    for (let port = first; port <= last; port += 1) {
      for (const binding of bindings ?? []) {
        const [hostPort, hostPortEnd] = binding.HostPort === "" ? [0, 0] : parseRange(binding.HostPort);
        checkHostAddress(binding.HostIp);
        bound.add(`${port}/${protocol}`);
        requests.push({ containerPort: port, protocol, hostAddress: binding.HostIp, hostPort, hostPortEnd });
      }
    }
  }
  if (!host.PublishAllPorts) return requests;
  for (const { port, protocol } of exposedPorts(config)) {
    if (bound.has(`${port}/${protocol}`)) continue;
    requests.push({ containerPort: port, protocol, hostAddress: "", hostPort: 0, hostPortEnd: 0 });
  }
  return requests;
}

function checkHostAddress(address: string): void {
  if (address === "" || isIPv4(address)) return;
  const words = address.includes(":")
    ? `publishing on the IPv6 address ${address} is not supported`
    : `invalid IP address: ${address}`;
  throw new EngineError("invalid", words, { code: "bad-port" });
}

/** Every exposed port, ranges taken apart; a spelling that is none is left out as Docker leaves it. */
export function exposedPorts(config: ContainerConfig): { port: number; protocol: Protocol }[] {
  const ports: { port: number; protocol: Protocol }[] = [];
  for (const key of Object.keys(config.ExposedPorts ?? {})) {
    let range: ReturnType<typeof parseContainerPorts>;
    try {
      range = parseContainerPorts(key);
    } catch (error) {
      if (error instanceof EngineError) continue;
      throw error;
    }
    for (let port = range.first; port <= range.last; port += 1)
      ports.push({ port, protocol: range.protocol });
  }
  return ports;
}

export interface InspectedPort {
  HostIp: string;
  HostPort: string;
}

/** `NetworkSettings.Ports` of a running container: published ports with their bindings, exposed ones with null. */
export function portMap(
  config: ContainerConfig,
  bindings: readonly PortBinding[],
): Record<string, InspectedPort[] | null> {
  const ports = new Map<string, InspectedPort[] | null>();
  for (const { port, protocol } of exposedPorts(config)) ports.set(`${port}/${protocol}`, null);
  for (const binding of bindings) {
    const key = `${binding.containerPort}/${binding.protocol}`;
    const list = ports.get(key) ?? [];
    list.push({ HostIp: binding.hostAddress || "0.0.0.0", HostPort: String(binding.hostPort) });
    ports.set(key, list);
  }
  return Object.fromEntries([...ports].sort(([a], [b]) => (a < b ? -1 : 1)));
}
