/** OCI distribution spec 1.1, "Content Discovery": every requirement on a registry. */
import assert from "node:assert/strict";
import { mediaTypes } from "#wire/oci-image.ts";
import {
  type DistributionLab,
  imageManifest,
  type PushedImage,
  requirements,
  sha,
} from "./distribution-lab.ts";

interface TagList {
  readonly name: string;
  readonly tags: string[];
}

interface Index {
  readonly schemaVersion: number;
  readonly mediaType: string;
  readonly manifests: {
    mediaType: string;
    digest: string;
    size: number;
    artifactType?: string;
    annotations?: Record<string, string>;
  }[];
}

/** Where a Link header leads. */
function next(link: unknown): string {
  const match = /^<([^>]+)>; rel="next"$/.exec(String(link));
  assert.ok(match?.[1] !== undefined, `no next page in ${String(link)}`);
  return match[1];
}

async function tagged(
  lab: DistributionLab,
  repository: string,
  tags: readonly string[],
): Promise<PushedImage> {
  const image = await lab.pushImage(repository, tags[0]!);
  const headers = { "content-type": mediaTypes.ociManifest };
  for (const tag of tags.slice(1)) {
    await lab.ask("PUT", `/v2/${repository}/manifests/${tag}`, { headers, body: image.bytes });
  }
  return image;
}

function subjectOf(image: PushedImage): object {
  return { mediaType: mediaTypes.ociManifest, digest: image.digest, size: image.bytes.length };
}

requirements("discovery", [
  [
    "MUST",
    "end-8a: tags of a repository: 200, its name, and all tags in the order of their bytes",
    async (lab, repository) => {
      await tagged(lab, repository, ["b", "a", "B", "_", "10", "9", "a.b", "a-b"]);
      const answer = await lab.ask("GET", `/v2/${repository}/tags/list`);
      assert.equal(answer.status, 200);
      assert.equal(answer.headers.link, undefined);
      const tags = ["10", "9", "B", "_", "a", "a-b", "a.b", "b"];
      assert.deepEqual(answer.json<TagList>(), { name: repository, tags });
    },
  ],
  [
    "MUST",
    "end-8a: a repository without tags has an empty list, one that is not there 404 NAME_UNKNOWN",
    async (lab, repository) => {
      const { digest } = await lab.pushImage(repository, "t");
      await lab.ask("DELETE", `/v2/${repository}/manifests/t`);
      assert.deepEqual((await lab.ask("GET", `/v2/${repository}/tags/list`)).json<TagList>().tags, []);
      assert.equal((await lab.ask("GET", `/v2/${repository}/manifests/${digest}`)).status, 200);
      const answer = await lab.ask("GET", `/v2/${repository}/none/tags/list`);
      assert.deepEqual([answer.status, answer.codes()], [404, ["NAME_UNKNOWN"]]);
    },
  ],
  [
    "MUST",
    "end-8b: n gives so many, last what comes after it (there or not), n=0 nothing and no Link",
    async (lab, repository) => {
      await tagged(lab, repository, ["a", "b", "c", "d", "e"]);
      const cases: [string, string[], boolean][] = [
        ["n=2", ["a", "b"], true],
        ["n=5", ["a", "b", "c", "d", "e"], false],
        ["n=99", ["a", "b", "c", "d", "e"], false],
        ["n=2&last=b", ["c", "d"], true],
        ["n=2&last=bb", ["c", "d"], true],
        ["n=2&last=c", ["d", "e"], false],
        ["last=d", ["e"], false],
        ["last=e", [], false],
        ["n=0", [], false],
      ];
      for (const [query, tags, more] of cases) {
        const answer = await lab.ask("GET", `/v2/${repository}/tags/list?${query}`);
        assert.deepEqual(answer.json<TagList>().tags, tags, query);
        assert.equal(answer.headers.link !== undefined, more, query);
      }
      for (const n of ["-1", "x", "1.5", "99999999999999999999"]) {
        const answer = await lab.ask("GET", `/v2/${repository}/tags/list?n=${n}`);
        assert.deepEqual([answer.status, answer.codes()], [400, ["PAGINATION_NUMBER_INVALID"]], n);
      }
    },
  ],
  [
    "SHOULD",
    "end-8b: Link leads through all tags",
    async (lab, repository) => {
      await tagged(lab, repository, ["a", "b", "c", "d", "e"]);
      const seen: string[][] = [];
      let path: string | undefined = `/v2/${repository}/tags/list?n=2`;
      while (path !== undefined) {
        const answer = await lab.ask("GET", path);
        seen.push(answer.json<TagList>().tags);
        path = answer.headers.link === undefined ? undefined : next(answer.headers.link);
      }
      assert.deepEqual(seen, [["a", "b"], ["c", "d"], ["e"]]);
    },
  ],
  [
    "MUST",
    "end-12a: referrers of a manifest: 200, an image index of all manifests and indexes about it",
    async (lab, repository) => {
      const image = await lab.pushImage(repository, "t");
      const subject = subjectOf(image);
      const config = Buffer.from("{}");
      await lab.putBlob(repository, config);
      const annotations = { "org.example.a": "b" };
      const typed = imageManifest(config, [], {
        subject,
        artifactType: "application/vnd.example.sbom",
        annotations,
      });
      const untyped = imageManifest(config, [], { subject });
      const index = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [], subject };
      const named = { ...index, artifactType: "application/vnd.example.sig+json" };
      for (const document of [typed, untyped, index, named]) {
        const answer = await lab.putManifest(repository, sha(JSON.stringify(document)), document);
        assert.equal(answer.headers["oci-subject"], image.digest);
      }
      const answer = await lab.ask("GET", `/v2/${repository}/referrers/${image.digest}`);
      assert.equal(answer.status, 200);
      assert.equal(answer.headers["content-type"], mediaTypes.ociIndex);
      assert.equal(answer.headers["oci-filters-applied"], undefined);
      const found = answer.json<Index>();
      assert.deepEqual([found.schemaVersion, found.mediaType], [2, mediaTypes.ociIndex]);
      const described = (document: object, more: object): object => {
        const text = JSON.stringify(document);
        const { mediaType } = document as { mediaType: string };
        return { mediaType, digest: sha(text), size: text.length, ...more };
      };
      const byDigest = (a: { digest?: string }, b: { digest?: string }) => (a.digest! < b.digest! ? -1 : 1);
      assert.deepEqual(
        found.manifests.sort(byDigest),
        [
          described(typed, { artifactType: "application/vnd.example.sbom", annotations }),
          described(untyped, { artifactType: mediaTypes.ociConfig }),
          described(index, {}),
          described(named, { artifactType: "application/vnd.example.sig+json" }),
        ].sort(byDigest),
      );
    },
  ],
  [
    "MUST",
    "end-12a: never 404: a repository, a digest, a manifest that nobody refers to give an empty index",
    async (lab, repository) => {
      const image = await lab.pushImage(repository, "t");
      for (const path of [
        `${repository}/referrers/${image.digest}`,
        `${repository}/none/referrers/${sha("x")}`,
      ]) {
        const answer = await lab.ask("GET", `/v2/${path}`);
        assert.equal(answer.status, 200);
        assert.deepEqual(answer.json<Index>().manifests, []);
      }
    },
  ],
  [
    "MUST",
    "end-12a: a digest of a wrong form answers 400",
    async (lab, repository) => {
      const answer = await lab.ask("GET", `/v2/${repository}/referrers/sha256:zz`);
      assert.equal(answer.status, 400);
    },
  ],
  [
    "SHOULD",
    "end-12b: artifactType filters, and OCI-Filters-Applied says so",
    async (lab, repository) => {
      const image = await lab.pushImage(repository, "t");
      for (const artifactType of ["application/vnd.a+json", "application/vnd.b"]) {
        await lab.pushImage(repository, artifactType.slice(-4).replace("+", "."), {
          subject: subjectOf(image),
          artifactType,
        });
      }
      for (const [query, types] of [
        ["application%2Fvnd.a%2Bjson", ["application/vnd.a+json"]],
        ["application/vnd.a+json", ["application/vnd.a+json"]],
        ["application/vnd.b", ["application/vnd.b"]],
        ["none", []],
      ] as const) {
        const answer = await lab.ask(
          "GET",
          `/v2/${repository}/referrers/${image.digest}?artifactType=${query}`,
        );
        assert.equal(answer.headers["oci-filters-applied"], "artifactType");
        assert.deepEqual(
          answer.json<Index>().manifests.map(({ artifactType }) => artifactType),
          types,
          query,
        );
      }
    },
  ],
  [
    "MUST",
    "end-12a: more referrers than fit are led to by Link",
    async (lab, repository) => {
      const image = await lab.pushImage(repository, "t");
      const config = Buffer.from("{}");
      await lab.putBlob(repository, config);
      const pad = "x".repeat(900_000);
      const digests: string[] = [];
      for (const note of ["1", "2", "3", "4", "5"]) {
        const document = imageManifest(config, [], { subject: subjectOf(image), annotations: { note, pad } });
        digests.push(sha(JSON.stringify(document)));
        await lab.putManifest(repository, digests.at(-1)!, document);
      }
      const seen: string[] = [];
      let pages = 0;
      const type = encodeURIComponent(mediaTypes.ociConfig);
      let path: string | undefined = `/v2/${repository}/referrers/${image.digest}?artifactType=${type}`;
      while (path !== undefined) {
        const answer = await lab.ask("GET", path);
        seen.push(...answer.json<Index>().manifests.map(({ digest }) => digest));
        path = answer.headers.link === undefined ? undefined : next(answer.headers.link);
        pages += 1;
      }
      assert.deepEqual(seen, digests.sort());
      assert.equal(pages, 2);
    },
  ],
  [
    "MUST",
    "end-12a: a manifest that was there before its subject, and one that is deleted, are in and out of the list",
    async (lab, repository) => {
      const text = JSON.stringify({ early: repository });
      const later = imageManifest(Buffer.from(text), []);
      const bytes = JSON.stringify(later);
      const subject = { mediaType: mediaTypes.ociManifest, digest: sha(bytes), size: bytes.length };
      const referrer = await lab.pushImage(repository, "early", { subject });
      await lab.putBlob(repository, Buffer.from(text));
      await lab.putManifest(repository, "t", later);
      const list = async () =>
        (await lab.ask("GET", `/v2/${repository}/referrers/${sha(bytes)}`)).json<Index>().manifests.length;
      assert.equal(await list(), 1);
      await lab.ask("DELETE", `/v2/${repository}/manifests/${referrer.digest}`);
      assert.equal(await list(), 0);
    },
  ],
  [
    "MAY",
    "Docker: _catalog lists repositories in order, by pages",
    async (lab, repository) => {
      for (const name of ["c", "a", "b"]) await lab.pushImage(`zz/${repository}/${name}`, "t");
      const from = encodeURIComponent(`zz/${repository}`);
      const first = await lab.ask("GET", `/v2/_catalog?n=2&last=${from}`);
      const names = (text: Buffer) =>
        (JSON.parse(text.toString()) as { repositories: string[] }).repositories;
      assert.deepEqual(names(first.body), [`zz/${repository}/a`, `zz/${repository}/b`]);
      const second = await lab.ask("GET", next(first.headers.link));
      assert.deepEqual(names(second.body), [`zz/${repository}/c`]);
      assert.equal(second.headers.link, undefined);
      assert.equal((await lab.ask("GET", "/v2/_catalog")).status, 200);
    },
  ],
]);
