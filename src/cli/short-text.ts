/** How tables shorten what is long. */
import { goQuote } from "#wire/template-format.ts";

/** The first 12 digits of an id, without `sha256:`. */
export function truncateId(id: string): string {
  const colon = id.indexOf(":");
  const digits = colon < 0 ? id : id.slice(colon + 1);
  return digits.slice(0, 12);
}

/** At most `width` columns, the last one `…` when text was cut. Wide characters take two. */
export function ellipsis(text: string, width: number): string {
  if (width <= 0) return "";
  const chars = [...text];
  if (text === "" || (displayWidth(text) <= width && chars.length <= width)) return text;
  let used = 0;
  let out = "";
  for (const char of chars) {
    const columns = isWide(char) ? 2 : 1;
    if (used + columns > width - 1) break;
    used += columns;
    out += char;
  }
  return width === 1 ? chars[0]! : `${out}…`;
}

function isWide(char: string): boolean {
  return /[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]/.test(
    char,
  );
}

function displayWidth(text: string): number {
  let width = 0;
  for (const char of text) width += isWide(char) ? 2 : 1;
  return width;
}

export function quoteCommand(command: string): string {
  return goQuote(command);
}

/** `a=b,c=d`, sorted, so that two calls show the same. */
export function joinLabels(labels: Readonly<Record<string, string>> | null | undefined): string {
  return Object.entries(labels ?? {})
    .map(([name, value]) => `${name}=${value}`)
    .sort()
    .join(",");
}
