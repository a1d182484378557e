/** OCI distribution spec 1.1, "Pull": every requirement on a registry. */
import assert from "node:assert/strict";
import { mediaTypes } from "#wire/oci-image.ts";
import { imageManifest, requirements, sha } from "./distribution-lab.ts";

const absent = `sha256:${"0".repeat(64)}`;

requirements("pull", [
  [
    "MUST",
    "end-1: GET /v2/ answers 200 and says which API it is",
    async (lab) => {
      const answer = await lab.ask("GET", "/v2/");
      assert.equal(answer.status, 200);
      assert.equal(answer.headers["docker-distribution-api-version"], "registry/2.0");
      assert.equal((await lab.ask("GET", "/v2")).status, 200);
    },
  ],
  [
    "MUST",
    "end-3: GET of a manifest by digest answers 200 with exactly the bytes that were pushed",
    async (lab, repository) => {
      const { digest, bytes } = await lab.pushImage(repository, "t");
      const answer = await lab.ask("GET", `/v2/${repository}/manifests/${digest}`);
      assert.equal(answer.status, 200);
      assert.deepEqual(answer.body, bytes);
    },
  ],
  [
    "MUST",
    "end-3: GET of a manifest by tag answers 200 with it",
    async (lab, repository) => {
      const { bytes } = await lab.pushImage(repository, "a_Tag.of-128");
      const answer = await lab.ask("GET", `/v2/${repository}/manifests/a_Tag.of-128`);
      assert.equal(answer.status, 200);
      assert.deepEqual(answer.body, bytes);
    },
  ],
  [
    "MUST",
    "end-3: a manifest that is not there answers 404",
    async (lab, repository) => {
      await lab.pushImage(repository, "t");
      for (const reference of ["none", absent, ".INVALID", "x".repeat(129)]) {
        const answer = await lab.ask("GET", `/v2/${repository}/manifests/${reference}`);
        assert.equal(answer.status, 404, reference);
        assert.deepEqual(answer.codes(), ["MANIFEST_UNKNOWN"]);
      }
      assert.equal((await lab.ask("GET", "/v2/no/such/manifests/t")).status, 404);
    },
  ],
  [
    "SHOULD",
    "end-3: Content-Type of a manifest is what it was pushed with, without parameters",
    async (lab, repository) => {
      const { digest } = await lab.pushImage(repository, "t");
      const body = (await lab.ask("GET", `/v2/${repository}/manifests/t`)).body;
      const headers = { "content-type": `${mediaTypes.ociManifest}; charset=utf-8` };
      assert.equal((await lab.ask("PUT", `/v2/${repository}/manifests/u`, { headers, body })).status, 201);
      for (const reference of ["t", "u", digest]) {
        const answer = await lab.ask("GET", `/v2/${repository}/manifests/${reference}`);
        assert.equal(answer.headers["content-type"], mediaTypes.ociManifest);
      }
    },
  ],
  [
    "SHOULD",
    "end-3: a Docker-Content-Digest, where sent, is the digest of the body",
    async (lab, repository) => {
      const { digest } = await lab.pushImage(repository, "t");
      const answer = await lab.ask("GET", `/v2/${repository}/manifests/t`);
      assert.equal(answer.headers["docker-content-digest"], digest);
      assert.equal(sha(answer.body), digest);
    },
  ],
  [
    "SHOULD",
    "end-3: Accept: what the client takes is given, what it does not name is 404, no word on manifests takes all",
    async (lab, repository) => {
      await lab.pushImage(repository, "t");
      const cases: [string, number][] = [
        [mediaTypes.ociManifest, 200],
        ["*/*", 200],
        ["application/json", 200],
        [`${mediaTypes.dockerManifest}, ${mediaTypes.ociManifest};q=0.5`, 200],
        [mediaTypes.dockerManifest, 404],
        [`${mediaTypes.ociManifest};q=0, ${mediaTypes.ociIndex}`, 404],
      ];
      for (const [accept, status] of cases) {
        const answer = await lab.ask("GET", `/v2/${repository}/manifests/t`, { headers: { accept } });
        assert.equal(answer.status, status, accept);
      }
    },
  ],
  [
    "MAY",
    "end-3: a client that knows no indexes gets the image for linux/amd64 by a tag, as from Docker's registry",
    async (lab, repository) => {
      const { digest, bytes } = await lab.pushImage(repository, "image");
      const entry = { mediaType: mediaTypes.ociManifest, digest, size: bytes.length };
      const platform = { os: "linux", architecture: "amd64" };
      const index = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [{ ...entry, platform }] };
      assert.equal((await lab.putManifest(repository, "index", index)).status, 201);
      const headers = { accept: mediaTypes.ociManifest };
      const answer = await lab.ask("GET", `/v2/${repository}/manifests/index`, { headers });
      assert.deepEqual([answer.status, answer.headers["docker-content-digest"]], [200, digest]);
      const byDigest = `/v2/${repository}/manifests/${sha(JSON.stringify(index))}`;
      assert.equal((await lab.ask("GET", byDigest, { headers })).status, 404);
    },
  ],
  [
    "MUST",
    "end-2: GET of a blob answers 200 with the bytes",
    async (lab, repository) => {
      for (const bytes of [Buffer.from("a blob"), Buffer.alloc(3_000_000, "abc"), Buffer.alloc(0)]) {
        const digest = await lab.putBlob(repository, bytes);
        const answer = await lab.ask("GET", `/v2/${repository}/blobs/${digest}`);
        assert.equal(answer.status, 200);
        assert.deepEqual(answer.body, bytes);
        assert.equal(answer.headers["docker-content-digest"], digest);
        assert.equal(answer.headers["content-length"], String(bytes.length));
      }
    },
  ],
  [
    "MUST",
    "end-2: a blob that the repository does not have answers 404, also when another repository has it",
    async (lab, repository) => {
      const digest = await lab.putBlob(`${repository}/other`, Buffer.from("theirs"));
      for (const method of ["GET", "HEAD"]) {
        assert.equal((await lab.ask(method, `/v2/${repository}/blobs/${digest}`)).status, 404);
        assert.equal((await lab.ask(method, `/v2/${repository}/blobs/${absent}`)).status, 404);
      }
      const answer = await lab.ask("GET", `/v2/${repository}/blobs/${absent}`);
      assert.deepEqual(answer.codes(), ["BLOB_UNKNOWN"]);
    },
  ],
  [
    "SHOULD",
    "end-2: Range is honoured as RFC 9110 has it",
    async (lab, repository) => {
      const bytes = Buffer.from("0123456789");
      const path = `/v2/${repository}/blobs/${await lab.putBlob(repository, bytes)}`;
      const cases: [string, number, string, string | undefined][] = [
        ["bytes=2-4", 206, "234", "bytes 2-4/10"],
        ["bytes=7-", 206, "789", "bytes 7-9/10"],
        ["bytes=-3", 206, "789", "bytes 7-9/10"],
        ["bytes=0-99", 206, "0123456789", "bytes 0-9/10"],
        ["bytes=-99", 206, "0123456789", "bytes 0-9/10"],
        ["bytes=0-0", 206, "0", "bytes 0-0/10"],
        ["bytes=0-1,3-4", 200, "0123456789", undefined],
        ["lines=0-1", 200, "0123456789", undefined],
      ];
      for (const [range, status, body, contentRange] of cases) {
        const answer = await lab.ask("GET", path, { headers: { range } });
        assert.deepEqual(
          [answer.status, answer.body.toString(), answer.headers["content-range"]],
          [status, body, contentRange],
          range,
        );
      }
      for (const range of ["bytes=10-", "bytes=-0", "bytes=5-2", "bytes=-"]) {
        const answer = await lab.ask("GET", path, { headers: { range } });
        assert.deepEqual([answer.status, answer.headers["content-range"]], [416, "bytes */10"], range);
      }
      const head = await lab.ask("HEAD", path, { headers: { range: "bytes=2-4" } });
      assert.deepEqual([head.status, head.headers["content-length"]], [200, "10"]);
      assert.equal(head.headers["accept-ranges"], "bytes");
    },
  ],
  [
    "SHOULD",
    "end-2, end-3: conditional requests: the entity tag is the digest",
    async (lab, repository) => {
      const { digest } = await lab.pushImage(repository, "t");
      const blob = await lab.putBlob(repository, Buffer.from("0123456789"));
      for (const [path, name] of [
        [`/v2/${repository}/blobs/${blob}`, blob],
        [`/v2/${repository}/manifests/t`, digest],
      ] as const) {
        const etag = `"${name}"`;
        assert.equal((await lab.ask("GET", path)).headers.etag, etag);
        for (const tags of [etag, `W/${etag}`, `"x", ${etag}`, "*"]) {
          const answer = await lab.ask("GET", path, { headers: { "if-none-match": tags } });
          assert.deepEqual([answer.status, answer.body.length], [304, 0], tags);
        }
        assert.equal((await lab.ask("GET", path, { headers: { "if-none-match": '"x"' } })).status, 200);
        assert.equal((await lab.ask("GET", path, { headers: { "if-match": '"x"' } })).status, 412);
        assert.equal((await lab.ask("GET", path, { headers: { "if-match": etag } })).status, 200);
      }
      const path = `/v2/${repository}/blobs/${blob}`;
      const range = (ifRange: string) => ({ headers: { range: "bytes=1-2", "if-range": ifRange } });
      assert.equal((await lab.ask("GET", path, range(`"${blob}"`))).status, 206);
      assert.equal((await lab.ask("GET", path, range('"other"'))).status, 200);
      assert.equal((await lab.ask("GET", path, range("Wed, 21 Oct 2015 07:28:00 GMT"))).status, 200);
    },
  ],
  [
    "MUST",
    "end-2, end-3: HEAD answers 200 with length and digest and no body, 404 for what is not there",
    async (lab, repository) => {
      const { digest, bytes, layer } = await lab.pushImage(repository, "t");
      const cases: [string, string, number][] = [
        [`manifests/${digest}`, digest, bytes.length],
        ["manifests/t", digest, bytes.length],
        [`blobs/${sha(layer)}`, sha(layer), layer.length],
      ];
      for (const [path, name, length] of cases) {
        const answer = await lab.ask("HEAD", `/v2/${repository}/${path}`);
        assert.equal(answer.status, 200);
        assert.equal(answer.body.length, 0);
        assert.equal(answer.headers["content-length"], String(length));
        assert.equal(answer.headers["docker-content-digest"], name);
      }
      for (const path of ["manifests/none", `manifests/${absent}`, `blobs/${absent}`]) {
        const answer = await lab.ask("HEAD", `/v2/${repository}/${path}`);
        assert.deepEqual([answer.status, answer.body.length], [404, 0]);
      }
    },
  ],
  [
    "MUST",
    "names: <name> follows its grammar, everything else is 400 NAME_INVALID",
    async (lab) => {
      for (const name of ["a", "a/b/c", "a-b_c.d/e__f", "a--b", "blobs/uploads", "tags/list/manifests"]) {
        assert.equal((await lab.ask("GET", `/v2/${name}/manifests/t`)).status, 404, name);
      }
      for (const name of [
        "A",
        "a//b",
        "-a",
        "a..b",
        "..",
        "a/../b",
        "%2e%2e",
        "a%2f..%2fb",
        "a_",
        "a".repeat(256),
      ]) {
        const answer = await lab.ask("GET", `/v2/${name}/manifests/t`);
        assert.deepEqual([answer.status, answer.codes()], [400, ["NAME_INVALID"]], name);
      }
    },
  ],
  [
    "MUST",
    "digests: one of a wrong form or of an unknown algorithm is 400 DIGEST_INVALID",
    async (lab, repository) => {
      for (const digest of [
        "sha256:abc",
        `sha256:${"A".repeat(64)}`,
        `md5:${"a".repeat(32)}`,
        "sha512:00",
        "x:y",
      ]) {
        for (const kind of ["blobs", "manifests", "referrers"]) {
          const answer = await lab.ask("GET", `/v2/${repository}/${kind}/${digest}`);
          assert.deepEqual([answer.status, answer.codes()], [400, ["DIGEST_INVALID"]], `${kind} ${digest}`);
        }
      }
    },
  ],
  [
    "SHOULD",
    "digests: sha512 names blobs and manifests as sha256 does",
    async (lab, repository) => {
      const config = Buffer.from("{}");
      const digest = await lab.putBlob(repository, config, sha(config, "sha512"));
      assert.deepEqual((await lab.ask("GET", `/v2/${repository}/blobs/${digest}`)).body, config);
      assert.equal((await lab.ask("GET", `/v2/${repository}/blobs/${sha(config)}`)).status, 404);
      const document = imageManifest(config, [], {
        config: { mediaType: mediaTypes.ociConfig, digest, size: config.length },
      });
      const name = sha(JSON.stringify(document), "sha512");
      const put = await lab.putManifest(repository, name, document);
      assert.deepEqual([put.status, put.headers["docker-content-digest"]], [201, name]);
      const got = await lab.ask("GET", `/v2/${repository}/manifests/${name}`);
      assert.deepEqual([got.status, got.headers["docker-content-digest"]], [200, name]);
    },
  ],
  [
    "SHOULD",
    "errors: a failure carries the spec's JSON body; methods and paths that are not there are told",
    async (lab, repository) => {
      const answer = await lab.ask("GET", `/v2/${repository}/manifests/none`);
      assert.equal(answer.headers["content-type"], "application/json");
      const { errors } = answer.json<{ errors: { code: string; message: string }[] }>();
      assert.deepEqual(
        errors.map(({ code, message }) => [code, typeof message]),
        [["MANIFEST_UNKNOWN", "string"]],
      );
      const wrong = await lab.ask("POST", `/v2/${repository}/manifests/t`);
      assert.deepEqual([wrong.status, wrong.headers.allow], [405, "GET, HEAD, PUT, DELETE"]);
      for (const path of ["/", "/v1/x", "/v2/x", "/v2/a/b/", "/v2/%zz/tags/list"]) {
        assert.equal((await lab.ask("GET", path)).status, 404, path);
      }
    },
  ],
]);
