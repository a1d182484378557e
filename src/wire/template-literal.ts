/** Numbers and quoted strings as Go writes them in source. */

/** A number token's value. */
export function parseNumber(text: string): number {
  const plain = text.replaceAll("_", "");
  const sign = plain.startsWith("-") ? -1 : 1;
  const digits = plain.replace(/^[+-]/, "");
  // Go reads 0777 as octal.
  if (/^0[0-7]+$/.test(digits)) return sign * Number.parseInt(digits, 8);
  return sign * Number(digits);
}

const escapes: Readonly<Record<string, string>> = {
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
  "\\": "\\",
  '"': '"',
  "'": "'",
};

/** strconv.Unquote of a double-quoted string; undefined when it is not one. */
export function goUnquote(quoted: string): string | undefined {
  let bad = false;
  const value = quoted
    .slice(1, -1)
    .replace(
      /\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.?))/gsu,
      (_all, x?: string, u?: string, big?: string, octal?: string, single?: string) => {
        const hex = x ?? u ?? big;
        if (hex !== undefined) {
          const code = Number.parseInt(hex, 16);
          if (code <= 0x10ffff) return String.fromCodePoint(code);
        } else if (octal !== undefined) return String.fromCharCode(Number.parseInt(octal, 8) & 0xff);
        const plain = escapes[single ?? ""];
        if (plain === undefined) bad = true;
        return plain ?? "";
      },
    );
  return bad ? undefined : value;
}
