/** One challenge of a `WWW-Authenticate` header (RFC 9110 §11.6.1). */
export interface Challenge {
  /** Lower case: `bearer`, `basic`. */
  readonly scheme: string;
  /** Names in lower case. */
  readonly parameters: ReadonlyMap<string, string>;
}

/** Real ones are below 1 KiB. */
const headerLengthMax = 16 * 1024;
const token = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;

/** Reads all challenges of the header's values; what cannot be read ends the list. */
export function parseChallenges(header: string | readonly string[] | undefined): Challenge[] {
  if (header === undefined) return [];
  const values = typeof header === "string" ? [header] : header;
  return values.flatMap((value) => (value.length > headerLengthMax ? [] : parseValue(value)));
}

function parseValue(text: string): Challenge[] {
  const challenges: Challenge[] = [];
  let at = 0;
  const take = (): string | undefined => {
    token.lastIndex = at;
    const match = token.exec(text);
    if (match === null) return undefined;
    at = token.lastIndex;
    return match[0];
  };
  const skip = (characters: string): void => {
    while (at < text.length && characters.includes(text[at]!)) at += 1;
  };
  let parameters: Map<string, string> | undefined;
  for (;;) {
    skip(" \t,");
    const word = take();
    if (word === undefined) return challenges;
    skip(" \t");
    if (text[at] === "=" && parameters !== undefined) {
      at += 1;
      skip(" \t");
      const value = text[at] === '"' ? quoted() : take();
      if (value === undefined) return challenges;
      if (!parameters.has(word.toLowerCase())) parameters.set(word.toLowerCase(), value);
    } else {
      parameters = new Map();
      challenges.push({ scheme: word.toLowerCase(), parameters });
    }
  }

  function quoted(): string | undefined {
    let value = "";
    for (at += 1; at < text.length; at += 1) {
      const character = text[at]!;
      if (character === '"') {
        at += 1;
        return value;
      }
      if (character === "\\") at += 1;
      value += text[at] ?? "";
    }
    return undefined;
  }
}
