import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { call } from "../peers/engine-call.ts";
import { busyboxRoot, tarOf } from "../peers/images.ts";
import type { Hooks, ImageKillLab, Outcome } from "./image-kill-lab.ts";

/** One thing that is done to images, once or again after a kill, with content that no other round has. */
export interface Operation {
  /** Name of the image that it makes or sends. */
  readonly image: string;
  run(hooks: Hooks): Promise<Outcome>;
  /** Whether the answer says that it is done. */
  acknowledged(outcome: Outcome): boolean;
  /** Ids of images that the client was told of. */
  told(outcome: Outcome): readonly string[];
  /** Throws unless its result is there whole, and the daemon knows it. */
  check(): Promise<void>;
  /** Throws unless what is there is whole: the operation may not have been acknowledged. */
  checkBytes(): Promise<void>;
  /** Whether the name is there at all, in the engine or the registry. */
  exists(): Promise<boolean>;
  remove(): Promise<void>;
}

export type Prepare = (lab: ImageKillLab, round: number) => Promise<Operation>;

interface Content {
  /** An archive of `data/`, a few hundred files that do not compress, and what else is given. */
  readonly tar: Buffer;
  /** Of all of `data`, in the order of the names. */
  readonly checksum: string;
}

function content(files: Readonly<Record<string, string | Buffer>> = {}): Content {
  const folder = mkdtempSync(join(tmpdir(), "skiff-kill-content-"));
  try {
    const hash = createHash("sha256");
    mkdirSync(join(folder, "data"));
    for (let file = 100; file < 300; file += 1) {
      const bytes = randomBytes(16 * 1024);
      hash.update(bytes);
      writeFileSync(join(folder, "data", String(file)), bytes);
    }
    for (const [name, bytes] of Object.entries(files)) writeFileSync(join(folder, name), bytes);
    return { tar: tarOf(folder), checksum: hash.digest("hex") };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const sum = '["sh","-c","cat /data/* | sha256sum"]';

/** Its error is the last line of a stream that was answered with 200. */
function succeeded({ status, text, whole }: Outcome): boolean {
  return whole && status !== undefined && status < 300 && !text.includes('"error"');
}

function localImage(
  lab: ImageKillLab,
  image: string,
  checksum: string,
): Pick<Operation, "check" | "checkBytes" | "exists" | "remove"> {
  const check = async (): Promise<void> => assert.equal(await lab.runs(image), `${checksum}  -`);
  return {
    check,
    checkBytes: check,
    exists: async () => (await call(lab.daemon.socket, "GET", `/images/${image}/json`)).status === 200,
    remove: async () => {
      await lab.must(200, "DELETE", `/images/${image}?force=1`);
    },
  };
}

export const prepareBuild: Prepare = async (lab, round) => {
  const image = `built-${round}:latest`;
  const dockerfile = `FROM busybox
COPY data /data/
RUN echo began ${round}; usleep 200000; cat /data/* | sha256sum > /sum
CMD ["sh","-c","cat /data/* | sha256sum > /again && cmp /sum /again && cat /sum"]
`;
  const { tar, checksum } = content({ Dockerfile: dockerfile });
  const local = localImage(lab, image, checksum);
  return {
    image,
    run: (hooks) => lab.stream("POST", `/build?t=${image}`, tar, hooks),
    acknowledged: (outcome) => succeeded(outcome) && outcome.text.includes("Successfully tagged"),
    told: ({ text }) => [...text.matchAll(/ ---> ([0-9a-f]{12})\\n/g)].map((match) => match[1]!),
    ...local,
    remove: async () => {
      await local.remove();
      // The cache has the layers too, and the steps that were told of before the kill.
      await lab.must(200, "POST", "/images/prune");
      await lab.must(200, "POST", "/build/prune?all=1");
    },
  };
};

export const prepareCommit: Prepare = async (lab, round) => {
  const image = `committed-${round}:latest`;
  const { tar, checksum } = content();
  const name = `commit-${round}`;
  const folder = mkdtempSync(join(tmpdir(), "skiff-kill-commit-"));
  try {
    writeFileSync(join(folder, "content.tar"), tar);
    const created = {
      Image: "busybox",
      Cmd: ["tar", "-xf", "/in/content.tar"],
      HostConfig: { Binds: [`${folder}:/in`] },
    };
    await lab.must(201, "POST", `/containers/create?name=${name}`, created);
    await lab.must(204, "POST", `/containers/${name}/start`);
    const waited = await lab.must<{ StatusCode: number }>(200, "POST", `/containers/${name}/wait`);
    assert.equal(waited.StatusCode, 0);
  } finally {
    rmSync(folder, { recursive: true });
  }
  const local = localImage(lab, image, checksum);
  const query = new URLSearchParams({
    container: name,
    repo: image.split(":")[0]!,
    tag: "latest",
    changes: `CMD ${sum}`,
  });
  return {
    image,
    run: (hooks) => lab.stream("POST", `/commit?${query}`, Buffer.alloc(0), hooks),
    acknowledged: succeeded,
    told: ({ text }) => [...text.matchAll(/"Id":"(sha256:[0-9a-f]{64})"/g)].map((match) => match[1]!),
    ...local,
    remove: async () => {
      await local.remove();
      await lab.must(204, "DELETE", `/containers/${name}?force=1`);
      // Committed twice, the first image has lost its name.
      await lab.must(200, "POST", "/images/prune");
    },
  };
};

export const prepareLoad: Prepare = async (lab, round) => {
  const image = `loaded-${round}:latest`;
  const folder = mkdtempSync(join(tmpdir(), "skiff-kill-archive-"));
  try {
    mkdirSync(join(folder, "base"));
    busyboxRoot(join(folder, "base"));
    const base = tarOf(join(folder, "base"));
    rmSync(join(folder, "base"), { recursive: true });
    const { tar, checksum } = content();
    const digest = (bytes: Buffer): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
    const config = {
      architecture: process.arch === "arm64" ? "arm64" : "amd64",
      os: "linux",
      config: { Cmd: JSON.parse(sum) as string[], Env: ["PATH=/bin"] },
      rootfs: { type: "layers", diff_ids: [digest(base), digest(tar)] },
    };
    writeFileSync(join(folder, "base.tar"), base);
    writeFileSync(join(folder, "data.tar"), tar);
    writeFileSync(join(folder, "config.json"), JSON.stringify(config));
    const manifest = [{ Config: "config.json", RepoTags: [image], Layers: ["base.tar", "data.tar"] }];
    writeFileSync(join(folder, "manifest.json"), JSON.stringify(manifest));
    const archive = tarOf(folder);
    return {
      image,
      run: (hooks) => lab.stream("POST", "/images/load?quiet=1", archive, hooks),
      acknowledged: (outcome) => succeeded(outcome) && outcome.text.includes("Loaded image"),
      told: () => [],
      ...localImage(lab, image, checksum),
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
};

export const preparePush: Prepare = async (lab, round) => {
  const repository = `r/pushed-${round}`;
  const name = `${lab.proxy.address}/${repository}`;
  const { tar } = content();
  const query = `fromSrc=-&repo=${encodeURIComponent(name)}&tag=latest`;
  assert.equal((await lab.stream("POST", `/images/create?${query}`, tar, {})).status, 200);
  return {
    image: `${name}:latest`,
    run: (hooks) => lab.stream("POST", `/images/${name}/push?tag=latest`, Buffer.alloc(0), hooks),
    acknowledged: (outcome) => succeeded(outcome) && outcome.text.includes('"Digest"'),
    told: () => [],
    check: async () => {
      const digest = await lab.tagOf(repository);
      assert.ok(digest !== undefined, "the tag is not there");
      const { RepoDigests } = await lab.must<{ RepoDigests: string[] }>(
        200,
        "GET",
        `/images/${name}:latest/json`,
      );
      assert.deepEqual(RepoDigests, [`${name}@${digest}`]);
    },
    // Asking for the tag looks at all of its blobs.
    exists: async () => (await lab.tagOf(repository)) !== undefined,
    checkBytes: async () => {},
    remove: async () => {
      await lab.must(200, "DELETE", `/images/${name}:latest?force=1`);
    },
  };
};
