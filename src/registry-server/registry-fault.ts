import { EngineError, type ErrorKind } from "#base/errors.ts";

/** Codes of the OCI distribution spec, "Error Codes", and Docker's for pages; the text is the spec's. */
const texts = {
  BLOB_UNKNOWN: "blob unknown to registry",
  BLOB_UPLOAD_INVALID: "blob upload invalid",
  BLOB_UPLOAD_UNKNOWN: "blob upload unknown to registry",
  DIGEST_INVALID: "provided digest did not match uploaded content",
  MANIFEST_BLOB_UNKNOWN: "manifest references a manifest or blob unknown to registry",
  MANIFEST_INVALID: "manifest invalid",
  MANIFEST_UNKNOWN: "manifest unknown to registry",
  NAME_INVALID: "invalid repository name",
  NAME_UNKNOWN: "repository name not known to registry",
  PAGINATION_NUMBER_INVALID: "invalid number of results requested",
  SIZE_INVALID: "provided length did not match content length",
  UNAUTHORIZED: "authentication required",
  DENIED: "requested access to the resource is denied",
  UNSUPPORTED: "the operation is unsupported",
  TOOMANYREQUESTS: "too many requests",
  UNAVAILABLE: "service unavailable",
  UNKNOWN: "unknown error",
} as const;

export type FaultCode = keyof typeof texts;

export interface FaultItem {
  readonly code: FaultCode;
  readonly message?: string;
  readonly detail?: unknown;
}

function kindOf(status: number): ErrorKind {
  if (status === 404) return "notFound";
  if (status === 401) return "unauthorized";
  if (status === 403) return "forbidden";
  return status < 500 ? "invalid" : "unavailable";
}

/** A refusal that a client sees: status, headers and the spec's body. */
export class RegistryFault extends EngineError {
  readonly status: number;
  readonly items: readonly FaultItem[];
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: number,
    items: FaultCode | readonly FaultItem[],
    options: { message?: string; detail?: unknown; headers?: Readonly<Record<string, string>> } = {},
  ) {
    const { message, detail, headers = {} } = options;
    const list =
      typeof items === "string"
        ? [
            {
              code: items,
              ...(message === undefined ? {} : { message }),
              ...(detail === undefined ? {} : { detail }),
            },
          ]
        : items;
    super(kindOf(status), list[0]?.message ?? texts[list[0]?.code ?? "UNKNOWN"], {
      code: list[0]?.code ?? "UNKNOWN",
    });
    this.name = "RegistryFault";
    this.status = status;
    this.items = list;
    this.headers = headers;
  }

  body(): Buffer {
    const errors = this.items.map(({ code, message = texts[code], detail }) => ({
      code,
      message,
      ...(detail === undefined ? {} : { detail }),
    }));
    return Buffer.from(`${JSON.stringify({ errors })}\n`);
  }
}

/** What went wrong inside, as a client may know it: no paths, no messages of libraries. */
export function faultOf(error: unknown): RegistryFault {
  if (error instanceof RegistryFault) return error;
  const code = (error as { code?: unknown } | null)?.code;
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new RegistryFault(507, "UNKNOWN", { message: "no space left on device" });
  }
  return new RegistryFault(500, "UNKNOWN");
}
