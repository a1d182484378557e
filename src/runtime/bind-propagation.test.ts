import assert from "node:assert/strict";
import { test } from "node:test";
import { holdingMount, parseMountLine } from "./bind-propagation.ts";

const mountinfo = `22 28 0:21 / /proc rw,nosuid shared:12 - proc proc rw
28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
40 28 0:40 / /data rw - tmpfs none rw
41 40 0:41 / /data/a\\040b\\134c rw master:7 propagate_from:1 - tmpfs none rw
42 28 0:42 / /data rw shared:9 master:3 - tmpfs none rw
`;

test("a line of mountinfo: where it is, whom it shares with", () => {
  assert.deepEqual(parseMountLine(mountinfo.split("\n")[3]!), {
    mountPoint: "/data/a b\\c",
    shared: false,
    slave: true,
  });
  assert.equal(parseMountLine(""), undefined);
});

for (const [path, mountPoint, shared] of [
  ["/", "/", true],
  ["/database", "/", true],
  ["/data", "/data", true],
  ["/data/x", "/data", true],
  ["/data/a b\\c/x", "/data/a b\\c", false],
  ["/proc/1", "/proc", true],
] as const) {
  test(`${path} is held by the last mount on ${mountPoint}`, () => {
    const found = holdingMount(mountinfo, path);
    assert.deepEqual([found?.mountPoint, found?.shared], [mountPoint, shared]);
  });
}
