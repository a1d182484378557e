import { isRepositoryPath } from "#wire/reference.ts";
import { RegistryFault } from "./registry-fault.ts";

/** What a request is about, from its path (OCI distribution spec, "Endpoints"). */
export type RequestTarget =
  | { readonly route: "base" | "catalog" | "unknown" }
  | { readonly route: "tags" | "uploads"; readonly repository: string }
  | {
      readonly route: "manifest" | "blob" | "referrers";
      readonly repository: string;
      readonly reference: string;
    }
  | { readonly route: "upload"; readonly repository: string; readonly id: string };

const unknown: RequestTarget = { route: "unknown" };

/**
 * Reads a request's path, which may be percent-encoded. A repository's name may itself hold `blobs` or `manifests`: the
 * last ones count. Throws `NAME_INVALID` for a name out of the grammar, so that no other name ever reaches the store.
 */
export function requestTarget(path: string): RequestTarget {
  let plain = path;
  if (path.includes("%")) {
    try {
      plain = decodeURIComponent(path);
    } catch {
      return unknown;
    }
  }
  if (plain === "/v2/" || plain === "/v2") return { route: "base" };
  if (!plain.startsWith("/v2/")) return unknown;
  if (plain === "/v2/_catalog") return { route: "catalog" };
  const parts = plain.slice("/v2/".length).split("/");
  const last = parts.at(-1) ?? "";
  const before = parts.at(-2);
  const name = (count: number): string => checkedName(parts.slice(0, -count).join("/"));
  if (last === "" && before === "uploads" && parts.at(-3) === "blobs")
    return { route: "uploads", repository: name(3) };
  if (last === "") return unknown;
  if (last === "uploads" && before === "blobs") return { route: "uploads", repository: name(2) };
  if (last === "list" && before === "tags") return { route: "tags", repository: name(2) };
  if (before === "uploads" && parts.at(-3) === "blobs")
    return { route: "upload", repository: name(3), id: last };
  if (before === "manifests") return { route: "manifest", repository: name(2), reference: last };
  if (before === "blobs") return { route: "blob", repository: name(2), reference: last };
  if (before === "referrers") return { route: "referrers", repository: name(2), reference: last };
  return unknown;
}

function checkedName(name: string): string {
  if (!isRepositoryPath(name)) {
    throw new RegistryFault(400, "NAME_INVALID", { detail: { name: name.slice(0, 300) } });
  }
  return name;
}
