import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import {
  bytes,
  decimal,
  duration,
  filter,
  integer,
  list,
  parseCsvLine,
  string,
  strings,
} from "./flag-types.ts";
import { FlagError, flag, HelpRequested, parseFlags, toggle } from "./flags.ts";

const specs = [
  toggle("i,interactive", ""),
  toggle("t,tty", ""),
  toggle("d,detach", ""),
  toggle("rm", ""),
  flag("e,env", list, ""),
  flag("m,memory", bytes, ""),
  flag("name", string, ""),
  flag("n,last", integer, "", { initial: -1 }),
  flag("network", list, ""),
  flag("net", list, "", { aliasOf: "network" }),
  flag("alias", strings, ""),
];

const parse = (words: string[], interspersed = true) => parseFlags(specs, words, interspersed);
const complaint = (words: string[]): string => {
  try {
    parse(words);
  } catch (error) {
    assert.ok(error instanceof FlagError);
    return error.message;
  }
  throw new Error("was taken");
};

describe("parseFlags", () => {
  it("takes bundled shorthands, values glued, after = and as the next word", () => {
    const { flags, args } = parse(["-itd", "-eA=1", "-e=B=2", "-e", "C", "--env=D", "--env", "E", "image"]);
    assert.ok(flags.bool("interactive") && flags.bool("tty") && flags.bool("detach"));
    assert.deepEqual(flags.list("env"), ["A=1", "B=2", "C", "D", "E"]);
    assert.deepEqual(args, ["image"]);
  });

  it("switches take a value only after =", () => {
    const { flags, args } = parse(["--rm=false", "-t=false", "--interactive", "false"]);
    assert.equal(flags.bool("rm"), false);
    assert.ok(flags.changed("rm"));
    assert.equal(flags.bool("tty"), false);
    assert.deepEqual(args, ["false"]);
  });

  it("stops at the first argument where flags are not interspersed, and at --", () => {
    assert.deepEqual(parse(["-i", "image", "-t", "--foo"], false).args, ["image", "-t", "--foo"]);
    assert.deepEqual(parse(["a", "-i", "--", "-t"]).args, ["a", "-t"]);
    assert.deepEqual(parse(["--", "-t"], false).args, ["-t"]);
    assert.deepEqual(parse(["-", "-i"]).args, ["-"]);
  });

  it("keeps defaults until a flag is given, and an alias fills the same list", () => {
    const { flags } = parse(["--net", "a", "--network", "b"]);
    assert.equal(flags.number("last"), -1);
    assert.equal(flags.changed("last"), false);
    assert.deepEqual(flags.list("network"), ["a", "b"]);
    assert.deepEqual(parse(["--alias", 'a,b,"c,d"', "--alias=e"]).flags.list("alias"), [
      "a",
      "b",
      "c,d",
      "e",
    ]);
  });

  const complaints: readonly (readonly [string[], string])[] = [
    [["--foo"], "unknown flag: --foo"],
    [["-iz"], "unknown shorthand flag: 'z' in -z"],
    [["-zi"], "unknown shorthand flag: 'z' in -zi"],
    [["--name"], "flag needs an argument: --name"],
    [["-e"], "flag needs an argument: 'e' in -e"],
    [["-ie"], "flag needs an argument: 'e' in -e"],
    [["--=x"], "bad flag syntax: --=x"],
    [["---x"], "bad flag syntax: ---x"],
    [
      ["--rm=maybe"],
      'invalid argument "maybe" for "--rm" flag: strconv.ParseBool: parsing "maybe": invalid syntax',
    ],
    [
      ["-n", "x"],
      'invalid argument "x" for "-n, --last" flag: strconv.ParseInt: parsing "x": invalid syntax',
    ],
    [
      ["-n", "99999999999999999999"],
      'invalid argument "99999999999999999999" for "-n, --last" flag: strconv.ParseInt: parsing "99999999999999999999": value out of range',
    ],
    [["-m", "abc"], `invalid argument "abc" for "-m, --memory" flag: invalid size: 'abc'`],
  ];
  for (const [words, expected] of complaints) {
    it(`complains of ${words.join(" ")}`, () => assert.equal(complaint(words), expected));
  }

  it("--help and a free -h ask for help", () => {
    assert.throws(() => parse(["--help"]), HelpRequested);
    assert.throws(
      () => parse(["-h"]),
      (error) => error instanceof HelpRequested && error.deprecatedShorthand,
    );
    assert.deepEqual(parse(["--help=false", "x"]).args, ["x"]);
  });

  it("never fails but by its own errors", () => {
    const word = fc.oneof(
      fc.string(),
      fc.constantFrom("--", "-", "-itd", "--name", "-e", "--rm=", "-n5", "-m"),
    );
    fc.assert(
      fc.property(fc.array(word), fc.boolean(), (words, interspersed) => {
        try {
          parse(words, interspersed);
        } catch (error) {
          assert.ok(error instanceof FlagError || error instanceof HelpRequested);
        }
      }),
    );
  });
});

describe("values", () => {
  it("--cpus counts in billionths", () => {
    for (const [text, nano] of [
      ["1", 1e9],
      ["1.5", 1.5e9],
      [".25", 0.25e9],
      ["1/2", 0.5e9],
      ["0.000000001", 1],
    ] as const) {
      assert.equal(decimal.parse(text), nano);
    }
    assert.throws(() => decimal.parse("x"), /failed to parse x as a rational number/);
    assert.throws(() => decimal.parse("0.0000000001"), /value is too precise/);
  });

  it("filters need a value; names are lower case", () => {
    assert.equal(filter.parse("STATUS = a"), "status=a");
    assert.equal(filter.parse("label!=x"), "label!=x");
    assert.deepEqual(filter.parse(""), []);
    assert.throws(() => filter.parse("x"), /bad format of filter \(expected name=value\)/);
  });

  it("durations and integers are Go's", () => {
    assert.equal(duration.parse("1h2m3.5s"), 3723.5e9);
    assert.equal(duration.parse("-5ms"), -5e6);
    assert.throws(() => duration.parse("5"), /time: missing unit in duration "5"/);
    assert.throws(() => duration.parse("5x"), /time: unknown unit "x" in duration "5x"/);
    assert.throws(() => duration.parse(""), /time: invalid duration ""/);
    assert.equal(integer.parse("0x10"), 16);
    assert.equal(integer.parse("010"), 8);
    assert.equal(integer.parse("-1"), -1);
  });

  it("CSV as Go reads one line", () => {
    assert.deepEqual(parseCsvLine('a,"b,c",'), ["a", "b,c", ""]);
    assert.deepEqual(parseCsvLine('"a ""q"""'), ['a "q"']);
    assert.throws(() => parseCsvLine('a"b'), /bare " in non-quoted-field/);
  });
});
