import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, describe, test } from "node:test";
import { daemonFindings } from "./commands-doctor.ts";
import { diskFindings, type Finding, HostFiles, hostFindings, socketFinding } from "./doctor-checks.ts";

const home = mkdtempSync(join(tmpdir(), "skiff-doctor-"));
after(() => rmSync(home, { recursive: true }));

/** A machine as a tree of files: a Debian 12 with systemd, unless `changes` says otherwise (null: not there). */
function machine(changes: Record<string, string | null> = {}, release = "6.1.0-56-cloud-amd64"): HostFiles {
  const root = mkdtempSync(join(home, "root-"));
  const files: Record<string, string | null> = {
    "/proc/filesystems": "nodev\tsysfs\nnodev\toverlay\n\text4\n",
    "/proc/sys/kernel/seccomp/actions_avail": "kill_process errno allow\n",
    "/proc/sys/net/ipv4/ip_forward": "1\n",
    "/sys/module/apparmor/parameters/enabled": "Y\n",
    "/sbin/apparmor_parser": "",
    "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma misc\n",
    [`/lib/modules/${release}/modules.dep`]:
      "kernel/net/bridge/bridge.ko: kernel/net/802/stp.ko\nkernel/drivers/net/veth.ko:\nkernel/net/netfilter/nf_tables.ko:\n",
    "/usr/bin/crun": "#!",
    "/usr/lib/x86_64-linux-gnu/libnftables.so.1": "",
    "/usr/lib/x86_64-linux-gnu/libseccomp.so.2": "",
    ...Object.fromEntries(
      ["cgroup", "ipc", "mnt", "net", "pid", "uts"].map((name) => [`/proc/self/ns/${name}`, ""]),
    ),
    ...changes,
  };
  for (const [path, text] of Object.entries(files)) {
    if (text === null) continue;
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text, { mode: 0o755 });
  }
  return new HostFiles(root, release);
}

const wrong = (files: HostFiles): Finding[] => hostFindings(files).filter(({ state }) => state !== "ok");

describe("system doctor", () => {
  test("a machine that has everything", () => {
    assert.deepEqual(wrong(machine()), []);
  });

  for (const [what, changes, topic, state, words] of [
    ["no overlayfs", { "/proc/filesystems": "\text4\n" }, "overlayfs", "fail", /not in this kernel/],
    ["no runtime", { "/usr/bin/crun": null }, "runtime", "fail", /neither crun nor runc/],
    ["no cgroups", { "/sys/fs/cgroup/cgroup.controllers": null }, "cgroups", "fail", /not mounted/],
    [
      "no memory controller",
      { "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n" },
      "cgroups",
      "warn",
      /version 2 without memory/,
    ],
    [
      "no libnftables",
      { "/usr/lib/x86_64-linux-gnu/libnftables.so.1": null },
      "library",
      "fail",
      /libnftables\.so\.1 is missing/,
    ],
    ["AppArmor off", { "/sys/module/apparmor/parameters/enabled": "N\n" }, "AppArmor", "warn", /off/],
    [
      "AppArmor without its parser",
      { "/sbin/apparmor_parser": null },
      "AppArmor",
      "warn",
      /without its parser/,
    ],
    [
      "no seccomp",
      { "/proc/sys/kernel/seccomp/actions_avail": null },
      "seccomp",
      "warn",
      /not in this kernel/,
    ],
    ["no network namespaces", { "/proc/self/ns/net": null }, "namespaces", "fail", /missing: net/],
    [
      "modules not installed",
      { "/lib/modules/6.1.0-56-cloud-amd64/modules.dep": null },
      "network",
      "warn",
      /veth/,
    ],
  ] as const) {
    test(`${what}: told, with what to do`, () => {
      const findings = wrong(machine(changes));
      assert.equal(findings.length, 1);
      const [finding] = findings;
      assert.equal(finding!.topic, topic);
      assert.equal(finding!.state, state);
      assert.match(finding!.found, words);
      assert.ok(finding!.advice);
    });
  }

  test("a kernel that is too old", () => {
    assert.match(wrong(machine({}, "5.4.0-1"))[0]!.advice!, /Linux 5\.8 or later/);
    assert.equal(wrong(machine({}, "5.10.0-1")).length, 0);
  });

  test("the socket: not there, not ours, open to all, ours by its group", () => {
    const path = "/run/skiff/skiff.sock";
    const nobody = { uid: 65534, groups: [65534] };
    assert.match(socketFinding(machine(), path, nobody).advice!, /systemctl start skiff/);
    const files = machine({ [path]: "" });
    chmodSync(files.path(path), 0o660);
    assert.match(socketFinding(files, path, nobody).found, /not yours/);
    assert.equal(socketFinding(files, path, { uid: 65534, groups: [process.getgid!()] }).state, "ok");
    assert.equal(socketFinding(files, path, { uid: 0, groups: [] }).state, "ok");
    chmodSync(files.path(path), 0o666);
    assert.match(socketFinding(files, path, { uid: 0, groups: [] }).found, /open to everybody/);
  });

  test("the disk of a data root that is not there yet is that of the folder above it", () => {
    const findings = diskFindings(machine({ "/var/lib/x": "" }), "/var/lib/skiff");
    assert.match(findings.at(-1)!.found, /^\/var\/lib\/skiff: .*free/);
  });

  test("what the daemon says of itself: warnings, and the rules it made in the host's chains", () => {
    const findings = daemonFindings({
      ServerVersion: "28.0.0",
      DriverStatus: [["Host firewall rule", "forward: oifname skiff0 accept"]],
      Warnings: ["WARNING: No swap limit support"],
    });
    assert.match(findings[1]!.found, /1 accept rules.*oifname skiff0/);
    assert.equal(findings[2]!.found, "No swap limit support");
    assert.equal(findings[2]!.state, "warn");
  });
});
