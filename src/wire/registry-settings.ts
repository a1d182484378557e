/**
 * The settings of a registry server: what `skiff registry serve` takes as flags, what the daemon's configuration holds
 * under `registry`, and the JSON object in which the command line hands them to the server's process.
 */
export interface RegistrySettingRow {
  readonly name: string;
  readonly kind: "string" | "bool" | "integer" | "duration";
  readonly help: string;
  /** As the help shows it; what applies is in `registry-server/settings.ts`. */
  readonly shown?: string;
}

export const registrySettings = [
  {
    name: "access-log",
    kind: "string",
    help: "File for one JSON line a request; - for standard output, off for none",
    shown: '"-"',
  },
  { name: "acl", kind: "string", help: "File that says which user may do what (JSON)" },
  {
    name: "anonymous-pull",
    kind: "bool",
    help: "Let everybody pull; pushes still need a user (implies --issue-tokens)",
  },
  {
    name: "gc-delete-untagged",
    kind: "bool",
    help: "Collections at an interval also remove manifests that no tag reaches",
  },
  {
    name: "gc-grace",
    kind: "duration",
    help: "What was pushed or asked for within this time is not collected",
    shown: "1h",
  },
  { name: "gc-interval", kind: "duration", help: "Collect garbage this often", shown: "0: when asked" },
  {
    name: "htpasswd",
    kind: "string",
    help: "File of users and their bcrypt hashes; read again when it changes",
  },
  {
    name: "insecure-plain-http",
    kind: "bool",
    help: "Serve without TLS at an address that is not loopback: everybody on the way reads passwords and images",
  },
  {
    name: "issue-tokens",
    kind: "bool",
    help: "Answer logins of the htpasswd file with short-lived tokens instead of asking for the password each time",
  },
  {
    name: "listen",
    kind: "string",
    help: "Address to serve at, HOST:PORT; without a host, loopback",
    shown: '"127.0.0.1:5000"',
  },
  { name: "log-level", kind: "string", help: "debug, info, warn or error", shown: '"info"' },
  {
    name: "max-connections",
    kind: "integer",
    help: "Connections at a time; more are closed at once",
    shown: "1000",
  },
  {
    name: "metrics-listen",
    kind: "string",
    help: "Address for Prometheus metrics and /healthz, HOST:PORT; without a host, loopback",
  },
  {
    name: "public-url",
    kind: "string",
    help: "URL by which clients reach this registry, where a proxy stands before it",
  },
  { name: "read-only", kind: "bool", help: "Refuse pushes and deletes" },
  {
    name: "root",
    kind: "string",
    help: "Directory that holds the images",
    shown: '"/var/lib/skiff/registry"',
  },
  {
    name: "stop-timeout",
    kind: "duration",
    help: "How long requests under way may go on after SIGTERM",
    shown: "10s",
  },
  { name: "tls-cert", kind: "string", help: "Certificate chain for TLS (PEM); read again on SIGHUP" },
  { name: "tls-key", kind: "string", help: "Private key of the certificate (PEM)" },
  { name: "token-issuer", kind: "string", help: "Who must have issued a token (iss)" },
  {
    name: "token-keys",
    kind: "string",
    help: "Public keys of the token server: a JWK set, or certificates or keys in PEM",
  },
  { name: "token-realm", kind: "string", help: "URL of a token server that clients are sent to" },
  { name: "token-service", kind: "string", help: "Name of this registry at the token server (aud)" },
] as const satisfies readonly RegistrySettingRow[];

export type RegistrySettingName = (typeof registrySettings)[number]["name"];
