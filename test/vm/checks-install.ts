import assert from "node:assert/strict";
import { answers, api, type Check } from "./check.ts";

const listFiles = `find / -xdev \\( -path /root -o -path /tmp -o -path /var/log -o -path /var/lib/dpkg -o -path /var/cache/apt -o -path /var/lib/systemd -o -path /var/tmp \\) -prune -o -print | sort`;

export const installChecks: readonly Check[] = [
  {
    name: "the machine is what users have: systemd, cgroup v2 alone, AppArmor, a shared /",
    quick: true,
    run: async (machine) => {
      assert.equal(await machine.succeed("stat -fc %T /sys/fs/cgroup"), "cgroup2fs");
      assert.equal(await machine.succeed("cat /proc/1/comm"), "systemd");
      assert.equal(await machine.succeed("cat /sys/module/apparmor/parameters/enabled"), "Y");
      assert.match(await machine.succeed("findmnt -no PROPAGATION /"), /shared/);
      await machine.succeed("mkdir -p /root/vm && tar -xf /dev/vdb -C /root/vm");
      await machine.succeed(`${listFiles} > /root/vm/files-before`);
      await machine.succeed(
        "nft list tables > /root/vm/tables-before; ls /sys/class/net | sort > /root/vm/links-before",
      );
    },
  },
  {
    name: "dpkg installs the package: units enabled and active, group made",
    quick: true,
    run: async (machine) => {
      await machine.succeed("dpkg -i /root/vm/previous.deb", 300);
      await answers(machine);
      assert.equal(await machine.succeed("systemctl is-active skiff.socket skiff.service"), "active\nactive");
      assert.equal(
        await machine.succeed("systemctl is-enabled skiff.socket skiff.service"),
        "enabled\nenabled",
      );
      assert.match(await machine.succeed("getent group skiff"), /^skiff:x:\d+:$/);
    },
  },
  {
    name: "the socket is root's and the group's, nobody else's",
    quick: true,
    run: async (machine) => {
      assert.equal(await machine.succeed("stat -c '%U %G %a' /run/skiff/skiff.sock"), "root skiff 660");
      assert.equal(await machine.succeed("stat -c '%a' /var/lib/skiff /var/cache/skiff"), "711\n700");
    },
  },
  {
    name: "the daemon uses systemd for cgroups, and AppArmor and seccomp are on",
    quick: true,
    run: async (machine) => {
      const info = await api<{
        CgroupDriver: string;
        CgroupVersion: string;
        SecurityOptions: string[];
        Warnings: string[] | null;
      }>(machine, "GET", "/info");
      assert.equal(info.CgroupDriver, "systemd");
      assert.equal(info.CgroupVersion, "2");
      for (const name of ["name=apparmor", "name=cgroupns"])
        assert.ok(info.SecurityOptions.includes(name), name);
      assert.ok(info.SecurityOptions.some((option) => option.startsWith("name=seccomp")));
      assert.deepEqual(info.Warnings ?? [], []);
      assert.match(
        await machine.succeed("cat /sys/kernel/security/apparmor/profiles"),
        /^skiff-default \(enforce\)$/m,
      );
    },
  },
  {
    name: "system doctor finds no failure",
    run: async (machine) => {
      const { status, out, err } = await machine.run("skiff system doctor");
      assert.equal(status, 0, out + err);
    },
  },
  {
    name: "manual pages and completion are in place",
    run: async (machine) => {
      await machine.succeed(
        "test -e /usr/share/man/man1/skiff-run.1.gz -a -e /usr/share/man/man8/skiffd.8.gz -a -e /usr/share/fish/vendor_completions.d/skiff.fish -a -e /usr/share/zsh/vendor-completions/_skiff",
      );
      const offered = await machine.succeed(
        `bash -c '. /usr/share/bash-completion/completions/skiff; COMP_LINE="skiff syst"; COMP_POINT=10; _skiff; echo "\${COMPREPLY[@]}"'`,
      );
      assert.equal(offered, "system");
    },
  },
];

export const removalChecks: readonly Check[] = [
  {
    name: "removal ends containers and leaves nothing in the kernel; data and configuration stay",
    quick: true,
    run: async (machine) => {
      await machine.succeed("skiff run -d --name last busybox sleep 100000");
      await machine.succeed("dpkg -r skiff", 300);
      assert.equal((await machine.run("pgrep -af skiff")).out, "");
      assert.equal((await machine.run("find /sys/fs/cgroup -name '*skiff*'")).out, "");
      assert.equal((await machine.run("nft list tables | diff - /root/vm/tables-before")).out, "");
      assert.equal((await machine.run("ls /sys/class/net | sort | diff - /root/vm/links-before")).out, "");
      assert.equal(
        (await machine.run("grep skiff /proc/self/mountinfo /sys/kernel/security/apparmor/profiles")).out,
        "",
      );
      assert.equal((await machine.run("ls -d /run/skiff /var/cache/skiff 2>/dev/null")).out, "");
      await machine.succeed("test -e /var/lib/skiff/state.db -a -e /etc/skiff/daemon.json");
    },
  },
  {
    name: "purge leaves no file of ours; the group stays, as Debian's policy has it",
    quick: true,
    run: async (machine) => {
      await machine.succeed("dpkg -P skiff", 120);
      await machine.succeed(`${listFiles} > /root/vm/files-after`);
      const { out } = await machine.run("diff /root/vm/files-before /root/vm/files-after");
      // Copies that groupadd keeps, and what a running system changes by itself.
      const ours = out
        .split("\n")
        .filter(
          (line) =>
            /^[<>]/.test(line) &&
            !/ \/etc\/(group|gshadow|passwd|shadow)-$| \/var\/lib\/(dbus|apt)/.test(line),
        );
      assert.deepEqual(ours, []);
      assert.match(await machine.succeed("getent group skiff"), /^skiff:/);
      assert.equal((await machine.run("systemctl list-unit-files 'skiff*' --no-legend")).out, "");
      assert.equal((await machine.run("find /etc/systemd /var/lib/systemd -name '*skiff*'")).out, "");
    },
  },
];
