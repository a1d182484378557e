import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeJson, list, string, struct } from "./go-json.ts";

const schema = struct("Body", { A: string, L: list(string) });

/** Go 1.22's texts for the same bodies. */
const refused: readonly (readonly [body: string, message: string])[] = [
  ["", "invalid JSON: got EOF while reading request body"],
  ["{nope", "invalid JSON: invalid character 'n' looking for beginning of object key string"],
  ['{"A":"x', "invalid JSON: unexpected EOF"],
  ["{", "invalid JSON: unexpected EOF"],
  ["[1,", "invalid JSON: unexpected EOF"],
  ['{"A" 1}', "invalid JSON: invalid character '1' after object key"],
  ['{"A":"x" 1}', "invalid JSON: invalid character '1' after object key:value pair"],
  ['{"A":"x",}', "invalid JSON: invalid character '}' looking for beginning of object key string"],
  ["[1 2]", "invalid JSON: invalid character '2' after array element"],
  ["\u00e9", "invalid JSON: invalid character 'é' looking for beginning of value"],
  ['{"A":"\n"}', "invalid JSON: invalid character '\\n' in string literal"],
  ['{"A":"\\x"}', "invalid JSON: invalid character 'x' in string escape code"],
  ['{"A":"x"}{}', "unexpected content after JSON"],
  ["[]", "invalid JSON: json: cannot unmarshal array into Go value of type Body"],
  ["5", "invalid JSON: json: cannot unmarshal number into Go value of type Body"],
  ['{"A":5}', "invalid JSON: json: cannot unmarshal number into Go struct field Body.A of type string"],
  ['{"l":[{}]}', "invalid JSON: json: cannot unmarshal object into Go struct field Body.L of type string"],
];

test("bodies that are no JSON, or not of the schema, are refused in Go's words", () => {
  for (const [body, message] of refused) {
    assert.throws(() => decodeJson(schema, body), { kind: "invalid", message }, body);
  }
});

test("null and absent keys are zero values, keys match without case, unknown keys do nothing", () => {
  assert.deepEqual({ ...decodeJson(schema, "null") }, { A: "", L: [] });
  assert.deepEqual({ ...decodeJson(schema, '{"a":"x","L":null,"__proto__":{"A":"y"}}') }, { A: "x", L: [] });
});
