import assert from "node:assert/strict";
import { test } from "node:test";
import { AddressPool } from "./address-pool.ts";
import { parseIpv4, parseSubnet } from "./ipv4.ts";

const at = (text: string): number => parseIpv4(text)!;
const pool = (): AddressPool => new AddressPool(parseSubnet("10.0.0.0/29"), at("10.0.0.1"));

test("gives every address of the subnet once, and then none", () => {
  const addresses = pool();
  const given = Array.from({ length: 5 }, () => addresses.allocate());
  assert.deepEqual(given, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"].map(at));
  assert.equal(addresses.allocate(), undefined);
  assert.equal(addresses.free, 0);
});

test("an address that was given back comes round last", () => {
  const addresses = pool();
  const first = addresses.allocate()!;
  addresses.release(first);
  assert.deepEqual(
    Array.from({ length: 5 }, () => addresses.allocate()),
    ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"].map(at),
  );
});

test("claims: once, and only of the subnet", () => {
  const addresses = pool();
  assert.equal(addresses.claim(at("10.0.0.2")), true);
  assert.equal(addresses.claim(at("10.0.0.2")), false);
  assert.equal(addresses.allocate(), at("10.0.0.3"));
  for (const outside of ["10.0.0.0", "10.0.0.1", "10.0.0.7", "10.0.0.8", "10.1.0.2"]) {
    assert.throws(() => addresses.claim(at(outside)), /doesn't belong/, outside);
  }
});
