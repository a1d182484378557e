/** OCI distribution spec 1.1, "Content Management": every requirement on a registry; access and read-only besides. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { RegistryAccess, RequestRecord } from "#registry-server/registry.ts";
import { mediaTypes } from "#wire/oci-image.ts";
import { DistributionLab, requirements, sha } from "./distribution-lab.ts";

requirements("management", [
  [
    "MUST",
    "end-9: DELETE of a tag answers 202; the tag is gone, the manifest and its other tags are not",
    async (lab, repository) => {
      const { digest, bytes } = await lab.pushImage(repository, "a");
      const headers = { "content-type": mediaTypes.ociManifest };
      await lab.ask("PUT", `/v2/${repository}/manifests/b`, { headers, body: bytes });
      assert.equal((await lab.ask("DELETE", `/v2/${repository}/manifests/a`)).status, 202);
      assert.equal((await lab.ask("GET", `/v2/${repository}/manifests/a`)).status, 404);
      assert.equal((await lab.ask("GET", `/v2/${repository}/manifests/b`)).status, 200);
      assert.equal((await lab.ask("GET", `/v2/${repository}/manifests/${digest}`)).status, 200);
    },
  ],
  [
    "MUST",
    "end-9: DELETE of a manifest answers 202; it and every tag of it are gone",
    async (lab, repository) => {
      const { digest, bytes } = await lab.pushImage(repository, "a");
      const headers = { "content-type": mediaTypes.ociManifest };
      await lab.ask("PUT", `/v2/${repository}/manifests/b`, { headers, body: bytes });
      assert.equal((await lab.ask("DELETE", `/v2/${repository}/manifests/${digest}`)).status, 202);
      for (const reference of ["a", "b", digest]) {
        assert.equal(
          (await lab.ask("GET", `/v2/${repository}/manifests/${reference}`)).status,
          404,
          reference,
        );
      }
      assert.deepEqual(
        (await lab.ask("GET", `/v2/${repository}/tags/list`)).json<{ tags: string[] }>().tags,
        [],
      );
    },
  ],
  [
    "MUST",
    "end-9: a tag, manifest or repository that is not there answers 404",
    async (lab, repository) => {
      await lab.pushImage(repository, "a");
      for (const path of [
        `${repository}/manifests/none`,
        `${repository}/manifests/${sha("x")}`,
        "no/such/manifests/a",
      ]) {
        const answer = await lab.ask("DELETE", `/v2/${path}`);
        assert.deepEqual([answer.status, answer.codes()], [404, ["MANIFEST_UNKNOWN"]], path);
      }
    },
  ],
  [
    "MUST",
    "end-10: DELETE of a blob answers 202, then it is not there, and 404 the second time; other repositories keep it",
    async (lab, repository) => {
      const bytes = Buffer.from("shared");
      const digest = await lab.putBlob(repository, bytes);
      await lab.putBlob(`${repository}/other`, bytes);
      assert.equal((await lab.ask("DELETE", `/v2/${repository}/blobs/${digest}`)).status, 202);
      assert.equal((await lab.ask("GET", `/v2/${repository}/blobs/${digest}`)).status, 404);
      const again = await lab.ask("DELETE", `/v2/${repository}/blobs/${digest}`);
      assert.deepEqual([again.status, again.codes()], [404, ["BLOB_UNKNOWN"]]);
      assert.deepEqual((await lab.ask("GET", `/v2/${repository}/other/blobs/${digest}`)).body, bytes);
      await lab.registry.store.sweepContent();
      assert.deepEqual((await lab.ask("GET", `/v2/${repository}/other/blobs/${digest}`)).body, bytes);
    },
  ],
  [
    "SHOULD",
    "what was deleted can be pushed again",
    async (lab, repository) => {
      const image = await lab.pushImage(repository, "a");
      await lab.ask("DELETE", `/v2/${repository}/manifests/${image.digest}`);
      await lab.ask("DELETE", `/v2/${repository}/blobs/${sha(image.layer)}`);
      await lab.registry.store.sweepContent();
      await lab.pushImage(repository, "a");
      assert.deepEqual(
        (await lab.ask("GET", `/v2/${repository}/blobs/${sha(image.layer)}`)).body,
        image.layer,
      );
    },
  ],
]);

test("management MUST: where changes are disabled they answer 405 UNSUPPORTED, and reading goes on", async () => {
  await using lab = await DistributionLab.open();
  const { digest, layer } = await lab.pushImage("a", "t");
  await lab.reopen({ readOnly: true });
  for (const [method, path] of [
    ["POST", "/v2/a/blobs/uploads/"],
    ["PATCH", "/v2/a/blobs/uploads/x"],
    ["PUT", "/v2/a/manifests/t"],
    ["DELETE", "/v2/a/manifests/t"],
    ["DELETE", `/v2/a/manifests/${digest}`],
    ["DELETE", `/v2/a/blobs/${sha(layer)}`],
  ] as const) {
    const answer = await lab.ask(method, path);
    assert.deepEqual([answer.status, answer.codes()], [405, ["UNSUPPORTED"]], `${method} ${path}`);
  }
  assert.equal((await lab.ask("GET", "/v2/a/manifests/t")).status, 200);
});

test("access is asked for before any work, for a mount also on its source, and every request is recorded", async () => {
  const asked: RegistryAccess[] = [];
  const records: RequestRecord[] = [];
  const denied = new Set<string>();
  await using lab = await DistributionLab.open({
    authorize: async (request, access) => {
      asked.push(access);
      if (request.headers.authorization === undefined) {
        return { ok: false, status: 401, headers: { "www-authenticate": 'Basic realm="x"' } };
      }
      return denied.has(access.repository ?? "")
        ? { ok: false, status: 403, headers: {} }
        : { ok: true, user: "me" };
    },
    observe: (record) => records.push(record),
  });
  const headers = { authorization: "Basic x" };
  const refused = await lab.ask("PUT", "/v2/a/manifests/t", { body: "{}" });
  assert.deepEqual([refused.status, refused.codes()], [401, ["UNAUTHORIZED"]]);
  assert.equal(refused.headers["www-authenticate"], 'Basic realm="x"');
  assert.equal((await lab.ask("GET", "/v2/")).status, 401);
  denied.add("secret");
  const forbidden = await lab.ask("GET", "/v2/secret/tags/list", { headers });
  assert.deepEqual([forbidden.status, forbidden.codes()], [403, ["DENIED"]]);
  const blob = Buffer.from("blob");
  for (const repository of ["open", "hidden"]) {
    await lab.ask("POST", `/v2/${repository}/blobs/uploads/?digest=${sha(blob)}`, { headers, body: blob });
  }
  denied.add("hidden");
  asked.length = 0;
  const mount = (from: string) => `/v2/to/blobs/uploads/?mount=${sha(blob)}&from=${from}`;
  assert.equal((await lab.ask("POST", mount("hidden"), { headers })).status, 202);
  assert.equal((await lab.ask("POST", mount("open"), { headers })).status, 201);
  assert.deepEqual(asked, [
    { repository: "to", actions: ["pull", "push"] },
    { repository: "hidden", actions: ["pull"] },
    { repository: "to", actions: ["pull", "push"] },
    { repository: "open", actions: ["pull"] },
  ]);
  asked.length = 0;
  for (const [method, path] of [
    ["GET", "/v2/_catalog"],
    ["DELETE", "/v2/a/manifests/t"],
    ["HEAD", `/v2/a/blobs/${sha(blob)}`],
  ] as const) {
    await lab.ask(method, path, { headers: { ...headers, "x-request-id": "mine", "user-agent": "test" } });
  }
  assert.deepEqual(asked, [
    { actions: ["catalog"] },
    { repository: "a", actions: ["delete"] },
    { repository: "a", actions: ["pull"] },
  ]);
  const upload = records.find(({ status, bytesIn }) => status === 201 && bytesIn === blob.length);
  assert.deepEqual([upload?.route, upload?.repository, upload?.user], ["uploads", "open", "me"]);
  const last = records.at(-1);
  assert.deepEqual(
    [last?.method, last?.route, last?.status, last?.requestId, last?.userAgent],
    ["HEAD", "blob", 404, "mine", "test"],
  );
  assert.match(last?.remote ?? "", /127\.0\.0\.1$/);
});
