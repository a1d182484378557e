import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { call } from "../peers/engine-call.ts";
import type { KillLab, Sent } from "./kill-lab.ts";

/**
 * What is under way when the daemon is killed, and what must be true afterwards. Each runs once a round and says whether
 * the kill hit it: a request was unanswered, a writer had lines left, an exit happened while there was no daemon.
 * `aim`, above 0 and below 1, says how far into it the kill comes.
 */
export type Phase = (lab: KillLab, aim: number, round: number) => Promise<boolean>;

/** Requests at once: they are at different places when the daemon dies. */
const together = 3;

const indexes = Array.from({ length: together }, (_, index) => index);
const durations = new WeakMap<KillLab, Map<string, number>>();

/** How long something takes that nobody disturbs, in milliseconds: measured once a daemon, to aim into. */
async function durationOf(lab: KillLab, phase: string, measure: () => Promise<number>): Promise<number> {
  const known = durations.get(lab) ?? new Map<string, number>();
  durations.set(lab, known);
  const lasts = known.get(phase) ?? (await measure());
  known.set(phase, lasts);
  return lasts;
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

function allAnswered(sent: () => readonly Sent[]): Promise<number> {
  return timed(() => Promise.all(sent().map(({ answer }) => answer)));
}

function anyUnanswered(sent: readonly Sent[]): () => boolean {
  return () => sent.some((request) => !request.answered());
}

async function remove(lab: KillLab, id: string): Promise<void> {
  await lab.must(204, "DELETE", `/containers/${id}?force=1&v=1`);
}

/** A create without an answer left a whole container or none, and its name accordingly taken or free. */
export const create: Phase = async (lab, aim, round) => {
  const post = (name: string): Sent =>
    lab.send("POST", `/containers/create?name=${name}`, lab.body("exit 3", { volume: true }));
  const lasts = await durationOf(lab, "create", async () => {
    const measured = indexes.map((index) => `measure-create-${index}`);
    const ms = await allAnswered(() => measured.map(post));
    for (const name of measured) await remove(lab, name);
    return ms;
  });
  const names = indexes.map((index) => `create-${round}-${index}`);
  const sent = names.map(post);
  const hit = await lab.crash(aim * lasts, anyUnanswered(sent));
  for (const [index, name] of names.entries()) {
    const answer = await sent[index]!.answer;
    const found = await lab.find(name);
    if (answer !== undefined) {
      assert.equal(answer.status, 201, answer.text);
      assert.equal(found?.Id, (answer.body as { Id: string }).Id, "an acknowledged container is lost");
    }
    if (found === undefined) await lab.create("exit 3", { name, volume: true });
    else assert.equal(found.State.Status, "created");
    await lab.must(204, "POST", `/containers/${name}/start`);
    assert.equal((await lab.ended(name)).ExitCode, 3);
    await remove(lab, name);
  }
  return hit;
};

/** A start without an answer happened once or not at all, and the container says which. */
export const start: Phase = async (lab, aim) => {
  const script = "echo began; exit 17";
  const post = (id: string): Sent => lab.send("POST", `/containers/${id}/start`);
  const lasts = await durationOf(lab, "start", async () => {
    const ids = await Promise.all(indexes.map(() => lab.create(script)));
    const ms = await allAnswered(() => ids.map(post));
    for (const id of ids) await remove(lab, id);
    return ms;
  });
  const ids = await Promise.all(indexes.map(() => lab.create(script)));
  const sent = ids.map(post);
  const hit = await lab.crash(aim * lasts, anyUnanswered(sent));
  for (const [index, id] of ids.entries()) {
    const answer = await sent[index]!.answer;
    const state = await lab.ended(id);
    const began = (await lab.lines(id)).length;
    assert.ok(began <= 1, `started ${began} times`);
    if (answer !== undefined) assert.deepEqual([answer.status, began], [204, 1], answer.text);
    if (began === 1) assert.deepEqual([state.Status, state.ExitCode], ["exited", 17]);
    else {
      assert.deepEqual(
        [state.Status, state.ExitCode],
        ["created", 0],
        "it did not run, and says that it did",
      );
      await lab.must(204, "POST", `/containers/${id}/start`);
      assert.equal((await lab.ended(id)).ExitCode, 17);
      assert.deepEqual(await lab.lines(id), ["began"]);
    }
    await remove(lab, id);
  }
  return hit;
};

const linesWritten = 300;

/** A writer of numbered lines goes on while there is no daemon: no line lost or doubled, the same process. */
export const write: Phase = async (lab, aim) => {
  const script = `i=0; while [ $i -lt ${linesWritten} ]; do i=$((i+1)); echo line $i; usleep 1000; done; exit 23`;
  const lasts = await durationOf(lab, "write", async () => {
    const id = await lab.run(script);
    const ms = await timed(() => lab.ended(id));
    await remove(lab, id);
    return ms;
  });
  const id = await lab.run(script);
  const { Pid: pid } = await lab.state(id);
  const before = await lab.crash(aim * lasts, () => lab.linesWritten(id));
  const after = await lab.state(id);
  if (after.Running) assert.equal(after.Pid, pid, "another process runs");
  const state = await lab.ended(id);
  assert.deepEqual([state.Status, state.ExitCode], ["exited", 23]);
  assert.deepEqual(
    await lab.lines(id),
    Array.from({ length: linesWritten }, (_, index) => `line ${index + 1}`),
  );
  await remove(lab, id);
  return before < linesWritten;
};

/** An exec runs at most once; its container lives on, the same process, and takes the next exec. */
export const exec: Phase = async (lab, aim) => {
  const begin = async (id: string): Promise<Sent> => {
    const made = await lab.must<{ Id: string }>(201, "POST", `/containers/${id}/exec`, {
      Cmd: ["sh", "-c", "echo once >> /ran; usleep 5000; echo began"],
      AttachStdout: true,
    });
    return lab.send("POST", `/exec/${made.Id}/start`, { Detach: false });
  };
  const id = await lab.run("sleep 600");
  const { Pid: pid } = await lab.state(id);
  const lasts = await durationOf(lab, "exec", async () => {
    const sent = await Promise.all(indexes.map(() => begin(id)));
    const ms = await allAnswered(() => sent);
    await lab.exec(id, "rm /ran");
    return ms;
  });
  const sent = await Promise.all(indexes.map(() => begin(id)));
  const hit = await lab.crash(aim * lasts, anyUnanswered(sent));
  const state = await lab.state(id);
  assert.deepEqual([state.Running, state.Pid], [true, pid], "the container died with the daemon");
  const answers = await Promise.all(sent.map(({ answer }) => answer));
  // The stream's end does not tell a whole answer from a cut one; the last line does.
  const whole = answers.filter((answer) => answer?.text.includes("began\n") === true).length;
  // Those under way come to their end; each runs for some milliseconds.
  await lab.until("the execs' end", async () =>
    (await lab.exec(id, "ps | grep -c '[o]nce >>'")) === "0" ? true : undefined,
  );
  const ran = Number(await lab.exec(id, "cat /ran 2>/dev/null | wc -l"));
  assert.ok(ran >= whole && ran <= together, `${together} execs ran ${ran} times, ${whole} were answered`);
  await remove(lab, id);
  return hit;
};

/** Containers that end while there is no daemon: every exit code is right, and the time is the end's. */
export const exit: Phase = async (lab, aim, round) => {
  const codes = indexes.map((index) => 1 + ((round * together + index) % 120));
  const ids = await Promise.all(
    codes.map((code, index) => lab.run(`usleep ${80_000 + index * 30_000}; exit ${code}`)),
  );
  const killedAt = { ms: 0 };
  await lab.crash(
    aim * 80,
    () => {
      killedAt.ms = Date.now();
    },
    170,
  );
  const restartedAt = Date.now();
  let hits = 0;
  for (const [index, id] of ids.entries()) {
    const state = await lab.ended(id);
    assert.deepEqual([state.Status, state.ExitCode], ["exited", codes[index]]);
    const finished = Date.parse(state.FinishedAt);
    assert.ok(finished <= restartedAt + 50 && finished > Date.parse(state.StartedAt), state.FinishedAt);
    // The restart takes longer than this: who ended in it ended without a daemon.
    if (finished >= killedAt.ms && finished <= killedAt.ms + 170) hits += 1;
    await remove(lab, id);
  }
  return hits > 0;
};

/** A stop without an answer reached the container or did not; asked again it stops. */
export const stop: Phase = async (lab, aim) => {
  const script = "trap 'usleep 20000; exit 5' TERM; echo began; while :; do usleep 2000; done";
  const ready = async (): Promise<string> => {
    const id = await lab.run(script);
    await lab.until("its trap", async () => ((await lab.lines(id)).length > 0 ? true : undefined));
    return id;
  };
  const post = (id: string): Sent => lab.send("POST", `/containers/${id}/stop?t=5`);
  const lasts = await durationOf(lab, "stop", async () => {
    const id = await ready();
    const ms = await allAnswered(() => [post(id)]);
    await remove(lab, id);
    return ms;
  });
  const id = await ready();
  const sent = post(id);
  const hit = await lab.crash(aim * lasts, anyUnanswered([sent]));
  const answer = await sent.answer;
  if (answer !== undefined) assert.equal(answer.status, 204, answer.text);
  if (answer !== undefined)
    assert.equal((await lab.state(id)).Running, false, "an acknowledged stop is lost");
  const again = await call(lab.daemon.socket, "POST", `/containers/${id}/stop?t=5`);
  assert.ok([204, 304].includes(again.status), again.text);
  const state = await lab.state(id);
  assert.deepEqual([state.Status, state.ExitCode], ["exited", 5]);
  await remove(lab, id);
  return hit;
};

/** A forced removal without an answer: the container is there, whole, or nothing of it is. */
export const removal: Phase = async (lab, aim) => {
  const destroy = (id: string): Sent => lab.send("DELETE", `/containers/${id}?force=1&v=1`);
  const lasts = await durationOf(lab, "remove", async () => {
    const ids = await Promise.all(indexes.map(() => lab.run("sleep 600", { volume: true })));
    return allAnswered(() => ids.map(destroy));
  });
  const ids = await Promise.all(indexes.map(() => lab.run("sleep 600", { volume: true })));
  const sent = ids.map(destroy);
  const hit = await lab.crash(aim * lasts, anyUnanswered(sent));
  for (const [index, id] of ids.entries()) {
    const answer = await sent[index]!.answer;
    const found = await lab.find(id);
    if (answer !== undefined)
      assert.deepEqual([answer.status, found], [204, undefined], "a removed one is back");
    if (found === undefined) continue;
    assert.ok(["running", "exited"].includes(found.State.Status), found.State.Status);
    await remove(lab, id);
  }
  return hit;
};

/** `--rm`: whoever is the daemon when the container ends, or after, removes it and its anonymous volume. */
export const autoRemove: Phase = async (lab, aim) => {
  const options = { host: { AutoRemove: true }, volume: true };
  const started = performance.now();
  const ids = await Promise.all(
    indexes.map((index) => lab.run(`usleep ${20_000 + index * 20_000}; exit 4`, options)),
  );
  const took = performance.now() - started;
  const there = (id: string): boolean => existsSync(join(lab.daemon.dataRoot, "containers", id));
  const hit = await lab.crash(aim * (60 + took * 0.2), () => ids.some(there), 20);
  for (const id of ids) {
    await lab.until(`the removal of ${id}`, async () =>
      (await lab.find(id)) === undefined ? true : undefined,
    );
  }
  return hit;
};

/** A pull without an answer shows nothing half made; pulled again the image is whole. */
export function pullOf(checksum: string): Phase {
  return async (lab, aim) => {
    const path = `/images/create?fromImage=${encodeURIComponent(lab.bigImage)}`;
    const lasts = await durationOf(lab, "pull", async () => {
      const ms = await allAnswered(() => [lab.send("POST", path)]);
      await lab.must(200, "DELETE", `/images/${lab.bigImage}`);
      return ms;
    });
    const sent = lab.send("POST", path);
    const hit = await lab.crash(aim * lasts, anyUnanswered([sent]));
    const answer = await sent.answer;
    const listed = await lab.must<{ RepoTags: string[] }[]>(200, "GET", "/images/json");
    const there = listed.some(({ RepoTags }) => RepoTags.includes(lab.bigImage));
    if (answer !== undefined && !hit) assert.ok(there, "an acknowledged image is lost");
    if (!there) await lab.pull(lab.bigImage);
    const { Id: id } = await lab.must<{ Id: string }>(201, "POST", "/containers/create", {
      Image: lab.bigImage,
    });
    await lab.must(204, "POST", `/containers/${id}/start`);
    assert.equal((await lab.ended(id)).ExitCode, 0);
    assert.deepEqual(await lab.lines(id), [`${checksum}  -`]);
    await remove(lab, id);
    await lab.must(200, "DELETE", `/images/${lab.bigImage}`);
    return hit;
  };
}
