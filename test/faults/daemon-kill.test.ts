import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { call } from "../peers/engine-call.ts";
import { busyboxLayout, pushLayout } from "../peers/images.ts";
import { leakReport, snapshotHost } from "../peers/leaks.ts";
import { type PeerRegistry, startRegistry } from "../peers/registry.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";

/**
 * kill -9 of the daemon in the midst of things. A kill counts for a phase only when it hit it: the request was not
 * answered yet, the writer had lines left, the exit happened while nobody listened.
 */
const rounds = process.env["SKIFF_PROVE"] === undefined ? 20 : 200;
const phases = ["create", "start", "write", "exec", "exit"] as const;
type Phase = (typeof phases)[number];

interface State {
  readonly Status: string;
  readonly Running: boolean;
  readonly ExitCode: number;
  readonly Pid: number;
  readonly FinishedAt: string;
  readonly StartedAt: string;
}

/** An answer, or undefined when the daemon died before it came. */
type MaybeAnswer = Awaited<ReturnType<typeof call>> | undefined;

describe(`kill -9 of the daemon, ${rounds} times`, () => {
  let daemon: TestDaemon;
  let registry: PeerRegistry;
  let image: string;
  const hits = new Map<Phase, number>(phases.map((phase) => [phase, 0]));

  const send = (method: string, path: string, body?: unknown): Promise<MaybeAnswer> =>
    call(daemon.socket, method, path, body).catch(() => undefined);
  const must = async <T>(status: number, method: string, path: string, body?: unknown): Promise<T> => {
    const answer = await call<T>(daemon.socket, method, path, body);
    assert.equal(answer.status, status, `${method} ${path}: ${answer.text}`);
    return answer.body as T;
  };
  const create = async (script: string, name?: string): Promise<string> => {
    const query = name === undefined ? "" : `?name=${name}`;
    const made = await must<{ Id: string }>(201, "POST", `/containers/create${query}`, {
      Image: image,
      Cmd: ["sh", "-c", script],
    });
    return made.Id;
  };
  const stateOf = async (id: string): Promise<State> =>
    (await must<{ State: State }>(200, "GET", `/containers/${id}/json`)).State;
  const linesOf = async (id: string): Promise<string[]> => {
    const answer = await call(daemon.socket, "GET", `/containers/${id}/logs?stdout=1`);
    // Frames of one line each: 8 bytes of header, then the line.
    return [...answer.text.matchAll(/(line \d+|began|end)\n/g)].map((match) => match[1]!);
  };
  const ended = async (id: string): Promise<State> => {
    const deadline = performance.now() + 20_000;
    for (;;) {
      const state = await stateOf(id);
      if (!state.Running) return state;
      assert.ok(performance.now() < deadline, `container ${id} did not end`);
      await sleep(20);
    }
  };
  const crash = async (downMs: number): Promise<void> => {
    await daemon.kill();
    await sleep(downMs);
    await daemon.restart();
  };
  const hit = (phase: Phase): void => {
    hits.set(phase, (hits.get(phase) ?? 0) + 1);
  };

  before(async () => {
    registry = await startRegistry();
    daemon = await startSkiffd();
    image = `${registry.address}/busybox:latest`;
    pushLayout(busyboxLayout(), image);
    await must(200, "POST", `/images/create?fromImage=${encodeURIComponent(image)}`);
  });
  after(async () => {
    await daemon?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
  });

  /** A create without an answer left a whole container or none; the name is free or taken accordingly. */
  async function killInCreate(round: number): Promise<void> {
    const name = `create-${round}`;
    const answer = send("POST", `/containers/create?name=${name}`, { Image: image, Cmd: ["true"] });
    await sleep((round % 7) * 0.5);
    await crash(0);
    const answered = await answer;
    if (answered === undefined) hit("create");
    const found = await call<{ Id: string }>(daemon.socket, "GET", `/containers/${name}/json`);
    if (answered !== undefined) assert.equal(found.status, 200, "an acknowledged container is lost");
    if (found.status === 200) {
      await must(204, "POST", `/containers/${name}/start`);
      assert.equal((await ended(name)).ExitCode, 0);
      await must(204, "DELETE", `/containers/${name}`);
    } else {
      await create("true", name);
      await must(204, "DELETE", `/containers/${name}`);
    }
  }

  /** A start without an answer happened once or not at all, and says which. */
  async function killInStart(round: number): Promise<void> {
    const id = await create("echo began; exit 17");
    const answer = send("POST", `/containers/${id}/start`);
    await sleep((round % 9) * 2);
    await crash(0);
    const answered = await answer;
    if (answered === undefined) hit("start");
    const state = await ended(id);
    const began = (await linesOf(id)).filter((line) => line === "began").length;
    if (answered?.status === 204) assert.equal(began, 1, "an acknowledged start is lost");
    assert.ok(began <= 1, `started ${began} times`);
    if (began === 1) assert.deepEqual([state.Status, state.ExitCode], ["exited", 17]);
    else assert.ok(["created", "exited"].includes(state.Status), state.Status);
    await must(204, "DELETE", `/containers/${id}`);
  }

  /** A writer of numbered lines goes on while the daemon is dead: no line lost or doubled, same process. */
  async function killInWrite(round: number): Promise<void> {
    const count = 400;
    const id = await create(
      `i=0; while [ $i -lt ${count} ]; do i=$((i+1)); echo line $i; usleep 1000; done; exit 23`,
    );
    await must(204, "POST", `/containers/${id}/start`);
    const { Pid: pid } = await stateOf(id);
    await sleep(20 + (round % 5) * 20);
    const before = (await linesOf(id)).length;
    await crash(30);
    const after = await stateOf(id);
    if (after.Running) assert.equal(after.Pid, pid, "the container was restarted");
    const state = await ended(id);
    assert.equal(state.ExitCode, 23);
    const lines = await linesOf(id);
    assert.deepEqual(
      lines,
      Array.from({ length: count }, (_, index) => `line ${index + 1}`),
    );
    if (before > 0 && before < count) hit("write");
    await must(204, "DELETE", `/containers/${id}`);
  }

  /** An exec runs at most once; the container lives on and takes the next exec. */
  async function killInExec(round: number): Promise<void> {
    const id = await create("sleep 600");
    await must(204, "POST", `/containers/${id}/start`);
    const exec = await must<{ Id: string }>(201, "POST", `/containers/${id}/exec`, {
      Cmd: ["sh", "-c", "echo once >> /ran; sleep 0.05"],
      AttachStdout: true,
    });
    const answer = send("POST", `/exec/${exec.Id}/start`, { Detach: false });
    await sleep(1 + (round % 6) * 3);
    await crash(0);
    const answered = await answer;
    if (answered === undefined) hit("exec");
    assert.equal((await stateOf(id)).Running, true, "the container died with the daemon");
    await sleep(100);
    const check = await must<{ Id: string }>(201, "POST", `/containers/${id}/exec`, {
      Cmd: ["sh", "-c", "cat /ran | wc -l"],
      AttachStdout: true,
    });
    const shown = await call(daemon.socket, "POST", `/exec/${check.Id}/start`, { Detach: false });
    const ran = Number(shown.text.replace(/[^\d]/g, "") || "0");
    assert.ok(ran <= 1, `the exec ran ${ran} times`);
    if (answered !== undefined) assert.equal(ran, 1, "an acknowledged exec is lost");
    await must(204, "DELETE", `/containers/${id}?force=1`);
  }

  /** Containers that exit while nobody listens: every exit code is right. */
  async function killInExit(round: number): Promise<void> {
    const code = 1 + (round % 100);
    const id = await create(`usleep 120000; exit ${code}`);
    await must(204, "POST", `/containers/${id}/start`);
    await daemon.kill();
    const killedAt = Date.now();
    await sleep(250);
    const restartedAt = Date.now();
    await daemon.restart();
    const state = await ended(id);
    assert.equal(state.ExitCode, code);
    const finished = Date.parse(state.FinishedAt);
    if (finished >= killedAt && finished <= restartedAt) hit("exit");
    await must(204, "DELETE", `/containers/${id}`);
  }

  const actions: Readonly<Record<Phase, (round: number) => Promise<void>>> = {
    create: killInCreate,
    start: killInStart,
    write: killInWrite,
    exec: killInExec,
    exit: killInExit,
  };

  test("nothing acknowledged is lost, nothing runs twice, nothing is left over", async (context) => {
    const baseline = await snapshotHost();
    const witness = await create("sleep 3600", "witness");
    await must(204, "POST", `/containers/${witness}/start`);
    const { Pid: witnessPid } = await stateOf(witness);
    for (let round = 0; round < rounds; round += 1) {
      const phase = phases[round % phases.length]!;
      await actions[phase](Math.floor(round / phases.length));
      const state = await stateOf("witness");
      assert.deepEqual(
        [state.Running, state.Pid],
        [true, witnessPid],
        `the witness after round ${round} (${phase})`,
      );
    }
    await must(204, "DELETE", "/containers/witness?force=1");
    context.diagnostic(
      `kills that hit: ${[...hits].map(([phase, count]) => `${phase} ${count}`).join(", ")}`,
    );
    console.log(`kills that hit: ${[...hits].map(([phase, count]) => `${phase} ${count}`).join(", ")}`);
    for (const [phase, count] of hits) assert.ok(count > 0, `no kill hit the phase ${phase}`);
    const left = (await leakReport(baseline)).filter(
      (line) => !/daemon\/main\.ts|skiff-native netns-pool|skiff-native launcher/.test(line),
    );
    // The daemon itself was there before and has another pid now; its pool's namespaces change.
    assert.deepEqual(
      left.filter((line) => /^(mount|cgroup|nft table|link)/.test(line) && !/veth|sk[a-z0-9]+-/.test(line)),
      [],
    );
    const containers = await must<unknown[]>(200, "GET", "/containers/json?all=1");
    assert.deepEqual(containers, []);
  });
});
