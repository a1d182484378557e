import { mkdirSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { messageOf } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import { skiffVersion } from "#base/version.ts";
import { lockDirectory } from "#sys/flock.ts";
import { type AccessLog, openAccessLog, type ServedRequest } from "./access-log.ts";
import { Exchange } from "./exchange.ts";
import { type CollectionOptions, type CollectionReport, GarbageCollector } from "./garbage-collection.ts";
import { RegistryMetrics } from "./metrics.ts";
import { openRegistry, type Registry } from "./registry.ts";
import { type AccessControl, openAccessControl, tokenPath } from "./serve-authorize.ts";
import { type ControlAction, serveControl } from "./serve-control.ts";
import { HttpFront } from "./serve-listen.ts";
import { serveMetrics } from "./serve-metrics.ts";
import { readTls } from "./serve-tls.ts";
import { type ListenAddress, type ServeSettings, SettingsError } from "./settings.ts";
import { unreadable } from "./settings-file.ts";

export interface RegistryServer extends AsyncDisposable {
  /** Where it serves: the port that was chosen where 0 was asked for. */
  readonly listen: ListenAddress;
  readonly metricsListen: ListenAddress | undefined;
  /** Reads certificate and key again and opens the access log anew; what cannot be read is logged and stays as it was. */
  reload(): Promise<void>;
  /** No new requests; those under way may end within `stopTimeoutMs`, then they are cut. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** A timer counts no further (2^31 − 1 ms). */
const timerMsMax = 0x7fffffff;

/**
 * Serves the registry kept at `settings.root` until disposed. Throws `SettingsError` for what the administrator must
 * change: a file that cannot be read, an address in use, a root that another server has.
 */
export async function serveRegistry(settings: ServeSettings, log: Log): Promise<RegistryServer> {
  await using parts = new AsyncDisposableStack();
  parts.use(claimRegistryRoot(settings.root));
  const access = parts.use(await openAccessControl(settings, log));
  const accessLog = parts.use(await openAccessLog(settings.accessLog));
  const tls = settings.tls === undefined ? undefined : await readTls(settings.tls, log);
  const metrics = new RegistryMetrics();
  const observe = (request: ServedRequest): void => {
    metrics.observe(request);
    accessLog.write(request);
  };
  const registry = await openRegistry({
    root: settings.root,
    readOnly: settings.readOnly,
    observe,
    log,
    ...(access.authorize === undefined ? {} : { authorize: access.authorize }),
  });
  parts.defer(() => registry.close());
  const collection = parts.use(startCollections(settings, registry, metrics, log));

  const front = new HttpFront(
    settings,
    (options, listener) =>
      tls === undefined ? createServer(options, listener) : createTlsServer({ ...options, ...tls }, listener),
    (request, response) => {
      if (access.answerToken !== undefined && isTokenRequest(request)) {
        answerToken(access.answerToken, observe, request, response);
      } else registry.handle(request, response);
    },
  );
  const gauges = () => ({
    ...storageGauges(registry),
    requestsUnderWay: front.underWay,
    connections: front.connections,
    accessLogDropped: accessLog.dropped,
  });
  const metricsServer =
    settings.metricsListen === undefined
      ? undefined
      : parts.use(await serveMetrics(settings.metricsListen, () => metrics.text(gauges())));
  const listen = await front.listen(settings.listen);
  parts.defer(() => front.stop());
  parts.use(await serveControl(settings.root, controlActions({ listen, settings, registry, collection })));
  warnAboutOpenness(settings, log);
  const owned = parts.move();
  return {
    listen,
    metricsListen: metricsServer?.listen,
    reload: () => reload(settings, front, accessLog, log),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Makes the root (0700) and locks it for this process: two servers on one root would collect each other's uploads. */
export function claimRegistryRoot(root: string): Disposable {
  let lock: Disposable | undefined;
  try {
    mkdirSync(root, { recursive: true, mode: 0o700 });
    lock = lockDirectory(root);
  } catch (error) {
    throw unreadable(`root ${root}`, error);
  }
  if (lock === undefined) throw new SettingsError(`another registry server uses the root ${root}`);
  return lock;
}

function isTokenRequest({ url = "" }: IncomingMessage): boolean {
  return url === tokenPath || url.startsWith(`${tokenPath}?`);
}

function answerToken(
  answer: NonNullable<AccessControl["answerToken"]>,
  observe: (request: ServedRequest) => void,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const exchange = new Exchange(request, response);
  exchange.watch((record) => observe({ ...record, route: "token" }));
  answer(request)
    .then(({ user, body }) => {
      exchange.user = user;
      exchange.json(200, { "Cache-Control": "no-store" }, body);
    })
    .catch((error: unknown) => exchange.fail(error));
}

function storageGauges({ store }: Registry): {
  uploads: number;
  storageBytes: number;
  contents: number;
  repositories: number;
  manifests: number;
  tags: number;
} {
  const { contentBytes, ...rest } = store.totals();
  return { ...rest, storageBytes: contentBytes };
}

interface Collections extends AsyncDisposable {
  run(options: Pick<CollectionOptions, "graceMs" | "deleteUntagged" | "dryRun">): Promise<CollectionReport>;
}

/** Collections at an interval, and on demand. One that is under way at the end is broken off between two steps. */
function startCollections(
  settings: ServeSettings,
  registry: Registry,
  metrics: RegistryMetrics,
  log: Log,
): Collections {
  const collector = new GarbageCollector(registry.store);
  const stopping = new AbortController();
  let last: Promise<unknown> = Promise.resolve();
  const run: Collections["run"] = async (options) => {
    const running = collector.collect({ ...options, signal: stopping.signal });
    last = running.catch(() => {});
    try {
      const report = await running;
      if (!report.dryRun) metrics.collected(report);
      log.info("garbage was collected", { ...report });
      return report;
    } catch (error) {
      metrics.collectionFailed();
      throw error;
    }
  };
  const periodically = (): void => {
    const { gcGraceMs: graceMs, gcDeleteUntagged: deleteUntagged } = settings;
    run({ graceMs, deleteUntagged }).catch((error: unknown) => {
      if (!stopping.signal.aborted) log.error("collecting garbage failed", { error });
    });
  };
  const { gcIntervalMs } = settings;
  const timer =
    gcIntervalMs === 0 ? undefined : setInterval(periodically, Math.min(gcIntervalMs, timerMsMax));
  return {
    run,
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      stopping.abort();
      await last;
    },
  };
}

/** What an administrator may ask over the control socket. */
function controlActions(parts: {
  listen: ListenAddress;
  settings: ServeSettings;
  registry: Registry;
  collection: Collections;
}): ReadonlyMap<string, ControlAction> {
  const { listen, settings, registry, collection } = parts;
  const collect: ControlAction = ({ graceMs, deleteUntagged, dryRun }) =>
    collection.run({
      graceMs: typeof graceMs === "number" ? graceMs : settings.gcGraceMs,
      deleteUntagged: deleteUntagged === true,
      dryRun: dryRun === true,
    });
  const status: ControlAction = async () => ({
    version: skiffVersion,
    pid: process.pid,
    listen: `${listen.host}:${listen.port}`,
    tls: settings.tls !== undefined,
    readOnly: settings.readOnly,
    root: settings.root,
    ...storageGauges(registry),
  });
  return new Map([
    ["POST /gc", collect],
    ["GET /status", status],
  ]);
}

function warnAboutOpenness({ htpasswd, tokenServer, readOnly, tls, listen }: ServeSettings, log: Log): void {
  const local = ["127.0.0.1", "::1", "localhost"].includes(listen.host);
  if (local) return;
  if (tls === undefined) log.warn("serving without TLS: everybody on the way reads passwords and images");
  if (htpasswd === undefined && tokenServer === undefined && !readOnly) {
    log.warn("serving without authentication: everybody who reaches this address may push and delete");
  }
}

async function reload(
  settings: ServeSettings,
  front: HttpFront,
  accessLog: AccessLog,
  log: Log,
): Promise<void> {
  try {
    if (settings.tls !== undefined) front.setTls(await readTls(settings.tls, log));
    log.info("the certificate was read anew");
  } catch (error) {
    log.error(`the certificate that was read before goes on to count: ${messageOf(error)}`);
  }
  try {
    await accessLog.reopen();
    log.info("the access log was opened anew");
  } catch (error) {
    log.error(`the access log that was open before goes on: ${messageOf(error)}`);
  }
}
