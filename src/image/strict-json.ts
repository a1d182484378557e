import { EngineError, messageOf } from "#base/errors.ts";

/**
 * JSON documents that are named by a digest must mean one thing only: two parsers that choose differently between
 * double keys would see two images (CVE-2021-41190 and its kin). Refuses double keys at any depth, invalid UTF-8 and
 * nesting beyond any real document. Throws `invalid`.
 */
export function parseStrictJson(bytes: Uint8Array, what: string): unknown {
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    checkNesting(text);
    value = JSON.parse(text);
  } catch (cause) {
    throw new EngineError("invalid", `${what} is not valid JSON: ${messageOf(cause)}`, {
      code: "bad-document",
      cause,
    });
  }
  const twice = firstDoubleKey(text);
  if (twice !== undefined) {
    const key = JSON.stringify(twice.slice(0, 100));
    throw new EngineError("invalid", `${what} has the key ${key} twice`, { code: "bad-document" });
  }
  return value;
}

const depthMax = 64;

/** Before JSON.parse: its recursion is bounded by the stack only. */
function checkNesting(text: string): void {
  let depth = 0;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === 0x22) at = endOfString(text, at);
    else if (code === 0x7b || code === 0x5b) {
      depth += 1;
      if (depth > depthMax) throw new Error(`nested deeper than ${depthMax}`);
    } else if (code === 0x7d || code === 0x5d) depth -= 1;
  }
}

/** Index of the closing quote of the string that opens at `start`; the text's end when there is none. */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === 0x5c) at += 1;
    else if (code === 0x22) return at;
  }
  return text.length;
}

/** The first key that an object of this valid JSON text has twice. */
function firstDoubleKey(text: string): string | undefined {
  const open: (Set<string> | undefined)[] = [];
  let expectKey = false;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === 0x22) {
      const end = endOfString(text, at);
      const keys = open.at(-1);
      if (expectKey && keys !== undefined) {
        const raw = text.slice(at, end + 1);
        const key = raw.includes("\\") ? (JSON.parse(raw) as string) : raw.slice(1, -1);
        if (keys.has(key)) return key;
        keys.add(key);
        expectKey = false;
      }
      at = end;
    } else if (code === 0x7b) {
      open.push(new Set());
      expectKey = true;
    } else if (code === 0x5b) open.push(undefined);
    else if (code === 0x7d || code === 0x5d) {
      open.pop();
      expectKey = false;
    } else if (code === 0x2c) expectKey = open.at(-1) !== undefined;
  }
  return undefined;
}
