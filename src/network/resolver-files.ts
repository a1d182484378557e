/**
 * The text of a container's /etc/hosts, /etc/resolv.conf and /etc/hostname. Pure; what Docker 28 writes for the default
 * bridge, host and none networks (its "legacy" resolver: no name server of the engine's own).
 */
import { isIP, isIPv4, isIPv6 } from "node:net";
import { EngineError } from "#base/errors.ts";

export interface ExtraHost {
  readonly name: string;
  readonly address: string;
}

export interface HostsFile {
  readonly hostname: string;
  readonly domainname?: string;
  /** Of the container's endpoints; empty for `none` and for host networking. */
  readonly ipAddresses: readonly string[];
  /** `name:address` or `name:host-gateway`, as in HostConfig.ExtraHosts. */
  readonly extraHosts?: readonly string[];
  /** What `host-gateway` stands for: the bridge's address. */
  readonly hostGateway?: string;
  /** The host's own file, for host networking: taken as it is when there are no extra hosts. */
  readonly hostFileText?: string;
}

const loopbackLines = [
  "127.0.0.1\tlocalhost",
  "::1\tlocalhost ip6-localhost ip6-loopback",
  "fe00::\tip6-localnet",
  "ff00::\tip6-mcastprefix",
  "ff02::1\tip6-allnodes",
  "ff02::2\tip6-allrouters",
];

/** /etc/hosts: loopback, then extra hosts in their order, then the container itself. */
export function renderHosts(file: HostsFile): string {
  const extra = (file.extraHosts ?? []).map((entry) => parseExtraHost(entry, file.hostGateway));
  if (file.hostFileText !== undefined && extra.length === 0) return file.hostFileText;
  const own =
    file.domainname === undefined || file.domainname === ""
      ? file.hostname
      : `${file.hostname}.${file.domainname} ${file.hostname}`;
  const lines = [
    ...loopbackLines,
    ...extra.map(({ name, address }) => `${address}\t${name}`),
    ...file.ipAddresses.filter((address) => address !== "").map((address) => `${address}\t${own}`),
  ];
  return `${lines.join("\n")}\n`;
}

/**
 * Reads one `--add-host` entry. Docker's words for a bad one; a name with white space or control characters would
 * write lines of its own and is refused.
 */
export function parseExtraHost(entry: string, hostGateway?: string): ExtraHost {
  const colon = entry.indexOf(":");
  const name = colon < 0 ? "" : entry.slice(0, colon);
  if (name === "" || /[\s\x00-\x1f\x7f#]/.test(name)) {
    throw new EngineError("invalid", `bad format for add-host: "${entry.slice(0, 256)}"`, {
      code: "bad-extra-host",
    });
  }
  const given = entry.slice(colon + 1);
  if (given === "host-gateway") {
    if (hostGateway === undefined || hostGateway === "") {
      throw new EngineError("invalid", "unable to derive the IP value for host-gateway", {
        code: "bad-extra-host",
      });
    }
    return { name, address: hostGateway };
  }
  const address = given.startsWith("[") && given.endsWith("]") ? given.slice(1, -1) : given;
  if (isIP(address) === 0) {
    throw new EngineError("invalid", `invalid IP address in add-host: "${given.slice(0, 256)}"`, {
      code: "bad-extra-host",
    });
  }
  return { name, address };
}

export interface ResolvConf {
  /** The host's file as text. */
  readonly hostResolvConf: string;
  /** `--dns`, `--dns-search`, `--dns-option`; empty: the host's. */
  readonly dns: readonly string[];
  readonly dnsSearch: readonly string[];
  readonly dnsOptions: readonly string[];
  /** The container shares the host's network: its loopback name servers work there. */
  readonly hostNetwork?: boolean;
}

interface ResolverSettings {
  readonly nameservers: string[];
  readonly search: string[];
  readonly options: string[];
}

/** Docker's name servers for a host that has none that a container could reach. */
const fallbackNameservers = ["8.8.8.8", "8.8.4.4"];

/**
 * /etc/resolv.conf. Name servers that a container on an IPv4 bridge cannot reach (on the host's loopback, or IPv6) are
 * left out; only when none remains Docker's defaults take their place. `--dns-search .` means no search list.
 */
export function renderResolvConf(conf: ResolvConf): string {
  const unchanged = conf.dns.length + conf.dnsSearch.length + conf.dnsOptions.length === 0;
  if (conf.hostNetwork === true && unchanged) return conf.hostResolvConf;
  const host = parseResolvConf(conf.hostResolvConf);
  let nameservers = [...conf.dns];
  if (nameservers.length === 0) {
    nameservers = conf.hostNetwork === true ? host.nameservers : host.nameservers.filter(reachable);
    if (nameservers.length === 0 && conf.hostNetwork !== true) nameservers = fallbackNameservers;
  }
  const search =
    conf.dnsSearch.length === 0 ? host.search : conf.dnsSearch.filter((domain) => domain !== ".");
  const options = conf.dnsOptions.length === 0 ? host.options : conf.dnsOptions;
  const lines = nameservers.map((server) => `nameserver ${oneWord(server)}`);
  if (search.length > 0) lines.push(`search ${search.map(oneWord).join(" ")}`);
  if (options.length > 0) lines.push(`options ${options.map(oneWord).join(" ")}`);
  return `${lines.join("\n")}\n`;
}

function reachable(address: string): boolean {
  return isIPv4(address) && !address.startsWith("127.");
}

// What a client gives must not become a line of its own.
function oneWord(text: string): string {
  if (!/^[^\s\x00-\x1f\x7f]+$/.test(text)) {
    throw new EngineError("invalid", `invalid DNS setting: ${JSON.stringify(text.slice(0, 256))}`, {
      code: "bad-dns",
    });
  }
  return text;
}

/** resolv.conf(5): `domain` is a search list of one, the last `search` line wins, options add up. */
export function parseResolvConf(text: string): ResolverSettings {
  const nameservers: string[] = [];
  let search: string[] = [];
  const options: string[] = [];
  for (const line of text.split("\n")) {
    const [keyword = "", ...values] = line
      .replace(/[#;].*$/, "")
      .trim()
      .split(/\s+/);
    const [first] = values;
    if (first === undefined) continue;
    if (keyword === "nameserver" && (isIPv4(first) || isIPv6(first.replace(/%.*$/, ""))))
      nameservers.push(first);
    else if (keyword === "search" || keyword === "domain") search = values;
    else if (keyword === "options") options.push(...values);
  }
  return { nameservers, search, options };
}

/**
 * Which file tells a container's name servers: systemd-resolved's stub is no use outside the host, so that with it as
 * the only server the list of its upstreams is read instead (Docker does the same).
 */
export function resolvConfPath(hostResolvConf: string): string {
  const { nameservers } = parseResolvConf(hostResolvConf);
  return nameservers.length === 1 && nameservers[0] === "127.0.0.53"
    ? "/run/systemd/resolve/resolv.conf"
    : "/etc/resolv.conf";
}

/** /etc/hostname. */
export function renderHostname(hostname: string): string {
  return `${hostname}\n`;
}
