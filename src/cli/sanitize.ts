/**
 * Names, commands, labels and error texts come from images and other users. On a terminal an escape sequence in them
 * can rewrite the screen or answer as if typed, and a bidi override can disguise a name (SECURITY: hostile text).
 */

// C0 but tab and newline, DEL, C1, bidi marks and overrides, line and paragraph separators.
const dangerous = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;

function visible(char: string): string {
  const code = char.charCodeAt(0);
  return code < 0x100
    ? `\\x${code.toString(16).padStart(2, "0")}`
    : `\\u${code.toString(16).padStart(4, "0")}`;
}

/** Makes control characters visible (`\x1b`); tabs and newlines stay. */
export function sanitizeText(text: string): string {
  return text.replace(dangerous, visible);
}

// Colours and weights, and the carriage return of a progress bar.
const harmless = /(\x1b\[[0-9;]{0,32}m|\r)/;

/** For the output of a build's steps: what moves no cursor but along its line stays. */
export function sanitizeOutput(text: string): string {
  return text
    .split(harmless)
    .map((part, index) => (index % 2 === 1 ? part : sanitizeText(part)))
    .join("");
}

/** For messages: several lines are fine, a carriage return before a newline too. */
export function sanitizeLine(text: string): string {
  return text.replaceAll("\r\n", "\n").replace(dangerous, visible);
}

/** For one cell of a table, where a tab or newline would break the columns. */
export function sanitizeCell(text: string): string {
  return text.replace(dangerous, visible).replaceAll("\t", " ").replaceAll("\n", " ");
}
