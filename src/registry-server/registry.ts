import type { IncomingMessage, ServerResponse } from "node:http";
import { type Log, silentLog } from "#base/log.ts";
import { DiskRegistryStore } from "./disk-registry-store.ts";
import { RegistryHandler } from "./registry-handler.ts";
import type { RegistryStore } from "./registry-store.ts";

export type RegistryAction = "pull" | "push" | "delete" | "catalog";

export interface RegistryAccess {
  /** Undefined for `/v2/` and the catalog. */
  readonly repository?: string;
  /** Empty for `/v2/`: who asks must be known, and nothing more. */
  readonly actions: readonly RegistryAction[];
}

export type AuthorizeAnswer =
  | { readonly ok: true; readonly user?: string }
  | { readonly ok: false; readonly status: 401 | 403; readonly headers: Readonly<Record<string, string>> };

/**
 * Called before any work on a request, and once more for `pull` on the source repository of a mount (a refusal there
 * turns the mount into an upload). The body of a refusal is the registry's.
 */
export type Authorize = (request: IncomingMessage, access: RegistryAccess) => Promise<AuthorizeAnswer>;

export const registryRoutes = [
  "base",
  "catalog",
  "tags",
  "manifest",
  "blob",
  "uploads",
  "upload",
  "referrers",
  "unknown",
] as const;
export type RegistryRoute = (typeof registryRoutes)[number];

/** One finished (or broken off) request. */
export interface RequestRecord {
  readonly method: string;
  readonly url: string;
  readonly route: RegistryRoute;
  readonly repository?: string;
  /** 0 when the client went away before there was an answer. */
  readonly status: number;
  /** Bytes of the bodies. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly milliseconds: number;
  readonly user?: string;
  readonly remote: string;
  readonly userAgent?: string;
  /** The client's `X-Request-Id` where it is one, else a new one; also in the answer. */
  readonly requestId: string;
}

export type Observe = (record: RequestRecord) => void;

export interface RegistryOptions {
  /** Directory that is the registry's alone; made when missing. */
  readonly root: string;
  /** Everything that would change something is answered 405 `UNSUPPORTED`. */
  readonly readOnly?: boolean;
  readonly authorize?: Authorize;
  readonly observe?: Observe;
  readonly log?: Log;
}

/**
 * The HTTP server around it must not limit the time of a request (`requestTimeout: 0`): stalled bodies are ended here.
 */
export interface Registry {
  /** Answers one request; never throws. */
  handle(request: IncomingMessage, response: ServerResponse): void;
  readonly store: RegistryStore;
  /** Breaks off what is under way (uploads can be resumed after a restart) and closes the store. */
  close(): Promise<void>;
}

/** Uploads that nobody has written to for so long are dropped; Docker's registry keeps them a week. */
const uploadIdleMsMax = 24 * 60 * 60_000;
const expiryEveryMs = 60 * 60_000;

/** Opens the registry kept at `root`; removes what a crash left there. One process at a time may have it open. */
export async function openRegistry(options: RegistryOptions): Promise<Registry> {
  const log = options.log ?? silentLog;
  const store = await DiskRegistryStore.open(options.root, log);
  const handler = new RegistryHandler(store, options, log);
  const expiry = setInterval(() => {
    store.expireUploads({ idleSinceMs: Date.now() - uploadIdleMsMax }).catch((error: unknown) => {
      log.error("expiring uploads failed", { error });
    });
  }, expiryEveryMs);
  expiry.unref();
  return {
    handle: (request, response) => handler.handle(request, response),
    store,
    close: async () => {
      clearInterval(expiry);
      store.uploads.stop();
      await handler.close();
      await store[Symbol.asyncDispose]();
    },
  };
}
