/** What a client gets for a wrong request, on our daemon and on Docker's, and that nothing half made stays. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { type Client, clientPrograms, createClient } from "../clients/real-lab.ts";
import { startDockerd } from "../peers/dockerd.ts";
import { call } from "../peers/engine-call.ts";
import { busyboxRoot, tarOf } from "../peers/images.ts";
import { leftOver } from "../peers/left-over.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";

interface Case {
  readonly what: string;
  readonly method: string;
  readonly path: string;
  readonly body: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly answer: string;
  readonly reference: string;
}

function parseCase(block: string): Case {
  const lines = block.split("\n");
  const [method, path, ...body] = lines[1]!.split(" ");
  const header = /^([A-Z][\w-]+): (.*)$/.exec(lines[2] ?? "");
  const answer = lines[header === null ? 2 : 3]!;
  const reference = lines.find((line) => line.startsWith("~ "))?.slice(2) ?? answer;
  return {
    what: lines[0]!.slice(2),
    method: method!,
    path: path!,
    body: body.length === 0 ? undefined : body.join(" "),
    headers: header === null ? {} : { [header[1]!]: header[2]! },
    answer,
    reference,
  };
}

const golden = readFileSync(join(import.meta.dirname, "../golden/bad-input.txt"), "utf8");
const cases = golden
  .split("\n\n")
  .map((block) => block.trim())
  .filter((block) => block.startsWith("# "))
  .map(parseCase);

interface Engine {
  readonly socket: string;
  readonly client: Client;
  readonly image: string;
  readonly ambiguous: string;
}

/** An image, a running container with a volume, a created one, and two whose ids begin alike. */
async function prepare(socket: string, folder: string, archive: Buffer): Promise<Engine> {
  const client = createClient(clientPrograms[0], `unix://${socket}`, folder);
  const query = `fromSrc=-&repo=busybox&tag=latest&changes=${encodeURIComponent('CMD ["sh"]')}`;
  const type = { "Content-Type": "application/x-tar" };
  const imported = await call(socket, "POST", `/images/create?${query}`, archive, type);
  assert.equal(imported.status, 200, imported.text);
  await client.out("run", "-d", "--name", "bad-run", "-v", "bad-volume:/v", "busybox", "sleep", "1000");
  await client.out("create", "--name", "bad-stop", "busybox", "true");
  const firsts = new Set<string>();
  let ambiguous = "";
  while (ambiguous === "") {
    const first = (await client.out("create", "busybox", "true")).slice(0, 1);
    if (firsts.has(first)) ambiguous = first;
    firsts.add(first);
  }
  const image = await client.out("inspect", "-f", "{{.Id}}", "busybox");
  return { socket, client, image, ambiguous };
}

/** Everything that a wrong request could leave behind and that the API shows. */
async function inventory({ socket }: Engine): Promise<unknown> {
  const paths = ["/containers/json?all=1", "/images/json?all=1", "/volumes", "/networks"];
  const bodies = await Promise.all(paths.map((path) => call<unknown>(socket, "GET", path)));
  return bodies.map(({ text }) =>
    [...text.matchAll(/"(?:Id|Name|Names|State)":("[^"]*"|\[[^\]]*\])/g)].map(String).sort(),
  );
}

async function ask(engine: Engine, { method, path, body, headers }: Case): Promise<string> {
  const real = path.replace("{image}", engine.image).replace("{ambiguous}", engine.ambiguous);
  const answer = await call<{ message?: string }>(engine.socket, method, real, body, headers);
  const text = answer.status === 201 ? "" : (answer.body?.message ?? answer.text).trim();
  return `${answer.status} ${text}`
    .trim()
    .replaceAll(/\b[0-9a-f]{64}\b/g, "ID")
    .replaceAll(/\b[0-9a-f]{12}\b/g, "SHORT")
    .replace(/(prefix: )[0-9a-f]$/, "$1{ambiguous}");
}

const resources = new AsyncDisposableStack();
let ours: Engine;
let theirs: Engine;
let daemon: TestDaemon;

before(async () => {
  const folder = mkdtempSync(join(tmpdir(), "skiff-bad-"));
  resources.defer(() => rmSync(folder, { recursive: true, force: true }));
  const root = mkdtempSync(join(folder, "root-"));
  busyboxRoot(root);
  const archive = tarOf(root);
  daemon = resources.use(await startSkiffd());
  const docker = resources.use(await startDockerd());
  ours = await prepare(daemon.socket, folder, archive);
  theirs = await prepare(docker.socket, folder, archive);
});
after(() => resources.disposeAsync());

describe("wrong requests", () => {
  for (const wrong of cases) {
    test(wrong.what, async () => {
      const before = await inventory(ours);
      assert.equal(await ask(ours, wrong), wrong.answer, "our daemon");
      if (!wrong.answer.startsWith("201")) assert.deepEqual(await inventory(ours), before);
      if (wrong.reference !== "not asked") {
        assert.equal(await ask(theirs, wrong), wrong.reference, "the reference");
      }
      for (const { socket } of [ours, theirs]) await call(socket, "DELETE", "/containers/bad-a?force=1&v=1");
    });
  }

  test("leave nothing half made", async () => {
    assert.deepEqual(await leftOver(daemon), []);
  });

  test("start of a running container makes no second process", async () => {
    const pid = await ours.client.out("inspect", "-f", "{{.State.Pid}} {{.State.StartedAt}}", "bad-run");
    for (let time = 0; time < 3; time += 1) {
      assert.equal((await call(ours.socket, "POST", "/containers/bad-run/start")).status, 304);
    }
    assert.equal(await ours.client.out("start", "bad-run"), "bad-run");
    assert.equal(
      await ours.client.out("inspect", "-f", "{{.State.Pid}} {{.State.StartedAt}}", "bad-run"),
      pid,
    );
    assert.equal((await ours.client.out("top", "bad-run")).split("\n").length, 2);
  });
});

/** Command lines, their exit code, what the message holds, and the exit code before Docker 23 told 127 from 126 in exec. */
const commandLines: readonly (readonly [words: string, code: number, message: RegExp, older?: number])[] = [
  ["run --rm --pull never bad-nope", 125, /No such image: bad-nope:latest/],
  [
    "run --rm --name bad-run busybox true",
    125,
    /Conflict\. The container name "\/bad-run" is already in use/,
  ],
  ["run --rm UPPER", 125, /invalid reference format: repository name .*must be lowercase/],
  ["run --rm --name a/b busybox true", 125, /Invalid container name \(a\/b\), only/],
  ["run --rm busybox nope", 127, /exec: "nope": executable file not found in \$PATH/],
  ["run --rm busybox /nope", 127, /exec: "\/nope": stat \/nope: no such file or directory/],
  ["run --rm busybox /etc", 126, /exec: "\/etc": (is a directory|permission denied)/],
  ["run --rm busybox /etc/passwd", 126, /exec: "\/etc\/passwd": permission denied/],
  ["run --rm -w /etc/passwd busybox true", 125, /not a directory/i],
  ["run --rm --memory 1m busybox true", 125, /Minimum memory limit allowed is 6MB/],
  ["run --rm --tmpfs /t:zz busybox true", 125, /invalid tmpfs option|unsupported|zz/],
  ["run --rm --network bad-nope busybox true", 125, /network bad-nope not found/],
  ["run --rm --network container:bad-nope busybox true", 125, /No such container: bad-nope/],
  [
    "run --rm --network container:bad-stop busybox true",
    125,
    /cannot join network of a non running container/,
  ],
  ["run --rm --device /bad-nope busybox true", 127, /no such file or directory/],
  [
    "run --rm --runtime bad-nope busybox true",
    125,
    /[Uu]nknown runtime specified bad-nope|unknown or invalid runtime name: bad-nope/,
  ],
  ["run --rm --sysctl kernel.bad=1 busybox true", 125, /sysctl/],
  [
    "run --rm -v /etc/hostname:/tmp busybox true",
    125,
    /not a directory|Are you trying to mount a directory onto a file/,
  ],
  ["exec bad-stop true", 1, /is not running/],
  ["exec bad-run nope", 127, /executable file not found in \$PATH/, 126],
  ["exec bad-run /etc", 126, /(is a directory|permission denied)/],
  ["exec -w /nope bad-run true", 127, /no such file or directory/, 126],
  ["exec -u nobody2 bad-run true", 126, /unable to find user nobody2/],
  ["start bad-nope", 1, /No such container: bad-nope/],
  ["rm bad-run", 1, /container is running|You cannot remove a running container/],
  ["rmi busybox", 1, /conflict: unable to (remove|delete)/],
  ["rmi bad-nope", 1, /No such image: bad-nope/],
  ["kill bad-stop", 1, /is not running/],
  ["rename bad-run bad-stop", 1, /Conflict\. The container name/],
  ["volume rm bad-volume", 1, /volume is in use/],
  ["inspect bad-nope", 1, /No such object: bad-nope/],
  ["logs bad-nope", 1, /No such container: bad-nope/],
];

describe("wrong command lines", () => {
  for (const [words, code, message, older = code] of commandLines) {
    test(`docker ${words}`, async () => {
      for (const engine of [ours, theirs]) {
        const before = await inventory(engine);
        const outcome = await engine.client.run(words.split(" "));
        const which = engine === ours ? "our daemon" : "the reference";
        // What an exec's start has to say comes in its output stream.
        assert.match(outcome.stdout + outcome.stderr, message, which);
        assert.equal(outcome.code, engine === ours ? code : older, `${which}: ${outcome.stderr}`);
        // An older client does not wait for the removal that `--rm` asks for.
        for (let tries = 0; tries < 100 && !isDeepStrictEqual(await inventory(engine), before); tries += 1) {
          await sleep(50);
        }
        assert.deepEqual(await inventory(engine), before, which);
      }
    });
  }

  test("leave nothing half made", async () => {
    assert.deepEqual(await leftOver(daemon), []);
  });
});
