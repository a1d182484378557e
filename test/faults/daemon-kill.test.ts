import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { silentLog } from "#base/log.ts";
import { findDisagreements } from "#daemon/fsck.ts";
import { busyboxLayout } from "../peers/images.ts";
import { leftOver } from "../peers/left-over.ts";
import { inventory } from "./inventory.ts";
import { bigLayout, KillLab } from "./kill-lab.ts";
import {
  autoRemove,
  create,
  exec,
  exit,
  type Phase,
  pullOf,
  removal,
  start,
  stop,
  write,
} from "./kill-phases.ts";

/**
 * kill -9 of the daemon in the midst of things, again and again. Afterwards nothing acknowledged is lost, nothing ran
 * twice, and the machine is as a daemon leaves it that did the same and was never killed.
 */
const rounds = process.env["SKIFF_PROVE"] === undefined ? 20 : 200;
/** Each phase is to be hit: on a busy machine a kill may come too early or too late. */
const moreMax = 8;

describe(`kill -9 of the daemon, ${rounds} times`, () => {
  let folder: string;
  let layouts: { small: string; big: string };
  let phases: ReadonlyMap<string, Phase>;

  before(() => {
    folder = mkdtempSync(join(tmpdir(), "skiff-kill-"));
    const { layout, checksum } = bigLayout(folder);
    layouts = { small: busyboxLayout(), big: layout };
    phases = new Map<string, Phase>([
      ["create", create],
      ["start", start],
      ["write", write],
      ["exec", exec],
      ["exit", exit],
      ["stop", stop],
      ["remove", removal],
      ["--rm", autoRemove],
      ["pull", pullOf(checksum)],
    ]);
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  /**
   * Goes through the phases in turn, `count` rounds, with a witness beside it that writes lines the whole time; where
   * `until` is given, a phase that no kill has hit gets up to so many rounds more. Returns the hits.
   */
  async function play(lab: KillLab, count: number, until = 0): Promise<Map<string, number>> {
    const hits = new Map<string, number>([...phases.keys()].map((name) => [name, 0]));
    const names = [...phases.keys()];
    const witness = await lab.run("i=0; while :; do i=$((i+1)); echo line $i; usleep 5000; done");
    const { Pid: pid, StartedAt: startedAt } = await lab.state(witness);
    const plan = function* (): Generator<[name: string, turn: number]> {
      for (let round = 0; round < count; round += 1)
        yield [names[round % names.length]!, Math.floor(round / names.length)];
      for (const name of names)
        for (let more = 0; hits.get(name) === 0 && more < until; more += 1)
          yield [name, Math.ceil(count / names.length) + more];
    };
    let round = -1;
    for (const [name, turn] of plan()) {
      round += 1;
      // Spread over the whole without a pattern: multiples of the golden ratio.
      const aim = 0.05 + 0.9 * ((0.5 + turn * 0.618034) % 1);
      try {
        if (await phases.get(name)!(lab, aim, round)) hits.set(name, hits.get(name)! + 1);
        const state = await lab.state(witness);
        assert.deepEqual([state.Running, state.Pid, state.StartedAt], [true, pid, startedAt], "the witness");
      } catch (error) {
        throw new Error(
          `round ${round}, ${name}, at ${aim.toFixed(2)} of it\n${lab.daemon.log().slice(-3000)}`,
          {
            cause: error,
          },
        );
      }
    }
    await lab.must(204, "POST", `/containers/${witness}/kill`);
    const lines = await lab.lines(witness);
    assert.deepEqual(
      lines,
      lines.map((_, index) => `line ${index + 1}`),
    );
    assert.ok(lines.length > 100);
    return hits;
  }

  /** The witness stays through one check of rows against disk; then everything goes. */
  async function settle(lab: KillLab): Promise<string[]> {
    assert.deepEqual(await leftOver(lab.daemon), []);
    await lab.daemon.stop();
    assert.deepEqual(await findDisagreements({ ...lab.daemon, log: silentLog }), []);
    await lab.daemon.restart();
    for (const { Id } of await lab.must<{ Id: string }[]>(200, "GET", "/containers/json?all=1")) {
      await lab.must(204, "DELETE", `/containers/${Id}?v=1`);
    }
    assert.deepEqual(await leftOver(lab.daemon), []);
    await lab.daemon.stop();
    return inventory(lab.daemon);
  }

  test("nothing acknowledged is lost, nothing runs twice, nothing is left over", async () => {
    let reference: string[];
    {
      await using unharmed = await KillLab.open(layouts, { kills: false });
      await play(unharmed, phases.size);
      reference = await settle(unharmed);
    }
    await using lab = await KillLab.open(layouts, { kills: true });
    const hits = await play(lab, rounds, moreMax);
    console.log(`kills that hit: ${[...hits].map(([name, count]) => `${name} ${count}`).join(", ")}`);
    for (const [name, count] of hits) assert.ok(count > 0, `no kill hit the phase ${name}`);
    const left = await settle(lab);
    assert.deepEqual(
      {
        more: left.filter((entry) => !reference.includes(entry)),
        missing: reference.filter((entry) => !left.includes(entry)),
      },
      { more: [], missing: [] },
      "other than what a daemon leaves that was never killed",
    );
  });
});
