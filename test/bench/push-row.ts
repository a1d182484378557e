import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ensurePeers } from "../peers/peer-cache.ts";
import { freePort, startRegistry } from "../peers/registry.ts";
import { type BuildContext, buildImage, programContext, withContext } from "./build-context.ts";
import { prepare } from "./client.ts";
import { prepareFive } from "./five-image.ts";
import { type Figures, interleave } from "./measure.ts";
import { fiveLayerLayout } from "./pull-image.ts";
import type { BenchSide } from "./sides.ts";

/**
 * `docker push` to an empty registry, a new one each time: of the five-layer image as it was pulled, and of an image that
 * was built here, which each engine has to compress: for every sample it is built anew with another line in its layer, so
 * that nothing is remembered. What arrived is looked at on every side: the config, and that every layer unpacks to what the
 * config says of it.
 */
export async function pushRow(
  sides: readonly BenchSide[],
  rounds: number,
): Promise<Map<string, ReadonlyMap<string, Figures>>> {
  const port = await freePort();
  const layout = fiveLayerLayout();
  prepare(sides);
  prepareFive(sides);
  const pulled = await interleave(sides, rounds, async (side, round) => {
    const source = `${side.registry.address}/five:latest`;
    return await timedPush(side, port, source, round < 0 ? layout.id : undefined);
  });
  const built = await withContext(programContext, async (context: BuildContext) => {
    return await interleave(sides, rounds, async (side, round) => {
      context.change(`${side.name} ${round}`);
      const id = buildImage(side, context, "bench-push:latest");
      const took = await timedPush(side, port, "bench-push:latest", round < 0 ? id : undefined);
      assert.equal(side.cli("rmi", "bench-push:latest").status, 0, side.name);
      return took;
    });
  });
  return new Map([
    ["push pulled", pulled],
    ["push built", built],
  ]);
}

/** Seconds of a push; with an id, what the registry then has is checked. */
async function timedPush(
  side: BenchSide,
  port: number,
  source: string,
  id: string | undefined,
): Promise<number> {
  await using registry = await startRegistry({ netnsOf: side.netnsOf, port });
  const target = `${registry.address}/pushed:latest`;
  assert.equal(side.cli("tag", source, target).status, 0, side.name);
  execFileSync("sync");
  const insecure = side.name === "podman" ? ["--tls-verify=false"] : [];
  const from = performance.now();
  const pushed = side.cli("push", "-q", ...insecure, target);
  const took = (performance.now() - from) / 1000;
  assert.equal(pushed.status, 0, `${side.name}: ${pushed.stderr}`);
  if (id !== undefined) checkPushed(side, target, id);
  assert.equal(side.cli("rmi", target).status, 0, side.name);
  return took;
}

function checkPushed(side: BenchSide, target: string, id: string): void {
  const folder = mkdtempSync(join(tmpdir(), "skiff-pushed-"));
  try {
    const peers = ensurePeers();
    const copy = ["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"];
    // skopeo checks the digest of every blob.
    execFileSync(
      "nsenter",
      [
        "-t",
        String(side.netnsOf),
        "-n",
        peers.path("skopeo"),
        ...copy,
        `docker://${target}`,
        `dir:${folder}`,
      ],
      { env: peers.env, stdio: ["ignore", "ignore", "pipe"] },
    );
    const blob = (digest: string): string => join(folder, digest.slice(7));
    const { config, layers } = JSON.parse(readFileSync(join(folder, "manifest.json"), "utf8")) as {
      config: { digest: string };
      layers: { digest: string }[];
    };
    const { rootfs } = JSON.parse(readFileSync(blob(config.digest), "utf8")) as {
      rootfs: { diff_ids: string[] };
    };
    const found = layers.map(({ digest }) => {
      const [sum = ""] = execFileSync("sh", ["-c", 'gzip -dc "$1" | sha256sum', "sh", blob(digest)], {
        encoding: "utf8",
      }).split(" ");
      return `sha256:${sum}`;
    });
    assert.deepEqual(found, rootfs.diff_ids, side.name);
    assert.equal(config.digest.replace("sha256:", ""), id.replace("sha256:", ""), side.name);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
