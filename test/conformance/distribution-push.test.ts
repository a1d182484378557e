/** OCI distribution spec 1.1, "Push": every requirement on a registry. */
import assert from "node:assert/strict";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { limits } from "#base/limits.ts";
import { mediaTypes } from "#wire/oci-image.ts";
import { imageManifest, location, requirements, sha, withDigest } from "./distribution-lab.ts";

const octets = { "content-type": "application/octet-stream" };
const blob = Buffer.from("0123456789abcdef");

requirements("push", [
  [
    "MUST",
    "end-4a, end-6: POST answers 202 with a Location, PUT of the blob there 201 with one where it can be pulled",
    async (lab, repository) => {
      const upload = await lab.begin(repository);
      assert.match(upload, /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/);
      const put = await lab.ask("PUT", withDigest(upload, sha(blob)), { headers: octets, body: blob });
      assert.deepEqual([put.status, put.headers["docker-content-digest"]], [201, sha(blob)]);
      assert.deepEqual((await lab.ask("GET", location(put))).body, blob);
    },
  ],
  [
    "MUST",
    "end-4b: POST with a digest and the blob answers 201 with a Location where it can be pulled",
    async (lab, repository) => {
      const path = `/v2/${repository}/blobs/uploads/?digest=${sha(blob)}`;
      const post = await lab.ask("POST", path, { headers: octets, body: blob });
      assert.equal(post.status, 201);
      assert.deepEqual((await lab.ask("GET", location(post))).body, blob);
    },
  ],
  [
    "MUST",
    "end-4b, end-6: bytes that do not have the digest are refused and are not there",
    async (lab, repository) => {
      const other = sha("other");
      const path = `/v2/${repository}/blobs/uploads/?digest=${other}`;
      for (const answer of [
        await lab.ask("POST", path, { body: blob }),
        await lab.ask("PUT", withDigest(await lab.begin(repository), other), { body: blob }),
        await lab.ask("PUT", withDigest(await lab.begin(repository), "sha256:12"), { body: blob }),
        await lab.ask("PUT", await lab.begin(repository), { body: blob }),
      ]) {
        assert.deepEqual([answer.status, answer.codes()], [400, ["DIGEST_INVALID"]]);
      }
      assert.equal((await lab.ask("HEAD", `/v2/${repository}/blobs/${other}`)).status, 404);
      assert.equal((await lab.ask("HEAD", `/v2/${repository}/blobs/${sha(blob)}`)).status, 404);
    },
  ],
  [
    "MUST",
    "end-5: chunks in order answer 202 with Location and Range up to the last byte, and PUT closes the session with 201",
    async (lab, repository) => {
      let upload = await lab.begin(repository);
      for (const [start, end] of [
        [0, 4],
        [5, 9],
      ] as const) {
        const headers = { ...octets, "content-range": `${start}-${end}` };
        const answer = await lab.ask("PATCH", upload, { headers, body: blob.subarray(start, end + 1) });
        assert.deepEqual([answer.status, answer.headers.range], [202, `0-${end}`]);
        upload = location(answer);
      }
      const headers = { ...octets, "content-range": `10-${blob.length - 1}` };
      const put = await lab.ask("PUT", withDigest(upload, sha(blob)), { headers, body: blob.subarray(10) });
      assert.equal(put.status, 201);
      assert.deepEqual((await lab.ask("GET", location(put))).body, blob);
    },
  ],
  [
    "MUST",
    "end-5: all chunks by PATCH and an empty PUT; a PATCH without a range appends",
    async (lab, repository) => {
      let upload = await lab.begin(repository);
      for (const body of [blob.subarray(0, 7), blob.subarray(7)]) {
        const answer = await lab.ask("PATCH", upload, { headers: octets, body });
        assert.equal(answer.status, 202);
        upload = location(answer);
      }
      const put = await lab.ask("PUT", withDigest(upload, sha(blob)), { headers: { "content-length": "0" } });
      assert.equal(put.status, 201);
      assert.deepEqual((await lab.ask("GET", location(put))).body, blob);
    },
  ],
  [
    "MUST",
    "end-5: a first chunk that does not begin at 0 and one out of order answer 416, and the session goes on",
    async (lab, repository) => {
      const upload = await lab.begin(repository);
      const chunk = (method: string, range: string, body: Uint8Array) =>
        lab.ask(method, method === "PUT" ? withDigest(upload, sha(blob)) : upload, {
          headers: { ...octets, "content-range": range },
          body,
        });
      assert.equal((await chunk("PATCH", "5-9", blob.subarray(5, 10))).status, 416);
      assert.equal((await chunk("PATCH", "0-4", blob.subarray(0, 5))).status, 202);
      for (const [method, range, body] of [
        ["PATCH", "0-4", blob.subarray(0, 5)],
        ["PATCH", "6-9", blob.subarray(6, 10)],
        ["PATCH", "x-y", blob.subarray(5, 10)],
        ["PUT", "10-15", blob.subarray(10)],
      ] as const) {
        const answer = await chunk(method, range, body);
        assert.deepEqual([answer.status, answer.headers.range], [416, "0-4"], `${method} ${range}`);
        assert.equal(location(answer), upload);
      }
      assert.equal((await chunk("PATCH", "5-9", blob.subarray(5, 10))).status, 202);
      assert.equal((await chunk("PUT", "10-15", blob.subarray(10))).status, 201);
    },
  ],
  [
    "SHOULD",
    "end-5: a chunk of another length than its range is refused and leaves nothing",
    async (lab, repository) => {
      const upload = await lab.begin(repository);
      const headers = { ...octets, "content-range": "0-9" };
      const answer = await lab.ask("PATCH", upload, { headers, body: blob.subarray(0, 5) });
      assert.deepEqual([answer.status, answer.codes()], [400, ["SIZE_INVALID"]]);
      const chunked = { ...headers, "transfer-encoding": "chunked" };
      const second = await lab.ask("PATCH", upload, { headers: chunked, body: blob.subarray(0, 5) });
      assert.deepEqual([second.status, second.codes()], [400, ["SIZE_INVALID"]]);
      const put = await lab.ask("PUT", withDigest(upload, sha(blob)), { body: blob });
      assert.equal(put.status, 201);
    },
  ],
  [
    "SHOULD",
    "end-5: OCI-Chunk-Min-Length is told when a session begins, and smaller chunks are taken all the same",
    async (lab, repository) => {
      const answer = await lab.ask("POST", `/v2/${repository}/blobs/uploads/`);
      assert.match(String(answer.headers["oci-chunk-min-length"]), /^\d+$/);
      const headers = { ...octets, "content-range": "0-0" };
      assert.equal((await lab.ask("PATCH", location(answer), { headers, body: "0" })).status, 202);
    },
  ],
  [
    "MUST",
    "end-13: GET of a session answers 204 with Location and how far it is",
    async (lab, repository) => {
      const upload = await lab.begin(repository);
      assert.deepEqual((await lab.ask("GET", upload)).headers.range, "0-0");
      await lab.ask("PATCH", upload, { body: blob.subarray(0, 6) });
      const answer = await lab.ask("GET", upload);
      assert.deepEqual([answer.status, answer.headers.range, answer.body.length], [204, "0-5", 0]);
      assert.equal(location(answer), upload);
    },
  ],
  [
    "MUST",
    "end-13: what came before a broken connection is kept, told, and gone on from",
    async (lab, repository) => {
      const upload = await lab.begin(repository);
      const socket = connect(lab.port, "127.0.0.1");
      socket.on("error", () => undefined);
      const head = `PATCH ${upload} HTTP/1.1\r\nhost: x\r\ncontent-length: ${blob.length}\r\n\r\n`;
      socket.write(Buffer.concat([Buffer.from(head), blob.subarray(0, 9)]));
      while ((await lab.ask("GET", upload)).headers.range !== "0-8") await sleep(5);
      socket.destroy();
      assert.equal((await lab.ask("GET", upload)).headers.range, "0-8");
      const headers = { "content-range": `9-${blob.length - 1}` };
      assert.equal((await lab.ask("PATCH", upload, { headers, body: blob.subarray(9) })).status, 202);
      const put = await lab.ask("PUT", withDigest(upload, sha(blob)));
      assert.equal(put.status, 201);
      assert.deepEqual((await lab.ask("GET", location(put))).body, blob);
    },
  ],
  [
    "SHOULD",
    "end-14: DELETE of a session answers 204, and it is gone",
    async (lab, repository) => {
      const upload = await lab.begin(repository);
      await lab.ask("PATCH", upload, { body: blob });
      assert.equal((await lab.ask("DELETE", upload)).status, 204);
      for (const method of ["GET", "PATCH", "PUT", "DELETE"]) {
        const answer = await lab.ask(method, withDigest(upload, sha(blob)), { body: blob });
        assert.deepEqual([answer.status, method === "GET" ? [] : answer.codes()].at(0), 404, method);
      }
    },
  ],
  [
    "MUST",
    "end-5, end-6, end-13: a session that never was, or of another repository, answers 404 BLOB_UPLOAD_UNKNOWN",
    async (lab, repository) => {
      const upload = await lab.begin(repository);
      for (const path of [
        upload.replace(repository, `${repository}/other`),
        `/v2/${repository}/blobs/uploads/00000000-0000-0000-0000-000000000000`,
        `/v2/${repository}/blobs/uploads/..%2f..%2fregistry.db`,
      ]) {
        const answer = await lab.ask("PATCH", path, { body: blob });
        assert.ok(answer.status === 404 || answer.status === 400, path);
      }
    },
  ],
  [
    "MUST",
    "end-11: a mount from a repository that has the blob answers 201 with its Location, and the blob is there",
    async (lab, repository) => {
      const source = `${repository}/source`;
      const digest = await lab.putBlob(source, blob);
      const answer = await lab.ask("POST", `/v2/${repository}/blobs/uploads/?mount=${digest}&from=${source}`);
      assert.deepEqual([answer.status, answer.headers["docker-content-digest"]], [201, digest]);
      assert.deepEqual((await lab.ask("GET", location(answer))).body, blob);
    },
  ],
  [
    "MAY",
    "end-11: without `from` the blob is mounted from wherever it is",
    async (lab, repository) => {
      const digest = await lab.putBlob(`${repository}/source`, Buffer.from(`only in ${repository}`));
      const answer = await lab.ask("POST", `/v2/${repository}/blobs/uploads/?mount=${digest}`);
      assert.equal(answer.status, 201);
    },
  ],
  [
    "SHOULD",
    "end-11: a mount that is not possible begins a session instead",
    async (lab, repository) => {
      const digest = await lab.putBlob(`${repository}/source`, Buffer.from(`only in ${repository}`));
      for (const query of [
        `mount=${sha("nowhere")}&from=${repository}/source`,
        `mount=${digest}&from=${repository}/other`,
        `mount=${digest}&from=..`,
        "mount=sha256:12&from=a",
        `mount=${sha("nowhere")}`,
      ]) {
        const answer = await lab.ask("POST", `/v2/${repository}/blobs/uploads/?${query}`);
        assert.equal(answer.status, 202, query);
        const put = await lab.ask("PUT", withDigest(location(answer), sha(blob)), { body: blob });
        assert.equal(put.status, 201);
      }
    },
  ],
  [
    "MUST",
    "end-7: PUT of a manifest by tag and by digest answers 201 with a Location where it can be pulled",
    async (lab, repository) => {
      const { digest, bytes } = await lab.pushImage(repository, "first");
      for (const reference of ["second", digest]) {
        const headers = { "content-type": mediaTypes.ociManifest };
        const put = await lab.ask("PUT", `/v2/${repository}/manifests/${reference}`, {
          headers,
          body: bytes,
        });
        assert.deepEqual([put.status, put.headers["docker-content-digest"]], [201, digest]);
        assert.deepEqual((await lab.ask("GET", location(put))).body, bytes);
      }
      assert.equal((await lab.ask("GET", `/v2/${repository}/manifests/second`)).status, 200);
    },
  ],
  [
    "MUST",
    "end-7: a manifest is stored byte for byte, whatever its spacing",
    async (lab, repository) => {
      const { bytes } = await lab.pushImage(repository, "t");
      const body = Buffer.from(`\n${JSON.stringify(JSON.parse(bytes.toString()), null, 3)}\n`);
      const headers = { "content-type": mediaTypes.ociManifest };
      const put = await lab.ask("PUT", `/v2/${repository}/manifests/spaced`, { headers, body });
      assert.equal(put.headers["docker-content-digest"], sha(body));
      assert.deepEqual((await lab.ask("GET", `/v2/${repository}/manifests/spaced`)).body, body);
    },
  ],
  [
    "MUST",
    "end-7: a tag that is pushed again moves, and the manifest it had stays under its digest",
    async (lab, repository) => {
      const one = await lab.pushImage(repository, "t", {}, "one");
      const two = await lab.pushImage(repository, "t", {}, "two");
      const answer = await lab.ask("GET", `/v2/${repository}/manifests/t`);
      assert.equal(answer.headers["docker-content-digest"], two.digest);
      assert.equal((await lab.ask("GET", `/v2/${repository}/manifests/${one.digest}`)).status, 200);
    },
  ],
  [
    "MUST",
    "end-7: a manifest whose bytes do not have the digest of the path is refused",
    async (lab, repository) => {
      const { bytes } = await lab.pushImage(repository, "t");
      const headers = { "content-type": mediaTypes.ociManifest };
      const path = `/v2/${repository}/manifests/${sha("other")}`;
      const answer = await lab.ask("PUT", path, { headers, body: bytes });
      assert.deepEqual([answer.status, answer.codes()], [400, ["DIGEST_INVALID"]]);
    },
  ],
  [
    "MUST",
    "end-7: a manifest that names what is not there gets MANIFEST_BLOB_UNKNOWN for each",
    async (lab, repository) => {
      const here = Buffer.from("{}");
      await lab.putBlob(repository, here);
      const missing = imageManifest(here, [Buffer.from("a"), Buffer.from("b")]);
      const answer = await lab.putManifest(repository, "t", missing);
      assert.equal(answer.status, 404);
      assert.deepEqual(answer.codes(), ["MANIFEST_BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"]);
      const entry = { mediaType: mediaTypes.ociManifest, digest: sha("c"), size: 1 };
      const index = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [entry] };
      assert.deepEqual((await lab.putManifest(repository, "i", index)).codes(), ["MANIFEST_BLOB_UNKNOWN"]);
      assert.equal((await lab.ask("GET", `/v2/${repository}/manifests/t`)).status, 404);
    },
  ],
  [
    "MUST",
    "end-7: an empty list of blobs is no fault",
    async (lab, repository) => {
      const config = Buffer.from("{}");
      await lab.putBlob(repository, config);
      assert.equal((await lab.putManifest(repository, "t", imageManifest(config, []))).status, 201);
      const index = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [] };
      assert.equal((await lab.putManifest(repository, "i", index)).status, 201);
    },
  ],
  [
    "MUST",
    "end-7: a subject that is not there is taken, and OCI-Subject tells that it was seen",
    async (lab, repository) => {
      const subject = { mediaType: mediaTypes.ociManifest, digest: sha("not yet"), size: 7 };
      const config = Buffer.from("{}");
      await lab.putBlob(repository, config);
      const answer = await lab.putManifest(repository, "t", imageManifest(config, [], { subject }));
      assert.deepEqual([answer.status, answer.headers["oci-subject"]], [201, subject.digest]);
      const plain = await lab.putManifest(repository, "u", imageManifest(config, []));
      assert.equal(plain.headers["oci-subject"], undefined);
    },
  ],
  [
    "SHOULD",
    "end-7: a manifest of 4 MiB is taken, a longer one answers 413",
    async (lab, repository) => {
      const config = Buffer.from("{}");
      await lab.putBlob(repository, config);
      const sized = (bytes: number) => {
        const bare = JSON.stringify(imageManifest(config, [], { annotations: { pad: "" } })).length;
        return imageManifest(config, [], { annotations: { pad: "x".repeat(bytes - bare) } });
      };
      assert.equal((await lab.putManifest(repository, "t", sized(limits.manifestBytesMax))).status, 201);
      assert.equal((await lab.putManifest(repository, "t", sized(limits.manifestBytesMax + 1))).status, 413);
      const headers = { "transfer-encoding": "chunked" };
      const body = Buffer.alloc(limits.manifestBytesMax + 1, " ");
      assert.equal((await lab.ask("PUT", `/v2/${repository}/manifests/t`, { headers, body })).status, 413);
    },
  ],
  [
    "MUST",
    "end-7: Content-Type must be the manifest's mediaType; ambiguous and broken documents are MANIFEST_INVALID",
    async (lab, repository) => {
      const { bytes, config } = await lab.pushImage(repository, "t");
      const good = JSON.parse(bytes.toString()) as Record<string, unknown>;
      const descriptor = { mediaType: mediaTypes.ociConfig, digest: sha(config), size: config.length };
      const cases: [string, string | object][] = [
        [mediaTypes.dockerManifest, good],
        [mediaTypes.ociIndex, good],
        ["application/vnd.docker.distribution.manifest.v1+prettyjws", { schemaVersion: 1 }],
        ["text/plain", "hello"],
        [mediaTypes.ociManifest, "{"],
        [mediaTypes.ociManifest, "[]"],
        [mediaTypes.ociManifest, { ...good, schemaVersion: 1 }],
        [mediaTypes.ociManifest, { ...good, manifests: [] }],
        [mediaTypes.ociManifest, { ...good, config: undefined }],
        [mediaTypes.ociManifest, { ...good, layers: {} }],
        [mediaTypes.ociManifest, { ...good, config: { ...descriptor, digest: "sha256:00" } }],
        [mediaTypes.ociManifest, { ...good, config: { ...descriptor, size: -1 } }],
        [mediaTypes.ociManifest, { ...good, annotations: { a: 1 } }],
        [mediaTypes.ociManifest, { ...good, subject: "x" }],
        [mediaTypes.ociIndex, { schemaVersion: 2, manifests: [], layers: [] }],
      ];
      for (const [type, document] of cases) {
        const body = typeof document === "string" ? document : JSON.stringify(document);
        const answer = await lab.ask("PUT", `/v2/${repository}/manifests/bad`, {
          headers: { "content-type": type },
          body,
        });
        assert.deepEqual([answer.status, answer.codes()], [400, ["MANIFEST_INVALID"]], `${type} ${body}`);
      }
      const tag = await lab.putManifest(repository, "-bad", good);
      assert.deepEqual([tag.status, tag.codes()], [400, ["MANIFEST_INVALID"]]);
    },
  ],
  [
    "SHOULD",
    "end-7: a size that is not the blob's is refused",
    async (lab, repository) => {
      const config = Buffer.from("{}");
      await lab.putBlob(repository, config);
      const descriptor = { mediaType: mediaTypes.ociConfig, digest: sha(config), size: 3 };
      const answer = await lab.putManifest(
        repository,
        "t",
        imageManifest(config, [], { config: descriptor }),
      );
      assert.deepEqual([answer.status, answer.codes()], [400, ["SIZE_INVALID"]]);
    },
  ],
  [
    "MUST",
    "Docker: schema 2 and manifest lists are taken and given as they are",
    async (lab, repository) => {
      const config = Buffer.from("{}");
      await lab.putBlob(repository, config);
      await lab.putBlob(repository, blob);
      const manifest = {
        schemaVersion: 2,
        mediaType: mediaTypes.dockerManifest,
        config: { mediaType: mediaTypes.dockerConfig, digest: sha(config), size: config.length },
        layers: [
          { mediaType: mediaTypes.dockerLayerGzip, digest: sha(blob), size: blob.length },
          {
            mediaType: mediaTypes.dockerForeignLayerGzip,
            digest: sha("far"),
            size: 3,
            urls: ["https://x.test/"],
          },
        ],
      };
      assert.equal((await lab.putManifest(repository, "t", manifest)).status, 201);
      const text = JSON.stringify(manifest);
      const entry = { mediaType: manifest.mediaType, digest: sha(text), size: text.length };
      const list = { schemaVersion: 2, mediaType: mediaTypes.dockerIndex, manifests: [entry] };
      assert.equal((await lab.putManifest(repository, "list", list)).status, 201);
      const answer = await lab.ask("GET", `/v2/${repository}/manifests/list`);
      assert.equal(answer.headers["content-type"], mediaTypes.dockerIndex);
    },
  ],
]);
