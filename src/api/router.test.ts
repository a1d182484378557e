import assert from "node:assert/strict";
import { test } from "node:test";
import type { Route } from "./route.ts";
import { createRouter } from "./router.ts";

const patterns = [
  "GET /containers/json",
  "GET /containers/{id}/json",
  "POST /containers/{id}/start",
  "GET /images/json",
  "GET /images/{name...}/json",
  "GET /images/{name...}/history",
  "DELETE /images/{name...}",
  "POST /images/create",
  "POST /images/{name...}/push",
  "GET /exec/{id}/json",
];

const called: string[] = [];
const routes = patterns.map((entry): Route => {
  const [method, pattern] = entry.split(" ") as [Route["method"], string];
  return { method, pattern, handler: () => void called.push(entry) };
});
const router = createRouter(routes);

for (const [method, path, expected, params] of [
  ["GET", "containers/json", "GET /containers/json", {}],
  ["GET", "containers/abc/json", "GET /containers/{id}/json", { id: "abc" }],
  ["GET", "containers/json/json", "GET /containers/{id}/json", { id: "json" }],
  ["GET", "images/json", "GET /images/json", {}],
  ["GET", "images/json/json", "GET /images/{name...}/json", { name: "json" }],
  ["GET", "images/a/b/c/history", "GET /images/{name...}/history", { name: "a/b/c" }],
  ["DELETE", "images/a/json", "DELETE /images/{name...}", { name: "a/json" }],
  ["POST", "images/create", "POST /images/create", {}],
  ["POST", "images/h:5000/create/push", "POST /images/{name...}/push", { name: "h:5000/create" }],
  ["POST", "containers/json", undefined, {}],
  ["PUT", "images/json", undefined, {}],
  ["GET", "containers", undefined, {}],
  ["GET", "containers//json", undefined, {}],
  ["GET", "containers/a/b/json", undefined, {}],
  ["GET", "images/history", undefined, {}],
  ["GET", "", undefined, {}],
] as const) {
  test(`${method} /${path} is ${expected ?? "no route"}`, () => {
    const match = router.match(method, path.split("/"));
    if (expected === undefined) assert.equal(match, undefined);
    else {
      called.length = 0;
      match?.handler(undefined as never);
      assert.deepEqual(called, [expected]);
      assert.deepEqual({ ...match?.params }, params);
    }
  });
}

test("a route that is there twice is a mistake of ours", () => {
  assert.throws(() => createRouter([routes[0]!, routes[0]!]), /is there once/);
});

test("parameters have no prototype", () => {
  const match = router.match("GET", ["containers", "__proto__", "json"]);
  assert.equal(match?.params["id"], "__proto__");
  assert.equal(Object.getPrototypeOf(match?.params), null);
});
