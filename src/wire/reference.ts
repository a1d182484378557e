import { type Digest, isDigest } from "#base/digest.ts";
import { EngineError } from "#base/errors.ts";

/**
 * Docker's names for images. A *familiar* name is what people type (`busybox`, `me/app:1`); its *canonical* form names
 * the registry (`docker.io/library/busybox`). Grammar: the distribution project's reference grammar, with the
 * normalisation of the Docker command line on top (first component is a registry only when it has a dot, a colon or
 * an upper-case letter, or is `localhost`).
 */
export interface Reference {
  /** `docker.io`, `localhost:5000`, `[::1]:5000`. */
  readonly domain: string;
  /** `library/busybox`. */
  readonly path: string;
  readonly tag?: string;
  readonly digest?: Digest;
}

export const defaultDomain = "docker.io";
export const defaultTag = "latest";
const officialPrefix = "library/";
const nameLengthMax = 255;

/** Host names that all mean docker.io. */
const hubAliases: ReadonlySet<string> = new Set([
  "docker.io",
  "index.docker.io",
  "registry-1.docker.io",
  "registry.hub.docker.com",
]);

const domainComponent = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
const domainPattern = `(?:${domainComponent}(?:\\.${domainComponent})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?`;
const pathComponent = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
const pathPattern = `${pathComponent}(?:/${pathComponent})*`;
const tagPattern = "\\w[\\w.-]{0,127}";
const digestPattern = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
const referencePattern = new RegExp(
  `^((?:${domainPattern}/)?${pathPattern})(?::(${tagPattern}))?(?:@(${digestPattern}))?$`,
);
const wholeTagPattern = new RegExp(`^${tagPattern}$`);
const idPattern = /^[a-f0-9]{64}$/;
const digestHexLength: Readonly<Record<string, number>> = { sha256: 64, sha384: 96, sha512: 128 };

function invalid(message: string): EngineError {
  return new EngineError("invalid", message, { code: "bad-reference" });
}

const invalidFormat = "invalid reference format";

/** Splits a registry off a familiar name; everything without one belongs to docker.io. */
function splitDomain(name: string): { domain: string; rest: string } {
  const slash = name.indexOf("/");
  const first = slash === -1 ? "" : name.slice(0, slash);
  const isDomain =
    first !== "" && (first === "localhost" || /[.:]/.test(first) || first.toLowerCase() !== first);
  const domain = !isDomain || hubAliases.has(first) ? defaultDomain : first;
  const rest = isDomain ? name.slice(slash + 1) : name;
  return { domain, rest: domain === defaultDomain && !rest.includes("/") ? officialPrefix + rest : rest };
}

/** Spelling of the digest part of a reference. Only sha256 names content here, as in the rest of the engine. */
function checkDigest(text: string): Digest {
  const colon = text.indexOf(":");
  const algorithm = text.slice(0, colon);
  const hex = text.slice(colon + 1);
  const length = digestHexLength[algorithm];
  if (length === undefined) throw invalid("unsupported digest algorithm");
  if (hex.length !== length) throw invalid("invalid checksum digest length");
  if (!/^[a-f0-9]+$/.test(hex)) throw invalid("invalid checksum digest format");
  if (!isDigest(text)) throw invalid("unsupported digest algorithm");
  return text as Digest;
}

/**
 * Reads a familiar or canonical name (`busybox`, `host:5000/a/b:tag@sha256:…`). No tag is added.
 * Throws `invalid` with Docker's text.
 */
export function parseReference(text: string): Reference {
  if (idPattern.test(text)) {
    throw invalid(`invalid repository name (${text}), cannot specify 64-byte hexadecimal strings`);
  }
  if (text.length > 4096) throw invalid(invalidFormat);
  const { domain, rest } = splitDomain(text);
  const colon = rest.indexOf(":");
  const remote = colon === -1 ? rest : rest.slice(0, colon);
  if (remote.toLowerCase() !== remote) {
    throw invalid(`${invalidFormat}: repository name (${remote}) must be lowercase`);
  }
  const match = referencePattern.exec(`${domain}/${rest}`);
  const name = match?.[1];
  // The pattern may take the domain for a path component only when it has none of a domain's marks: not after splitDomain.
  if (match === null || name === undefined || !name.startsWith(`${domain}/`)) throw invalid(invalidFormat);
  if (name.length > nameLengthMax) {
    throw invalid(`${invalidFormat}: repository name must not be more than ${nameLengthMax} characters`);
  }
  return {
    domain,
    path: name.slice(domain.length + 1),
    ...(match[2] === undefined ? {} : { tag: match[2] }),
    ...(match[3] === undefined ? {} : { digest: checkDigest(match[3]) }),
  };
}

/** What a user may give where an image is meant: a whole id, a digest, or a name. */
export type AnyReference =
  | { readonly kind: "id"; readonly digest: Digest }
  | { readonly kind: "name"; readonly reference: Reference };

/** Docker's ParseAnyReference: 64 hex digits and `sha256:<64 hex>` are ids, all else is a name. */
export function parseAnyReference(text: string): AnyReference {
  if (idPattern.test(text)) return { kind: "id", digest: `sha256:${text}` as Digest };
  if (isDigest(text)) return { kind: "id", digest: text as Digest };
  return { kind: "name", reference: parseReference(text) };
}

const wholePathPattern = new RegExp(`^${pathPattern}$`);

/** Whether the text can name a repository of a registry (OCI distribution spec, `<name>`): no domain, at most 255 characters. */
export function isRepositoryPath(text: string): boolean {
  return text.length <= nameLengthMax && wholePathPattern.test(text);
}

/** Whether the text can be a tag. */
export function isTag(text: string): boolean {
  return wholeTagPattern.test(text);
}

/** The same repository with this tag and no digest. Throws `invalid tag format`. */
export function withTag(reference: Reference, tag: string): Reference {
  if (!isTag(tag)) throw invalid("invalid tag format");
  return { domain: reference.domain, path: reference.path, tag };
}

/** The same repository with this digest and no tag. */
export function withDigest(reference: Reference, digest: Digest): Reference {
  return { domain: reference.domain, path: reference.path, digest };
}

/** The repository alone. */
export function repositoryOf(reference: Reference): Reference {
  return { domain: reference.domain, path: reference.path };
}

/** Neither tag nor digest. */
export function isNameOnly(reference: Reference): boolean {
  return reference.tag === undefined && reference.digest === undefined;
}

/** Adds `latest` to a name that has neither tag nor digest. */
export function withDefaultTag(reference: Reference): Reference {
  return isNameOnly(reference) ? withTag(reference, defaultTag) : reference;
}

function suffix(reference: Reference): string {
  const tag = reference.tag === undefined ? "" : `:${reference.tag}`;
  return reference.digest === undefined ? tag : `${tag}@${reference.digest}`;
}

/** `docker.io/library/busybox`. */
export function canonicalName(reference: Reference): string {
  return `${reference.domain}/${reference.path}`;
}

/** `docker.io/library/busybox:latest`: the key names are stored under. */
export function canonicalString(reference: Reference): string {
  return canonicalName(reference) + suffix(reference);
}

/** `busybox`, `me/app`, `host:5000/a`. */
export function familiarName(reference: Reference): string {
  if (reference.domain !== defaultDomain) return canonicalName(reference);
  const short = reference.path.startsWith(officialPrefix)
    ? reference.path.slice(officialPrefix.length)
    : reference.path;
  return short.includes("/") ? reference.path : short;
}

/** `busybox:latest`, `host:5000/a@sha256:…`. */
export function familiarString(reference: Reference): string {
  return familiarName(reference) + suffix(reference);
}

/**
 * Whether a familiar name matches the pattern of the list filter `reference=`: Go's `path.Match` on the familiar
 * string or on the familiar name alone. Throws `invalid` for a broken pattern.
 */
export function matchesPattern(pattern: string, reference: Reference): boolean {
  const tokens = globTokens(pattern);
  return matchGlob(tokens, familiarString(reference)) || matchGlob(tokens, familiarName(reference));
}

/** `star`: any run without a slash. Otherwise a test for one character. */
type GlobToken = "star" | ((character: string) => boolean);

function brokenPattern(): EngineError {
  return new EngineError("invalid", "syntax error in pattern", { code: "bad-pattern" });
}

function globTokens(pattern: string): GlobToken[] {
  const tokens: GlobToken[] = [];
  for (let at = 0; at < pattern.length; at += 1) {
    const character = pattern[at]!;
    if (character === "*") tokens.push("star");
    else if (character === "?") tokens.push((other) => other !== "/");
    else if (character === "[") {
      const { token, end } = globClass(pattern, at + 1);
      tokens.push(token);
      at = end;
    } else {
      if (character === "\\") at += 1;
      const literal = pattern[at];
      if (literal === undefined) throw brokenPattern();
      tokens.push((other) => other === literal);
    }
  }
  return tokens;
}

/** A class `[a-z]`, `[^a]`; `start` is behind the bracket, `end` on the closing one. */
function globClass(pattern: string, start: number): { token: GlobToken; end: number } {
  const negated = pattern[start] === "^";
  let at = negated ? start + 1 : start;
  const ranges: (readonly [string, string])[] = [];
  const single = (): string => {
    const escaped = pattern[at] === "\\";
    const character = pattern[escaped ? at + 1 : at];
    if (character === undefined || (!escaped && (character === "-" || character === "]"))) {
      throw brokenPattern();
    }
    at += escaped ? 2 : 1;
    return character;
  };
  while (pattern[at] !== "]" || ranges.length === 0) {
    const low = single();
    let high = low;
    if (pattern[at] === "-") {
      at += 1;
      high = single();
    }
    ranges.push([low, high]);
  }
  const inside = (other: string): boolean => ranges.some(([low, high]) => low <= other && other <= high);
  return { token: (other) => other !== "/" && inside(other) !== negated, end: at };
}

/** Going back to the last star is enough, because a star never crosses a slash: at most quadratic. */
function matchGlob(tokens: readonly GlobToken[], text: string): boolean {
  let token = 0;
  let at = 0;
  let star = -1;
  let starAt = 0;
  while (at < text.length) {
    const current = tokens[token];
    if (current === "star") {
      star = token;
      starAt = at;
      token += 1;
    } else if (current?.(text[at]!) === true) {
      token += 1;
      at += 1;
    } else if (star !== -1 && text[starAt] !== "/") {
      starAt += 1;
      at = starAt;
      token = star + 1;
    } else return false;
  }
  while (tokens[token] === "star") token += 1;
  return token === tokens.length;
}
