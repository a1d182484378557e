import assert from "node:assert/strict";
import { test } from "node:test";
import { formatAccess, type ServedRequest } from "./access-log.ts";
import { RegistryMetrics } from "./metrics.ts";

const request: ServedRequest = {
  method: "GET",
  url: "/v2/a/b/tags/list?n=5&last=x",
  route: "tags",
  repository: "a/b",
  status: 200,
  bytesIn: 0,
  bytesOut: 12,
  milliseconds: 1.26,
  user: "ann",
  remote: "127.0.0.1",
  userAgent: "client/1",
  requestId: "r1",
};
const lineOf = (change: Partial<ServedRequest>): string => formatAccess({ ...request, ...change }, 0n);

test("one JSON object a line", () => {
  assert.deepEqual(JSON.parse(lineOf({})), {
    time: "1970-01-01T00:00:00Z",
    id: "r1",
    remote: "127.0.0.1",
    user: "ann",
    method: "GET",
    url: "/v2/a/b/tags/list?n=5&last=x",
    route: "tags",
    repository: "a/b",
    status: 200,
    bytesIn: 0,
    bytesOut: 12,
    ms: 1.3,
    userAgent: "client/1",
  });
});

const urls: readonly (readonly [string, string])[] = [
  ["/v2/?token=abc&n=1", "/v2/?token=…&n=1"],
  ["/v2/x/blobs/uploads/?mount=sha256:1&from=y", "/v2/x/blobs/uploads/?mount=sha256:1&from=y"],
  ["/token?account=a&password=secret&scope=s", "/token?account=…&password=…&scope=…"],
  ["http://ann:secret@host/v2/", "/v2/"],
];
for (const [url, logged] of urls) {
  test(`url ${url}`, () => assert.equal(JSON.parse(lineOf({ url })).url, logged));
}

test("nothing that a terminal would obey, and nothing endless", () => {
  const evil = "a\u001b[2J\u009b\u007f\n\r\u202e\u2028\u200b\u0000";
  const line = lineOf({ userAgent: evil, url: `/v2/${evil}`, user: evil, method: "GET" });
  assert.doesNotMatch(line.slice(0, -1), /[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e]/);
  assert.equal(JSON.parse(line).userAgent, evil);
  assert.ok(lineOf({ userAgent: "x".repeat(100_000), url: `/${"y".repeat(100_000)}` }).length < 4000);
});

test("metrics: closed sets of labels, buckets that add up", () => {
  const metrics = new RegistryMetrics();
  for (const method of ["GET", "GET", "FROB", "X\ny"]) metrics.observe({ ...request, method });
  metrics.observe({ ...request, milliseconds: 400_000, bytesIn: 7 });
  metrics.collected({ dryRun: false, manifests: 1, links: 2, blobs: 3, bytes: 4, milliseconds: 500 });
  const text = metrics.text({
    uploads: 1,
    storageBytes: 99,
    contents: 2,
    repositories: 3,
    manifests: 4,
    tags: 5,
    requestsUnderWay: 0,
    connections: 1,
    accessLogDropped: 0,
  });
  const has = (line: string): void => assert.ok(text.split("\n").includes(line), `${line}\n${text}`);
  has('skiff_registry_requests_total{route="tags",method="GET",code="200"} 3');
  has('skiff_registry_requests_total{route="tags",method="other",code="200"} 2');
  has('skiff_registry_request_seconds_bucket{route="tags",le="0.0025"} 4');
  has('skiff_registry_request_seconds_bucket{route="tags",le="+Inf"} 5');
  has('skiff_registry_request_seconds_count{route="tags"} 5');
  has("skiff_registry_request_bytes_total 7");
  has("skiff_registry_response_bytes_total 60");
  has("skiff_registry_storage_bytes 99");
  has('skiff_registry_gc_runs_total{result="done"} 1');
  has("skiff_registry_gc_freed_bytes_total 4");
  // Every line is a comment or a sample of a family that was declared.
  for (const line of text.trimEnd().split("\n"))
    assert.match(line, /^(# (HELP|TYPE) |skiff_registry_\w+(\{[^}]*\})? [\d.]+$)/);
});
