import assert from "node:assert/strict";
import { test } from "node:test";
import {
  capabilitiesOf,
  capabilityMask,
  capabilityNames,
  chooseCapabilities,
  defaultCapabilities,
} from "./capabilities.ts";

const everything = capabilityMask(capabilityNames);
const choose = (capAdd: string[], capDrop: string[], privileged = false, available = everything) =>
  chooseCapabilities({ capAdd, capDrop, privileged }, available);

test("the default mask is Docker's", () => {
  assert.equal(capabilityMask(defaultCapabilities), 0xa80425fbn);
  assert.deepEqual(choose([], []).capabilities, defaultCapabilities);
});

test("a mask and its names are the same thing", () => {
  assert.deepEqual(capabilitiesOf(everything), [...capabilityNames]);
  assert.equal(capabilityMask(["CAP_CHECKPOINT_RESTORE"]), 1n << 40n);
});

test("add and drop, in any spelling", () => {
  const without = (name: string) => defaultCapabilities.filter((capability) => capability !== name);
  assert.deepEqual(choose(["net_admin"], []).capabilities, [...defaultCapabilities, "CAP_NET_ADMIN"]);
  assert.deepEqual(choose(["CAP_CHOWN"], ["Chown"]).capabilities, [...without("CAP_CHOWN"), "CAP_CHOWN"]);
  assert.deepEqual(choose([], ["cap_mknod"]).capabilities, without("CAP_MKNOD"));
  assert.deepEqual(choose([], ["all"]).capabilities, []);
  assert.deepEqual(choose(["KILL"], ["ALL"]).capabilities, ["CAP_KILL"]);
  assert.deepEqual(
    choose(["ALL"], ["SYS_ADMIN"]).capabilities,
    capabilityNames.filter((name) => name !== "CAP_SYS_ADMIN"),
  );
  assert.deepEqual(choose([], [], true).capabilities, [...capabilityNames]);
  assert.deepEqual(choose([], ["ALL"], true).capabilities, [...capabilityNames]);
});

test("everything is what the daemon has, and what it lacks is named", () => {
  const available = everything & ~capabilityMask(["CAP_SYS_RESOURCE"]);
  for (const choice of [choose(["ALL"], [], false, available), choose([], [], true, available)]) {
    assert.deepEqual(choice.missing, ["CAP_SYS_RESOURCE"]);
    assert.equal(capabilityMask(choice.capabilities), available);
  }
  assert.deepEqual(choose([], [], false, available).missing, []);
  assert.throws(() => choose(["SYS_RESOURCE"], [], false, available), /does not have CAP_SYS_RESOURCE/);
});

test("an unknown name is refused as Docker refuses it", () => {
  assert.throws(() => choose(["FOO"], []), { message: 'invalid CapAdd: unknown capability: "CAP_FOO"' });
  assert.throws(() => choose([], ["CAP_FOO"]), { message: 'invalid CapDrop: unknown capability: "CAP_FOO"' });
});
