import { BlockList, isIP } from "node:net";
import { EngineError } from "#base/errors.ts";
import { defaultDomain } from "#wire/reference.ts";

/** One address at which a registry may be reached. */
export interface Endpoint {
  /** Scheme, host and port, and a path prefix for a mirror below one; no slash at the end. */
  readonly base: string;
  /** Certificates are checked. False only for a registry that the administrator, or its loopback address, marks insecure. */
  readonly verifyTls: boolean;
  /** A stand-in for docker.io: it never receives the user's credentials. */
  readonly mirror: boolean;
}

export interface EndpointConfig {
  /** `--registry-mirror`: URLs, tried in order before docker.io itself. */
  readonly mirrors: readonly string[];
  /** `--insecure-registry`: `host`, `host:port` or a CIDR. */
  readonly insecureRegistries: readonly string[];
}

const hubHost = "registry-1.docker.io";

/** Docker's check of `--registry-mirror`. Throws `invalid`. Returns the URL without a slash at the end. */
export function validateMirror(text: string): string {
  const bad = (why: string): EngineError =>
    new EngineError("invalid", `invalid mirror: ${why}`, { code: "bad-mirror" });
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw bad(`${JSON.stringify(text)} is not a valid URI`);
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw bad(`unsupported scheme ${JSON.stringify(url.protocol.slice(0, -1))} in ${JSON.stringify(text)}`);
  }
  if (url.search !== "" || url.hash !== "") {
    throw bad(`query or fragment at end of the URI ${JSON.stringify(text)}`);
  }
  if (url.username !== "" || url.password !== "") {
    throw bad(
      `username/password not allowed in URI ${JSON.stringify(`${url.protocol}//xxxxx:xxxxx@${url.host}/`)}`,
    );
  }
  return `${url.protocol}//${url.host}${url.pathname.replace(/\/+$/, "")}`;
}

function hostOf(domain: string): { host: string; port: string } {
  const match = /^(\[[^\]]+\]|[^:]+)(?::(\d+))?$/.exec(domain);
  const host = match?.[1] ?? domain;
  return { host: host.replace(/^\[|\]$/g, ""), port: match?.[2] ?? "" };
}

/**
 * Whether Docker would talk to this registry without checked TLS: listed by name or CIDR, or on the loopback
 * addresses (127.0.0.0/8, ::1, `localhost`). Names are not resolved: a DNS answer must not lower the protection.
 */
export function isInsecure(domain: string, insecureRegistries: readonly string[]): boolean {
  const { host } = hostOf(domain);
  if (host === "localhost") return true;
  const list = new BlockList();
  list.addSubnet("127.0.0.0", 8, "ipv4");
  list.addAddress("::1", "ipv6");
  for (const entry of insecureRegistries) {
    const plain = entry.replace(/^https?:\/\//, "").replace(/\/+$/, "");
    const slash = entry.indexOf("/");
    const network = entry.slice(0, slash);
    if (slash !== -1 && isIP(network) !== 0) {
      const bits = Number(entry.slice(slash + 1));
      const family = isIP(network) === 4 ? "ipv4" : "ipv6";
      if (Number.isInteger(bits) && bits >= 0 && bits <= (family === "ipv4" ? 32 : 128)) {
        list.addSubnet(network, bits, family);
      }
    } else if (plain === domain || plain === host) return true;
  }
  const family = isIP(host);
  return family !== 0 && list.check(host, family === 4 ? "ipv4" : "ipv6");
}

/** Where to look for a repository of `domain`, in order: mirrors (docker.io only), https, and http where insecure. */
export function endpointsFor(domain: string, config: EndpointConfig): Endpoint[] {
  const endpoints: Endpoint[] = [];
  if (domain === defaultDomain) {
    for (const mirror of config.mirrors) {
      const base = validateMirror(mirror);
      const verifyTls = !isInsecure(new URL(base).host, config.insecureRegistries);
      endpoints.push({ base, verifyTls, mirror: true });
    }
    endpoints.push({ base: `https://${hubHost}`, verifyTls: true, mirror: false });
    return endpoints;
  }
  const insecure = isInsecure(domain, config.insecureRegistries);
  endpoints.push({ base: `https://${domain}`, verifyTls: !insecure, mirror: false });
  if (insecure) endpoints.push({ base: `http://${domain}`, verifyTls: false, mirror: false });
  return endpoints;
}
