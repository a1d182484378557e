import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import fc from "fast-check";
import { parseTemplate, TemplateError } from "./template.ts";
import { goType, jsonNames, nilMap, nilSlice, toGoJson } from "./template-value.ts";

interface Golden {
  readonly template: string;
  readonly output: string;
  readonly error?: string;
}

/** The same values as `Data` in template-golden.go, which recorded what Go's own text/template answers. */
function data(): object {
  const struct = (name: string, fields: object): object =>
    Object.defineProperty(fields, goType, { value: name, enumerable: false });
  const labels = new Map([
    ["b", "2"],
    ["a", "1"],
    ["com.x", "3"],
  ]);
  const value = {
    Name: "web",
    Empty: "",
    Html: "<a & 'b'>",
    Count: 42,
    Zero: 0,
    Neg: -7,
    Ratio: 1.5,
    On: true,
    Off: false,
    Tags: ["x", "y", "z"],
    None: nilSlice,
    Labels: labels,
    Void: nilMap,
    Counts: new Map([["one", 1]]),
    Deep: new Map([["k", new Map([["q", "v"]])]]),
    Inner: { A: "in", B: 3 },
    Items: [
      { A: "p", B: 1 },
      { A: "q", B: 2 },
    ],
    Gone: null,
    Any: undefined,
    Nums: [3, 1, 2],
  };
  for (const inner of [value.Inner, ...value.Items]) struct("main.Inner", inner);
  Object.defineProperty(value, "Label", {
    value: (name: string) => labels.get(name) ?? "",
    enumerable: false,
  });
  Object.defineProperty(value, "Upper", { value: () => "WEB", enumerable: false });
  return struct("*main.Data", value);
}

/**
 * Where we differ from Go on purpose or because JavaScript's values carry less than Go's types: the template, and why.
 * Everything else must agree to the letter.
 */
const differing: Readonly<Record<string, string>> = {
  "{{.Gone.A}}": "a null does not know its pointer type",
  "{{.Any.A}}": "a nil interface is no value here",
  "{{eq .Name 1}}": "the Go of Docker's client does not name the types yet",
  "{{lt .Name 1}}": "the Go of Docker's client does not name the types yet",
};

function run(template: string): { output: string; error: string } {
  try {
    return { output: parseTemplate(template).execute(data()), error: "" };
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    return { output: error.output, error: error.message };
  }
}

describe("template, as Go's text/template", () => {
  const golden = JSON.parse(
    readFileSync(new URL("template-golden.json", import.meta.url), "utf8"),
  ) as Golden[];
  assert.ok(golden.length > 200);
  for (const { template, output, error = "" } of golden) {
    it(JSON.stringify(template), () => {
      const ours = run(template);
      const reason = differing[template];
      if (reason !== undefined) {
        assert.notDeepEqual(ours, { output, error }, `listed as differing (${reason}) but agrees`);
        return;
      }
      assert.deepEqual(ours, { output, error });
    });
  }
});

describe("template, over decoded JSON", () => {
  const raw = new Map<string, unknown>([
    ["Name", "web"],
    ["Gone", null],
    ["Labels", new Map([["a", "1"]])],
  ]);

  it("a missing entry of a map is no value, unless that was made an error", () => {
    assert.equal(parseTemplate("{{.Nope}}|{{.Labels.zz}}").execute(raw), "<no value>|<no value>");
    assert.throws(() => parseTemplate("{{.Nope}}").execute(raw, { missingKeyFails: true }), {
      message: 'template: :1:2: executing "" at <.Nope>: map has no entry for key "Nope"',
    });
    assert.equal(parseTemplate("{{.Gone}}").execute(raw, { missingKeyFails: true }), "<no value>");
  });

  it("in a header, functions leave titles alone and Label is a method", () => {
    const titles = new Map<string, unknown>([
      ["ID", "CONTAINER ID"],
      ["Label", (name: string) => name.toUpperCase()],
    ]);
    const template = parseTemplate('{{lower .ID}} {{json .ID}} {{truncate .ID 3}} {{.Label "x"}} {{.Nope}}');
    assert.equal(
      template.execute(titles, { header: true }),
      "CONTAINER ID CONTAINER ID CONTAINER ID X <no value>",
    );
  });
});

describe("toGoJson", () => {
  it("sorts maps, keeps structs in order, escapes HTML where Go does", () => {
    const map = new Map<string, unknown>([
      ["b", 1],
      ["a", "<&>"],
    ]);
    assert.equal(toGoJson(map), '{"a":"<&>","b":1}');
    assert.equal(toGoJson(map, { escapeHtml: true }), '{"a":"\\u003c\\u0026\\u003e","b":1}');
    assert.equal(toGoJson({ Z: 1, A: 2 }), '{"Z":1,"A":2}');
    assert.equal(toGoJson({ n: 123456789012345678901n }), '{"n":123456789012345678901}');
    assert.equal(toGoJson([nilSlice, nilMap, null, undefined, [], new Map()]), "[null,null,null,null,[],{}]");
  });

  it("writes JSON's names for fields that Go calls otherwise", () => {
    const struct = Object.defineProperty({ ID: "x" }, jsonNames, { value: { ID: "Id" }, enumerable: false });
    assert.equal(toGoJson(struct), '{"Id":"x"}');
    assert.equal(parseTemplate("{{.ID}}").execute(struct), "x");
  });

  it("indents as json.Indent does", () => {
    assert.equal(
      toGoJson({ a: [], b: {}, c: [1] }, { indent: "  " }),
      '{\n  "a": [],\n  "b": {},\n  "c": [\n    1\n  ]\n}',
    );
  });

  it("agrees with JSON.parse for any string", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        assert.equal(JSON.parse(toGoJson(text)), text);
        assert.equal(JSON.parse(toGoJson(text, { escapeHtml: true })), text);
      }),
    );
  });
});

describe("any template", () => {
  const pieces = [
    "{{",
    "}}",
    ".Name",
    "$x",
    ":=",
    "|",
    "(",
    ")",
    '"a"',
    "if ",
    "else",
    "end",
    "range ",
    "with ",
    " ",
    "-",
    "printf",
    "1",
    ".",
    "json ",
    "\n",
  ];

  it("parses and runs, or fails with a TemplateError", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...pieces), { maxLength: 20 }), (parts) => {
        run(parts.join(""));
      }),
      { numRuns: 2000 },
    );
  });

  it("without actions is its own output", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        fc.pre(!text.includes("{{"));
        assert.equal(parseTemplate(text).execute({}), text);
      }),
    );
  });
});
