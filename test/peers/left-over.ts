import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { call } from "./engine-call.ts";
import type { TestDaemon } from "./skiffd.ts";

function names(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
}

/** Shims and runtimes of this daemon: whoever holds a file below its roots, but for the daemon and its two helpers. */
function processesHolding({ home, child }: TestDaemon): string[] {
  const found: string[] = [];
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name) && Number(name) !== child.pid)) {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
      if (!/^skiff-shim|^\S*(crun|runc) /.test(command)) continue;
      const links = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
      if (command.includes(home) || links.some((link) => link.startsWith(home)))
        found.push(`${pid} ${command}`);
    } catch {
      // It ended meanwhile.
    }
  }
  return found;
}

/** Elements of the daemon's maps of published ports. */
function publishedPorts({ child }: TestDaemon, bridge: string): string[] {
  // The daemon may be in a network namespace of its own.
  const argv = ["-t", String(child.pid), "-n", "nft", "-j", "list", "table", "ip", bridge];
  const { nftables } = JSON.parse(execFileSync("nsenter", argv, { encoding: "utf8" })) as {
    nftables: { map?: { name: string; elem?: unknown[] } }[];
  };
  return nftables.flatMap(({ map }) =>
    (map?.elem ?? []).map((element) => `${map?.name} ${JSON.stringify(element)}`),
  );
}

interface Listed {
  readonly containers: readonly { readonly Id: string }[];
  readonly images: readonly { readonly Id: string }[];
  readonly volumes: readonly { readonly Name: string }[];
}

async function listed(socket: string): Promise<Listed> {
  const containers = await call<{ Id: string }[]>(socket, "GET", "/containers/json?all=1");
  const images = await call<{ Id: string }[]>(socket, "GET", "/images/json?all=1");
  const volumes = await call<{ Volumes: { Name: string }[] }>(socket, "GET", "/volumes");
  return {
    containers: containers.body ?? [],
    images: images.body ?? [],
    volumes: volumes.body?.Volumes ?? [],
  };
}

/** Layers that the images have: what else lies beside them is half made. */
async function layersOf(socket: string, { images }: Listed): Promise<Set<string>> {
  const layers = new Set<string>();
  for (const { Id } of images) {
    const image = await call<{ RootFS: { Layers?: string[] } }>(socket, "GET", `/images/${Id}/json`);
    for (const diffId of image.body?.RootFS.Layers ?? []) layers.add(diffId.replace("sha256:", ""));
  }
  return layers;
}

async function differences(daemon: TestDaemon): Promise<string[]> {
  const { socket, dataRoot, execRoot, home } = daemon;
  const lists = await listed(socket);
  const ids = new Set(lists.containers.map(({ Id }) => Id));
  const layers = await layersOf(socket, lists);
  const volumes = new Set(lists.volumes.map(({ Name }) => Name));
  const found: string[] = [];
  const report = (kind: string, entries: readonly string[], known: (name: string) => boolean): void => {
    for (const entry of entries) if (!known(entry)) found.push(`${kind}: ${entry}`);
  };
  const never = (): boolean => false;
  report("state folder", names(join(dataRoot, "containers")), (name) => ids.has(name));
  report("run folder", names(join(execRoot, "containers")), (name) => ids.has(name));
  report(
    "layer",
    names(join(dataRoot, "overlay2")).filter((name) => !["tmp", "trash"].includes(name)),
    (name) => layers.has(name.replace(/^c-/, "")) || (name.startsWith("w-") && ids.has(name.slice(2))),
  );
  report("layer being made", names(join(dataRoot, "overlay2/tmp")), never);
  report("layer being deleted", names(join(dataRoot, "overlay2/trash")), never);
  report("partial blob", names(join(dataRoot, "content/ingest")), never);
  report("volume folder", names(join(dataRoot, "volumes")), (name) => name === ".trash" || volumes.has(name));
  report("volume being deleted", names(join(dataRoot, "volumes/.trash")), never);
  report("temporary file", names(join(dataRoot, "tmp")), never);
  if (ids.size === 0) {
    const mounts = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
    report(
      "mount",
      mounts.map((line) => line.split(" ")[4] ?? "").filter((path) => path.startsWith(`${home}/`)),
      never,
    );
    report("process", processesHolding(daemon), never);
    const network = await call<{ Options: Record<string, string> }>(socket, "GET", "/networks/bridge");
    const bridge = network.body?.Options["com.docker.network.bridge.name"] ?? "";
    report("published port", publishedPorts(daemon, bridge), never);
  }
  if (lists.images.length === 0) {
    report(
      "blob",
      names(join(dataRoot, "content/blobs")).flatMap((name) => names(join(dataRoot, "content/blobs", name))),
      never,
    );
  }
  return found;
}

export interface LeftOverOptions {
  readonly settleMs?: number;
  /** Partial downloads, which are kept for a while so that the next pull goes on from there. */
  readonly partialsMayStay?: boolean;
}

/**
 * What lies below a daemon's roots or in the kernel and belongs to no container, image or volume that its API lists. What
 * is deleted in the background gets `settleMs`.
 */
export async function leftOver(
  daemon: TestDaemon,
  { settleMs = 15_000, partialsMayStay = false }: LeftOverOptions = {},
): Promise<string[]> {
  const deadline = performance.now() + settleMs;
  for (;;) {
    const all = await differences(daemon);
    const found = all.filter((entry) => !partialsMayStay || !entry.startsWith("partial blob"));
    if (found.length === 0 || performance.now() > deadline) return found;
    await sleep(50);
  }
}
