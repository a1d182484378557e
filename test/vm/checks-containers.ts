import assert from "node:assert/strict";
import { api, type Check, cgroupOf, inspect } from "./check.ts";

export const containerChecks: readonly Check[] = [
  {
    name: "import, run, exit codes",
    quick: true,
    run: async (machine) => {
      await machine.succeed("skiff import -c 'CMD [\"sh\"]' /root/vm/busybox.tar busybox", 180);
      assert.equal(await machine.succeed("skiff run --rm busybox echo hello"), "hello");
      assert.equal((await machine.run("skiff run --rm busybox sh -c 'exit 7'")).status, 7);
    },
  },
  {
    name: "exec, logs, ps, cp, diff, top, stop, rm",
    run: async (machine) => {
      await machine.succeed("skiff run -d --name spine busybox sh -c 'echo started; sleep 100000'");
      assert.equal(await machine.succeed("skiff exec -e A=b spine sh -c 'echo $A; id -u'"), "b\n0");
      assert.equal(await machine.succeed("skiff logs spine"), "started");
      assert.match(await machine.succeed("skiff ps"), /spine$/m);
      await machine.succeed("echo there > /root/vm/file && skiff cp /root/vm/file spine:/tmp/file");
      assert.equal(await machine.succeed("skiff exec spine cat /tmp/file"), "there");
      assert.match(await machine.succeed("skiff diff spine"), /^A \/tmp\/file$/m);
      assert.match(await machine.succeed("skiff top spine"), /sleep 100000/);
      await machine.succeed("skiff stop -t 1 spine && skiff rm spine");
    },
  },
  {
    name: "build, save and load, volumes",
    run: async (machine) => {
      await machine.succeed("mkdir -p /root/vm/context");
      await machine.succeed(
        'printf \'FROM busybox\\nRUN echo built > /built\\nCMD ["cat", "/built"]\\n\' > /root/vm/context/Dockerfile',
      );
      await machine.succeed("skiff build -t made /root/vm/context", 300);
      assert.equal(await machine.succeed("skiff run --rm made"), "built");
      await machine.succeed("skiff save made | skiff load", 240);
      await machine.succeed("skiff run --rm -v kept:/data busybox sh -c 'echo kept > /data/file'");
      assert.equal(await machine.succeed("skiff run --rm -v kept:/data busybox cat /data/file"), "kept");
    },
  },
  {
    name: "limits are the kernel's: memory, swap, CPU, cpuset, processes, weights, in a scope of systemd",
    quick: true,
    run: async (machine) => {
      await machine.succeed(
        "skiff run -d --name limited -m 64m --memory-reservation 32m --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 --pids-limit 40 busybox sleep 100000",
      );
      const { Id } = await inspect(machine, "limited");
      const group = await cgroupOf(machine, "limited");
      assert.equal(group, `/sys/fs/cgroup/system.slice/skiff-${Id}.scope`);
      const read = (file: string): Promise<string> => machine.succeed(`cat ${group}/${file}`);
      assert.equal(await read("memory.max"), String(64 * 1024 ** 2));
      assert.equal(await read("memory.swap.max"), String(64 * 1024 ** 2));
      assert.equal(await read("memory.low"), String(32 * 1024 ** 2));
      assert.equal(await read("cpu.max"), "50000 100000");
      assert.equal(await read("cpuset.cpus"), "0");
      assert.equal(await read("pids.max"), "40");
      assert.equal(await read("cpu.weight"), "20");
      assert.equal(
        await machine.succeed("skiff exec limited cat /sys/fs/cgroup/memory.max /proc/self/cgroup"),
        `${64 * 1024 ** 2}\n0::/`,
      );
    },
  },
  {
    name: "update changes limits, and a reload of systemd keeps them",
    run: async (machine) => {
      await machine.succeed("skiff update -m 128m --memory-swap 256m --pids-limit 50 --cpus 1 limited");
      const group = await cgroupOf(machine, "limited");
      const read = (): Promise<string> =>
        machine.succeed(`cd ${group} && cat memory.max memory.swap.max pids.max cpu.max`);
      const wanted = `${128 * 1024 ** 2}\n${128 * 1024 ** 2}\n50\n100000 100000`;
      assert.equal(await read(), wanted);
      await machine.succeed("systemctl daemon-reload");
      assert.equal(await read(), wanted);
    },
  },
  {
    name: "freezing and killing by the cgroup",
    run: async (machine) => {
      const group = await cgroupOf(machine, "limited");
      await machine.succeed("skiff pause limited");
      assert.match(await machine.succeed(`cat ${group}/cgroup.events`), /frozen 1/);
      await machine.succeed("skiff unpause limited && skiff kill limited");
      assert.equal((await inspect(machine, "limited")).State.ExitCode, 137);
      await machine.succeed("skiff rm limited");
      assert.equal((await machine.run(`ls -d ${group} 2>/dev/null`)).out, "");
    },
  },
  {
    name: "a container that uses more memory than it may is killed, and inspect says why",
    run: async (machine) => {
      const { status } = await machine.run(
        "skiff run --name greedy -m 16m --memory-swap 16m busybox tail /dev/zero",
      );
      assert.equal(status, 137);
      assert.equal((await inspect(machine, "greedy")).State.OOMKilled, true);
      await machine.succeed("skiff rm greedy");
    },
  },
  {
    name: "AppArmor and seccomp are seen inside the container, and hold; exec is under them, too",
    quick: true,
    run: async (machine) => {
      await machine.succeed("skiff run -d --name fenced --cap-add SYS_ADMIN busybox sleep 100000");
      const seen = "cat /proc/self/attr/current; grep Seccomp: /proc/self/status";
      const inside = await machine.succeed(`skiff exec fenced sh -c '${seen}'`);
      assert.match(inside, /^skiff-default \(enforce\)\nSeccomp:\s+2$/);
      const { State } = await inspect(machine, "fenced");
      assert.equal(await machine.succeed(`cat /proc/${State.Pid}/attr/current`), "skiff-default (enforce)");
      // With the capability, and past the filter that it opens: this one is AppArmor's.
      const { status, err } = await machine.run("skiff exec fenced mount -t tmpfs none /tmp");
      assert.notEqual(status, 0);
      assert.match(err, /denied/i);
      const free = await machine.succeed(
        "skiff run --rm --security-opt apparmor=unconfined --security-opt seccomp=unconfined busybox sh -c 'cat /proc/self/attr/current; grep Seccomp: /proc/self/status'",
      );
      assert.match(free, /^unconfined\nSeccomp:\s+0$/);
      await machine.succeed("skiff rm -f fenced");
    },
  },
  {
    name: "a published port answers on the host and from another container",
    quick: true,
    run: async (machine) => {
      await machine.succeed(
        "skiff run -d --name web --restart always -p 8080:80 busybox httpd -f -p 80 -h /www",
      );
      assert.equal(
        await machine.succeed("curl -sS --retry 5 --retry-connrefused http://127.0.0.1:8080/"),
        "from the container",
      );
      const { NetworkSettings } = await api<{
        NetworkSettings: { Networks: Record<string, { Gateway: string }> };
      }>(machine, "GET", "/containers/web/json");
      const { Gateway } = NetworkSettings.Networks["bridge"]!;
      const answer = await machine.succeed(
        `skiff run --rm busybox sh -c 'printf "GET / HTTP/1.0\\r\\n\\r\\n" | nc ${Gateway} 8080'`,
      );
      assert.match(answer, /from the container/);
    },
  },
  {
    name: "no mount of a container shows in the host's table, though / is shared",
    run: async (machine) => {
      assert.equal((await machine.run("grep -c overlay /proc/self/mountinfo")).out.trim(), "0");
      await machine.succeed("mkdir -p /root/vm/shared && mount -t tmpfs none /root/vm/shared");
      await machine.succeed(
        "skiff run -d --name mounts -v /root/vm/shared:/shared:rslave busybox sleep 100000",
      );
      await machine.succeed(
        "mkdir /root/vm/shared/late && mount -t tmpfs none /root/vm/shared/late && touch /root/vm/shared/late/file",
      );
      assert.equal(await machine.succeed("skiff exec mounts ls /shared/late"), "file");
      await machine.succeed("skiff rm -f mounts && umount /root/vm/shared/late /root/vm/shared");
    },
  },
];
