/** Our command line, called as `docker`, beside Docker's client on the same dockerd: output, messages, exit codes. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type PeerDaemon, startDockerd } from "../peers/dockerd.ts";
import { busyboxRoot } from "../peers/images.ts";
import { olderDockerClient } from "../peers/peer-cache.ts";
import { commandLines, readings, refusals } from "./cli-lines.ts";

const ours = join(import.meta.dirname, "../../bin/skiff");

interface Answer {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** What cannot be the same because the two run one after the other: a fresh id, and the time a top row was taken. */
const moving: readonly (readonly [RegExp, string])[] = [
  [/\b[0-9a-f]{64}\b/g, "<id>"],
  [/\b[0-9a-f]{12}\b/g, "<id>"],
  [/(Less than a second|About an? (minute|hour)|\d+ (second|minute|hour)s?)( ago)? */g, "<age>"],
  [/\b(\d+:){2}\d+\b/g, "<clock>"],
  [/0 +\d+ +(\d+) +\d+ +/g, "0 $1 "],
];

function settle(answer: Answer): Answer {
  const clean = (text: string): string =>
    moving.reduce((now, [pattern, by]) => now.replace(pattern, by), text);
  return { code: answer.code, stdout: clean(answer.stdout), stderr: clean(answer.stderr) };
}

describe("our command line beside Docker's client", { skip: olderDockerClient() }, () => {
  let daemon: PeerDaemon;
  const home = mkdtempSync(join(tmpdir(), "skiff-cli-"));
  const alias = join(home, "docker");
  const config = join(home, "config");

  const call = (program: string, words: readonly string[]): Answer => {
    const { status, stdout, stderr } = spawnSync(program, [...words], {
      cwd: home,
      env: { ...process.env, DOCKER_HOST: daemon.host, DOCKER_CONFIG: config, DOCKER_CLI_HINTS: "false" },
      input: "",
      encoding: "utf8",
      timeout: 60_000,
    });
    return { code: status, stdout, stderr };
  };
  const docker = (...words: string[]): string => {
    const answer = call("docker", words);
    assert.equal(answer.code, 0, `docker ${words.join(" ")}: ${answer.stderr}`);
    return answer.stdout.trim();
  };

  before(async () => {
    symlinkSync(ours, alias);
    daemon = await startDockerd();
    const root = join(home, "root");
    execFileSync("mkdir", [root]);
    busyboxRoot(root);
    const archive = join(home, "busybox.tar");
    execFileSync("tar", ["-C", root, "-cf", archive, "."]);
    docker("import", "-c", 'CMD ["sh"]', archive, "busybox:latest");
    docker(
      "run",
      "-d",
      "--name",
      "cli-run",
      "-p",
      "8099:80",
      "-p",
      "127.0.0.1::443/udp",
      "-l",
      "a=b",
      "-v",
      "/data",
      "busybox",
      "sleep",
      "1000",
    );
    call("docker", [
      "run",
      "--name",
      "cli-dead",
      "busybox",
      "sh",
      "-c",
      "echo a; sleep 0.2; echo b >&2; exit 5",
    ]);
  });

  after(async () => {
    await daemon?.[Symbol.asyncDispose]();
    rmSync(home, { recursive: true, force: true });
  });

  for (const words of commandLines(refusals)) {
    test(`refused: ${words.join(" ")}`, () => {
      assert.deepEqual(call(alias, words), call("docker", words));
    });
  }

  for (const words of commandLines(readings)) {
    test(words.join(" "), () => {
      // `\t` in a format is typed as two characters.
      assert.deepEqual(settle(call(alias, words)), settle(call("docker", words)));
    });
  }

  test("a life under both: create, start, pause, restart, commit, remove", () => {
    const life = [
      "create --name cli-life -l x=y busybox sh -c 'trap : TERM; sleep 1000'",
      "start cli-life",
      "pause cli-life",
      "ps --filter name=cli-life --format '{{.Status}}'",
      "unpause cli-life",
      "exec cli-life sh -c 'echo new > /file'",
      "diff cli-life",
      "update --restart always cli-life",
      "restart -t 0 cli-life",
      "kill cli-life",
      "rename cli-life cli-life2",
      "commit -m note -c 'ENV A=b' cli-life2 cli-image:x",
      "inspect -f '{{.Config.Env}} {{.Comment}}' cli-image:x",
      "tag cli-image:x cli-image:y",
      "rmi cli-image:x",
      "rmi cli-image:y",
      "stop -t 0 cli-life2",
      "rm -v cli-life2",
      "volume create --label a=b cli-volume",
      "volume inspect -f '{{.Name}} {{.Labels}} {{.Driver}}' cli-volume",
      "run --rm -v cli-volume:/v busybox sh -c 'echo kept > /v/f'",
      "run --rm -v cli-volume:/v busybox cat /v/f",
      "volume rm cli-volume",
      "network create -o com.docker.network.bridge.name=cli0 cli-network",
      "network rm cli-network",
    ];
    const lines = commandLines(life.join("\n"));
    const run = (program: string): Answer[] => lines.map((words) => settle(call(program, words)));
    assert.deepEqual(run(alias), run("docker"));
  });

  test("the comparison sees a changed column, code and message", () => {
    const right = call("docker", ["ps", "-a"]);
    assert.notDeepEqual(settle({ ...right, stdout: right.stdout.replace("IMAGE ", "IMAGE") }), settle(right));
    assert.notDeepEqual(settle({ ...right, code: 1 }), settle(right));
    assert.notDeepEqual(settle({ ...right, stderr: "warning\n" }), settle(right));
  });

  test("a run passes stdin through and ends it", () => {
    const result = spawnSync(alias, ["run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo end"], {
      env: { ...process.env, DOCKER_HOST: daemon.host },
      input: "x".repeat(300_000),
      encoding: "utf8",
    });
    assert.equal(result.stdout, `${"x".repeat(300_000)}end\n`);
    assert.equal(result.status, 0);
  });

  test("under our own name the words are ours and a missing daemon is explained", () => {
    const answer = call(ours, ["nope"]);
    assert.equal(
      answer.stderr,
      "skiff: unknown command: skiff nope\n\nRun 'skiff --help' for more information\n",
    );
    const missing = call(ours, ["-H", "unix:///nope", "ps"]);
    assert.match(
      missing.stderr,
      /^Cannot connect to the Docker daemon at unix:\/\/\/nope\. Is the docker daemon running\?\n/,
    );
    assert.match(missing.stderr, /skiffd/);
  });
});
