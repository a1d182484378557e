/**
 * The way that tutorials lead, from the first pull to the last rmi, through Docker's client and ours, with Docker's output.
 * At full size (SKIFF_PROVE) Docker's client walks it on dockerd too: what is expected here is what it prints there.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { leftOver } from "../peers/left-over.ts";
import { olderDockerClient } from "../peers/peer-cache.ts";
import { type Client, clientPrograms, createClient } from "./real-lab.ts";
import { TextTemplates } from "./text-template.ts";
import { centosIdentity, openWalkthroughLab, type WalkthroughLab } from "./walkthrough-lab.ts";

const dockerfile = `FROM centos:centos6
MAINTAINER hainiu <hainiu@example.com>
# a web server
RUN yum install -y httpd
EXPOSE 80
CMD ["sh","-c","service httpd start;bash"]
`;

const driver = join(import.meta.dirname, "cli-terminal.py");
type TerminalStep = readonly [waitFor: string, action: "type", argument: string];

const walks = [
  { program: clientPrograms[0], engine: "skiffd" },
  { program: clientPrograms[1], engine: "skiffd" },
  ...(process.env["SKIFF_PROVE"] === undefined
    ? []
    : [{ program: clientPrograms[0], engine: "dockerd" } as const]),
] as const;

for (const { program, engine } of walks) {
  describe(`the walkthrough with ${program.name} on ${engine}`, () => {
    const texts = new TextTemplates();
    const centos = centosIdentity();
    let lab: WalkthroughLab;
    let client: Client;
    let context: string;

    before(async () => {
      lab = await openWalkthroughLab(engine);
      client = createClient(program, lab.host, join(lab.folder, "config"));
      client.env["DOCKER_BUILDKIT"] = "0";
      client.env["DOCKER_CLI_HINTS"] = "false";
      context = join(lab.folder, "context");
      mkdirSync(context);
      writeFileSync(join(context, "Dockerfile"), dockerfile);
      texts.learn("base", centos.id);
      texts.learn("centos", centos.digest);
    });
    after(async () => {
      await lab?.[Symbol.asyncDispose]();
    });

    /** Runs a command and holds its standard output against a template. */
    const says = async (args: readonly string[], template: string): Promise<void> => {
      const { code, stdout, stderr } = await client.run(args);
      assert.equal(code, 0, `${args.join(" ")}: ${stderr}`);
      texts.match(stdout, template, args.join(" "));
    };
    const refuses = async (args: readonly string[], exitCode: number, template: string): Promise<void> => {
      const { code, stdout, stderr } = await client.run(args);
      texts.match(
        stderr.replace(/^skiff: |'skiff /gm, (name) => name.replace("skiff", "docker")),
        template,
        args.join(" "),
      );
      assert.deepEqual([code, stdout], [exitCode, ""]);
    };
    /** A pull's first and last lines, and how each of its layers ended, bottom first. */
    const pulls = async (
      reference: string,
      first: string,
      layers: readonly RegExp[],
      last: string,
    ): Promise<void> => {
      const { code, stdout, stderr } = await client.run(["pull", reference]);
      assert.equal(code, 0, stderr);
      const lines = stdout.trimEnd().split("\n");
      assert.equal(lines[0], first);
      texts.match(lines.slice(-3).join("\n"), last, `pull ${reference}`);
      const endings = new Map(lines.slice(1, -3).map((line) => line.split(": ") as [string, string]));
      assert.equal(endings.size, layers.length);
      for (const [index, ending] of [...endings.values()].entries()) assert.match(ending, layers[index]!);
    };
    const inTerminal = (
      args: readonly string[],
      steps: readonly TerminalStep[],
    ): { output: string; code: number } => {
      const result = spawnSync("python3", [driver, JSON.stringify(steps), client.program, ...args], {
        env: client.env,
        encoding: "utf8",
        timeout: 60_000,
      });
      assert.equal(result.status, 0, result.stderr);
      const told = JSON.parse(result.stdout) as { output: string; code: number; restored: boolean };
      assert.ok(told.restored, "the terminal's settings were not restored");
      return told;
    };

    test("pull and images", async () => {
      await pulls(
        "centos:centos6",
        "centos6: Pulling from library/centos",
        [/^Pull complete$/],
        `Digest: ${centos.digest}
Status: Downloaded newer image for centos:centos6
docker.io/library/centos:centos6`,
      );
      await says(
        ["images"],
        `REPOSITORY  TAG  IMAGE ID  CREATED  SIZE
centos  centos6  <id:base>  <age>  <size>`,
      );
    });

    test("build: every step is an image, the last one has the name", async () => {
      await says(
        ["build", "-t", "hainiu/httpd:1.0", context],
        `Sending build context to Docker daemon  2.048kB
Step 1/5 : FROM centos:centos6
 ---> <id:base>
Step 2/5 : MAINTAINER hainiu <hainiu@example.com>
 ---> Running in <id:c2>
Removing intermediate container <id:c2>
 ---> <id:maintainer>
Step 3/5 : RUN yum install -y httpd
 ---> Running in <id:c3>
Resolving Dependencies
Installed:
  httpd.x86_64 0:2.2.15-69.el6.centos

Complete!
Removing intermediate container <id:c3>
 ---> <id:yum>
Step 4/5 : EXPOSE 80
 ---> Running in <id:c4>
Removing intermediate container <id:c4>
 ---> <id:expose>
Step 5/5 : CMD ["sh","-c","service httpd start;bash"]
 ---> Running in <id:c5>
Removing intermediate container <id:c5>
 ---> <id:httpd>
Successfully built <id:httpd>
Successfully tagged hainiu/httpd:1.0`,
      );
      await says(
        ["images"],
        `REPOSITORY  TAG  IMAGE ID  CREATED  SIZE
hainiu/httpd  1.0  <id:httpd>  <age>  <size>
centos  centos6  <id:base>  <age>  <size>`,
      );
      // Images of one second are listed in any order.
      const all = (await client.out("images", "-a", "--format", "{{.ID}} {{.Repository}}")).split("\n");
      assert.deepEqual(
        new Set(all),
        new Set([
          ...["maintainer", "yum", "expose"].map((name) => `${texts.id(name)} <none>`),
          `${texts.id("httpd")} hainiu/httpd`,
          `${texts.id("base")} centos`,
        ]),
      );
    });

    test("rmi -f of an image in between is refused, whatever tutorials say", async () => {
      const id = texts.id("yum");
      await refuses(
        ["rmi", "-f", id],
        1,
        `Error response from daemon: conflict: unable to delete ${id} (cannot be forced) - image has dependent child images`,
      );
    });

    test("push, rmi with what lies between, and pull back", async () => {
      const pushed = await client.run(["push", "hainiu/httpd:1.0"]);
      assert.equal(pushed.code, 0, pushed.stderr);
      const lines = pushed.stdout.trimEnd().split("\n");
      assert.equal(lines[0], "The push refers to repository [docker.io/hainiu/httpd]");
      assert.equal(lines.filter((line) => /^[0-9a-f]{12}: Preparing$/.test(line)).length, 2);
      assert.equal(lines.filter((line) => /^[0-9a-f]{12}: Pushed$/.test(line)).length, 2);
      texts.match(lines.at(-1)!.replace(/ size: \d+$/, ""), "1.0: digest: sha256:<full:pushed>", "push");
      await says(
        ["rmi", "hainiu/httpd:1.0"],
        `Untagged: hainiu/httpd:1.0
Untagged: hainiu/httpd@sha256:<full:pushed>
Deleted: sha256:<full:httpd>
Deleted: sha256:<full:expose>
Deleted: sha256:<full:yum>
Deleted: sha256:<full:layer>
Deleted: sha256:<full:maintainer>`,
      );
      await says(
        ["images", "-a"],
        `REPOSITORY  TAG  IMAGE ID  CREATED  SIZE
centos  centos6  <id:base>  <age>  <size>`,
      );
      // Skiff's build cache still has the layer of RUN; dockerd's went with its image.
      await pulls(
        "hainiu/httpd:1.0",
        "1.0: Pulling from hainiu/httpd",
        [/^Already exists$/, engine === "skiffd" ? /^Already exists$/ : /^Pull complete$/],
        `Digest: sha256:<full:pushed>
Status: Downloaded newer image for hainiu/httpd:1.0
docker.io/hainiu/httpd:1.0`,
      );
      await says(["images", "-q", "hainiu/httpd"], "<id:httpd>");
    });

    test("create by name and by id; start -i makes the directory of -v", async () => {
      const folders = [join(lab.folder, "none/web"), join(lab.folder, "none/other")] as const;
      await says(
        ["create", "-it", "--name", "web", "-v", `${folders[0]}:/data`, "hainiu/httpd:1.0"],
        "<full:web>",
      );
      await says(["create", "-it", "-v", `${folders[1]}:/data`, texts.id("httpd")], "<full:other>");
      assert.ok(!existsSync(folders[0]), "Docker makes the directory when the container starts");
      for (const [name, folder] of [
        ["web", folders[0]],
        [texts.id("other").slice(0, 8), folders[1]],
      ] as const) {
        const { output, code } = inTerminal(
          ["start", "-i", name],
          [["# ", "type", "wget -qO- http://127.0.0.1/; hostname > /data/name; exit 3\n"]],
        );
        assert.match(output, /It works!\r\n/);
        assert.equal(code, 3);
        const id = name === "web" ? texts.id("web") : texts.id("other");
        assert.equal(readFileSync(join(folder, "name"), "utf8"), `${id}\n`);
        assert.match(await client.out("logs", name), /^Starting httpd: \[ {2}OK {2}\]\r$/m);
      }
    });

    test("exec -it, ps, stop, rm, run --rm, and a name that is taken", async () => {
      await says(["start", "web"], "web");
      const { output, code } = inTerminal(
        ["exec", "-it", "web", "bash"],
        [["# ", "type", "tty; until service httpd status; do sleep 0.1; done; exit 5\n"]],
      );
      assert.match(output, /\/dev\/pts\/1\r\nhttpd is running\.\.\.\r\n/);
      assert.equal(code, 5);
      await says(
        ["ps"],
        `CONTAINER ID  IMAGE  COMMAND  CREATED  STATUS  PORTS  NAMES
<id:web>  hainiu/httpd:1.0  "sh -c 'service http…"  <age>  Up <age>  80/tcp  web`,
      );
      await says(
        ["ps", "-a"],
        `CONTAINER ID  IMAGE  COMMAND  CREATED  STATUS  PORTS  NAMES
<id:other>  <id:httpd>  "sh -c 'service http…"  <age>  Exited (3) <age>  <name:other>
<id:web>  hainiu/httpd:1.0  "sh -c 'service http…"  <age>  Up <age>  80/tcp  web`,
      );
      await says(["stop", "-t", "0", "web"], "web");
      await says(["ps"], "CONTAINER ID  IMAGE  COMMAND  CREATED  STATUS  PORTS  NAMES");
      await says(["rm", "web", texts.id("other")], `web\n<id:other>`);
      await says(
        ["run", "--rm", "hainiu/httpd:1.0", "cat", "/etc/centos-release"],
        "CentOS release 6.10 (Final)",
      );
      await says(
        ["run", "--name", "web", "hainiu/httpd:1.0", "sh", "-c", "echo changed > /var/www/html/index.html"],
        "",
      );
      const taken = `Error response from daemon: Conflict. The container name "/web" is already in use by container "<full:second>". You have to remove (or rename) that container to be able to reuse that name.`;
      await refuses(["create", "--name", "web", "hainiu/httpd:1.0"], 1, taken);
      await refuses(
        ["run", "--name", "web", "hainiu/httpd:1.0"],
        125,
        `docker: ${taken}\n${client.program === "docker" && olderDockerClient() !== false ? "See 'docker run --help'." : "\nRun 'docker run --help' for more information"}`,
      );
      await says(
        ["ps", "-a"],
        `CONTAINER ID  IMAGE  COMMAND  CREATED  STATUS  PORTS  NAMES
<id:second>  hainiu/httpd:1.0  "sh -c 'echo changed…"  <age>  Exited (0) <age>  web`,
      );
    });

    test("commit; save by -o and by redirection; load", async () => {
      await says(["commit", "-a", "me", "-m", "a message", "web", "hainiu/web:2"], "sha256:<full:committed>");
      const [file, redirected] = [join(lab.folder, "a.tar"), join(lab.folder, "b.tar")];
      await says(["save", "-o", file, "hainiu/web:2"], "");
      const target = openSync(redirected, "w");
      const saved = spawnSync(client.program, ["save", "hainiu/web:2"], {
        env: client.env,
        stdio: ["ignore", target, "pipe"],
      });
      closeSync(target);
      assert.equal(saved.status, 0, String(saved.stderr));
      assert.ok(readFileSync(file).equals(readFileSync(redirected)), "the two archives differ");
      await says(
        ["rmi", "hainiu/web:2"],
        `Untagged: hainiu/web:2\nDeleted: sha256:<full:committed>\nDeleted: sha256:<full:change>`,
      );
      await says(["load", "-i", file], "Loaded image: hainiu/web:2");
      await says(["images", "-q", "--no-trunc", "hainiu/web:2"], "sha256:<full:committed>");
      await refuses(["save", "web"], 1, "Error response from daemon: No such image: web");
      await says(["load", "-q", "-i", redirected], "Loaded image: hainiu/web:2");
      await says(["run", "--rm", "hainiu/web:2", "cat", "/var/www/html/index.html"], "changed");
    });

    test("export and import: one layer, one entry of history; save and load keep all", async () => {
      const file = join(lab.folder, "c.tar");
      await says(["export", "-o", file, "web"], "");
      await refuses(
        ["export", "hainiu/web:2"],
        1,
        "Error response from daemon: No such container: hainiu/web:2",
      );
      await says(
        ["import", "-c", 'CMD ["cat","/var/www/html/index.html"]', file, "hainiu/flat:1"],
        "sha256:<full:flat>",
      );
      await says(["run", "--rm", "hainiu/flat:1"], "changed");
      await says(
        ["history", "hainiu/flat:1"],
        `IMAGE  CREATED  CREATED BY  SIZE  COMMENT
<id:flat>  <age>  <size>  Imported from -`,
      );
      await says(
        ["history", "hainiu/web:2"],
        `IMAGE  CREATED  CREATED BY  SIZE  COMMENT
<id:committed>  <age>  sh -c echo changed > /var/www/html/index.html  8B  a message
<missing>  <age>  /bin/sh -c #(nop)  CMD ["sh" "-c" "service h…  0B
<missing>  <age>  /bin/sh -c #(nop)  EXPOSE 80  0B
<missing>  <age>  /bin/sh -c yum install -y httpd  237B
<missing>  <age>  /bin/sh -c #(nop)  MAINTAINER hainiu <hainiu…  0B
<missing>  <age>  layer 1  1.99MB`,
      );
      const format =
        "{{.RepoTags}} {{json .Config.Cmd}} {{json .Author}} {{json .Comment}} {{len .RootFS.Layers}} {{.Os}}";
      await says(
        ["inspect", "-f", format, "hainiu/web:2", "hainiu/flat:1"],
        `[hainiu/web:2] ["sh","-c","echo changed > /var/www/html/index.html"] "me" "a message" 3 linux
[hainiu/flat:1] ["cat","/var/www/html/index.html"] "" "Imported from -" 1 linux`,
      );
      await says(
        ["inspect", "-f", "{{.Name}} {{.Config.Image}} {{.Image}} {{.State.Status}} {{.Path}}", "web"],
        "/web hainiu/httpd:1.0 sha256:<full:httpd> exited sh",
      );
    });

    test("rmi: what a container uses stays, then everything goes", async () => {
      await refuses(
        ["rmi", "hainiu/httpd:1.0"],
        1,
        'Error response from daemon: conflict: unable to remove repository reference "hainiu/httpd:1.0" (must force) - container <id:second> is using its referenced image <id:httpd>',
      );
      await says(["rm", "web"], "web");
      await says(
        ["rmi", "hainiu/web:2", "hainiu/flat:1"],
        `Untagged: hainiu/web:2
Deleted: sha256:<full:committed>
Deleted: sha256:<full:change>
Untagged: hainiu/flat:1
Deleted: sha256:<full:flat>
Deleted: sha256:<full:flatlayer>`,
      );
      await says(
        ["rmi", "hainiu/httpd:1.0", "centos:centos6"],
        `Untagged: hainiu/httpd:1.0
Untagged: hainiu/httpd@sha256:<full:pushed>
Deleted: sha256:<full:httpd>
Deleted: sha256:<full:layer>
Untagged: centos:centos6
Untagged: centos@${centos.digest}
Deleted: ${centos.id}
Deleted: sha256:<full:baselayer>`,
      );
      assert.equal(await client.out("images", "-aq"), "");
      if (lab.daemon === undefined) return;
      await client.out("builder", "prune", "-af");
      assert.deepEqual(await leftOver(lab.daemon), []);
    });
  });
}
