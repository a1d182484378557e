import type { ServedRequest } from "./access-log.ts";
import type { CollectionReport } from "./garbage-collection.ts";

/** Seconds: from a manifest out of memory to a layer of gigabytes. */
const buckets = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300,
] as const;
const methods: ReadonlySet<string> = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);

/** What is read when somebody asks, and counted by nobody meanwhile. */
export interface MetricGauges {
  readonly uploads: number;
  readonly storageBytes: number;
  readonly contents: number;
  readonly repositories: number;
  readonly manifests: number;
  readonly tags: number;
  readonly requestsUnderWay: number;
  readonly connections: number;
  readonly accessLogDropped: number;
}

interface Histogram {
  /** Requests up to each bound, not cumulated; one more for those beyond. */
  readonly counts: number[];
  seconds: number;
}

/** Counters of a registry server and their text form for Prometheus (exposition format 0.0.4). */
export class RegistryMetrics {
  /** `route method status` → count. Routes and methods are closed sets: no client can grow it. */
  readonly #requests = new Map<string, number>();
  readonly #latencies = new Map<string, Histogram>();
  #bytesIn = 0;
  #bytesOut = 0;
  readonly #collections = { done: 0, failed: 0, seconds: 0, bytes: 0, manifests: 0, blobs: 0 };

  observe(request: ServedRequest): void {
    const method = methods.has(request.method) ? request.method : "other";
    const key = labels({ route: request.route, method, code: String(request.status) });
    this.#requests.set(key, (this.#requests.get(key) ?? 0) + 1);
    this.#bytesIn += request.bytesIn;
    this.#bytesOut += request.bytesOut;
    const seconds = request.milliseconds / 1000;
    let histogram = this.#latencies.get(request.route);
    if (histogram === undefined) {
      histogram = { counts: new Array<number>(buckets.length + 1).fill(0), seconds: 0 };
      this.#latencies.set(request.route, histogram);
    }
    const at = buckets.findIndex((bound) => seconds <= bound);
    histogram.counts[at < 0 ? buckets.length : at]! += 1;
    histogram.seconds += seconds;
  }

  collected(report: CollectionReport): void {
    this.#collections.done += 1;
    this.#collections.seconds += report.milliseconds / 1000;
    this.#collections.bytes += report.bytes;
    this.#collections.manifests += report.manifests;
    this.#collections.blobs += report.blobs;
  }

  collectionFailed(): void {
    this.#collections.failed += 1;
  }

  text(gauges: MetricGauges): string {
    const all = this.#collections;
    return [
      ...family("requests_total", "counter", "Requests by route, method and status (0: the client left).", [
        ...this.#requests,
      ]),
      ...this.#latencyLines(),
      ...family("request_bytes_total", "counter", "Bytes of request bodies.", [["", this.#bytesIn]]),
      ...family("response_bytes_total", "counter", "Bytes of answers' bodies.", [["", this.#bytesOut]]),
      ...family("requests_under_way", "gauge", "Requests being answered.", [["", gauges.requestsUnderWay]]),
      ...family("connections", "gauge", "Open connections.", [["", gauges.connections]]),
      ...family("uploads", "gauge", "Uploads begun and not finished.", [["", gauges.uploads]]),
      ...family("storage_bytes", "gauge", "Bytes of stored contents.", [["", gauges.storageBytes]]),
      ...family("contents", "gauge", "Distinct contents stored.", [["", gauges.contents]]),
      ...family("repositories", "gauge", "Repositories.", [["", gauges.repositories]]),
      ...family("manifests", "gauge", "Manifests.", [["", gauges.manifests]]),
      ...family("tags", "gauge", "Tags.", [["", gauges.tags]]),
      ...family("gc_runs_total", "counter", "Garbage collections.", [
        [labels({ result: "done" }), all.done],
        [labels({ result: "failed" }), all.failed],
      ]),
      ...family("gc_seconds_total", "counter", "Time spent in garbage collections.", [["", all.seconds]]),
      ...family("gc_freed_bytes_total", "counter", "Bytes given back.", [["", all.bytes]]),
      ...family("gc_removed_blobs_total", "counter", "Contents removed.", [["", all.blobs]]),
      ...family("gc_removed_manifests_total", "counter", "Untagged manifests removed.", [
        ["", all.manifests],
      ]),
      ...family("access_log_dropped_total", "counter", "Lines of the access log that nobody took.", [
        ["", gauges.accessLogDropped],
      ]),
      "",
    ].join("\n");
  }

  #latencyLines(): string[] {
    const name = "skiff_registry_request_seconds";
    const lines = [`# HELP ${name} Time from a request's head to its end.`, `# TYPE ${name} histogram`];
    for (const [route, { counts, seconds }] of this.#latencies) {
      let total = 0;
      for (const [index, count] of counts.entries()) {
        total += count;
        lines.push(`${name}_bucket${labels({ route, le: String(buckets[index] ?? "+Inf") })} ${total}`);
      }
      lines.push(`${name}_sum${labels({ route })} ${seconds}`, `${name}_count${labels({ route })} ${total}`);
    }
    return lines;
  }
}

function labels(values: Readonly<Record<string, string>>): string {
  return `{${Object.entries(values)
    .map(([name, value]) => `${name}="${value}"`)
    .join(",")}}`;
}

function family(
  name: string,
  type: "counter" | "gauge",
  help: string,
  values: readonly (readonly [string, number])[],
): string[] {
  const full = `skiff_registry_${name}`;
  return [
    `# HELP ${full} ${help}`,
    `# TYPE ${full} ${type}`,
    ...values.map(([at, value]) => `${full}${at} ${value}`),
  ];
}
