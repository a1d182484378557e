// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these are the words of Dockerfiles
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { EngineError } from "#base/errors.ts";
import { expandWord, expandWords } from "./word-expand.ts";

const values: Readonly<Record<string, string>> = {
  A: "foo",
  B: "bar baz",
  E: "",
  P: "/usr/local/bin/tool.tar.gz",
  S: "a*b?c",
  Q: `it's "q"`,
  D: "$A",
  L: "aaaa",
  a_1: "under",
};
const options = (escapeWith = "\\") => ({
  lookup: (name: string) => (Object.hasOwn(values, name) ? values[name] : undefined),
  escape: escapeWith,
});

/** Text, and what becomes of it. By the Dockerfile reference, "Environment replacement". */
const words: readonly (readonly [string, string])[] = [
  ["", ""],
  ["plain", "plain"],
  ["$A", "foo"],
  ["${A}", "foo"],
  ["x$A", "xfoo"],
  ["$A/x", "foo/x"],
  ["${A}x", "foox"],
  ["$Ax", ""],
  ["$A$A", "foofoo"],
  ["$A_", ""],
  ["$a_1", "under"],
  ["${a_1}2", "under2"],
  ["$NONE", ""],
  ["${NONE}", ""],
  ["a$NONE/b", "a/b"],
  ["$", "$"],
  ["a$", "a$"],
  ["$ A", "$ A"],
  ["$/", "$/"],
  ["$%", "$%"],
  ["$.", "$."],
  ["$1", ""],
  ["$12x", "x"],
  ["${1}", ""],
  ["$@", ""],
  ["$*", ""],
  ["$E", ""],
  ["$B", "bar baz"],
  ["$D", "$A"],
  ["$Q", `it's "q"`],
  // Quotes.
  ["'$A'", "$A"],
  ['"$A"', "foo"],
  ["'a b'", "a b"],
  ['"a b"', "a b"],
  [`"it's"`, "it's"],
  [`'say "x"'`, 'say "x"'],
  [`a'b'c`, "abc"],
  [`a"b"c`, "abc"],
  [`''`, ""],
  [`""`, ""],
  [`"\\""`, '"'],
  [`"\\$A"`, "$A"],
  [`"\\\\"`, "\\"],
  [`"\\n"`, "\\n"],
  [`"a\\ b"`, "a\\ b"],
  [`'\\'`, "\\"],
  [`'\\$A'`, "\\$A"],
  [`"\${A}"`, "foo"],
  [`"\${B}"`, "bar baz"],
  [`'a'"b"c`, "abc"],
  // Escapes outside quotes.
  ["\\$A", "$A"],
  ["\\${A}", "${A}"],
  ["a\\ b", "a b"],
  ["\\\\", "\\"],
  ["\\a", "a"],
  ["a\\", "a"],
  [`\\"`, '"'],
  [`\\'`, "'"],
  ["\\\\$A", "\\foo"],
  // Defaults.
  ["${A:-x}", "foo"],
  ["${E:-x}", "x"],
  ["${NONE:-x}", "x"],
  ["${A-x}", "foo"],
  ["${E-x}", ""],
  ["${NONE-x}", "x"],
  ["${NONE:-}", ""],
  ["${NONE:-a b}", "a b"],
  ["${NONE:-$A}", "foo"],
  ["${NONE:-${A}}", "foo"],
  ["${NONE:-${NO:-deep}}", "deep"],
  ["${NONE:-'$A'}", "$A"],
  ['${NONE:-"$A"}', "foo"],
  ["${NONE:-\\$A}", "$A"],
  ["${NONE:-a\\}b}", "a}b"],
  ["${NONE:-:-}", ":-"],
  ["pre${NONE:-x}post", "prexpost"],
  ["${NONE:--}", "-"],
  ["${NONE--}", "-"],
  // Alternatives.
  ["${A:+x}", "x"],
  ["${E:+x}", ""],
  ["${NONE:+x}", ""],
  ["${A+x}", "x"],
  ["${E+x}", "x"],
  ["${NONE+x}", ""],
  ["${A:+$B}", "bar baz"],
  ["${A:+${A}-$A}", "foo-foo"],
  ["${A:+}", ""],
  // Required.
  ["${A:?must}", "foo"],
  ["${A?must}", "foo"],
  ["${E?must}", ""],
  // Prefixes.
  ["${P#*/}", "usr/local/bin/tool.tar.gz"],
  ["${P##*/}", "tool.tar.gz"],
  ["${P#/usr}", "/local/bin/tool.tar.gz"],
  ["${P#usr}", "/usr/local/bin/tool.tar.gz"],
  ["${A#f}", "oo"],
  ["${A#?}", "oo"],
  ["${A##?}", "oo"],
  ["${A#*}", "foo"],
  ["${A##*}", ""],
  ["${A#foo}", ""],
  ["${A#fooo}", "foo"],
  ["${A#}", "foo"],
  ["${NONE#x}", ""],
  ["${L#a*a}", "aa"],
  ["${L##a*a}", ""],
  ["${S#a\\*}", "b?c"],
  ["${S#a?}", "b?c"],
  ["${S#a\\?}", "a*b?c"],
  ["${A#$A}", ""],
  ["${P#${NONE:-/}}", "usr/local/bin/tool.tar.gz"],
  // Suffixes.
  ["${P%.*}", "/usr/local/bin/tool.tar"],
  ["${P%%.*}", "/usr/local/bin/tool"],
  ["${P%/*}", "/usr/local/bin"],
  ["${P%%/*}", ""],
  ["${P%.gz}", "/usr/local/bin/tool.tar"],
  ["${P%gzz}", "/usr/local/bin/tool.tar.gz"],
  ["${A%o}", "fo"],
  ["${A%%o}", "fo"],
  ["${A%o*}", "fo"],
  ["${A%%o*}", "f"],
  ["${A%?}", "fo"],
  ["${A%*}", "foo"],
  ["${A%%*}", ""],
  ["${NONE%x}", ""],
  ["${S%\\?c}", "a*b"],
  ["${L%a*a}", "aa"],
  ["${L%%a*a}", ""],
  // Replacements.
  ["${A/o/x}", "fxo"],
  ["${A//o/x}", "fxx"],
  ["${A/z/x}", "foo"],
  ["${A/o/}", "fo"],
  ["${A//o/}", "f"],
  ["${A/o}", "fo"],
  ["${A//o}", "f"],
  ["${P/\\//-}", "-usr/local/bin/tool.tar.gz"],
  ["${P//\\//-}", "-usr-local-bin-tool.tar.gz"],
  ["${A/f*/x}", "x"],
  ["${A/?/x}", "xoo"],
  ["${A//?/x}", "xxx"],
  ["${L/aa/b}", "baa"],
  ["${L//aa/b}", "bb"],
  ["${A/foo/$B}", "bar baz"],
  ["${A/o/${NONE:-y}}", "fyo"],
  ["${NONE/a/b}", ""],
  ["${S/\\*/+}", "a+b?c"],
  ["${A/foo/a\\}b}", "a}b"],
];

for (const [text, expected] of words) {
  test(`${JSON.stringify(text)} is ${JSON.stringify(expected)}`, () => {
    assert.equal(expandWord(text, options()), expected);
  });
}

const withBacktick: readonly (readonly [string, string])[] = [
  ["`$A", "$A"],
  ["C:\\dir\\$A", "C:\\dir\\foo"],
  ['"`""', '"'],
  ['"\\$A"', "\\foo"],
  ["a` b", "a b"],
  ["${NONE:-`}}", "}"],
  ["\\\\", "\\\\"],
];
for (const [text, expected] of withBacktick) {
  test(`with escape=\`: ${JSON.stringify(text)}`, () =>
    assert.equal(expandWord(text, options("`")), expected));
}

const broken: readonly (readonly [string, RegExp])[] = [
  ["'a", /matching single-quote/],
  ['"a', /matching double-quote/],
  ['"a\\', /matching double-quote/],
  ["${", /syntax error/],
  ["${}", /missing variable name/],
  ["${A", /missing '}'/],
  ["${A:-x", /looking for matching }/],
  ["${A:", /unsupported modifier|syntax error/],
  ["${A:x}", /unsupported modifier \(:x\)/],
  ["${A!}", /unsupported modifier \(!\)/],
  ["${A^^}", /unsupported modifier/],
  ["${ A}", /bad substitution/],
  ["${.}", /bad substitution/],
  ["${A#x", /missing '}'/],
  ["${A/x", /missing '}'/],
  ["${A/x/y", /looking for matching }/],
  ["${NONE:?must be there}", /NONE: must be there/],
  ["${NONE:?}", /NONE: is not allowed to be unset/],
  ["${E:?}", /E: is not allowed to be empty/],
  ["${NONE?gone}", /NONE: gone/],
];
for (const [text, expected] of broken) {
  test(`${JSON.stringify(text)} is refused`, () => {
    assert.throws(
      () => expandWord(text, options()),
      (error: unknown) =>
        error instanceof EngineError && error.kind === "invalid" && expected.test(error.message),
    );
  });
}

const lists: readonly (readonly [string, readonly string[]])[] = [
  ["80 443", ["80", "443"]],
  ["  80   443  ", ["80", "443"]],
  ["$B", ["bar", "baz"]],
  ['"$B"', ["bar baz"]],
  ["x$B", ["xbar", "baz"]],
  ["'a b' c", ["a b", "c"]],
  ["$E", []],
  ['""', [""]],
  ["$NONE x", ["x"]],
  ["a\\ b c", ["a b", "c"]],
  ["${NONE:-1 2}", ["1", "2"]],
];
for (const [text, expected] of lists) {
  test(`words of ${JSON.stringify(text)}`, () => assert.deepEqual(expandWords(text, options()), expected));
}

const raw: readonly (readonly [string, string])[] = [
  [`echo "$A" 'x'\n`, `echo "foo" 'x'\n`],
  ["\\$A\n", "$A\n"],
  ["a\\nb", "a\\nb"],
  ["'${A}'", "'foo'"],
  ["\\\\ x", "\\\\ x"],
];
for (const [text, expected] of raw) {
  test(`text of a heredoc: ${JSON.stringify(text)}`, () => {
    assert.equal(expandWord(text, { ...options(), raw: true }), expected);
  });
}

test("text without specials is itself", () => {
  const plain = fc.string().filter((text) => !/['"\\$]/.test(text));
  fc.assert(fc.property(plain, (text) => expandWord(text, options()) === text));
});

test("a quoted value comes back whatever it holds", () => {
  fc.assert(
    fc.property(
      fc.string(),
      (value) => expandWord('"${V}"', { lookup: () => value, escape: "\\" }) === value,
    ),
  );
});

test("escaping every character gives the text", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme-ascii" }), (text) => {
      const escaped = [...text].map((character) => `\\${character}`).join("");
      return expandWord(escaped, options()) === text;
    }),
  );
});

test("hostile words end in time, with a result or an error of ours", () => {
  const hostile = fc.array(
    fc.constantFrom("$", "{", "}", "*", "?", "#", "%", "/", "\\", "'", '"', "A", "L", ":", "-"),
    { maxLength: 40 },
  );
  fc.assert(
    fc.property(hostile, (parts) => {
      try {
        expandWord(parts.join(""), options());
      } catch (error) {
        assert.ok(error instanceof EngineError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
  const long = "a".repeat(10_000);
  const start = performance.now();
  assert.equal(expandWord("${V%%a*a*a*a*a*b}", { lookup: () => long, escape: "\\" }), long);
  assert.ok(performance.now() - start < 2000);
});
