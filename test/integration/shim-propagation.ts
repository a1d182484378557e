import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { allStreams, demultiplex, execLaunch, Rig, readAll } from "./shim-rig.ts";

/**
 * Run by shim-mounts.test.ts in a mount namespace whose mounts are all shared; prints what it saw as JSON. The namespace
 * it runs in plays the host: anything that the shim's mounts or unmounts would send there shows in its mountinfo.
 */
const kinds = ["rslave", "rshared", "rprivate"] as const;

function mount(...args: string[]): void {
  const done = spawnSync("mount", args, { encoding: "utf8" });
  if (done.status !== 0) throw new Error(`mount ${args.join(" ")}: ${done.stderr}`);
}

function hostMounts(): string[] {
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "");
}

const volumes = mkdtempSync(join(tmpdir(), "skiff-propagation-"));
mount("-t", "tmpfs", "none", volumes);
mount("--make-shared", volumes);
for (const kind of kinds) {
  mkdirSync(join(volumes, kind));
  mkdirSync(join(volumes, kind, "host"));
  mkdirSync(join(volumes, kind, "container"));
}
// The exec root has a file system of its own, as /run is one.
const rig = await Rig.start((execRoot) => {
  mount("-t", "tmpfs", "none", execRoot);
  mount("--make-shared", execRoot);
});
const mounts = kinds.map((kind) => ({
  destination: `/${kind}`,
  type: "bind",
  source: join(volumes, kind),
  options: ["rbind", kind],
}));
const before = hostMounts();
const container = rig.container({ args: ["sleep", "100"], mounts, rootfsPropagation: "shared" });
const shim = await rig.host.launch(container.launch);
await shim.start();
const hostChanged = hostMounts().filter((path) => !before.includes(path));
const gone = before.filter((path) => !hostMounts().includes(path));

async function inside(script: string): Promise<string> {
  // All capabilities: the script mounts.
  const all = (1n << 41n) - 1n;
  const capabilities = { bounding: all, effective: all, permitted: all, inheritable: 0n, ambient: 0n };
  const child = await shim.exec(execLaunch(["sh", "-c", script], { capabilities }), { attach: allStreams });
  if (child.stdio === undefined) throw new Error("no stdio");
  const { stdout, stderr } = demultiplex(await readAll(child.stdio));
  if (stderr !== "") process.stderr.write(stderr);
  return stdout;
}

const fromHost: Record<string, string> = {};
const fromContainer: Record<string, boolean> = {};
for (const kind of kinds) {
  mount("-t", "tmpfs", "none", join(volumes, kind, "host"));
  writeFileSync(join(volumes, kind, "host", "from"), "host\n");
  fromHost[kind] = await inside(`cat /${kind}/host/from 2>/dev/null`);
  await inside(`mount -t tmpfs none /${kind}/container && echo x > /${kind}/container/from`);
  fromContainer[kind] = existsSync(join(volumes, kind, "container", "from"));
}
await shim.signal(9);
await shim.exited;
await rig.leftOver();
await rig[Symbol.asyncDispose]();
spawnSync("umount", ["-R", volumes]);
rmSync(volumes, { recursive: true, force: true });
process.stdout.write(JSON.stringify({ hostChanged: [...hostChanged, ...gone], fromHost, fromContainer }));
