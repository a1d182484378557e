/** The options of skiffd, spelled as dockerd's: flag, key of the configuration file, and how both are read. */

export type OptionKind =
  | "bool"
  | "string"
  | "integer"
  | "list"
  | "pairs"
  | "runtimes"
  | "pools"
  | "ulimits"
  | "registry"
  | "features";

export interface OptionRow {
  readonly flag: string;
  readonly short?: string;
  /** Key in the configuration file; options without one are for the command line only. */
  readonly key?: string;
  readonly kind: OptionKind;
  readonly help: string;
}

export const options = [
  {
    flag: "add-runtime",
    key: "runtimes",
    kind: "runtimes",
    help: "Register an additional OCI compatible runtime",
  },
  {
    flag: "allowed-host",
    key: "allowed-hosts",
    kind: "list",
    help: "Further name by which clients may address the TCP listeners (ours)",
  },
  { flag: "bip", key: "bip", kind: "string", help: "IPv4 address for the default bridge" },
  {
    flag: "check-state",
    kind: "bool",
    help: "Check that the state of a stopped daemon agrees with itself, and exit (ours)",
  },
  {
    flag: "cgroup-parent",
    key: "cgroup-parent",
    kind: "string",
    help: "Set parent cgroup for all containers",
  },
  { flag: "config-file", kind: "string", help: "Daemon configuration file" },
  { flag: "data-root", key: "data-root", kind: "string", help: "Root directory of persistent state" },
  { flag: "debug", short: "D", key: "debug", kind: "bool", help: "Enable debug mode" },
  {
    flag: "default-address-pool",
    key: "default-address-pools",
    kind: "pools",
    help: "Default address pools for local networks",
  },
  {
    flag: "default-runtime",
    key: "default-runtime",
    kind: "string",
    help: "Default OCI runtime for containers",
  },
  {
    flag: "default-shm-size",
    key: "default-shm-size",
    kind: "string",
    help: "Default shm size for containers",
  },
  { flag: "default-ulimit", key: "default-ulimits", kind: "ulimits", help: "Default ulimits for containers" },
  { flag: "dns", key: "dns", kind: "list", help: "DNS server to use" },
  { flag: "dns-opt", key: "dns-opts", kind: "list", help: "DNS options to use" },
  { flag: "dns-search", key: "dns-search", kind: "list", help: "DNS search domains to use" },
  { flag: "exec-opt", key: "exec-opts", kind: "list", help: "Runtime execution options" },
  { flag: "exec-root", key: "exec-root", kind: "string", help: "Root directory for execution state files" },
  {
    flag: "feature",
    key: "features",
    kind: "features",
    help: "Enable or disable a feature of the daemon: NAME=BOOL",
  },
  { flag: "group", short: "G", key: "group", kind: "string", help: "Group for the unix socket" },
  { flag: "help", short: "h", kind: "bool", help: "Print usage" },
  { flag: "host", short: "H", key: "hosts", kind: "list", help: "Daemon socket(s) to connect to" },
  {
    flag: "init",
    key: "init",
    kind: "bool",
    help: "Run an init in the container to forward signals and reap processes",
  },
  {
    flag: "insecure-registry",
    key: "insecure-registries",
    kind: "list",
    help: "Enable insecure registry communication",
  },
  {
    flag: "insecure-tcp-without-mutual-tls",
    key: "insecure-tcp-without-mutual-tls",
    kind: "bool",
    help: "Serve TCP to clients without a certificate: whoever reaches the port is root on this host (ours)",
  },
  { flag: "iptables", key: "iptables", kind: "bool", help: "Enable addition of firewall rules" },
  { flag: "label", key: "labels", kind: "list", help: "Set key=value labels to the daemon" },
  {
    flag: "live-restore",
    key: "live-restore",
    kind: "bool",
    help: "Keep containers running while the daemon is down (always on)",
  },
  { flag: "log-driver", key: "log-driver", kind: "string", help: "Default driver for container logs" },
  { flag: "log-format", key: "log-format", kind: "string", help: "Set the logging format (json)" },
  {
    flag: "log-level",
    short: "l",
    key: "log-level",
    kind: "string",
    help: "Set the logging level (debug, info, warn, error, fatal)",
  },
  { flag: "log-opt", key: "log-opts", kind: "pairs", help: "Default log driver options for containers" },
  {
    flag: "max-concurrent-downloads",
    key: "max-concurrent-downloads",
    kind: "integer",
    help: "Set the max concurrent downloads",
  },
  {
    flag: "max-concurrent-uploads",
    key: "max-concurrent-uploads",
    kind: "integer",
    help: "Set the max concurrent uploads",
  },
  {
    flag: "max-download-attempts",
    key: "max-download-attempts",
    kind: "integer",
    help: "Set the max download attempts for each pull",
  },
  {
    flag: "network-pool-size",
    key: "network-pool-size",
    kind: "integer",
    help: "Network namespaces made ahead of time (0: each is made when a container starts)",
  },
  {
    flag: "no-new-privileges",
    key: "no-new-privileges",
    kind: "bool",
    help: "Set no-new-privileges by default for new containers",
  },
  { flag: "pidfile", short: "p", key: "pidfile", kind: "string", help: "Path to use for daemon PID file" },
  {
    flag: "registry",
    key: "registry",
    kind: "registry",
    help: "Serve a registry, too: NAME=VALUE as `skiff registry serve` takes them (ours)",
  },
  { flag: "registry-mirror", key: "registry-mirrors", kind: "list", help: "Preferred registry mirror" },
  {
    flag: "shutdown-timeout",
    key: "shutdown-timeout",
    kind: "integer",
    help: "Set the default shutdown timeout",
  },
  {
    flag: "storage-driver",
    short: "s",
    key: "storage-driver",
    kind: "string",
    help: "Storage driver to use (overlay2)",
  },
  { flag: "tls", key: "tls", kind: "bool", help: "Use TLS; implied by --tlsverify" },
  { flag: "tlscacert", key: "tlscacert", kind: "string", help: "Trust certs signed only by this CA" },
  { flag: "tlscert", key: "tlscert", kind: "string", help: "Path to TLS certificate file" },
  { flag: "tlskey", key: "tlskey", kind: "string", help: "Path to TLS key file" },
  { flag: "tlsverify", key: "tlsverify", kind: "bool", help: "Use TLS and verify the remote" },
  { flag: "validate", kind: "bool", help: "Validate daemon configuration and exit" },
  { flag: "version", short: "v", kind: "bool", help: "Print version information and quit" },
] as const satisfies readonly OptionRow[];

export type OptionName = (typeof options)[number]["flag"];

/** dockerd's flags and file keys that skiffd does not have (dockerd 28): refused by name, never ignored. */
export const notSupportedFlags: ReadonlySet<string> = new Set(
  `allow-nondistributable-artifacts api-cors-header authorization-plugin bip6 bridge bridge-accept-fwmark cdi-spec-dir
  containerd containerd-namespace containerd-plugins-namespace cpu-rt-period cpu-rt-runtime default-cgroupns-mode
  default-gateway default-gateway-v6 default-ipc-mode default-network-opt experimental firewall-backend fixed-cidr
  fixed-cidr-v6 host-gateway-ip http-proxy https-proxy icc init-path ip ip-forward ip-forward-no-drop ip-masq ip6tables
  ipv6 metrics-addr mtu network-control-plane-mtu
  network-diagnostic-port no-proxy node-generic-resource oom-score-adjust raw-logs rootless seccomp-profile
  selinux-enabled storage-opt swarm-default-advertise-addr userland-proxy
  userland-proxy-path userns-remap`.split(/\s+/),
);

/** Shorthands of dockerd that skiffd does not have. */
export const notSupportedShorts: ReadonlyMap<string, string> = new Map([["b", "bridge"]]);

/** File keys of dockerd that are not simply a flag's name. */
export const notSupportedKeys: ReadonlySet<string> = new Set([
  ...notSupportedFlags,
  ...`allow-nondistributable-artifacts-hosts authorization-plugins builder cdi-spec-dirs cluster-advertise cluster-store
  cluster-store-opts default-network-opts host-gateway-ips node-generic-resources proxies storage-opts`.split(
    /\s+/,
  ),
]);
