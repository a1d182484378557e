import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { isGitReference, parseGitReference, withoutSecrets } from "./git-reference.ts";

const good: readonly (readonly [string, string, string, string])[] = [
  ["https://h/r.git", "https://h/r.git", "", ""],
  ["https://h/r.git#main", "https://h/r.git", "main", ""],
  ["https://h/r.git#main:d/e", "https://h/r.git", "main", "d/e"],
  ["https://h/r.git#:/d/", "https://h/r.git", "", "d"],
  ["https://h/r.git#v1.0:.", "https://h/r.git", "v1.0", ""],
  ["https://h/r.git#a:b/../c", "https://h/r.git", "a", "c"],
  ["http://u:p@h:81/a/r.git#feature/x", "http://u:p@h:81/a/r.git", "feature/x", ""],
  ["git://h/r", "git://h/r", "", ""],
  ["git@h:o/r.git#1234abc", "git@h:o/r.git", "1234abc", ""],
  ["ssh://git@h:22/o/r.git", "ssh://git@h:22/o/r.git", "", ""],
  ["github.com/o/r#b", "https://github.com/o/r", "b", ""],
];

test("references are taken apart", () => {
  for (const [text, remote, ref, directory] of good) {
    assert.ok(isGitReference(text), text);
    assert.deepEqual(parseGitReference(text), { remote, ref, directory }, text);
  }
});

test("what is no repository is not taken for one", () => {
  for (const text of [
    ".",
    "-",
    "./x.git",
    "/x.git",
    "https://h/x.tar.gz",
    "https://h/x#y.git",
    "x.git",
    "ext::x",
  ])
    assert.ok(!isGitReference(text), text);
});

test("what git could read as something else is refused", () => {
  const bad = [
    "ext::sh -c id",
    "file:///etc",
    "file::/etc",
    "fd::3",
    "--upload-pack=x",
    "-x",
    "https://h/r.git#--upload-pack=x",
    "https://h/r.git#-x",
    "https://h/r.git#+a",
    "https://h/r.git#a..b",
    "https://h/r.git#a@{1}",
    "https://h/r.git#a b",
    "https://h/r.git#a^",
    "https://h/r.git#a:../x",
    "https://h/r.git#a:d/../../x",
    "https://h/r.git#a:d\0",
    "https://-oProxyCommand=x/r.git",
    "ssh://-oProxyCommand=x/r.git",
    "ssh://git@-oProxyCommand=x/r.git",
    "git@-oProxyCommand=x:r.git",
    "git@h:-x",
    "git://h/r\n",
    "https:h/r.git",
    `https://h/${"x".repeat(5000)}.git`,
  ];
  for (const text of bad) assert.throws(() => parseGitReference(text), { code: "git-reference" }, text);
});

test("no text makes the parser do anything but refuse, and what passes begins with no dash", () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.string().map((text) => `https://h/r.git#${text}`),
      ),
      (text) => {
        try {
          const { remote, ref, directory } = parseGitReference(text);
          assert.ok(!remote.startsWith("-") && !ref.startsWith("-"));
          assert.ok(!directory.split("/").includes(".."));
        } catch (error) {
          assert.equal((error as { code?: string }).code, "git-reference");
        }
      },
    ),
  );
});

test("messages show no password", () => {
  assert.equal(
    withoutSecrets("unable to access 'https://u:p@h/r.git/': x"),
    "unable to access 'https://h/r.git/': x",
  );
});
