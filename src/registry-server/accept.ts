import { isManifestType } from "./manifest-document.ts";

/** The manifest types that a client names, or `any` when it names none or takes everything. */
export type Accepted = "any" | ReadonlySet<string>;

/** Clients send long lists, and several headers: Node joins those. */
const acceptLengthMax = 8192;

export function acceptedOf(header: string | undefined): Accepted {
  if (header === undefined || header === "" || header.length > acceptLengthMax) return "any";
  const named = new Set<string>();
  for (const item of header.split(",")) {
    const [type = "", ...parameters] = item.split(";").map((part) => part.trim().toLowerCase());
    if (parameters.some((parameter) => /^q=0(?:\.0*)?$/.test(parameter))) continue;
    if (type === "*/*" || type === "application/*") return "any";
    if (isManifestType(type)) named.add(type);
  }
  return named.size === 0 ? "any" : named;
}

export function acceptsType(accepted: Accepted, mediaType: string): boolean {
  return accepted === "any" || accepted.has(mediaType);
}
