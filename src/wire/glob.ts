/**
 * Patterns matched in time proportional to text × pattern, whatever they look like: patterns come from build contexts and
 * Dockerfiles, and a backtracking regular expression takes `*a*a*a*b` for ever.
 */
export type GlobToken =
  /** One character. */
  | { readonly kind: "one"; readonly accepts: (character: string) => boolean }
  /** Any number of characters. */
  | { readonly kind: "many"; readonly accepts: (character: string) => boolean }
  /** Nothing, or any text that ends with a slash. */
  | { readonly kind: "directories" };

export const anyCharacter = (): boolean => true;
export const notSlash = (character: string): boolean => character !== "/";
export const exactly =
  (expected: string) =>
  (character: string): boolean =>
    character === expected;

/** Adds a state and those that are reached from it without a character. */
function enter(states: Uint8Array, tokens: readonly GlobToken[], index: number): void {
  let at = index;
  for (;;) {
    states[at] = 1;
    const token = tokens[at];
    if (token === undefined || token.kind === "one") return;
    at += 1;
    if (states[at] === 1) return;
  }
}

/** Lengths of the prefixes of `text` that match, in ascending order; `onMatch` returns false to stop. */
export function matchPrefixes(
  tokens: readonly GlobToken[],
  text: string,
  onMatch: (length: number) => boolean,
): void {
  let states = new Uint8Array(tokens.length + 1);
  // A `directories` token that is under way (1) may go on only behind a slash.
  enter(states, tokens, 0);
  if (states[tokens.length] === 1 && !onMatch(0)) return;
  let inside = new Uint8Array(tokens.length + 1);
  for (let position = 0; position < text.length; position += 1) {
    const character = text[position] as string;
    const next = new Uint8Array(tokens.length + 1);
    const nextInside = new Uint8Array(tokens.length + 1);
    let alive = false;
    for (let index = 0; index < tokens.length; index += 1) {
      const token = tokens[index] as GlobToken;
      const here = states[index] === 1;
      if (token.kind === "directories") {
        if (!here && inside[index] !== 1) continue;
        alive = true;
        nextInside[index] = 1;
        if (character === "/") enter(next, tokens, index + 1);
        continue;
      }
      if (!here || !token.accepts(character)) continue;
      alive = true;
      enter(next, tokens, token.kind === "many" ? index : index + 1);
    }
    if (!alive) return;
    states = next;
    inside = nextInside;
    if (states[tokens.length] === 1 && !onMatch(position + 1)) return;
  }
}

/** Whether all of the text matches. */
export function matchesAll(tokens: readonly GlobToken[], text: string): boolean {
  let matched = false;
  matchPrefixes(tokens, text, (length) => {
    matched = length === text.length;
    return true;
  });
  return matched;
}
