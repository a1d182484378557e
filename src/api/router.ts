import { assert } from "#base/assert.ts";
import type { Handler, Route } from "./route.ts";

/**
 * Paths to handlers by a tree of path parts, made once: a lookup costs a map access a part, whatever the number of
 * routes. A fixed part wins over `{name}`, and that over `{name...}`.
 */
interface Node {
  readonly fixed: Map<string, Node>;
  param: Node | undefined;
  /** `{name...}` patterns from here: longest suffix first, so `/images/{name...}/json` wins over `/images/{name...}`. */
  readonly rest: Rest[];
  readonly leaves: Map<string, Leaf>;
}

interface Leaf {
  readonly handler: Handler;
  readonly names: readonly string[];
}

interface Rest {
  readonly suffix: readonly string[];
  readonly leaves: Map<string, Leaf>;
}

export interface Match {
  readonly handler: Handler;
  readonly params: Readonly<Record<string, string>>;
}

export interface Router {
  /** `segments` are the decoded parts of a path without its leading slash. */
  match(method: string, segments: readonly string[]): Match | undefined;
}

function newNode(): Node {
  return { fixed: new Map(), param: undefined, rest: [], leaves: new Map() };
}

const paramPattern = /^\{([A-Za-z]+)(\.\.\.)?\}$/;

export function createRouter(routes: readonly Route[]): Router {
  const root = newNode();
  for (const route of routes) insert(root, route);
  return {
    match: (method, segments) => {
      const values: string[] = [];
      const leaf = find(root, method, segments, 0, values);
      if (leaf === undefined) return undefined;
      const params: Record<string, string> = Object.create(null);
      leaf.names.forEach((name, index) => {
        params[name] = values[index]!;
      });
      return { handler: leaf.handler, params };
    },
  };
}

function insert(root: Node, { method, pattern, handler }: Route): void {
  assert(pattern.startsWith("/"), `route ${pattern} starts with a slash`);
  const names: string[] = [];
  let node = root;
  let leaves: Map<string, Leaf> | undefined;
  const parts = pattern.slice(1).split("/");
  for (const [index, part] of parts.entries()) {
    const param = paramPattern.exec(part);
    if (param === null) {
      const next = node.fixed.get(part) ?? newNode();
      node.fixed.set(part, next);
      node = next;
      continue;
    }
    names.push(param[1]!);
    if (param[2] === undefined) {
      node.param ??= newNode();
      node = node.param;
      continue;
    }
    leaves = restLeaves(node, parts.slice(index + 1), pattern);
    break;
  }
  leaves ??= node.leaves;
  assert(!leaves.has(method), `route ${method} ${pattern} is there once`);
  leaves.set(method, { handler, names });
}

function restLeaves(node: Node, suffix: readonly string[], pattern: string): Map<string, Leaf> {
  assert(
    suffix.every((part) => !part.startsWith("{")),
    `route ${pattern}: after {name...} come fixed parts only`,
  );
  const same = node.rest.find((rest) => rest.suffix.join("/") === suffix.join("/"));
  if (same !== undefined) return same.leaves;
  const rest: Rest = { suffix, leaves: new Map() };
  node.rest.push(rest);
  node.rest.sort((a, b) => b.suffix.length - a.suffix.length);
  return rest.leaves;
}

function find(
  node: Node,
  method: string,
  segments: readonly string[],
  at: number,
  values: string[],
): Leaf | undefined {
  const part = segments[at];
  if (part === undefined) return node.leaves.get(method);
  const fixed = node.fixed.get(part);
  if (fixed !== undefined) {
    const leaf = find(fixed, method, segments, at + 1, values);
    if (leaf !== undefined) return leaf;
  }
  if (node.param !== undefined && part !== "") {
    values.push(part);
    const leaf = find(node.param, method, segments, at + 1, values);
    if (leaf !== undefined) return leaf;
    values.pop();
  }
  for (const { suffix, leaves } of node.rest) {
    const leaf = leaves.get(method);
    const end = segments.length - suffix.length;
    if (leaf === undefined || end <= at || part === "") continue;
    if (!suffix.every((fixedPart, index) => segments[end + index] === fixedPart)) continue;
    values.push(segments.slice(at, end).join("/"));
    return leaf;
  }
  return undefined;
}
