import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { allStreams, demultiplex, Rig, readAll, runToEnd } from "./shim-rig.ts";

let rig: Rig;

before(async () => {
  rig = await Rig.start();
});

after(async () => {
  const left = await rig.leftOver();
  await rig[Symbol.asyncDispose]();
  assert.deepEqual(left, []);
});

describe("the root filesystem", () => {
  it("is an overlay of 127 layers, the top one first", async () => {
    const layers: string[] = [];
    for (let i = 0; i < 126; i += 1) {
      // Characters that overlay's own option syntax would trip over.
      const layer = join(rig.root, "layers", `${"x".repeat(100)}:,\\ ${i}`);
      mkdirSync(layer, { recursive: true });
      writeFileSync(join(layer, `file-${i}`), `${i}`);
      writeFileSync(join(layer, "common"), `${i}`);
      layers.push(layer);
    }
    const container = rig.container(
      { args: ["sh", "-c", "cat /common; echo; ls / | grep -c file-; touch /new"] },
      { lowerDirs: [...layers, rig.layer] },
    );
    const run = await runToEnd(rig.host, container);
    assert.equal(demultiplex(run.output).stdout, "0\n126\n");
    assert.ok(existsSync(join(container.launch.upperDir, "new")));
  });

  it("is the upper directory alone when there are no layers", async () => {
    const container = rig.container({ args: ["sh", "-c", "echo made > /made"] }, { lowerDirs: [] });
    spawnSync("cp", ["-a", `${rig.layer}/.`, container.launch.upperDir]);
    const run = await runToEnd(rig.host, container);
    assert.equal(run.exitCode, 0);
    assert.equal(readFileSync(join(container.launch.upperDir, "made"), "utf8"), "made\n");
  });

  for (const volatile of [true, false]) {
    it(`keeps what was written for the next run (volatile ${volatile})`, async () => {
      const args = ["sh", "-c", "echo x >> /lines; wc -l < /lines"];
      const container = rig.container({ args }, { volatile });
      for (const expected of ["1\n", "2\n"]) {
        const run = await runToEnd(rig.host, container);
        assert.equal(demultiplex(run.output).stdout, expected);
      }
    });
  }

  it("is seen by the daemon through the shim and not in the host's mounts", async () => {
    const container = rig.container({ args: ["sleep", "100"] });
    const shim = await rig.host.launch(container.launch);
    writeFileSync(join(rig.layer, "probe"), "seen");
    assert.equal(readFileSync(`/proc/${shim.shimPid}/root${shim.rootfsPath}/probe`, "utf8"), "seen");
    await shim.start();
    assert.equal(readFileSync(`/proc/${shim.pid}/root/probe`, "utf8"), "seen");
    assert.doesNotMatch(readFileSync("/proc/self/mountinfo", "utf8"), new RegExp(container.id));
    await shim.signal(9);
    await shim.exited;
  });
});

/**
 * On systemd hosts `/` is shared. A script runs in a mount namespace where everything is: it makes a tmpfs for the exec
 * root, as /run is one, and a peer namespace that plays the host.
 */
describe("where the host's mounts are shared", () => {
  it("nothing of the shim shows, and rshared and rslave binds work", { timeout: 60_000 }, async () => {
    const child = spawn(
      "unshare",
      ["--mount", "--propagation", "shared", process.execPath, propagationScript],
      {
        stdio: ["ignore", "pipe", "inherit"],
      },
    );
    let text = "";
    child.stdout.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    const [code] = (await once(child, "close")) as [number];
    assert.equal(code, 0, text);
    assert.deepEqual(JSON.parse(text), {
      hostChanged: [],
      fromHost: { rslave: "host\n", rshared: "host\n", rprivate: "" },
      fromContainer: { rslave: false, rshared: true, rprivate: false },
    });
  });
});

const propagationScript = join(import.meta.dirname, "shim-propagation.ts");

describe("two containers", () => {
  it("do not see each other's root filesystem", async () => {
    const first = rig.container({ args: ["sleep", "100"] });
    const shim = await rig.host.launch(first.launch);
    await shim.start();
    const second = rig.container({ args: ["sh", "-c", "cat /proc/self/mountinfo"] });
    const other = await rig.host.launch(second.launch);
    const output = readAll(await other.attach(allStreams));
    await other.start();
    await other.exited;
    assert.doesNotMatch(demultiplex(await output).stdout, new RegExp(first.id));
    await shim.signal(9);
    await shim.exited;
    chmodSync(first.runDir, 0o700);
  });
});
