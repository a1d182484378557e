import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { inspect } from "node:util";
import { silentLog } from "#base/log.ts";
import { findDisagreements } from "#daemon/fsck.ts";
import { leftOver } from "../peers/left-over.ts";
import { ImageKillLab } from "./image-kill-lab.ts";
import { type Phase, phases } from "./image-kill-phases.ts";

/**
 * kill -9 of the daemon in each phase of build, commit, load and push. What the client was told is there afterwards, nothing
 * half made is, a registry's tag never names a blob that it lacks, and the same operation succeeds.
 */
const hitsWanted = process.env["SKIFF_PROVE"] === undefined ? 1 : 5;
const triesMax = 10;

describe(`kill -9 while images are made and sent, ${hitsWanted} in each phase`, () => {
  let round = 0;

  /** One kill. Returns whether it came in the phase. */
  async function play(lab: ImageKillLab, phase: Phase, aim: number): Promise<boolean> {
    round += 1;
    const { daemon } = lab;
    const operation = await phase.prepare(lab, round);
    const before = lab.mortem();
    let outcome: Awaited<ReturnType<typeof operation.run>>;
    {
      using hooks = phase.arm(lab, (delayMs) => lab.kill(delayMs), aim);
      outcome = await operation.run(hooks);
    }
    // Also a daemon that was done before the kill came.
    await daemon.kill();
    const hit = phase.hit({ before, after: lab.mortem(), outcome, operation });
    await daemon.restart();

    for (const id of operation.told(outcome)) await lab.must(200, "GET", `/images/${id}/json`);
    // A name that is there stands for the whole of it, whether the client was told or not.
    const isThere = await operation.exists();
    if (operation.acknowledged(outcome)) await operation.check();
    else if (isThere) await operation.checkBytes();
    assert.deepEqual(await leftOver(daemon), []);
    const left = await lab.must<{ Names: string[] }[]>(200, "GET", "/containers/json?all=1");
    assert.deepEqual(
      left.filter(({ Names }) => !Names.some((name) => name.startsWith("/commit-"))),
      [],
      "containers of steps",
    );

    const again = await operation.run({});
    assert.ok(operation.acknowledged(again), again.text);
    await operation.check();
    await operation.remove();
    return hit;
  }

  test("nothing acknowledged is lost, nothing is left over, and a tag moves last", async () => {
    await using lab = await ImageKillLab.open();
    const begun = lab.diskBytes();
    const counts = new Map<string, number>(phases.map(({ name }) => [name, 0]));
    for (const phase of phases) {
      for (let turn = 0; counts.get(phase.name)! < hitsWanted; turn += 1) {
        assert.ok(turn < hitsWanted * triesMax, `no kill hits the phase ${phase.name}`);
        const aim = (0.3 + turn * 0.618034) % 1;
        try {
          if (await play(lab, phase, aim)) counts.set(phase.name, counts.get(phase.name)! + 1);
        } catch (cause) {
          const where = `${phase.name}, at ${aim.toFixed(2)} of it`;
          // Said at once: what disposal finds afterwards would hide it.
          console.log(`${where}: ${inspect(cause)}`);
          throw new Error(`${where}\n${lab.daemon.log().slice(-2000)}`, { cause });
        }
      }
    }
    console.log(
      `kills: ${round}, of which hit: ${[...counts].map(([name, count]) => `${name} ${count}`).join(", ")}`,
    );

    assert.deepEqual(await leftOver(lab.daemon), []);
    assert.ok(lab.diskBytes() - begun < 64 * 1024, `${lab.diskBytes() - begun} bytes stay`);
    await lab.daemon.stop();
    assert.deepEqual(await findDisagreements({ ...lab.daemon, log: silentLog }), []);
    await lab.daemon.restart();
  });
});
