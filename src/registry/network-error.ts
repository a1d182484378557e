import { getServers } from "node:dns";
import { EngineError, errnoOf, messageOf } from "#base/errors.ts";

/** A request that got no answer. The text is the one Go's HTTP client gives, since Docker's users search for it. */
export class TransportError extends EngineError {
  /** Another attempt may succeed: a reset, a stall, a busy server; not a refused connection or a bad certificate. */
  readonly retryable: boolean;

  constructor(message: string, retryable: boolean, cause?: unknown) {
    super("system", message, { code: "registry-unreachable", cause });
    this.name = "TransportError";
    this.retryable = retryable;
  }
}

interface Described {
  readonly text: string;
  readonly retryable: boolean;
}

const certificateTexts: Readonly<Record<string, string>> = {
  DEPTH_ZERO_SELF_SIGNED_CERT: "certificate signed by unknown authority",
  SELF_SIGNED_CERT_IN_CHAIN: "certificate signed by unknown authority",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "certificate signed by unknown authority",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "certificate signed by unknown authority",
  CERT_HAS_EXPIRED: "certificate has expired or is not yet valid",
  CERT_NOT_YET_VALID: "certificate has expired or is not yet valid",
};

const connectTexts: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connection refused",
  EHOSTUNREACH: "no route to host",
  ENETUNREACH: "network is unreachable",
  EACCES: "permission denied",
  EADDRNOTAVAIL: "cannot assign requested address",
};

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
}

/** The first cause that says something: undici and happy eyeballs wrap the errors of sockets. */
function rootOf(error: unknown): unknown {
  if (error instanceof AggregateError && error.errors.length > 0) return rootOf(error.errors.at(-1));
  if (codeOf(error) === "" && error instanceof Error && error.cause !== undefined) return rootOf(error.cause);
  return error;
}

function lookupText(host: string, reason: string): string {
  const server = getServers()[0];
  const at = server === undefined ? "" : ` on ${server.includes(":") ? `[${server}]` : server}:53`;
  return `dial tcp: lookup ${host}${at}: ${reason}`;
}

function describe(error: unknown, url: URL): Described {
  const root = rootOf(error);
  const code = codeOf(root);
  const detail = root as { address?: unknown; port?: unknown };
  const where = typeof detail.address === "string" ? detail.address : url.hostname.replace(/^\[|\]$/g, "");
  const port = typeof detail.port === "number" ? detail.port : url.port || defaultPort(url);
  const peer = where.includes(":") ? `[${where}]:${port}` : `${where}:${port}`;
  const connect = connectTexts[code];
  if (connect !== undefined) return { text: `dial tcp ${peer}: connect: ${connect}`, retryable: false };
  const certificate = certificateTexts[code];
  if (certificate !== undefined) {
    return { text: `tls: failed to verify certificate: x509: ${certificate}`, retryable: false };
  }
  switch (code) {
    case "ENOTFOUND":
      return { text: lookupText(url.hostname, "no such host"), retryable: false };
    case "EAI_AGAIN":
      return { text: lookupText(url.hostname, "server misbehaving"), retryable: true };
    case "ETIMEDOUT":
    case "UND_ERR_CONNECT_TIMEOUT":
      return { text: `dial tcp ${peer}: i/o timeout`, retryable: true };
    case "UND_ERR_HEADERS_TIMEOUT":
      return { text: "net/http: timeout awaiting response headers", retryable: true };
    case "UND_ERR_BODY_TIMEOUT":
      return {
        text: "net/http: request canceled (Client.Timeout or context cancellation while reading body)",
        retryable: true,
      };
    case "ECONNRESET":
    case "EPIPE":
      return { text: `read tcp ${peer}: read: connection reset by peer`, retryable: true };
    case "UND_ERR_SOCKET":
      return { text: "EOF", retryable: true };
    case "ERR_TLS_CERT_ALTNAME_INVALID":
      return { text: `tls: failed to verify certificate: x509: ${messageOf(root)}`, retryable: false };
    case "ERR_SSL_WRONG_VERSION_NUMBER":
    case "ERR_SSL_PACKET_LENGTH_TOO_LONG":
    case "EPROTO":
      return { text: "http: server gave HTTP response to HTTPS client", retryable: false };
    default:
      return { text: messageOf(root), retryable: errnoOf(root) !== undefined };
  }
}

function defaultPort(url: URL): string {
  return url.protocol === "https:" ? "443" : "80";
}

/** `Get "https://host/v2/": dial tcp …`, with nothing secret in it: the query is left out. */
export function transportError(method: string, url: URL, error: unknown): TransportError {
  if (error instanceof TransportError) return error;
  const { text, retryable } = describe(error, url);
  const verb = method.slice(0, 1) + method.slice(1).toLowerCase();
  return new TransportError(`${verb} "${url.origin}${url.pathname}": ${text}`, retryable, error);
}
