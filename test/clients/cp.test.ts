import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type ContainerLab, ok, openLab } from "../integration/container-lab.ts";
import { olderDockerClient } from "../peers/peer-cache.ts";

const skiff = join(import.meta.dirname, "../../bin/skiff");

/** Each is run with Docker's client and with ours, from the same state: output, status and files must be the same. */
const copiesOut = [
  "cpc:/d/f dst",
  "cpc:/d/f dst/new",
  "cpc:/d dst",
  "cpc:/d/. dst/content",
  "cpc:/d/f none/x",
  "cpc:/d dst/file",
  "cpc:/ld/ dst/m",
  "-L cpc:/ld dst",
  "-L cpc:/d/lf dst/o",
  "cpc:/nope dst",
  "cpc:/d/f dangling",
];

const copiesIn = [
  "one cpc:/t",
  "one cpc:/t/new",
  "tree cpc:/t",
  "tree/. cpc:/t/content",
  "one cpc:/t/missing/",
  "one cpc:/none/x",
  "-L link cpc:/t/followed",
  "-a one cpc:/t/owned",
  "dangling cpc:/t",
  "one/ cpc:/t",
  "one cpc:/ld/lf",
  "./-x cpc:/t",
  "one cpc:/dev/null",
];

describe("cp, with both clients", () => {
  let lab: ContainerLab;
  let home: string;

  before(async () => {
    lab = await openLab();
    home = mkdtempSync(join(tmpdir(), "skiff-cp-"));
    const script = [
      "mkdir -p start/dst/dir/f start/tree/sub; cd start; echo one >one; chmod 640 one; echo x >dst/file",
      "echo two >tree/two; ln tree/two tree/hard; ln -s two tree/sub/l; ln -s one link; ln -s gone dangling",
      "touch ./-x '[a]'; touch -d 2002-02-02 one tree/two",
    ].join("\n");
    execFileSync("sh", ["-ec", script], { cwd: home });
    await ok(lab, [
      ...["run", "-d", "--name", "cpc", "busybox", "sh", "-c"],
      "mkdir -p /d/e /t; echo hi >/d/f; echo g >/d/e/g; ln -s /d /ld; ln -s f /d/lf; chmod 4755 /d/f; touch -d '2001-02-03 04:05:06' /d/f /d/e; touch /ready; sleep 1000",
    ]);
    await ok(lab, ["exec", "cpc", "sh", "-c", "until [ -e /ready ]; do sleep 0.1; done"]);
  });
  after(async () => {
    rmSync(home, { recursive: true, force: true });
    await lab[Symbol.asyncDispose]();
  });

  function run(client: string, words: readonly string[], input?: Buffer): string {
    const env = { ...process.env, DOCKER_HOST: `unix://${lab.socket}` };
    const options = { cwd: join(home, "work"), env, killSignal: "SIGKILL", timeout: 60_000 } as const;
    const ran = spawnSync(client, words, { ...options, ...(input === undefined ? {} : { input }) });
    // Docker's client logs that it was interrupted when it refuses a copy that it had begun to pack.
    const errors = ran.stderr.toString().replaceAll(/^time=".*\n/gm, "");
    return `${ran.status}\n${ran.stdout.toString("latin1")}${errors}`;
  }

  function fresh(): void {
    rmSync(join(home, "work"), { recursive: true, force: true });
    cpSync(join(home, "start"), join(home, "work"), {
      recursive: true,
      verbatimSymlinks: true,
      preserveTimestamps: true,
    });
  }

  function hostTree(): string {
    return execFileSync(
      "sh",
      [
        "-c",
        "find . -printf '%p %y %m %U %s %n %l\\n' | sort; find . -type f -newermt 2000-01-01 ! -newermt 2010-01-01 | sort",
      ],
      {
        cwd: join(home, "work"),
        encoding: "utf8",
      },
    );
  }

  test("out of a container", { skip: olderDockerClient() }, () => {
    const results = ["docker", skiff].map((client) => {
      fresh();
      let text = "";
      for (const line of copiesOut) text += `${line}\n${run(client, ["cp", ...line.split(" ")])}`;
      return text + hostTree();
    });
    assert.equal(results[1], results[0]);
    assert.match(results[1] ?? "", /dst\/content\/e\/g/);
  });

  test("into a container", { skip: olderDockerClient() }, async () => {
    const look =
      "find /t /d | sort | while read f; do stat -c '%n %A %u:%g %h %Y' \"$f\" | sed 's/ [0-9]\\{10\\}$//'; done; cat /d/f";
    const results: string[] = [];
    for (const client of ["docker", skiff]) {
      await ok(lab, ["exec", "cpc", "sh", "-c", "rm -rf /t; mkdir /t; echo hi >/d/f"]);
      fresh();
      let text = "";
      for (const line of copiesIn) text += `${line}\n${run(client, ["cp", ...line.split(" ")])}`;
      const archive = execFileSync("tar", ["cf", "-", "one", "tree"], { cwd: join(home, "work") });
      text += run(client, ["cp", "-", "cpc:/t/content"], archive);
      text += run(client, ["cp", "-", "cpc:/t/nowhere"], archive);
      text += run(client, ["cp", "-", "cpc:/t"], Buffer.from("junk"));
      text += run(client, ["container", "cp", "cpc:/d/f", "-"]);
      results.push(text + (await ok(lab, ["exec", "cpc", "sh", "-c", look])));
    }
    assert.equal(results[1], results[0]);
    assert.match(results[1] ?? "", /\/t\/content\/tree\/two/);
  });
});
