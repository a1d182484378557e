import type { ByteString } from "#base/byte-string.ts";
import { textOfBytes } from "#base/byte-string.ts";
import { EngineError } from "#base/errors.ts";

const needsCleaning = /(?:^|\/)(?:\.{0,2})(?:\/|$)/;

/**
 * A path of an archive as names below the root, "" for the root itself: Go's `filepath.Clean`, which Docker applies.
 * An absolute path counts from the root; one that climbs above it is refused as Docker refuses it.
 */
export function cleanPath(path: ByteString): ByteString {
  let plain: string = path;
  if (plain.startsWith("./")) plain = plain.slice(2);
  if (plain.endsWith("/")) plain = plain.slice(0, -1);
  if (!needsCleaning.test(plain)) return plain as ByteString;
  const absolute = path.startsWith("/");
  const names: string[] = [];
  for (const name of path.split("/")) {
    if (name === "" || name === ".") continue;
    if (name !== "..") names.push(name);
    else if (names.pop() === undefined && !absolute) throw outside(path);
  }
  return names.join("/") as ByteString;
}

function outside(path: ByteString): EngineError {
  return new EngineError("invalid", `${JSON.stringify(textOfBytes(path))} is outside of "/"`, {
    code: "archive-breakout",
  });
}

/** The directory part of a clean path, "" at the top. */
export function parentOf(path: ByteString): ByteString {
  const slash = path.lastIndexOf("/");
  return (slash < 0 ? "" : path.slice(0, slash)) as ByteString;
}

export function baseOf(path: ByteString): ByteString {
  return path.slice(path.lastIndexOf("/") + 1) as ByteString;
}

export function joinPath(parent: string, name: string): ByteString {
  return (parent === "" ? name : `${parent}/${name}`) as ByteString;
}

export const whiteoutPrefix = ".wh.";
const whiteoutMetaPrefix = ".wh..wh.";
const opaqueMarker = ".wh..wh..opq";

export type Whiteout =
  | { readonly kind: "none" | "opaque" | "ignored" }
  | { readonly kind: "whiteout"; readonly hides: ByteString };

const none: Whiteout = { kind: "none" };

/**
 * What a clean path means by the whiteout rules (OCI image spec, layer.md "Whiteouts"; names that AUFS kept for itself
 * are ignored). A whiteout that would hide `.`, `..` or nothing is refused.
 */
export function whiteoutOf(path: ByteString): Whiteout {
  const at = path.indexOf(whiteoutPrefix);
  if (at < 0 || (at > 0 && !path.includes(`/${whiteoutPrefix}`))) return none;
  const base = baseOf(path);
  if (base === opaqueMarker) return { kind: "opaque" };
  if (path.startsWith(whiteoutMetaPrefix) || path.includes(`/${whiteoutMetaPrefix}`))
    return { kind: "ignored" };
  if (!base.startsWith(whiteoutPrefix)) return none;
  const hidden = base.slice(whiteoutPrefix.length);
  if (hidden === "" || hidden === "." || hidden === "..") {
    throw new EngineError("invalid", `invalid whiteout ${JSON.stringify(textOfBytes(path))}`, {
      code: "archive-breakout",
    });
  }
  return { kind: "whiteout", hides: joinPath(parentOf(path), hidden) };
}
