import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  contains,
  formatIpv4,
  formatSubnet,
  macOf,
  overlap,
  parseCidr,
  parseIpv4,
  parseMac,
  parseSubnet,
  subnetSize,
} from "./ipv4.ts";

const addresses = fc.integer({ min: 0, max: 0xffffffff });
const subnets = fc
  .tuple(addresses, fc.integer({ min: 0, max: 32 }))
  .map(([address, prefix]) => parseSubnet(`${formatIpv4(address)}/${prefix}`));

test("an address survives its text", () => {
  fc.assert(fc.property(addresses, (address) => parseIpv4(formatIpv4(address)) === address));
});

test("text that is no IPv4 address is refused", () => {
  for (const text of ["", "1.2.3", "1.2.3.256", "01.2.3.4", "1.2.3.4 ", "::1", "localhost"]) {
    assert.equal(parseIpv4(text), undefined, text);
  }
  for (const text of ["1.2.3.4", "1.2.3.4/33", "1.2.3.4/-1", "1.2.3.4/8/8", "x/8", "1.2.3.4/"]) {
    assert.throws(() => parseCidr(text), /invalid CIDR address/, text);
  }
});

test("a subnet's base has no host bits", () => {
  assert.equal(formatSubnet(parseSubnet("172.17.3.4/16")), "172.17.0.0/16");
  assert.equal(formatSubnet(parseSubnet("255.255.255.255/1")), "128.0.0.0/1");
  assert.equal(formatSubnet(parseSubnet("9.9.9.9/0")), "0.0.0.0/0");
});

test("two subnets overlap exactly when they share an address", () => {
  fc.assert(
    fc.property(subnets, subnets, (a, b) => {
      const share = contains(a, b.base) || contains(b, a.base);
      return overlap(a, b) === share && overlap(b, a) === share;
    }),
  );
  fc.assert(
    fc.property(subnets, fc.nat(), (subnet, offset) =>
      contains(subnet, (subnet.base + (offset % subnetSize(subnet))) >>> 0),
    ),
  );
});

test("the MAC of an address is Docker's, and one of a client is checked", () => {
  assert.equal(macOf(parseIpv4("172.17.0.2")!), "02:42:ac:11:00:02");
  assert.equal(parseMac("02-42-AC-11-00-02"), "02:42:ac:11:00:02");
  for (const bad of ["", "02:42", "01:00:5e:00:00:01", "00:00:00:00:00:00", "02:42:ac:11:00:0g"]) {
    assert.throws(() => parseMac(bad), /invalid MAC address/, bad);
  }
});
