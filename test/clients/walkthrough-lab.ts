import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type PeerDaemon, startDockerd } from "../peers/dockerd.ts";
import { centosLayout, pushLayout } from "../peers/images.ts";
import { startRegistry } from "../peers/registry.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";

/**
 * A machine of its own for a tutorial: a daemon in network and mount namespaces where docker.io is a registry on loopback
 * that speaks TLS, and a mirror of it has `centos:centos6`. Nothing leaves the machine: there is no way out.
 */
export interface WalkthroughLab extends AsyncDisposable {
  readonly host: string;
  /** For files of the walkthrough; removed with the lab. */
  readonly folder: string;
  /** undefined with dockerd. */
  readonly daemon: TestDaemon | undefined;
}

const hub = "registry-1.docker.io";
const mirror = "http://127.0.0.1:5000";

export async function openWalkthroughLab(engine: "skiffd" | "dockerd"): Promise<WalkthroughLab> {
  await using parts = new AsyncDisposableStack();
  const folder = mkdtempSync(join(tmpdir(), "skiff-walk-"));
  parts.defer(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, "hosts"), `127.0.0.1 localhost ${hub}\n`);
  const tls = makeCertificate(folder);
  const daemon = engine === "skiffd" ? parts.use(await startOurs(folder, tls.certificate)) : undefined;
  const peer = engine === "dockerd" ? parts.use(await startPeer(folder, tls.certificate)) : undefined;
  const pid = daemon?.child.pid ?? peer!.pid;
  parts.use(await startRegistry({ netnsOf: pid, port: 443, tls }));
  parts.use(await startRegistry({ netnsOf: pid, port: 5000 }));
  pushLayout(centosLayout(), "127.0.0.1:5000/library/centos:centos6", { netnsOf: pid });
  const owned = parts.move();
  return {
    host: daemon?.host ?? peer!.host,
    folder,
    daemon,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function startPeer(folder: string, certificate: string): Promise<PeerDaemon> {
  return await startDockerd({
    extraArgs: ["--registry-mirror", mirror],
    prepare: [
      `mount --bind ${folder}/hosts /etc/hosts`,
      `mount --bind ${certificate} /etc/ssl/certs/ca-certificates.crt`,
    ],
  });
}

async function startOurs(folder: string, certificate: string): Promise<TestDaemon> {
  const script = [
    "mount --make-rprivate /",
    `mount --bind ${folder}/hosts /etc/hosts`,
    "ip link set lo up",
    'exec "$@"',
  ].join(" && ");
  return await startSkiffd({
    args: ["--registry-mirror", mirror],
    env: { NODE_EXTRA_CA_CERTS: certificate },
    prefix: ["unshare", "--mount", "--net", "--", "sh", "-c", script, "skiffd"],
  });
}

function makeCertificate(folder: string): { certificate: string; key: string } {
  const certificate = join(folder, "hub.crt");
  const key = join(folder, "hub.key");
  execFileSync(
    "openssl",
    [
      ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"],
      ...["-subj", `/CN=${hub}`, "-addext", `subjectAltName=DNS:${hub}`, "-keyout", key, "-out", certificate],
    ],
    { stdio: "ignore" },
  );
  return { certificate, key };
}

/** Digest of the manifest and id of the image that `centos:centos6` is. */
export function centosIdentity(): { digest: string; id: string } {
  const layout = centosLayout();
  const read = (path: string): unknown => JSON.parse(readFileSync(join(layout, path), "utf8"));
  const { manifests } = read("index.json") as { manifests: { digest: string }[] };
  const { digest } = manifests[0]!;
  const { config } = read(`blobs/${digest.replace(":", "/")}`) as { config: { digest: string } };
  return { digest, id: config.digest };
}
