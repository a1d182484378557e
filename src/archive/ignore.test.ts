import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { EngineError } from "#base/errors.ts";
import { cleanSlashPath, IgnoreRules, matchPath, readIgnoreFile } from "./ignore.ts";

/** Patterns, a path, and whether it is left out. */
const rules: readonly (readonly [string, string, boolean])[] = [
  ["a", "a", true],
  ["a", "b", false],
  ["a", "a/b", true],
  ["a", "a/b/c", true],
  ["a", "b/a", false],
  ["a", "ab", false],
  ["a/b", "a/b", true],
  ["a/b", "a", false],
  ["a/b", "a/bc", false],
  ["/a", "a", true],
  ["./a", "a", true],
  ["a/", "a", true],
  ["a/", "a/x", true],
  ["a//b", "a/b", true],
  ["a/../b", "b", true],
  ["a/./b", "a/b", true],
  ["*", "a", true],
  ["*", "a/b", true],
  ["*", ".hidden", true],
  ["*.md", "x.md", true],
  ["*.md", "x.mdx", false],
  ["*.md", "d/x.md", false],
  ["*.md", ".md", true],
  ["*/*.md", "d/x.md", true],
  ["*/*.md", "x.md", false],
  ["*/*/x", "a/b/x", true],
  ["*/*/x", "a/x", false],
  ["a*", "abc", true],
  ["a*", "ba", false],
  ["a*c", "abc", true],
  ["a*c", "ac", true],
  ["a*c", "a/c", false],
  ["?", "a", true],
  ["?", "ab", false],
  ["a?c", "abc", true],
  ["a?c", "a/c", false],
  ["temp?", "tempa", true],
  ["temp?", "temp", false],
  ["**", "a", true],
  ["**", "a/b/c", true],
  ["**/a", "a", true],
  ["**/a", "b/a", true],
  ["**/a", "b/c/a", true],
  ["**/a", "ba", false],
  ["**/a", "a/x", true],
  ["**/a/b", "a/b", true],
  ["**/a/b", "x/a/b", true],
  ["**/a/b", "a/x/b", false],
  ["a/**", "a/b", true],
  ["a/**", "a/b/c", true],
  ["a/**", "a", false],
  ["a/**/b", "a/b", true],
  ["a/**/b", "a/x/b", true],
  ["a/**/b", "a/x/y/b", true],
  ["a/**/b", "a/xb", false],
  ["a/**/b", "ab", false],
  ["**/*.go", "x.go", true],
  ["**/*.go", "a/b/x.go", true],
  ["**/*.go", "x.goo", false],
  ["a**", "abc", true],
  ["a**", "a/b", true],
  ["**/node_modules", "x/node_modules/y/z", true],
  ["[abc]", "a", true],
  ["[abc]", "d", false],
  ["[a-c]x", "bx", true],
  ["[a-c]x", "dx", false],
  ["[^a]", "b", true],
  ["[^a]", "a", false],
  ["[^a-c]", "d", true],
  ["[\\]]", "]", true],
  ["[\\-]", "-", true],
  ["x[a]y", "xay", true],
  ["\\*", "*", true],
  ["\\*", "a", false],
  ["a\\?", "a?", true],
  ["a\\?", "ab", false],
  ["\\a", "a", true],
  ["a.b", "axb", false],
  ["a+b", "a+b", true],
  ["a+b", "aab", false],
  ["(a)", "(a)", true],
  ["a|b", "a", false],
  ["$x", "$x", true],
  ["{a,b}", "a", false],
  ["{a,b}", "{a,b}", true],
  ["é", "é", true],
  ["?", "é", true],
  // Taking back in.
  ["*\n!a", "a", false],
  ["*\n!a", "b", true],
  ["!a\n*", "a", true],
  ["*.md\n!README.md", "README.md", false],
  ["*.md\n!README.md", "x.md", true],
  ["*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true],
  ["*.md\n!README*.md\nREADME-secret.md", "README-a.md", false],
  ["a\n!a/b", "a/b", false],
  ["a\n!a/b", "a/c", true],
  ["a\n!a/b", "a/b/c", false],
  ["a\n!a/b\na/b/c", "a/b/c", true],
  ["a\n!a/b\na/b/c", "a/b/d", false],
  ["**\n!**/*.go", "x/y.go", false],
  ["**\n!**/*.go", "x/y.c", true],
  ["a/*\n!a/keep", "a/keep", false],
  ["a/*\n!a/keep", "a/drop", true],
  ["*\n!a/**", "a/b", false],
  ["!x", "x", false],
  ["*\n! a", "a", false],
  ["*\n!/a", "a", false],
  // The file itself.
  ["# a\nb", "a", false],
  ["# a\nb", "# a", false],
  ["  a  ", "a", true],
  ["\n\n\na\n\n", "a", true],
  ["\uFEFFa", "a", true],
  ["a\r\nb\r\n", "b", true],
  ["", "a", false],
  [" # a", "# a", true],
];
for (const [file, path, expected] of rules) {
  test(`${JSON.stringify(file)} ${expected ? "leaves out" : "keeps"} ${JSON.stringify(path)}`, () => {
    assert.equal(new IgnoreRules(readIgnoreFile(file)).excludes(path), expected);
  });
}

for (const file of ["[", "[a", "[]", "[^]", "[a-", "[-]", "a\\", "x[", "!", "*\n!", "[a-]"]) {
  test(`${JSON.stringify(file)} is refused`, () => {
    assert.throws(
      () => new IgnoreRules(readIgnoreFile(file)),
      (error: unknown) => error instanceof EngineError && error.kind === "invalid",
    );
  });
}

/** Go's filepath.Match: no `**`, nothing crosses a slash. */
const matches: readonly (readonly [string, string, boolean])[] = [
  ["abc", "abc", true],
  ["*", "abc", true],
  ["*c", "abc", true],
  ["a*", "a", true],
  ["a*", "abc", true],
  ["a*", "ab/c", false],
  ["a*/b", "abc/b", true],
  ["a*/b", "a/c/b", false],
  ["a*b*c*d*e*/f", "axbxcxdxe/f", true],
  ["a*b*c*d*e*/f", "axbxcxdxexxx/f", true],
  ["a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false],
  ["a*b*c*d*e*/f", "axbxcxdxexxx/fff", false],
  ["a*b?c*x", "abxbbxdbxebxczzx", true],
  ["a*b?c*x", "abxbbxdbxebxczzy", false],
  ["ab[c]", "abc", true],
  ["ab[b-d]", "abc", true],
  ["ab[e-g]", "abc", false],
  ["ab[^c]", "abc", false],
  ["ab[^b-d]", "abc", false],
  ["ab[^e-g]", "abc", true],
  ["a\\*b", "a*b", true],
  ["a\\*b", "ab", false],
  ["a?b", "a☺b", true],
  ["a[^a]b", "a☺b", true],
  ["a???b", "a☺b", false],
  ["[a-ζ]*", "α", true],
  ["*[a-ζ]", "A", false],
  ["a?b", "a/b", false],
  ["a*b", "a/b", false],
  ["*x", "xxx", true],
  ["**", "a/b", false],
];
for (const [pattern, path, expected] of matches) {
  test(`Match(${JSON.stringify(pattern)}, ${JSON.stringify(path)})`, () =>
    assert.equal(matchPath(pattern, path), expected));
}

test("directories that nothing below can come back from need not be walked", () => {
  const all = new IgnoreRules(["node_modules", "!node_modules/keep"]);
  assert.equal(all.excludesAllBelow("node_modules"), false);
  assert.equal(all.excludesAllBelow("node_modules/other"), true);
  assert.equal(new IgnoreRules(["a"]).excludesAllBelow("a"), true);
  assert.equal(new IgnoreRules(["a"]).excludesAllBelow("b"), false);
  assert.equal(new IgnoreRules(["*", "!**/x"]).excludesAllBelow("a"), false);
});

const name = fc.stringMatching(/^[a-c]{1,3}$/);
const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((names) => names.join("/"));

test("a literal pattern leaves out itself and what is in it, nothing else", () => {
  fc.assert(
    fc.property(path, path, (pattern, file) => {
      const expected = file === pattern || file.startsWith(`${pattern}/`);
      return new IgnoreRules([pattern]).excludes(file) === expected;
    }),
  );
});

test("a pattern and its exception cancel each other out", () => {
  fc.assert(
    fc.property(path, path, (pattern, file) => !new IgnoreRules([pattern, `!${pattern}`]).excludes(file)),
  );
});

test("what need not be walked holds nothing that is kept", () => {
  const pattern = fc
    .array(fc.constantFrom("a", "b", "c", "*", "**"), { minLength: 1, maxLength: 3 })
    .map((names) => names.join("/"));
  const line = fc.tuple(fc.boolean(), pattern).map(([exclusion, text]) => (exclusion ? `!${text}` : text));
  fc.assert(
    fc.property(fc.array(line, { maxLength: 5 }), path, path, (lines, directory, inner) => {
      const tree = new IgnoreRules(lines);
      return !tree.excludesAllBelow(directory) || tree.excludes(`${directory}/${inner}`);
    }),
    { numRuns: 2000 },
  );
});

test("cleaning is idempotent", () => {
  const messy = fc
    .array(fc.constantFrom("a", ".", "..", "", "b"), { maxLength: 8 })
    .map((names) => names.join("/"));
  fc.assert(fc.property(messy, (text) => cleanSlashPath(cleanSlashPath(text)) === cleanSlashPath(text)));
});

test("a pattern that a backtracking matcher never finishes", () => {
  const start = performance.now();
  assert.equal(matchPath(`${"*a".repeat(30)}b`, "a".repeat(2000)), false);
  assert.ok(performance.now() - start < 2000);
});
