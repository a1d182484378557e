import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { ContainerId } from "#base/ids.ts";
import type { HostInfo } from "#sys/hostinfo.ts";
import type { OciMount, OciSpec } from "#wire/oci-runtime.ts";
import { capabilityMask, capabilityNames } from "./capabilities.ts";
import { parseDeviceRule } from "./devices.ts";
import { containerEnv, mergeEnv } from "./env.ts";
import { checkResources, cpuWeight, type ResourceSupport, updateWrites } from "./resources.ts";
import type { Resources, SandboxMount, SandboxRequest } from "./runtime.ts";
import { parseSecurityOptions, SecurityProfiles } from "./security-profile.ts";
import { buildSpec, type SpecInput } from "./spec.ts";
import { planMounts, tmpfsOptions } from "./spec-mounts.ts";
import { checkSysctls } from "./sysctls.ts";
import { ociRlimits, resolveUlimits } from "./ulimits.ts";

const host: HostInfo = {
  capabilities: capabilityMask(capabilityNames),
  kernelVersion: 6018,
  architecture: "x64",
  oomScoreAdj: 0,
  rlimits: new Map([["nofile", { soft: 1024, hard: 20_000 }]]),
  seccomp: true,
  apparmor: false,
  thermalThrottlePaths: ["/sys/devices/system/cpu/cpu0/thermal_throttle"],
  cpuCount: 2,
};
const support: ResourceSupport = {
  memory: true,
  swap: true,
  swappiness: true,
  memoryReservation: true,
  oomKillDisable: true,
  cpuShares: true,
  cpuQuota: true,
  cpuset: true,
  availableCpus: "0-1",
  availableMems: "0",
  pids: true,
  blkioWeight: true,
};
const nothing = Object.fromEntries(
  Object.keys(support).map((key) => [
    key,
    typeof support[key as keyof ResourceSupport] === "string" ? "" : false,
  ]),
) as unknown as ResourceSupport;
const privately = { kind: "private" } as const;
const hostMode = { kind: "host" } as const;

function requested(changes: Partial<SandboxRequest> = {}): SandboxRequest {
  return {
    id: "f".repeat(64) as ContainerId,
    runDir: "/run/x",
    stateDir: "/var/x",
    lowerDirs: [],
    upperDir: "/u",
    workDir: "/w",
    volatile: false,
    args: ["true"],
    env: [],
    workingDir: "",
    user: "",
    groupAdd: [],
    hostname: "box",
    domainname: "",
    terminal: false,
    openStdin: false,
    stdinOnce: false,
    readonlyRootfs: false,
    mounts: [],
    shmSizeBytes: 67_108_864,
    privileged: false,
    capAdd: [],
    capDrop: [],
    securityOpt: [],
    devices: [],
    deviceCgroupRules: [],
    sysctls: new Map(),
    ulimits: [],
    resources: {},
    oomScoreAdj: 0,
    init: false,
    network: privately,
    pidNamespace: privately,
    ipcNamespace: privately,
    utsNamespace: privately,
    cgroupNamespace: privately,
    ports: [],
    log: { driver: "none", path: "", maxBytes: 0, maxFiles: 1, attrsJson: "" },
    ...changes,
  };
}

function mountsOf(changes: Partial<SandboxRequest> = {}): OciMount[] {
  return planMounts(requested(changes), { initBinary: "/run/skiff/docker-init", recursiveReadOnly: true });
}

function specOf(changes: Partial<SandboxRequest> = {}, input: Partial<SpecInput> = {}): OciSpec {
  const request = requested(changes);
  return buildSpec({
    request,
    profile: new SecurityProfiles(host, false, false).decide(request),
    user: { uid: 0, gid: 0, additionalGids: [0], home: "/root" },
    mounts: mountsOf(changes),
    workingDir: "/",
    rlimits: [],
    devices: [],
    deviceRules: [],
    host,
    support,
    cgroupVersion: "2",
    rootfsPath: "/run/x/rootfs",
    cgroupsPath: "/skiff/f",
    seccomp: undefined,
    ...input,
  });
}

test("the spec of a plain container is the recorded one", () => {
  const golden = join(import.meta.dirname, "../../test/golden/oci-spec-default.json");
  assert.deepEqual(JSON.parse(JSON.stringify(specOf())), JSON.parse(readFileSync(golden, "utf8")));
});

test("capabilities of a user are a bound only; nothing is ever inheritable or ambient", () => {
  const user = { uid: 1000, gid: 1000, additionalGids: [1000], home: "/" };
  const { capabilities } = specOf({}, { user }).process;
  assert.deepEqual(
    [capabilities.effective, capabilities.permitted, capabilities.inheritable, capabilities.ambient],
    [[], [], [], []],
  );
  assert.equal(capabilities.bounding.length, 14);
});

test("privileged opens paths, mounts, devices and capabilities, but keeps a filter that was asked for", () => {
  const spec = specOf({ privileged: true });
  assert.deepEqual([spec.linux.maskedPaths, spec.linux.readonlyPaths], [[], []]);
  assert.deepEqual(spec.linux.resources.devices, [{ allow: true, access: "rwm" }]);
  assert.equal(spec.process.capabilities.effective.length, capabilityNames.length);
  assert.ok(spec.mounts.find((mount) => mount.destination === "/sys")?.options.includes("rw"));
  const profiles = new SecurityProfiles(host, false, false);
  const decide = (securityOpt: string[]) =>
    profiles.decide({ privileged: true, capAdd: [], capDrop: [], securityOpt });
  assert.equal(decide([]).seccomp, undefined);
  assert.equal(decide(['seccomp={"defaultAction":"SCMP_ACT_LOG"}']).seccomp?.defaultAction, "SCMP_ACT_LOG");
});

test("namespaces: none for the host's, a path for another's, the cgroup one on version 2 only", () => {
  const types = (spec: OciSpec): string[] =>
    spec.linux.namespaces.map(({ type, path }) => (path === undefined ? type : `${type}=${path}`));
  assert.deepEqual(types(specOf({}, { cgroupVersion: "1" })), ["mount", "network", "uts", "pid", "ipc"]);
  const mixed = specOf({
    network: { kind: "path", path: "/proc/1/fd/5" },
    pidNamespace: hostMode,
    utsNamespace: hostMode,
    ipcNamespace: hostMode,
    cgroupNamespace: hostMode,
  });
  assert.deepEqual(types(mixed), ["mount", "network=/proc/1/fd/5"]);
  assert.equal(mixed.hostname, undefined);
});

test("--init, a terminal's size, annotations, propagation, domain and low oom scores", () => {
  assert.deepEqual(specOf({ init: true, args: ["a", "b"] }).process.args, [
    "/sbin/docker-init",
    "--",
    "a",
    "b",
  ]);
  const terminal = specOf({ terminal: true, terminalSize: { rows: 5, columns: 7 } }).process;
  assert.deepEqual(terminal.consoleSize, { height: 5, width: 7 });
  assert.ok(terminal.env.includes("TERM=xterm"));
  assert.deepEqual(specOf({}, { seccomp: { bpfBase64: "QUJD" } }).annotations, {
    "run.oci.seccomp_bpf_data": "QUJD",
  });
  assert.equal(specOf({}).annotations, undefined);
  const scoped = specOf(
    {},
    { seccomp: { bpfBase64: "QUJD" }, annotations: { "run.oci.systemd.subgroup": "" } },
  );
  assert.deepEqual(scoped.annotations, {
    "run.oci.systemd.subgroup": "",
    "run.oci.seccomp_bpf_data": "QUJD",
  });
  const shared: SandboxMount = {
    type: "bind",
    source: "/a",
    target: "/b",
    readOnly: false,
    propagation: "rshared",
    nonRecursive: false,
  };
  assert.equal(specOf({ mounts: [shared] }).linux.rootfsPropagation, "shared");
  assert.equal(specOf({ mounts: [{ ...shared, propagation: "rslave" }] }).linux.rootfsPropagation, "rslave");
  assert.equal(specOf({ domainname: "example.org" }).linux.sysctl?.["kernel.domainname"], "example.org");
  assert.equal(specOf({}, { host: { oomScoreAdj: -500 } }).process.oomScoreAdj, 0);
  assert.equal(specOf({}, { host: { oomScoreAdj: 200 } }).process.oomScoreAdj, 200);
  assert.equal(specOf({ oomScoreAdj: -100 }).process.oomScoreAdj, -100);
});

test("a user's mounts take the place of default ones, parents come first", () => {
  const bind = (source: string, target: string): SandboxMount => ({
    type: "bind",
    source,
    target,
    readOnly: false,
    propagation: "rprivate",
    nonRecursive: false,
  });
  const targets = (changes: Partial<SandboxRequest>): string[] =>
    mountsOf(changes).map(({ destination }) => destination);
  assert.deepEqual(
    targets({ mounts: [bind("/h/b", "/a/b/c"), bind("/h/a", "/a/"), bind("/h/shm", "/dev/shm")] }),
    ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/a", "/dev/shm", "/a/b/c"],
  );
  assert.deepEqual(targets({ mounts: [bind("/dev", "/dev")] }), ["/proc", "/sys", "/sys/fs/cgroup", "/dev"]);
  const readOnly = mountsOf({
    mounts: [
      { ...bind("/h", "/x"), readOnly: true },
      { ...bind("/h", "/y"), readOnly: true, nonRecursive: true },
    ],
  });
  assert.deepEqual(
    readOnly.slice(-2).map(({ options }) => options),
    [
      ["rbind", "ro", "rro", "rprivate"],
      ["bind", "ro", "rprivate"],
    ],
  );
  assert.deepEqual(mountsOf({ init: true }).at(-1), {
    destination: "/sbin/docker-init",
    type: "bind",
    source: "/run/skiff/docker-init",
    options: ["bind", "ro", "rprivate"],
  });
  const shm = mountsOf({ ipcNamespace: hostMode }).find(({ destination }) => destination === "/dev/shm");
  assert.equal(shm?.source, "/dev/shm");
});

test("tmpfs options: Docker's defaults, the last of opposites wins, others are refused", () => {
  assert.deepEqual(tmpfsOptions("", false), ["noexec", "nosuid", "nodev"]);
  assert.deepEqual(tmpfsOptions("exec,size=64m,mode=1770,size=1g", false), [
    "exec",
    "nosuid",
    "nodev",
    "size=1g",
    "mode=1770",
  ]);
  assert.deepEqual(tmpfsOptions("rw", true).at(-1), "ro");
  for (const bad of ["foo", "size", "context=x", "size=1\n", "=1"])
    assert.throws(() => tmpfsOptions(bad, false), /invalid tmpfs option/, bad);
});

test("environment: order, replacement and removal as Docker's", () => {
  assert.deepEqual(mergeEnv(["A=1", "B=2"], ["C=3", "A=x=y", "B", "D"]), ["A=x=y", "C=3"]);
  assert.deepEqual(
    containerEnv({ env: ["X=1", "PATH=/p", "TERM"], hostname: "h", terminal: true, home: "/h" }),
    ["PATH=/p", "HOSTNAME=h", "X=1", "HOME=/h"],
  );
  assert.deepEqual(
    containerEnv({ env: ["HOME=/mine"], hostname: "h", terminal: false, home: "/h" }).at(-1),
    "HOME=/mine",
  );
  assert.throws(() => mergeEnv([], ["A=\0"]), /invalid environment variable/);
});

test("sysctls: those of the container's own namespaces, without tricks", () => {
  const namespaces = { network: privately, ipc: privately };
  checkSysctls(
    new Map([
      ["net.ipv4.ip_forward", "1"],
      ["kernel.shmmax", "65536"],
      ["fs.mqueue.msg_max", "5"],
      ["net.ipv4.conf.eth0/100.forwarding", "1"],
      ["kernel.sem", "250 32000\t32 128"],
    ]),
    namespaces,
  );
  for (const name of [
    "kernel.core_pattern",
    "vm.swappiness",
    "kernel.domainname",
    "fs.file-max",
    "user.max_user_namespaces",
  ]) {
    assert.throws(
      () => checkSysctls(new Map([[name, "1"]]), namespaces),
      /not in a separate kernel namespace/,
      name,
    );
  }
  for (const name of [
    "net",
    "net.",
    "net..ipv4",
    "net.ipv4/../../kernel",
    "net.ipv4.x y",
    "",
    "net.ipv4\0",
  ]) {
    assert.throws(() => checkSysctls(new Map([[name, "1"]]), namespaces), /sysctl/, name);
  }
  for (const value of ["1+kernel.core_pattern=|x", "a=b", "1\n2", "\0", "é"]) {
    assert.throws(
      () => checkSysctls(new Map([["net.ipv4.ip_forward", value]]), namespaces),
      /invalid value for sysctl/,
      value,
    );
  }
  assert.throws(
    () => checkSysctls(new Map([["net.ipv4.ip_forward", "1"]]), { network: hostMode, ipc: privately }),
    /host network namespace/,
  );
  assert.throws(
    () => checkSysctls(new Map([["kernel.shmmax", "1"]]), { network: privately, ipc: hostMode }),
    /host ipc namespace/,
  );
});

test("ulimits: defaults under the request's, unlimited, and what cannot be raised", () => {
  const resolve = (asked: Parameters<typeof resolveUlimits>[1], info = host) =>
    resolveUlimits([{ name: "core", soft: 0, hard: 0 }], asked, info);
  assert.deepEqual(
    JSON.parse(
      JSON.stringify(
        ociRlimits(
          resolve([
            { name: "core", soft: -1, hard: -1 },
            { name: "nofile", soft: 5, hard: 6 },
          ]),
        ),
      ),
    ),
    [
      { type: "RLIMIT_CORE", soft: 2 ** 64, hard: 2 ** 64 },
      { type: "RLIMIT_NOFILE", soft: 5, hard: 6 },
    ],
  );
  assert.match(JSON.stringify(ociRlimits([{ name: "core", soft: -1, hard: -1 }])), /18446744073709551615/);
  assert.throws(() => resolve([{ name: "foo", soft: 1, hard: 1 }]), /invalid ulimit type: foo/);
  assert.throws(
    () => resolve([{ name: "nofile", soft: 2, hard: 1 }]),
    /soft limit must be less than or equal/,
  );
  assert.throws(
    () => resolve([{ name: "nofile", soft: -1, hard: 1 }]),
    /soft limit must be less than or equal/,
  );
  const weak = { ...host, capabilities: host.capabilities & ~capabilityMask(["CAP_SYS_RESOURCE"]) };
  resolve([{ name: "nofile", soft: 1, hard: 30_000 }]);
  resolve([{ name: "nofile", soft: 1, hard: 20_000 }], weak);
  for (const hard of [20_001, -1])
    assert.throws(
      () => resolve([{ name: "nofile", soft: 1, hard }], weak),
      /cannot raise without CAP_SYS_RESOURCE/,
    );
});

test("resources that can never work are refused in Docker's words", () => {
  const cases: [Resources, string][] = [
    [{ memoryBytes: 1 << 20 }, "Minimum memory limit allowed is 6MB"],
    [
      { memoryBytes: 64 << 20, memorySwapBytes: 32 << 20 },
      "Minimum memoryswap limit should be larger than memory limit, see usage",
    ],
    [
      { memorySwapBytes: 32 << 20 },
      "You should always set the Memory limit when using Memoryswap limit, see usage",
    ],
    [{ memorySwappiness: 101 }, "Invalid value: 101, valid memory swappiness range is 0-100"],
    [
      { memoryBytes: 64 << 20, memoryReservationBytes: 65 << 20 },
      "Minimum memory limit can not be less than memory reservation limit, see usage",
    ],
    [{ memoryReservationBytes: 1 }, "Minimum memory reservation allowed is 6MB"],
    [
      { cpuPeriodUs: 10 },
      "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
    ],
    [{ cpuQuotaUs: 10 }, "CPU cfs quota can not be less than 1ms (i.e. 1000)"],
    [{ cpusetCpus: "9" }, "Requested CPUs are not available - requested 9, available: 0-1"],
    [{ cpusetCpus: "a-b" }, "Invalid value a-b for cpuset cpus"],
    [{ cpusetMems: "4" }, "Requested memory nodes are not available - requested 4, available: 0"],
    [{ blkioWeight: 5 }, "Range of blkio weight is from 10 to 1000"],
  ];
  for (const [resources, message] of cases)
    assert.throws(() => checkResources(resources, support), { message });
});

test("resources that the host lacks give a warning and are left out", () => {
  const asked: Resources = {
    memoryBytes: 64 << 20,
    memorySwappiness: 5,
    memoryReservationBytes: 32 << 20,
    oomKillDisable: true,
    cpuShares: 5,
    cpuQuotaUs: 5000,
    cpusetCpus: "0",
    pidsMax: 5,
    blkioWeight: 100,
  };
  assert.deepEqual(checkResources(asked, support), []);
  const warnings = checkResources(asked, nothing);
  assert.equal(warnings.length, 9);
  assert.equal(
    checkResources({ memoryBytes: 64 << 20 }, { ...support, swap: false })[0],
    "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
  );
  assert.deepEqual(Object.keys(specOf({ resources: asked }, { support: nothing }).linux.resources), [
    "devices",
  ]);
  assert.deepEqual(specOf({ resources: asked }).linux.resources.memory, {
    limit: 64 << 20,
    reservation: 32 << 20,
    swap: 128 << 20,
    swappiness: 5,
    disableOOMKiller: true,
  });
});

test("updates write the files of each version, swap and memory in an order that the kernel takes", () => {
  const files = (asked: Resources, version: "1" | "2", current = 0) =>
    updateWrites(asked, support, version, current).map((write) => write.slice(1).join("="));
  const more: Resources = { memoryBytes: 100 << 20, memorySwapBytes: 200 << 20 };
  assert.deepEqual(files(more, "1", 50 << 20), [
    `memory.memsw.limit_in_bytes=${200 << 20}`,
    `memory.limit_in_bytes=${100 << 20}`,
  ]);
  assert.deepEqual(files(more, "1", 400 << 20), [
    `memory.limit_in_bytes=${100 << 20}`,
    `memory.memsw.limit_in_bytes=${200 << 20}`,
  ]);
  assert.deepEqual(
    files(
      { ...more, cpuShares: 1024, cpuQuotaUs: 50_000, pidsMax: -1, blkioWeight: 1000, cpusetCpus: "0" },
      "2",
    ),
    [
      `memory.swap.max=${100 << 20}`,
      `memory.max=${100 << 20}`,
      "cpu.weight=39",
      "cpu.max=50000 100000",
      "cpuset.cpus=0",
      "pids.max=max",
      "io.weight=default 10000",
    ],
  );
  assert.deepEqual([cpuWeight(2), cpuWeight(1024), cpuWeight(262_144)], [1, 39, 10_000]);
});

test("security options: every form Docker takes, and no other", () => {
  const parsed = parseSecurityOptions([
    "no-new-privileges",
    "seccomp=unconfined",
    "apparmor:mine",
    "systempaths=unconfined",
    "label=disable",
  ]);
  assert.deepEqual(
    [
      parsed.noNewPrivileges,
      parsed.seccomp,
      parsed.apparmor,
      parsed.systemPathsUnconfined,
      parsed.warnings.length,
    ],
    [true, null, "mine", true, 1],
  );
  assert.equal(parseSecurityOptions(["no-new-privileges=false"]).noNewPrivileges, false);
  assert.equal(parseSecurityOptions([]).seccomp, undefined);
  for (const bad of [
    "foo=bar",
    "foo",
    "seccomp",
    "seccomp=",
    "no-new-privileges=maybe",
    "systempaths=x",
    "",
  ]) {
    assert.throws(() => parseSecurityOptions([bad]), {
      message: `invalid --security-opt 2: ${JSON.stringify(bad)}`,
    });
  }
});

test("AppArmor: the default where it is loaded, what was asked where the kernel has it, none elsewhere", () => {
  const decide = (apparmor: boolean, loaded: boolean, changes: Partial<SandboxRequest> = {}) =>
    new SecurityProfiles({ ...host, apparmor }, false, loaded).decide(requested(changes)).apparmor;
  assert.equal(decide(true, true), "skiff-default");
  assert.equal(decide(true, false), undefined);
  assert.equal(decide(true, false, { securityOpt: ["apparmor=mine"] }), "mine");
  assert.equal(decide(true, true, { securityOpt: ["apparmor=unconfined"] }), undefined);
  assert.equal(decide(true, true, { privileged: true }), undefined);
  assert.equal(decide(false, false, { securityOpt: ["apparmor=mine"] }), undefined);
});

test("device rules as Docker writes them", () => {
  assert.deepEqual(parseDeviceRule("c 1:3 rwm"), {
    allow: true,
    type: "c",
    major: 1,
    minor: 3,
    access: "rwm",
  });
  assert.deepEqual(parseDeviceRule("b 8:* r"), { allow: true, type: "b", major: 8, access: "r" });
  for (const bad of ["c 1:3", "x 1:3 r", "c 1:3 rx", "c 1:3 rwmr", " c 1:3 r", "c -1:3 r"])
    assert.throws(() => parseDeviceRule(bad), /invalid device cgroup rule format/, bad);
});
