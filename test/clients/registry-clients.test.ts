/**
 * Our registry under the clients that people have: skopeo, Skiff's own, the docker command line with Debian's dockerd,
 * and podman. What goes in comes out with the same digests, whoever asks.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { digestOf } from "#base/digest.ts";
import { openImages, pull, statuses } from "../integration/image-setup.ts";
import { fillRegistry, lastActions, push } from "../integration/transfer-lab.ts";
import { startDockerd } from "../peers/dockerd.ts";
import { ensurePeers, provideDockerCli } from "../peers/peer-cache.ts";
import { startPodman } from "../peers/podman.ts";
import { type SkiffRegistry, startSkiffRegistry } from "../peers/skiff-registry.ts";

const resources = new AsyncDisposableStack();
let ours: SkiffRegistry;
let folder: string;

before(async () => {
  provideDockerCli();
  folder = mkdtempSync(join(tmpdir(), "skiff-registry-clients-"));
  resources.defer(() => rmSync(folder, { recursive: true, force: true }));
  ours = resources.use(await startSkiffRegistry());
  fillRegistry(ours.address);
});

after(async () => {
  const log = ours.log();
  await resources.disposeAsync();
  // Whatever the clients tried, nothing of it was our failure.
  assert.doesNotMatch(log, /"level":"error"/);
});

function run(program: string, ...args: string[]): string {
  const options = {
    env: ensurePeers().env,
    encoding: "utf8",
    timeout: 60_000,
    killSignal: "SIGKILL",
  } as const;
  return execFileSync(program, args, { ...options, stdio: ["ignore", "pipe", "pipe"] }).trim();
}

function skopeo(...args: string[]): string {
  return run(ensurePeers().path("skopeo"), "--insecure-policy", ...args);
}

function digestAt(name: string): string {
  return skopeo("inspect", "--tls-verify=false", "--format", "{{.Digest}}", `docker://${name}`);
}

/** Digest and bytes of a manifest as the registry gives it. */
async function manifestAt(
  repository: string,
  reference: string,
): Promise<{ digest: string; config: string }> {
  const accept =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
  // While a client runs to its end nobody here would notice that the server has closed an idle connection.
  const answer = await fetch(`http://${ours.address}/v2/${repository}/manifests/${reference}`, {
    headers: { accept, connection: "close" },
  });
  assert.equal(answer.status, 200);
  const bytes = Buffer.from(await answer.arrayBuffer());
  const { config } = JSON.parse(bytes.toString()) as { config: { digest: string } };
  const digest = digestOf(bytes);
  assert.equal(answer.headers.get("docker-content-digest"), digest);
  return { digest, config: config.digest };
}

test("skopeo: copy in and out, inspect, list-tags, delete", async () => {
  const digest = digestAt(`${ours.address}/t/rich:1`);
  const out = join(folder, "out");
  skopeo("copy", "-q", "--src-tls-verify=false", `docker://${ours.address}/t/rich:1`, `dir:${out}`);
  assert.equal(digestOf(readFileSync(join(out, "manifest.json"))), digest);
  const noTls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
  skopeo(
    "copy",
    "-q",
    ...noTls,
    "--dest-tls-verify=false",
    `dir:${out}`,
    `docker://${ours.address}/s/back:x`,
  );
  skopeo("copy", "-q", ...noTls, `docker://${ours.address}/t/rich:1`, `docker://${ours.address}/s/mounted:y`);
  assert.equal(digestAt(`${ours.address}/s/back:x`), digest);
  assert.equal(digestAt(`${ours.address}/s/mounted@${digest}`), digest);
  const tags = JSON.parse(skopeo("list-tags", "--tls-verify=false", `docker://${ours.address}/t/rich`)) as {
    Tags: string[];
  };
  assert.deepEqual(tags.Tags, ["1", "2"]);
  skopeo("delete", "--tls-verify=false", `docker://${ours.address}/s/back:x`);
  assert.throws(() => digestAt(`${ours.address}/s/back:x`), /manifest unknown/);
  assert.equal(digestAt(`${ours.address}/t/rich:1`), digest);
});

test("Skiff's own client: pull, push, mount, all tags, by digest", async () => {
  await using setup = await openImages();
  const name = `${ours.address}/t/rich`;
  await pull(setup, name, "1");
  const digest = digestAt(`${name}:1`);
  const target = `${ours.address}/own/copy`;
  await setup.images.tag(`${name}:1`, target, "a");
  assert.deepEqual(
    new Set(lastActions(await push(setup, target, { tag: "a" }))),
    new Set(["Mounted from t/rich"]),
  );
  assert.equal(digestAt(`${target}:a`), digest);
  await setup.images.tag(`${name}:1`, target, "b");
  const lines = await push(setup, target, { tag: "" });
  assert.deepEqual(new Set(lastActions(lines)), new Set(["Layer already exists"]));
  assert.deepEqual(
    statuses(lines).flatMap((line) => /^(\w+): digest: (\S+)/.exec(line)?.slice(1, 3) ?? []),
    ["a", digest, "b", digest],
  );
  await using other = await openImages();
  await pull(other, `${target}`, digest);
  assert.equal(other.images.store.list().length, 1);
  assert.equal(other.images.store.list()[0]?.id, setup.images.store.resolve(`${name}:1`).id);
});

test("the docker command line with dockerd, and podman: each pulls what the other pushed", async () => {
  const [dockerd, podman] = await Promise.all([
    startDockerd({ extraArgs: ["--insecure-registry", ours.address] }),
    startPodman([ours.address]),
  ]);
  resources.use(dockerd);
  resources.use(podman);
  await Promise.all([ours.relay(dockerd.pid), ours.relay(podman.pid)]);
  const docker = (...args: string[]): string => run("docker", "-H", dockerd.host, ...args);
  const pod = (...args: string[]): string => {
    const { status, stdout, stderr } = podman.cli(...args);
    assert.equal(status, 0, `podman ${args.join(" ")}: ${stderr}`);
    return stdout.trim();
  };
  const source = `${ours.address}/t/rich`;
  const { digest, config } = await manifestAt("t/rich", "1");
  docker("pull", "-q", `${source}:1`);
  assert.deepEqual(
    JSON.parse(docker("image", "inspect", "--format", "{{json .RepoDigests}}", `${source}:1`)),
    [`${source}@${digest}`],
  );
  docker("tag", `${source}:1`, `${ours.address}/from/docker:1`);
  const said = /1: digest: (\S+) size: \d+/.exec(docker("push", `${ours.address}/from/docker:1`))?.[1];
  const fromDocker = await manifestAt("from/docker", "1");
  assert.deepEqual(fromDocker, { digest: said, config });

  pod("pull", "-q", `${ours.address}/from/docker@${fromDocker.digest}`);
  pod("pull", "-q", `${source}:1`);
  assert.equal(`sha256:${pod("image", "inspect", "--format", "{{.Id}}", `${source}:1`)}`, config);
  pod("tag", `${source}:1`, `${ours.address}/from/podman:1`);
  pod("push", "-q", `${ours.address}/from/podman:1`);
  const fromPodman = await manifestAt("from/podman", "1");
  assert.equal(fromPodman.config, config);

  docker("pull", "-q", `${ours.address}/from/podman:1`);
  assert.deepEqual(
    new Set(
      docker("image", "inspect", "--format", "{{.Id}}", `${ours.address}/from/podman:1`, `${source}:1`).split(
        "\n",
      ),
    ),
    new Set([config]),
  );
});
