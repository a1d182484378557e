import assert from "node:assert/strict";
import { it } from "node:test";
import { parseExitRecord } from "./shim-exit-record.ts";

const whole =
  "skiff-exit 1\nexitCode 7\nstartedAtNs 1700000000123456789\nfinishedAtNs 1700000001000000000\noomKilled 1\ndroppedLogLines 3\nend\n";

it("reads a whole record", () => {
  assert.deepEqual(parseExitRecord(whole), {
    exitCode: 7,
    startedAt: "2023-11-14T22:13:20.123456789Z",
    finishedAt: "2023-11-14T22:13:21Z",
    oomKilled: true,
    droppedLogLines: 3,
  });
});

it("takes a part of a record, or another version, for none", () => {
  for (let length = 0; length < whole.length; length += 1) {
    assert.equal(parseExitRecord(whole.slice(0, length)), undefined, `${length} bytes`);
  }
  assert.equal(parseExitRecord(whole.replace("skiff-exit 1", "skiff-exit 2")), undefined);
  assert.equal(parseExitRecord(whole.replace("exitCode 7", "exitCode seven")), undefined);
});

it("skips names that a later shim may add", () => {
  assert.equal(parseExitRecord(whole.replace("end\n", "somethingNew 5\nend\n"))?.exitCode, 7);
});
