/** Image references as the client reads them (https://pkg.go.dev/github.com/distribution/reference describes the grammar). */

export interface ImageReference {
  /** `docker.io` when none was written. */
  readonly domain: string;
  /** Path without the domain, `library/` added for Docker's own. */
  readonly path: string;
  readonly tag: string;
  readonly digest: string;
}

const domainPattern =
  /^(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*(?::\d+)?$|^\[[0-9a-fA-F:]+\](?::\d+)?$/;
const pathPattern = /^[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*$/;
const tagPattern = /^[\w][\w.-]{0,127}$/;
const digestPattern = /^[A-Za-z][A-Za-z0-9]*(?:[+._-][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}$/;
const nameLengthMax = 255;

/** Throws `invalid reference format…` with Docker's words. */
export function parseReference(text: string): ImageReference {
  if (/^[0-9a-f]{64}$/.test(text)) {
    throw new Error(`invalid repository name (${text}), cannot specify 64-byte hexadecimal strings`);
  }
  const at = text.indexOf("@");
  const digest = at < 0 ? "" : text.slice(at + 1);
  const named = at < 0 ? text : text.slice(0, at);
  const colon = named.lastIndexOf(":");
  const tagged = colon > named.lastIndexOf("/");
  const tag = tagged ? named.slice(colon + 1) : "";
  const { domain, path } = splitDomain(tagged ? named.slice(0, colon) : named);
  if (path.toLowerCase() !== path) {
    throw new Error(`invalid reference format: repository name (${path}) must be lowercase`);
  }
  const fits = domainPattern.test(domain) && pathPattern.test(path);
  if (!fits || (tagged && !tagPattern.test(tag)) || (at >= 0 && !digestPattern.test(digest))) {
    throw new Error("invalid reference format");
  }
  if (domain.length + 1 + path.length > nameLengthMax) {
    throw new Error(`repository name must not be more than ${nameLengthMax} characters`);
  }
  return { domain, path, tag, digest };
}

function splitDomain(name: string): { domain: string; path: string } {
  const slash = name.indexOf("/");
  const first = slash < 0 ? "" : name.slice(0, slash);
  const isDomain =
    first !== "" && (/[.:]/.test(first) || first === "localhost" || first.toLowerCase() !== first);
  let domain = isDomain ? first : "docker.io";
  const path = isDomain ? name.slice(slash + 1) : name;
  if (domain === "index.docker.io") domain = "docker.io";
  return { domain, path: domain === "docker.io" && !path.includes("/") ? `library/${path}` : path };
}

/** The short form that users see: without `docker.io/` and `library/`. */
export function familiarName({ domain, path }: ImageReference): string {
  if (domain !== "docker.io") return `${domain}/${path}`;
  return path.startsWith("library/") && !path.slice(8).includes("/") ? path.slice(8) : path;
}

export function familiarString(reference: ImageReference): string {
  const tag = reference.tag === "" ? "" : `:${reference.tag}`;
  return `${familiarName(reference)}${tag}${reference.digest === "" ? "" : `@${reference.digest}`}`;
}

/** Adds `latest` where neither tag nor digest was written. */
export function withDefaultTag(reference: ImageReference): ImageReference {
  return reference.tag === "" && reference.digest === "" ? { ...reference, tag: "latest" } : reference;
}
