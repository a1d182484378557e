import assert from "node:assert/strict";
import { test } from "node:test";
import { type ContainerCreateBody, containerCreateSchema, hostConfigSchema } from "#wire/container-schema.ts";
import { decodeJson } from "#wire/go-json.ts";
import { planMounts } from "./container-mounts.ts";
import { checkCreateRequest, checkResources, withHostDefaults } from "./container-validate.ts";

function decode(body: object): {
  body: ContainerCreateBody;
  host: NonNullable<ContainerCreateBody["HostConfig"]>;
} {
  const decoded = decodeJson(containerCreateSchema, JSON.stringify(body));
  return { body: decoded, host: decoded.HostConfig ?? hostConfigSchema.zero() };
}

const defaults = {
  shmSizeBytes: 67_108_864,
  logDriver: "json-file",
  logOptions: {},
  runtimeName: "crun",
  cgroupVersion: "1",
} as const;

function whole(fields: object): void {
  const { body, host } = decode(fields);
  checkCreateRequest(body, host);
  withHostDefaults(host, defaults);
  planMounts({ host, volumes: [], inherited: [], sourceExists: (path) => path !== "/nope" });
}

/** Bodies and Docker's words for them, as recorded from dockerd 20.10 and moby 28. */
const refused: [object, string][] = [
  [{ WorkingDir: "a" }, "the working directory 'a' is invalid, it needs to be an absolute path"],
  [{ Env: ["=a"] }, "invalid environment variable: =a"],
  [{ StopSignal: "NOPE" }, "Invalid signal: NOPE"],
  [{ Healthcheck: { Interval: 1000 } }, "Interval in Healthcheck cannot be less than 1ms"],
  [
    { HostConfig: { Binds: ["rel/a:/x"] } },
    'create rel/a: "rel/a" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path',
  ],
  [
    { HostConfig: { Binds: ["/a:x"] } },
    "invalid volume specification: '/a:x': invalid mount config for type \"bind\": invalid mount path: 'x' mount path must be absolute",
  ],
  [
    { HostConfig: { Binds: ["/a:/"] } },
    "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'",
  ],
  [{ HostConfig: { Binds: ["/a:/b:bad"] } }, "invalid mode: bad"],
  [{ HostConfig: { Binds: ["/a:/b", "/c:/b"] } }, "Duplicate mount point: /b"],
  [{ HostConfig: { Binds: ["/a:/b:c:d:e"] } }, "invalid volume specification: '/a:/b:c:d:e'"],
  [{ HostConfig: { Binds: [""] } }, "invalid volume specification: ''"],
  [
    { HostConfig: { Mounts: [{ Type: "bind", Source: "/nope", Target: "/b" }] } },
    'invalid mount config for type "bind": bind source path does not exist: /nope',
  ],
  [
    { HostConfig: { Mounts: [{ Type: "bind", Source: "nope", Target: "/b" }] } },
    "invalid mount config for type \"bind\": invalid mount path: 'nope' mount path must be absolute",
  ],
  [
    { HostConfig: { Mounts: [{ Type: "bind", Source: "", Target: "/b" }] } },
    'invalid mount config for type "bind": field Source must not be empty',
  ],
  [
    { HostConfig: { Mounts: [{ Type: "bog", Source: "/tmp", Target: "/x" }] } },
    'invalid mount config for type "bog": mount type unknown',
  ],
  [
    { HostConfig: { Mounts: [{ Type: "tmpfs", Source: "/tmp", Target: "/x" }] } },
    'invalid mount config for type "tmpfs": field Source must not be specified',
  ],
  [
    {
      HostConfig: {
        Mounts: [{ Type: "bind", Source: "/tmp", Target: "/x", BindOptions: { Propagation: "zz" } }],
      },
    },
    'invalid mount config for type "bind": invalid propagation mode: zz',
  ],
  [
    { HostConfig: { NetworkMode: "container:" } },
    "Invalid network mode: invalid container format container:<name|id>",
  ],
  [
    { Hostname: "a", HostConfig: { NetworkMode: "container:x" } },
    "conflicting options: hostname and the network mode",
  ],
  [{ HostConfig: { Memory: 1000 } }, "Minimum memory limit allowed is 6MB"],
  [
    { HostConfig: { MemorySwap: 100_000_000 } },
    "You should always set the Memory limit when using Memoryswap limit, see usage",
  ],
  [
    { HostConfig: { Memory: 100_000_000, MemorySwap: 10_000_000 } },
    "Minimum memoryswap limit should be larger than memory limit, see usage",
  ],
  [
    { HostConfig: { NanoCpus: 1_000_000_000, CpuPeriod: 1000 } },
    "Conflicting options: Nano CPUs and CPU Period cannot both be set",
  ],
  [
    { HostConfig: { CpuPeriod: 10 } },
    "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
  ],
  [{ HostConfig: { CpusetCpus: "x" } }, "Invalid value x for cpuset cpus: invalid format: x"],
  [{ HostConfig: { OomScoreAdj: 10_000 } }, "Invalid value 10000, range for oom score adj is [-1000, 1000]"],
  [{ HostConfig: { LogConfig: { Type: "syslog" } } }, "logger: no log driver named 'syslog' is registered"],
  [
    { HostConfig: { LogConfig: { Type: "json-file", Config: { foo: "1" } } } },
    "unknown log opt 'foo' for json-file log driver",
  ],
  [
    { HostConfig: { RestartPolicy: { Name: "zz" } } },
    "invalid restart policy: unknown policy 'zz'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
  ],
  [
    { HostConfig: { RestartPolicy: { Name: "always", MaximumRetryCount: 3 } } },
    "invalid restart policy: maximum retry count can only be used with 'on-failure'",
  ],
  [
    { HostConfig: { AutoRemove: true, RestartPolicy: { Name: "always" } } },
    "can't create 'AutoRemove' container with restart policy",
  ],
  [{ HostConfig: { ExtraHosts: ["zz"] } }, 'bad format for add-host: "zz"'],
  [{ HostConfig: { PortBindings: { "x/tcp": [{ HostPort: "1" }] } } }, 'invalid port specification: "x"'],
  [{ HostConfig: { PortBindings: { "80/tcp": [{ HostPort: "zz" }] } } }, 'invalid port specification: "zz"'],
  [{ HostConfig: { ShmSize: -1 } }, "SHM size can not be less than 0"],
  [
    { HostConfig: { StorageOpt: { size: "1G" } } },
    "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
  ],
  [{ HostConfig: { Isolation: "zz" } }, "Invalid isolation: \"zz\" - linux only supports 'default'"],
  [{ HostConfig: { CgroupnsMode: "zz" } }, "invalid cgroup namespace mode: zz"],
  [
    { HostConfig: { DeviceRequests: [{ Count: -1, Capabilities: [["gpu"]] }] } },
    'could not select device driver "" with capabilities: [[gpu]]',
  ],
  [{ HostConfig: { Tmpfs: { x: "" } } }, "invalid mount path: 'x' mount path must be absolute"],
  [{ HostConfig: { Annotations: { "run.oci.x": "1" } } }, "HostConfig.Annotations is not supported"],
  [
    { HostConfig: { BlkioDeviceReadBps: [{ Path: "/dev/sda", Rate: 1 }] } },
    "HostConfig.BlkioDeviceReadBps is not supported",
  ],
  [{ HostConfig: { CpuRealtimeRuntime: 1 } }, "HostConfig.CpuRealtimeRuntime is not supported"],
  [{ NetworkDisabled: true }, "NetworkDisabled is not supported"],
];

for (const [body, message] of refused) {
  test(`refused: ${message}`, () => {
    assert.throws(() => whole(body), { message, kind: "invalid" });
  });
}

test("a plain request passes, in any case of keys, with nulls", () => {
  whole({});
  whole({ image: "x", hostconfig: null, entrypoint: "sh", CMD: null, Labels: null });
});

test("the CPUs of this host bound what may be asked for", () => {
  const { host } = decode({ HostConfig: { NanoCpus: 3e9 } });
  assert.throws(() => checkResources(host, 2), {
    message: "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
  });
  const { host: cpuset } = decode({ HostConfig: { CpusetCpus: "0,2" } });
  assert.throws(() => checkResources(cpuset, 2), {
    message: "Requested CPUs are not available - requested 0,2, available: 0-1",
  });
});

test("warnings in Docker's words", () => {
  const published = decode({
    HostConfig: { NetworkMode: "host", PortBindings: { "80/tcp": [{ HostPort: "80" }] } },
  });
  assert.deepEqual(checkCreateRequest(published.body, published.host), [
    "Published ports are discarded when using host network mode",
  ]);
});

test("defaults are filled in, and a second create may send them back", () => {
  const { host } = decode({ HostConfig: { Memory: 10_000_000, PidsLimit: -1 } });
  const filled = withHostDefaults(host, defaults);
  assert.equal(filled.NetworkMode, "bridge");
  assert.equal(filled.MemorySwap, 20_000_000);
  assert.equal(filled.PidsLimit, null);
  assert.equal(filled.IpcMode, "private");
  assert.equal(filled.CgroupnsMode, "host");
  const again = decode({ HostConfig: filled });
  checkCreateRequest(again.body, again.host);
  assert.deepEqual(withHostDefaults(again.host, defaults), filled);
});
