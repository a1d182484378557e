import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { skiffVersion } from "#base/version.ts";
import { readConfig, takeServiceEnvironment, usage } from "./config.ts";
import { formatAddress } from "./config-hosts.ts";
import { options } from "./config-options.ts";

const directory = mkdtempSync(join(tmpdir(), "skiff-config-"));
test.after(() => rmSync(directory, { recursive: true }));

function withFile(text: string, ...argv: string[]): ReturnType<typeof readConfig> {
  const path = join(directory, "daemon.json");
  writeFileSync(path, text);
  return readConfig([...argv, "--config-file", path], {});
}

test("defaults live beside a Docker install", () => {
  const config = readConfig([], {});
  assert.equal(config.dataRoot, "/var/lib/skiff");
  assert.deepEqual(config.hosts.map(formatAddress), ["unix:///run/skiff/skiff.sock"]);
  assert.equal(config.pidfile, "/run/skiff/skiffd.pid");
  assert.equal(config.defaultShmSizeBytes, 64 * 1024 * 1024);
  assert.equal(config.iptables, true);
  assert.ok(Object.isFrozen(config));
});

test("flags in each of pflag's spellings", () => {
  const config = readConfig(
    [
      "-D",
      "--data-root=/a",
      "--exec-root",
      "/b",
      "-Hunix:///s1",
      "-H",
      "unix:///s2",
      "-H=unix://",
      "--iptables=false",
      "--add-runtime",
      "own=/bin/own",
      "--default-runtime",
      "own",
      "--default-ulimit",
      "nofile=10:20",
      "--default-address-pool",
      "base=10.1.0.0/16,size=24",
      "--log-opt",
      "max-size=1m",
      "--default-shm-size",
      "1g",
    ],
    {},
  );
  assert.equal(config.logLevel, "debug");
  assert.deepEqual(config.hosts.map(formatAddress), ["unix:///s1", "unix:///s2", "unix:///b/skiff.sock"]);
  assert.equal(config.pidfile, "/b/skiffd.pid");
  assert.equal(config.iptables, false);
  assert.deepEqual(config.runtimes.get("own"), { path: "/bin/own", args: [] });
  assert.deepEqual(config.defaultUlimits, [{ name: "nofile", soft: 10, hard: 20 }]);
  assert.deepEqual(config.addressPools, [{ base: "10.1.0.0/16", size: 24 }]);
  assert.equal(config.logOptions.get("max-size"), "1m");
  assert.equal(config.defaultShmSizeBytes, 1024 ** 3);
});

for (const [argv, message] of [
  [["--frobnicate"], /^unknown flag: --frobnicate$/],
  [["-Z"], /^unknown shorthand flag: 'Z' in -Z$/],
  [["--userns-remap=default"], /^flag --userns-remap is not supported by skiffd yet$/],
  [["-b", "br0"], /^flag --bridge is not supported by skiffd yet$/],
  [["--data-root"], /^flag needs an argument: --data-root$/],
  [
    ["--debug=maybe"],
    /^invalid argument "maybe" for "--debug" flag: strconv\.ParseBool: parsing "maybe": invalid syntax$/,
  ],
  [["run"], /accepts no arguments/],
  [
    ["-H", "tcp://0.0.0.0:2375"],
    /^tcp:\/\/0\.0\.0\.0:2375 without mutual TLS would make whoever reaches it root/,
  ],
  [["-H", "tcp://h:1", "--tls"], /^tcp:\/\/h:1 without mutual TLS/],
  [["-H", "ssh://x"], /^host ssh:\/\/x is not supported by skiffd: unix, tcp and fd are$/],
  [["-H", "ftp://x"], /^invalid bind address format: ftp:\/\/x$/],
  [["-H", "tcp://a/b", "--tlsverify"], /^invalid bind address \(tcp:\/\/a\/b\)/],
  [["-H", "tcp://h:70000", "--tlsverify"], /70000 is no port/],
  [["-H", "unix://relative"], /must be absolute/],
  [["-H", "fd://1"], /names neither a descriptor/],
  [["--allowed-host", "a b"], /invalid value "a b" for allowed-host/],
  [["--label", "novalue"], /invalid value "novalue" for label/],
  [["--label", "a=1", "--label", "a=2"], /^conflict labels for a: "a=1" and "a=2"$/],
  [["--feature", "buildkit=true"], /^feature buildkit is not supported by skiffd yet$/],
  [["--feature", "frob=false"], /^feature frob is not known to skiffd$/],
  [["-H", `unix:///${"a".repeat(120)}`], /longer than a socket's path can be/],
  [["--storage-driver", "btrfs"], /storage-driver btrfs is not supported/],
  [["--log-level", "loud"], /unable to parse logging level: loud/],
  [["--default-runtime", "nope"], /specified default runtime 'nope' does not exist/],
  [["--data-root", "/x", "--exec-root", "/x"], /must not be the same directory/],
  [["--bip", "10.0.0.1"], /invalid CIDR address for bip: 10\.0\.0\.1/],
  [["--registry-mirror", "ftp://x"], /invalid value "ftp:\/\/x" for registry-mirror/],
  [["--exec-opt", "native.cgroupdriver=frob"], /^native\.cgroupdriver option frob not supported$/],
  [["--exec-opt", "frob=1"], /^unknown option frob$/],
  [["--exec-opt", "frob"], /^unable to parse key\/value option: frob$/],
  [["--default-ulimit", "nofile=20:10"], /soft limit must be less than or equal to hard limit/],
  [["--max-concurrent-downloads", "0"], /max-concurrent-downloads must be from 1 to 100, not 0/],
] as const) {
  test(`refused: ${argv.join(" ").slice(0, 60)}`, () => {
    assert.throws(() => readConfig(argv, {}), { message });
  });
}

test("hosts: unix, tcp and fd, several at once, ports as dockerd's", () => {
  const of = (...argv: string[]): string[] => readConfig(argv, {}).hosts.map(formatAddress);
  const open = "--insecure-tcp-without-mutual-tls";
  assert.deepEqual(of("-H", "tcp://", open), ["tcp://127.0.0.1:2375"]);
  assert.deepEqual(of("-H", "tcp://", "--tlsverify"), ["tcp://127.0.0.1:2376"]);
  assert.deepEqual(of("-H", ":99", "-H", "0.0.0.0:98", open), ["tcp://127.0.0.1:99", "tcp://0.0.0.0:98"]);
  assert.deepEqual(of("-H", "tcp://[::1]:99", "-H", "tcp://host.example/", "--tlsverify"), [
    "tcp://[::1]:99",
    "tcp://host.example:2376",
  ]);
  const many = of("-H", "fd://", "-H", "fd://3", "-H", "fd://api", "-H", "fd://*", "-H", "unix://");
  assert.deepEqual(many, ["fd://", "fd://3", "fd://api", "unix:///run/skiff/skiff.sock"]);
});

test("TLS: what implies what, and where the files are", () => {
  const of = (...argv: string[]) => readConfig(argv, {}).tls;
  assert.equal(of().mode, "off");
  assert.equal(of("--tls").mode, "server");
  assert.equal(of("--tlsverify").mode, "mutual");
  assert.equal(of("--tlsverify=false").mode, "server");
  assert.deepEqual(of("--tlsverify", "--tlscert", "/c"), {
    mode: "mutual",
    authority: "/etc/skiff/ca.pem",
    certificate: "/c",
    key: "/etc/skiff/server-key.pem",
  });
  const { tls, hosts } = withFile(
    '{"hosts":["tcp://:1"],"tlsverify":true,"tlscacert":"/a","tlscert":"/c","tlskey":"/k"}',
  );
  assert.deepEqual(tls, { mode: "mutual", authority: "/a", certificate: "/c", key: "/k" });
  assert.deepEqual(hosts, [{ kind: "tcp", host: "127.0.0.1", port: 1 }]);
});

test("labels, features, transfers and the cgroup driver, by flag and by file", () => {
  const flags = readConfig(
    ["--label", "a=1", "--label", "a=1", "--feature", "buildkit=false", "--max-concurrent-uploads", "7"],
    {},
  );
  assert.deepEqual(flags.labels, ["a=1"]);
  assert.deepEqual([...flags.features], [["buildkit", false]]);
  assert.equal(flags.maxConcurrentUploads, 7);
  assert.equal(flags.cgroupDriver, undefined);
  const file = withFile(
    '{"labels":["b=2"],"features":{"cdi":false},"max-download-attempts":9,"exec-opts":["native.cgroupdriver=systemd"]}',
  );
  assert.deepEqual(file.labels, ["b=2"]);
  assert.deepEqual([...file.features], [["cdi", false]]);
  assert.equal(file.maxDownloadAttempts, 9);
  assert.equal(file.cgroupDriver, "systemd");
});

test("what a service manager says is taken out of the environment", () => {
  const environment: Record<string, string | undefined> = { NOTIFY_SOCKET: "@x", LISTEN_FDS: "1", HOME: "/" };
  const { notifySocket, listenFds, listenPid } = takeServiceEnvironment(environment);
  assert.deepEqual([notifySocket, listenFds, listenPid], ["@x", "1", undefined]);
  assert.deepEqual(environment, { HOME: "/" });
});

test("everything that is wrong with the values is told at once", () => {
  assert.throws(
    () => readConfig(["--bip", "x", "--storage-driver", "y", "--log-level", "z"], {}),
    ({ message }: Error) =>
      /bip/.test(message) && /storage-driver/.test(message) && /logging level/.test(message),
  );
});

test("a configuration file with dockerd's keys", () => {
  const config = withFile(
    JSON.stringify({
      hosts: ["unix:///f"],
      "insecure-registries": ["r:5000", "10.0.0.0/8"],
      runtimes: { own: { path: "/bin/own", runtimeArgs: ["-x"] } },
      "default-ulimits": { nofile: { Name: "nofile", Hard: 64000, Soft: 64000 } },
      "default-address-pools": [{ base: "172.30.0.0/16", size: 24 }],
      "log-opts": { "max-size": "10m" },
      "live-restore": true,
    }),
  );
  assert.deepEqual(config.hosts, [{ kind: "unix", path: "/f" }]);
  assert.deepEqual(config.insecureRegistries, ["r:5000", "10.0.0.0/8"]);
  assert.deepEqual(config.runtimes.get("own"), { path: "/bin/own", args: ["-x"] });
  assert.deepEqual(config.defaultUlimits, [{ name: "nofile", soft: 64000, hard: 64000 }]);
});

test("a registry besides, from flags or the file", () => {
  assert.equal(readConfig([], {}).registry, undefined);
  const flags = ["--registry", "listen=:5001", "--registry", "read-only", "--data-root", "/d"];
  const { registry } = readConfig(flags, {});
  assert.deepEqual(registry?.listen, { host: "127.0.0.1", port: 5001 });
  assert.deepEqual([registry?.readOnly, registry?.root, registry?.accessLog], [true, "/d/registry", "off"]);
  const file = withFile('{"registry": {"root": "/r", "gc-interval": "24h", "max-connections": 5}}');
  assert.deepEqual([file.registry?.root, file.registry?.gcIntervalMs], ["/r", 86_400_000]);
  for (const [text, message] of [
    ['{"registry": {"listen": "0.0.0.0:5000"}}', /registry: listen 0\.0\.0\.0 is not loopback/],
    ['{"registry": {"listn": "x"}}', /registry: listn is no setting/],
    ['{"registry": "x"}', /registry must be an object/],
  ] as const)
    assert.throws(() => withFile(text), { message });
});

test("unknown keys, keys not supported, bad types and conflicts with flags are named together", () => {
  assert.throws(
    () => withFile('{"frob":1,"userns-remap":"x","dns":"1.1.1.1","debug":true}', "--debug=false"),
    ({ message }: Error) =>
      message.includes("frob does not match any configuration option") &&
      message.includes("userns-remap is not supported by skiffd yet") &&
      message.includes("dns must be a list of strings") &&
      message.includes(
        "debug is specified both as a flag and in the configuration file (from flag: false, from file: true)",
      ),
  );
});

test("a file that is named must exist and be one JSON object", () => {
  assert.throws(() => readConfig(["--config-file", join(directory, "none.json")], {}), /no such file/);
  assert.throws(() => withFile("{"), /is not JSON/);
  assert.throws(() => withFile("[]"), /must hold one JSON object/);
  assert.equal(withFile("").logLevel, "info");
});

test("usage names every option, and the version is the package's", () => {
  const text = usage();
  for (const { flag } of options) assert.ok(text.includes(`--${flag}`), flag);
  const pkg = JSON.parse(readFileSync(join(import.meta.dirname, "../../package.json"), "utf8")) as {
    version: string;
  };
  assert.equal(skiffVersion, pkg.version);
});
