/**
 * Images that dockerd, buildah and umoci made: as archives of both kinds and from a registry they come in, run, and go out
 * again with the digests that they had.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type PeerDaemon, startDockerd } from "../peers/dockerd.ts";
import { forwardPort } from "../peers/forward.ts";
import { busyboxLayout, pushLayout } from "../peers/images.ts";
import { leftOver } from "../peers/left-over.ts";
import { ensurePeers } from "../peers/peer-cache.ts";
import { startRegistryServe } from "../peers/registry-serve.ts";
import { type Client, openRealLab, type RealLab } from "./real-lab.ts";

const parts = new AsyncDisposableStack();
const peers = ensurePeers();
let lab: RealLab;
let docker: Client;
let skiff: Client;
let dockerd: PeerDaemon;
/** Where images come from and where they go: Debian's registry and ours. */
let source: string;
let target: string;

before(async () => {
  lab = parts.use(await openRealLab({ pulled: false, debian: false }));
  [docker, skiff] = lab.clients as [Client, Client];
  source = lab.registry.address;
  const ours = parts.use(await startRegistryServe());
  target = ours.address;
  dockerd = parts.use(await startDockerd());
  parts.use(await forwardPort(dockerd.pid, lab.registry.port));
  buildWithDockerd();
  buildWithBuildah();
  buildWithUmoci();
});
after(() => parts.disposeAsync());

const pathOf = (...names: string[]): string => join(lab.folder, ...names);

/** Packs an OCI layout as `umoci` users and `skopeo oci-archive:` do. */
function tarLayout(layout: string, archive: string): void {
  execFileSync("tar", ["-C", layout, "-cf", archive, "blobs", "index.json", "oci-layout"]);
}

function buildWithDockerd(): void {
  const run = (...args: string[]): void => {
    const env = { ...process.env, DOCKER_HOST: dockerd.host, DOCKER_BUILDKIT: "0" };
    execFileSync("docker", args, { env, stdio: ["ignore", "ignore", "pipe"] });
  };
  const context = pathOf("context");
  mkdirSync(context);
  writeFileSync(join(context, "who"), "made by dockerd\n");
  writeFileSync(
    join(context, "Dockerfile"),
    `FROM ${source}/busybox:test\nCOPY who /app/\nRUN rm /etc/group && ln /app/who /app/link\nLABEL by=dockerd\nCMD ["cat","/app/who"]\n`,
  );
  run("build", "-q", "-t", "foreign/dockerd:archive", "-t", `${source}/foreign/dockerd:1`, context);
  run("save", "-o", pathOf("dockerd.tar"), "foreign/dockerd:archive");
  run("push", "-q", `${source}/foreign/dockerd:1`);
}

/** In namespaces of its own, where its state directory is a tmpfs; the base lies at a path that is a name, too. */
const buildahScript = `
set -e
folder=$1 base=$2 peers=$3 libraries=lib/x86_64-linux-gnu
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/base
mount --bind "$base" /run/base
# buildah runs itself again without LD_LIBRARY_PATH: what the machine lacks of its libraries is laid under the machine's.
mount -t overlay -o "lowerdir=/usr/$libraries:$peers/usr/$libraries:$peers/$libraries" overlay /usr/lib/x86_64-linux-gnu
ip link set lo up
export TMPDIR=$folder
run() { buildah --root "$folder/root" --runroot /run/buildah --storage-driver overlay "$@"; }
policy="--signature-policy $folder/policy.json"
container=$(run from $policy oci:/run/base:latest)
run run --isolation chroot "$container" -- sh -c 'mkdir /app && echo made by buildah > /app/who && rm /etc/group'
run config --cmd '["cat","/app/who"]' --label by=buildah "$container"
run commit $policy -q --disable-compression=false --format oci "$container" "oci:$folder/layout:latest"
run commit $policy -q --format docker "$container" "docker-archive:$folder/docker.tar:foreign/buildah:archive"
run rm "$container"
`;

function buildWithBuildah(): void {
  const folder = pathOf("buildah");
  mkdirSync(folder);
  writeFileSync(join(folder, "policy.json"), '{"default":[{"type":"insecureAcceptAnything"}]}');
  const words = ["buildah", folder, busyboxLayout(), peers.root];
  const argv = ["--mount", "--net", "--", "sh", "-c", buildahScript, ...words];
  execFileSync("unshare", argv, { env: peers.env, stdio: ["ignore", "ignore", "pipe"] });
  tarLayout(join(folder, "layout"), pathOf("buildah-oci.tar"));
  pushLayout(join(folder, "layout"), `${source}/foreign/buildah:1`);
}

function buildWithUmoci(): void {
  const layout = pathOf("umoci");
  cpSync(busyboxLayout(), layout, { recursive: true });
  const added = pathOf("added");
  mkdirSync(added);
  writeFileSync(join(added, "who"), "made by umoci\n");
  for (const args of [
    ["insert", "--image", `${layout}:latest`, added, "/app"],
    ["insert", "--image", `${layout}:latest`, "--whiteout", "/etc/group"],
    ["insert", "--image", `${layout}:latest`, "--opaque", added, "/home"],
    [
      ...["config", "--image", `${layout}:latest`, "--config.label", "by=umoci"],
      ...["--config.cmd", "cat", "--config.cmd", "/app/who"],
    ],
  ]) {
    execFileSync(peers.path("umoci"), args, { env: peers.env, stdio: ["ignore", "ignore", "pipe"] });
  }
  tarLayout(layout, pathOf("umoci-oci.tar"));
  pushLayout(layout, `${source}/foreign/umoci:1`);
}

interface Manifest {
  readonly config: { readonly digest: string };
  readonly layers: readonly { readonly mediaType: string }[];
}

/** The manifest under a name, as skopeo gets it from the registry. */
function manifestAt(reference: string): { digest: string; manifest: Manifest } {
  const argv = ["inspect", "--raw", "--tls-verify=false", `docker://${reference}`];
  const bytes = execFileSync(peers.path("skopeo"), argv, { env: peers.env });
  const digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
  return { digest, manifest: JSON.parse(bytes.toString("utf8")) as Manifest };
}

async function check(client: Client, reference: string, maker: string): Promise<void> {
  assert.equal(await client.out("run", "--rm", reference), `made by ${maker}`);
  const absent = await client.run(["run", "--rm", reference, "cat", "/etc/group"]);
  assert.match(absent.stderr, /can't open '\/etc\/group': No such file or directory/);
  assert.equal(await client.out("inspect", "-f", "{{.Config.Labels.by}}", reference), maker);
}

/** Pushes to our registry and gives what lies there then. */
async function pushTo(
  client: Client,
  from: string,
  name: string,
): Promise<{ digest: string; manifest: Manifest }> {
  const reference = `${target}/${name}`;
  await client.out("tag", from, reference);
  const { code, stdout, stderr } = await client.run(["push", reference]);
  assert.equal(code, 0, stderr);
  const found = manifestAt(reference);
  assert.ok(stdout.includes(`digest: ${found.digest} `), stdout);
  return found;
}

async function removeAll(): Promise<void> {
  await docker.out("rmi", "-f", ...new Set((await docker.out("images", "-q")).split("\n")));
  assert.equal(await docker.out("images", "-aq"), "");
  assert.deepEqual(await leftOver(lab.daemon), []);
}

for (const [index, maker] of ["dockerd", "buildah", "umoci"].entries()) {
  test(`${maker}: from a registry and back`, async () => {
    const client = [docker, skiff][index % 2]!;
    const reference = `${source}/foreign/${maker}:1`;
    const there = manifestAt(reference);
    const pulled = await client.run(["pull", reference]);
    assert.ok(pulled.stdout.includes(`Digest: ${there.digest}\n`), pulled.stdout + pulled.stderr);
    assert.equal(await client.out("inspect", "-f", "{{.Id}}", reference), there.manifest.config.digest);
    await check(client, reference, maker);
    const back = await pushTo(client, reference, `back/${maker}:1`);
    assert.equal(back.digest, there.digest);
    await removeAll();
  });
}

for (const maker of ["buildah", "umoci"]) {
  test(`${maker}: an OCI layout comes in as a file and goes out with its manifest`, async () => {
    const client = maker === "umoci" ? docker : skiff;
    const { manifests } = JSON.parse(
      execFileSync("tar", ["-xOf", pathOf(`${maker}-oci.tar`), "index.json"], { encoding: "utf8" }),
    ) as { manifests: { digest: string }[] };
    const loaded = await client.out("load", "-i", pathOf(`${maker}-oci.tar`));
    const id = /^Loaded image ID: (sha256:[0-9a-f]{64})$/.exec(loaded)?.[1];
    assert.ok(id !== undefined, loaded);
    await check(client, id, maker);
    const out = await pushTo(client, id, `loaded/${maker}:1`);
    assert.equal(out.digest, manifests[0]!.digest);
    assert.equal(out.manifest.config.digest, id);
    await removeAll();
  });
}

for (const [maker, archive] of [
  ["dockerd", "dockerd.tar"],
  ["buildah", "buildah/docker.tar"],
] as const) {
  test(`${maker}: Docker's archive keeps the image's id; what is pushed is compressed`, async () => {
    const client = maker === "dockerd" ? skiff : docker;
    const [{ Config }] = JSON.parse(
      execFileSync("tar", ["-xOf", pathOf(archive), "manifest.json"], { encoding: "utf8" }),
    ) as [{ Config: string }];
    const id = `sha256:${Config.replace(".json", "")}`;
    const name = `foreign/${maker}:archive`;
    assert.equal(await client.out("load", "-i", pathOf(archive)), `Loaded image: ${name}`);
    assert.equal(await client.out("inspect", "-f", "{{.Id}}", name), id);
    await check(client, name, maker);
    const out = await pushTo(client, name, `loaded/${maker}:2`);
    assert.equal(out.manifest.config.digest, id);
    for (const { mediaType } of out.manifest.layers) assert.match(mediaType, /gzip$/);
    // It comes back as the image that it was.
    await removeAll();
    await client.out("pull", "-q", `${target}/loaded/${maker}:2`);
    assert.equal(await client.out("inspect", "-f", "{{.Id}}", `${target}/loaded/${maker}:2`), id);
    await check(client, `${target}/loaded/${maker}:2`, maker);
    await removeAll();
  });
}
