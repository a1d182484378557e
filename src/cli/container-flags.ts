/** Flags that `run` and `create` share. Checks that need one value only are here; the rest is in container-config.ts. */
import {
  boolean,
  bytes,
  bytesOrUnlimited,
  decimal,
  duration,
  integer,
  list,
  listOf,
  map,
  mapOf,
  string,
  uint16,
} from "./flag-types.ts";
import { type FlagSpec, flag, toggle } from "./flags.ts";
import { parseMount } from "./mount-spec.ts";
import { parseNetworkOption } from "./network-option.ts";
import {
  checkAddHost,
  checkAttach,
  checkDeviceRule,
  checkEnv,
  checkIp,
  checkLabel,
  checkLink,
  checkSysctl,
  parseThrottle,
  parseUlimit,
  parseWeightDevice,
} from "./option-checks.ts";

const hidden = { hidden: true } as const;

const identity: readonly FlagSpec[] = [
  flag("name", string, "Name for the container"),
  flag("h,hostname", string, "Host name inside the container"),
  flag("domainname", string, "NIS domain name of the container"),
  flag("l,label", listOf(checkLabel), "Attach a label to the container"),
  flag("label-file", list, "Read labels from a file, one a line"),
  flag("annotation", map, "Annotation passed on to the OCI runtime"),
  flag("cidfile", string, "Write the container's id to this file"),
  flag("platform", string, "Platform to use where an image has several"),
];

const processFlags: readonly FlagSpec[] = [
  flag("a,attach", listOf(checkAttach), "Attach to STDIN, STDOUT or STDERR"),
  flag("e,env", listOf(checkEnv), "Set an environment variable"),
  flag("env-file", list, "Read environment variables from a file"),
  flag("entrypoint", string, "Run this instead of the image's entrypoint"),
  flag("group-add", list, "Group to join besides the user's own"),
  toggle("init", "Run an init inside that forwards signals and reaps processes"),
  toggle("i,interactive", "Keep standard input open even when nothing is attached"),
  flag("stop-signal", string, "Signal that stops the container"),
  flag("stop-timeout", integer, "Seconds to wait before a stop kills"),
  toggle("t,tty", "Give the process a pseudo-terminal"),
  flag("u,user", string, "User name or id (as <name|uid>[:<group|gid>])"),
  flag("w,workdir", string, "Working directory inside the container"),
  flag("restart", string, "What to do when the container exits", { shown: '"no"', initial: "no" }),
  toggle("rm", "Remove the container and its anonymous volumes when it exits"),
  flag("runtime", string, "OCI runtime to use"),
];

const network: readonly FlagSpec[] = [
  flag("add-host", listOf(checkAddHost), "Add a line to the hosts file (host:ip)"),
  flag("dns", listOf(checkIp), "DNS server to use"),
  flag("dns-option", list, "Option for the resolver"),
  flag("dns-opt", list, "", { ...hidden, aliasOf: "dns-option" }),
  flag("dns-search", list, "Domain to search names in"),
  flag("expose", list, "Port or range of ports to expose"),
  flag("ip", string, "IPv4 address (like 172.30.100.104)"),
  flag("ip6", string, "IPv6 address (like 2001:db8::33)"),
  flag("link", listOf(checkLink), "Link to another container"),
  flag("link-local-ip", list, "Link-local address of the container"),
  flag("mac-address", string, "MAC address (like 92:d0:c6:0a:29:33)"),
  flag("network", { ...listOf(parseNetworkOption), label: "network" }, "Network to connect to"),
  flag("net", { ...listOf(parseNetworkOption), label: "network" }, "", { ...hidden, aliasOf: "network" }),
  flag("network-alias", list, "Further name of the container within its network"),
  flag("net-alias", list, "", { ...hidden, aliasOf: "network-alias" }),
  flag("p,publish", list, "Publish a port of the container on the host"),
  toggle("P,publish-all", "Publish every exposed port on a port of the daemon's choice"),
];

const storage: readonly FlagSpec[] = [
  flag("v,volume", list, "Mount a volume or a directory of the host"),
  flag("volume-driver", string, "Volume driver for new volumes"),
  flag("volumes-from", list, "Mount the volumes of another container"),
  flag("mount", { ...listOf(parseMount), label: "mount" }, "Attach a file system"),
  flag("tmpfs", list, "Mount a tmpfs at a directory"),
  toggle("read-only", "Mount the root file system read-only"),
  flag("storage-opt", list, "Option of the storage driver"),
  flag("shm-size", bytes, "Size of /dev/shm"),
];

const security: readonly FlagSpec[] = [
  flag("cap-add", list, "Add a Linux capability"),
  flag("cap-drop", list, "Drop a Linux capability"),
  flag("device", list, "Give the container a device of the host"),
  flag("device-cgroup-rule", listOf(checkDeviceRule), "Add a rule to the list of allowed devices"),
  flag("gpus", { ...list, label: "gpu-request" }, "GPUs for the container"),
  toggle("privileged", "Give the container all privileges"),
  flag("security-opt", list, "Security option"),
  flag("sysctl", mapOf(checkSysctl), "Kernel parameter"),
  flag("userns", string, "User namespace to use"),
  flag("uts", string, "UTS namespace to use"),
  flag("ipc", string, "IPC mode to use"),
  flag("pid", string, "PID namespace to use"),
  flag("cgroupns", string, "Cgroup namespace to use (host|private)"),
  toggle("use-api-socket", "Bind the daemon's socket into the container", hidden),
];

const resources: readonly FlagSpec[] = [
  flag("blkio-weight", uint16, "Weight of block IO, 10 to 1000, or 0 for none", { shown: "0" }),
  flag("blkio-weight-device", listOf(parseWeightDevice), "Weight of block IO on one device", { shown: "[]" }),
  flag("cgroup-parent", string, "Parent cgroup of the container"),
  flag("cpu-period", integer, "Period of the CPU scheduler in microseconds"),
  flag("cpu-quota", integer, "Microseconds of CPU in a period"),
  flag("cpu-rt-period", integer, "Period of the real-time scheduler in microseconds"),
  flag("cpu-rt-runtime", integer, "Real-time microseconds in a period"),
  flag("c,cpu-shares", integer, "Weight in CPU contention"),
  flag("cpus", decimal, "Number of CPUs"),
  flag("cpuset-cpus", string, "CPUs to run on (0-3, 0,1)"),
  flag("cpuset-mems", string, "Memory nodes to use (0-3, 0,1)"),
  flag("device-read-bps", listOf(parseThrottle("bytes")), "Limit reads from a device (bytes a second)", {
    shown: "[]",
  }),
  flag("device-read-iops", listOf(parseThrottle("count")), "Limit reads from a device (IO a second)", {
    shown: "[]",
  }),
  flag("device-write-bps", listOf(parseThrottle("bytes")), "Limit writes to a device (bytes a second)", {
    shown: "[]",
  }),
  flag("device-write-iops", listOf(parseThrottle("count")), "Limit writes to a device (IO a second)", {
    shown: "[]",
  }),
  flag("kernel-memory", bytes, "Limit of kernel memory"),
  flag("m,memory", bytes, "Limit of memory"),
  flag("memory-reservation", bytes, "Memory to fall back to under pressure"),
  flag("memory-swap", bytesOrUnlimited, "Limit of memory and swap together; -1 for no limit"),
  flag("memory-swappiness", integer, "Tendency to swap (0 to 100)", { shown: "-1", initial: -1 }),
  toggle("oom-kill-disable", "Do not kill when memory runs out"),
  flag("oom-score-adj", integer, "Preference of the OOM killer (-1000 to 1000)"),
  flag("pids-limit", integer, "Limit of processes (-1 for none)"),
  flag("ulimit", { ...listOf(parseUlimit), label: "ulimit" }, "Resource limit of the process", {
    shown: "[]",
  }),
  flag("cpu-count", integer, "", hidden),
  flag("cpu-percent", integer, "", hidden),
  flag("io-maxbandwidth", bytes, "", hidden),
  flag("io-maxiops", integer, "", hidden),
  flag("isolation", string, "", hidden),
];

const health: readonly FlagSpec[] = [
  flag("health-cmd", string, "Command that checks health"),
  flag("health-interval", duration, "Time between checks (ms|s|m|h)", { shown: "0s" }),
  flag("health-retries", integer, "Failures in a row until unhealthy"),
  flag("health-start-interval", duration, "Time between checks during the start (ms|s|m|h)", { shown: "0s" }),
  flag("health-start-period", duration, "Time to start before failures count (ms|s|m|h)", { shown: "0s" }),
  flag("health-timeout", duration, "Longest time of one check (ms|s|m|h)", { shown: "0s" }),
  toggle("no-healthcheck", "Do not use the image's health check"),
];

const logging: readonly FlagSpec[] = [
  flag("log-driver", string, "Log driver of the container"),
  flag("log-opt", list, "Option of the log driver"),
];

const pulling: readonly FlagSpec[] = [
  flag("disable-content-trust", boolean, "Skip the check of signatures", { shown: "true", initial: true }),
  toggle("q,quiet", "Do not show the progress of a pull"),
];

/** All of them; `pullHelp` says what `--pull` comes before. */
export function containerFlags(pullHelp: string): FlagSpec[] {
  return [
    ...identity,
    ...processFlags,
    ...network,
    ...storage,
    ...security,
    ...resources,
    ...health,
    ...logging,
    ...pulling,
    flag("pull", string, `${pullHelp} ("always", "missing", "never")`, {
      shown: '"missing"',
      initial: "missing",
    }),
  ];
}
