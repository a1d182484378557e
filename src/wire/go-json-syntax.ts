/** V8's JSON messages, and what Go's encoding/json says at the same place. */
const rules: readonly (readonly [pattern: RegExp, goText: string])[] = [
  [/^Expected (double-quoted )?property name/, "looking for beginning of object key string"],
  [/^Expected ':'/, "after object key"],
  [/^Expected ',' or '\]'/, "after array element"],
  [/^Expected ',' or '}'/, "after object key:value pair"],
  [/^Bad control character/, "in string literal"],
  [/^Bad (escaped character|Unicode escape)/, "in string escape code"],
  [/^Unexpected (token|number|string)/, "looking for beginning of value"],
];

function quoted(character: string): string {
  if (character === "'") return "'\\''";
  return `'${JSON.stringify(character).slice(1, -1).replaceAll('\\"', '"')}'`;
}

/** Go's message, as Docker sends it, for a text that `JSON.parse` refused with `v8Message`. */
export function goSyntaxMessage(text: string, v8Message: string): string {
  if (text.trim() === "") return "invalid JSON: got EOF while reading request body";
  if (/^Unexpected non-whitespace character after JSON/.test(v8Message))
    return "unexpected content after JSON";
  const position = / at position (\d+)/.exec(v8Message)?.[1];
  const token = /^Unexpected token '(.+?)', /s.exec(v8Message)?.[1];
  const character = token ?? (position === undefined ? undefined : [...text.slice(Number(position))][0]);
  if (/^Unterminated string|^Unexpected end/.test(v8Message) || character === undefined)
    return "invalid JSON: unexpected EOF";
  const goText = rules.find(([pattern]) => pattern.test(v8Message))?.[1] ?? "in request body";
  return `invalid JSON: invalid character ${quoted(character)} ${goText}`;
}
