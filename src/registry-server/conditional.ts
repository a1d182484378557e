import type { IncomingHttpHeaders } from "node:http";

/** What to send of something whose entity tag never changes (RFC 9110, sections 13 and 14). `end` is inclusive. */
export type Selection =
  | { readonly kind: "whole" | "notModified" | "preconditionFailed" | "unsatisfiable" }
  | { readonly kind: "range"; readonly start: number; readonly end: number };

const whole: Selection = { kind: "whole" };

/** Evaluates the conditions of a GET or HEAD in the order of RFC 9110, section 13.2.2. */
export function select(
  headers: IncomingHttpHeaders,
  etag: string,
  sizeBytes: number,
  options: { ranges: boolean },
): Selection {
  const ifMatch = headers["if-match"];
  if (ifMatch !== undefined && !names(ifMatch, etag, false)) return { kind: "preconditionFailed" };
  const ifNoneMatch = headers["if-none-match"];
  if (ifNoneMatch !== undefined && names(ifNoneMatch, etag, true)) return { kind: "notModified" };
  const { range } = headers;
  if (range === undefined || !options.ranges) return whole;
  const ifRange = headers["if-range"];
  // A date never matches: there is no modification date.
  if (typeof ifRange === "string" && ifRange.trim() !== etag) return whole;
  return rangeOf(range, sizeBytes);
}

/** Whether a list of entity tags, or `*`, names this one; weak ones count where `weak`. */
function names(list: string, etag: string, weak: boolean): boolean {
  if (list.trim() === "*") return true;
  return list.split(",").some((item) => {
    const tag = item.trim();
    return tag === etag || (weak && tag === `W/${etag}`);
  });
}

/** One range of bytes. Several at once, and other units, are answered with everything, as the RFC allows. */
function rangeOf(range: string, sizeBytes: number): Selection {
  const match = /^bytes=[ \t]*(\d{0,15})-(\d{0,15})[ \t]*$/.exec(range);
  if (match === null)
    return /^bytes=[\d, \t-]*$/.test(range) && !range.includes(",") ? { kind: "unsatisfiable" } : whole;
  const [, first = "", last = ""] = match;
  if (first === "" && last === "") return { kind: "unsatisfiable" };
  if (first === "") {
    const length = Math.min(Number(last), sizeBytes);
    return length === 0
      ? { kind: "unsatisfiable" }
      : { kind: "range", start: sizeBytes - length, end: sizeBytes - 1 };
  }
  const start = Number(first);
  const end = last === "" ? sizeBytes - 1 : Math.min(Number(last), sizeBytes - 1);
  if (start >= sizeBytes || (last !== "" && Number(last) < start)) return { kind: "unsatisfiable" };
  return { kind: "range", start, end };
}
