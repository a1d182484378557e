import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { openRoot } from "#sys/beneath.ts";
import { closeFd } from "#sys/files.ts";
import { type ResolvedUser, resolveUser, resolveUserIn } from "./user.ts";

const passwd = `root:x:0:0:root:/root:/bin/sh
# comment
broken:x:notanumber:0::/:/bin/sh
overflow:x:4294967296:0::/:/bin/sh
negative:x:-1:0::/:/bin/sh
app:x:1000:1000:App:/home/app:/bin/sh
1234:x:77:77::/seventyseven:/bin/sh
weird:x:1001:1001::relative:/bin/sh
twin:x:1000:2000::/other:/bin/sh
`;
const group = `root:x:0:
wheel:x:10:root,app
app:x:1000:
audio:x:29:app,nobody
2222:x:99:
bad:x:zzz:app
`;

function resolve(user: string, groupAdd: string[] = []): ResolvedUser {
  return resolveUserIn(passwd, () => group, { user, groupAdd });
}

test("every form of -u resolves as Docker's does", () => {
  const cases: [string, Partial<ResolvedUser>][] = [
    ["", { uid: 0, gid: 0, additionalGids: [0, 10], home: "/root" }],
    ["app", { uid: 1000, gid: 1000, additionalGids: [1000, 10, 29], home: "/home/app" }],
    ["1000", { uid: 1000, gid: 1000, additionalGids: [1000, 10, 29], home: "/home/app" }],
    ["app:", { uid: 1000, gid: 1000, additionalGids: [1000, 10, 29] }],
    ["app:audio", { uid: 1000, gid: 29, additionalGids: [29], home: "/home/app" }],
    ["app:4242", { uid: 1000, gid: 4242, additionalGids: [4242] }],
    ["5000", { uid: 5000, gid: 0, additionalGids: [0], home: "/" }],
    ["5000:5001", { uid: 5000, gid: 5001, additionalGids: [5001], home: "/" }],
    [":wheel", { uid: 0, gid: 10, additionalGids: [10], home: "/root" }],
    // A number is an id, although an entry and a group have it for a name.
    ["1234", { uid: 1234, gid: 0, home: "/" }],
    ["app:2222", { gid: 2222 }],
    ["weird", { uid: 1001, home: "/" }],
  ];
  for (const [user, expected] of cases) {
    const actual = resolve(user);
    for (const key of Object.keys(expected) as (keyof ResolvedUser)[]) {
      assert.deepEqual(actual[key], expected[key], `${JSON.stringify(user)} ${key}`);
    }
  }
});

test("group-add takes names and numbers, once each", () => {
  assert.deepEqual(
    resolve("app", ["audio", "audio", "7777", "2222"]).additionalGids,
    [1000, 10, 29, 7777, 2222],
  );
  assert.deepEqual(resolve("5000", ["wheel"]).additionalGids, [0, 10]);
});

test("what cannot be resolved is refused in Docker's words, and never becomes root", () => {
  const range = "uids and gids must be in range 0-2147483647";
  const cases: [string, string[], string][] = [
    ["nope", [], "unable to find user nope: no matching entries in passwd file"],
    ["broken", [], "unable to find user broken: no matching entries in passwd file"],
    ["overflow", [], "unable to find user overflow: no matching entries in passwd file"],
    ["negative", [], "unable to find user negative: no matching entries in passwd file"],
    ["0x0", [], "unable to find user 0x0: no matching entries in passwd file"],
    ["app:nope", [], "unable to find group nope: no matching entries in group file"],
    ["", ["nope"], "Unable to find group nope: no matching entries in group file"],
    ["", ["bad"], "Unable to find group bad: no matching entries in group file"],
    ["4294967296", [], range],
    ["2147483648", [], range],
    ["-1", [], range],
    ["0:4294967296", [], range],
    ["0:-1", [], range],
    ["", ["4294967295"], range],
  ];
  for (const [user, groups, message] of cases) {
    assert.throws(() => resolve(user, groups), { message }, `${user} ${groups}`);
  }
});

function inRoot(prepare: (root: string) => void, check: (rootFd: number) => void): void {
  const root = mkdtempSync(join(tmpdir(), "skiff-user-"));
  mkdirSync(join(root, "etc"));
  prepare(root);
  const fd = openRoot(root);
  try {
    check(fd);
  } finally {
    closeFd(fd);
    rmSync(root, { recursive: true });
  }
}

const outside = mkdtempSync(join(tmpdir(), "skiff-canary-"));
writeFileSync(join(outside, "passwd"), "canary:x:4711:4711::/:/bin/sh\n");
after(() => rmSync(outside, { recursive: true }));

test("files of the container are read beneath its root, regular ones only, within a bound and at once", () => {
  const cases: [string, (root: string) => void, RegExp | undefined][] = [
    ["absent", () => {}, undefined],
    ["link out", (root) => symlinkSync(join(outside, "passwd"), join(root, "etc/passwd")), undefined],
    [
      "link out by ..",
      (root) => symlinkSync(`../../../..${outside}/passwd`, join(root, "etc/passwd")),
      undefined,
    ],
    ["loop", (root) => symlinkSync("passwd", join(root, "etc/passwd")), /too many levels/],
    ["fifo", (root) => void execFileSync("mkfifo", [join(root, "etc/passwd")]), /not a regular file/],
    ["directory", (root) => void mkdirSync(join(root, "etc/passwd")), /not a regular file/],
    ["magic link", (root) => symlinkSync("/proc/self/fd/0", join(root, "etc/passwd")), undefined],
    [
      "sparse gigabyte",
      (root) => {
        closeSync(openSync(join(root, "etc/passwd"), "w"));
        truncateSync(join(root, "etc/passwd"), 1024 ** 3);
      },
      /larger than/,
    ],
  ];
  for (const [name, prepare, expected] of cases) {
    inRoot(prepare, (fd) => {
      const started = performance.now();
      if (expected === undefined) {
        assert.deepEqual(
          resolveUser(fd, { user: "", groupAdd: [] }),
          { uid: 0, gid: 0, additionalGids: [0], home: "/" },
          name,
        );
        assert.throws(() => resolveUser(fd, { user: "canary", groupAdd: [] }), /unable to find user/, name);
      } else assert.throws(() => resolveUser(fd, { user: "", groupAdd: [] }), expected, name);
      assert.ok(performance.now() - started < 5000, name);
    });
  }
});

test("a link inside the root is followed", () => {
  inRoot(
    (root) => {
      mkdirSync(join(root, "usr"));
      writeFileSync(join(root, "usr/passwd"), "inner:x:12:13::/inner:/bin/sh\n");
      symlinkSync("/usr/passwd", join(root, "etc/passwd"));
    },
    (fd) => assert.equal(resolveUser(fd, { user: "inner", groupAdd: [] }).uid, 12),
  );
});
