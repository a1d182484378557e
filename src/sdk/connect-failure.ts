/** Why a daemon could not be reached, in the words that Docker's client prints: scripts and people match on them. */
import type { PeerCertificate } from "node:tls";
import { describeErrno, errnoOf, messageOf } from "#base/errors.ts";
import { ConnectionError } from "./api-error.ts";

/** A dial took longer than it may. */
export class DialTimeout extends Error {}

const noDaemon: ReadonlySet<string> = new Set(["ENOENT", "ECONNREFUSED", "ENOTSOCK", "ENOTDIR", "ETIMEDOUT"]);

/** What a failed dial becomes. `address` is what was dialled: a path, or `host:port`. */
export function connectFailure(host: string, address: string, cause: Error): ConnectionError {
  const errno = errnoOf(cause);
  if (host.startsWith("unix://") && (errno === "EACCES" || errno === "EPERM")) {
    return new ConnectionError(
      `permission denied while trying to connect to the Docker daemon socket at ${host}: dial unix ${address}: connect: permission denied`,
      { code: "EACCES", cause },
    );
  }
  if (cause instanceof DialTimeout || (errno !== undefined && noDaemon.has(errno))) {
    return new ConnectionError(
      `Cannot connect to the Docker daemon at ${host}. Is the docker daemon running?`,
      { code: "no-daemon", cause },
    );
  }
  return requestFailure(dialWords(address, cause), cause, "connect");
}

/**
 * A request that failed for `reason` before its answer came. The message gets the request's own words where they are
 * known: ApiClient names method and URL.
 */
export function requestFailure(reason: string, cause: unknown, code = "broken"): ConnectionError {
  return new ConnectionError(`error during connect: ${reason}`, { code, cause, reason });
}

function dialWords(address: string, cause: Error): string {
  const { code, hostname } = cause as NodeJS.ErrnoException & { hostname?: string };
  if (code === "ENOTFOUND") return `dial tcp: lookup ${hostname ?? address}: no such host`;
  if (code === "EAI_AGAIN")
    return `dial tcp: lookup ${hostname ?? address}: temporary failure in name resolution`;
  if (code === "ERR_SOCKET_BAD_PORT")
    return `dial tcp: address ${address.split(":").at(-1) ?? ""}: invalid port`;
  const tls = tlsWords(cause);
  if (tls !== undefined) return tls;
  const errno = errnoOf(cause);
  if (errno === "ECONNRESET") return "EOF";
  return errno === undefined ? messageOf(cause) : `dial tcp ${address}: connect: ${describeErrno(errno)}`;
}

/** Words for an error on an open connection. */
export function streamWords(cause: Error): string {
  const tls = tlsWords(cause);
  if (tls !== undefined) return tls;
  const errno = errnoOf(cause);
  if (errno === "EPIPE") return "write: broken pipe";
  return errno === undefined ? messageOf(cause) : `read: ${describeErrno(errno)}`;
}

/** OpenSSL's names of alerts that the far side sends, where Go's words are not the same. */
const alerts: Readonly<Record<string, string>> = {
  UNKNOWN_CA: "unknown certificate authority",
  CERTIFICATE_EXPIRED: "expired certificate",
  CERTIFICATE_REVOKED: "revoked certificate",
  CERTIFICATE_UNKNOWN: "unknown certificate",
};

const unknownAuthority: ReadonlySet<string> = new Set([
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "CERT_SIGNATURE_FAILURE",
  "CERT_UNTRUSTED",
]);

function tlsWords(cause: Error): string | undefined {
  const { code } = cause as NodeJS.ErrnoException;
  if (code === undefined) return undefined;
  const alert = /^ERR_SSL_(?:TLSV?[\d]*|SSLV3|SSL\/TLS)_ALERT_(?:TLSV?\d*_)?(.+)$/.exec(code)?.[1];
  if (alert !== undefined) {
    const words = `remote error: tls: ${alerts[alert] ?? alert.toLowerCase().replaceAll("_", " ")}`;
    return alert === "BAD_CERTIFICATE"
      ? `the server probably has client authentication (--tlsverify) enabled; check your TLS client certification settings: ${words}`
      : words;
  }
  if (/^ERR_SSL_(WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|HTTP_REQUEST)$/.test(code))
    return "http: server gave HTTP response to HTTPS client";
  const reason = verificationWords(code, cause);
  return reason === undefined ? undefined : `tls: failed to verify certificate: x509: ${reason}`;
}

function verificationWords(code: string, cause: Error): string | undefined {
  if (unknownAuthority.has(code)) return "certificate signed by unknown authority";
  if (code === "INVALID_PURPOSE") return "certificate specifies an incompatible key usage";
  if (code === "CERT_HAS_EXPIRED" || code === "CERT_NOT_YET_VALID") {
    const when = code === "CERT_HAS_EXPIRED" ? "after its end" : "before its beginning";
    const now = `${new Date().toISOString().slice(0, 19)}Z`;
    return `certificate has expired or is not yet valid: current time ${now} is ${when}`;
  }
  if (code !== "ERR_TLS_CERT_ALTNAME_INVALID") return undefined;
  const { host = "", cert } = cause as Error & { host?: string; cert?: PeerCertificate };
  return nameWords(host, cert?.subjectaltname ?? "");
}

function nameWords(host: string, alternatives: string): string {
  const entries = alternatives.split(", ").map((entry) => entry.split(":") as [string, ...string[]]);
  const wanted = /^[\d.]+$|:/.test(host) ? "IP Address" : "DNS";
  const names = entries.filter(([kind]) => kind === wanted).map(([, ...rest]) => rest.join(":"));
  if (names.length > 0) return `certificate is valid for ${names.join(", ")}, not ${host}`;
  return wanted === "DNS"
    ? `certificate is not valid for any names, but wanted to match ${host}`
    : `cannot validate certificate for ${host} because it doesn't contain any IP SANs`;
}
