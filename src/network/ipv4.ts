import { isIPv4 } from "node:net";
import { EngineError } from "#base/errors.ts";

/** An IPv4 address as an unsigned 32-bit number. */
export type Ipv4 = number;

export interface Subnet {
  /** Network address: host bits are zero. */
  readonly base: Ipv4;
  readonly prefixLength: number;
}

export function parseIpv4(text: string): Ipv4 | undefined {
  if (!isIPv4(text)) return undefined;
  return text.split(".").reduce((sum, part) => ((sum << 8) | Number(part)) >>> 0, 0);
}

export function formatIpv4(address: Ipv4): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join(".");
}

export function maskOf(prefixLength: number): number {
  return prefixLength === 0 ? 0 : (0xffffffff << (32 - prefixLength)) >>> 0;
}

/** `a.b.c.d/p` as address and prefix length; throws `invalid` for anything else. */
export function parseCidr(text: string): { address: Ipv4; prefixLength: number } {
  const [addressText = "", prefixText = "", ...rest] = text.split("/");
  const address = parseIpv4(addressText);
  const prefixLength = Number(prefixText);
  if (address === undefined || !/^\d{1,2}$/.test(prefixText) || prefixLength > 32 || rest.length > 0) {
    throw new EngineError("invalid", `invalid CIDR address: ${text.slice(0, 64)}`, { code: "bad-address" });
  }
  return { address, prefixLength };
}

export function subnetOf(address: Ipv4, prefixLength: number): Subnet {
  return { base: (address & maskOf(prefixLength)) >>> 0, prefixLength };
}

export function parseSubnet(text: string): Subnet {
  const { address, prefixLength } = parseCidr(text);
  return subnetOf(address, prefixLength);
}

export function formatSubnet(subnet: Subnet): string {
  return `${formatIpv4(subnet.base)}/${subnet.prefixLength}`;
}

export function contains(subnet: Subnet, address: Ipv4): boolean {
  return (address & maskOf(subnet.prefixLength)) >>> 0 === subnet.base;
}

export function overlap(a: Subnet, b: Subnet): boolean {
  return a.prefixLength <= b.prefixLength ? contains(a, b.base) : contains(b, a.base);
}

export function subnetSize(subnet: Subnet): number {
  return 2 ** (32 - subnet.prefixLength);
}

/** Docker's MAC of an endpoint: 02:42 and the address, so that an address always comes back with the same MAC. */
export function macOf(address: Ipv4): string {
  const bytes = [0x02, 0x42, ...[24, 16, 8, 0].map((shift) => (address >>> shift) & 255)];
  return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** Checks a MAC address that a client asks for: six bytes, unicast. Returns it in lower case. */
export function parseMac(text: string): string {
  const mac = text.toLowerCase().replaceAll("-", ":");
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(mac) || mac === "00:00:00:00:00:00") {
    throw new EngineError("invalid", `invalid MAC address: ${text.slice(0, 64)}`, { code: "bad-mac" });
  }
  if ((Number.parseInt(mac.slice(0, 2), 16) & 1) !== 0) {
    throw new EngineError("invalid", `invalid MAC address: ${mac} is a multicast address`, {
      code: "bad-mac",
    });
  }
  return mac;
}
