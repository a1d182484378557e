import assert from "node:assert/strict";
import { test } from "node:test";
import { EngineError, type ErrorKind } from "#base/errors.ts";
import { mapError } from "./error-map.ts";
import { atLeast, checkVersion, versionText } from "./version.ts";

test("the version part of a path", () => {
  assert.equal(versionText("v1.51"), "1.51");
  for (const other of ["1.51", "v", "vx", "version", "v1.51a", ""])
    assert.equal(versionText(other), undefined);
});

for (const [text, minor] of [
  ["1.24", 24],
  ["1.51", 51],
  ["1.40.3", 40],
] as const) {
  test(`${text} is served`, () => assert.deepEqual(checkVersion(text), { major: 1, minor }));
}

for (const text of ["1.52", "2.0", "1.100", "99999999999999.1"]) {
  test(`${text} is too new`, () => assert.throws(() => checkVersion(text), { code: "version-too-new" }));
}

for (const text of ["1.23", "1.3", "0.99", "1", "."]) {
  test(`${text} is too old`, () => assert.throws(() => checkVersion(text), { code: "version-too-old" }));
}

test("versions compare as numbers", () => {
  assert.equal(atLeast({ major: 1, minor: 51 }, 1, 9), true);
  assert.equal(atLeast({ major: 1, minor: 41 }, 1, 42), false);
  assert.equal(atLeast({ major: 2, minor: 0 }, 1, 42), true);
});

test("each kind of error has Docker's status", () => {
  const expected: Record<ErrorKind, number> = {
    notFound: 404,
    conflict: 409,
    invalid: 400,
    unauthorized: 401,
    forbidden: 403,
    notModified: 304,
    unavailable: 503,
    notImplemented: 501,
    cancelled: 500,
    system: 500,
  };
  for (const [kind, status] of Object.entries(expected)) {
    assert.deepEqual(mapError(new EngineError(kind as ErrorKind, "text")), {
      status,
      message: "text",
      unexpected: false,
    });
  }
  assert.deepEqual(mapError(new TypeError("bug")), { status: 500, message: "bug", unexpected: true });
  assert.deepEqual(mapError("odd"), { status: 500, message: "odd", unexpected: true });
});
