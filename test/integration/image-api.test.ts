import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { createHttpFront } from "#api/listen.ts";
import { imageRoutes } from "#api/routes-image.ts";
import { silentLog } from "#base/log.ts";
import { type PeerDaemon, startDockerd } from "../peers/dockerd.ts";
import { type Answer, call } from "../peers/engine-call.ts";
import { busyboxLayout, pushLayout, tarOf, writeLayout } from "../peers/images.ts";
import { freePort, startRegistry } from "../peers/registry.ts";
import { type ImageSetup, openImages } from "./image-setup.ts";

/**
 * The same requests to Debian's dockerd and to ours, at the API version both speak; answers must be equal once what is
 * each daemon's own (paths, times, versions) is taken out. Where ours follows a newer Docker the step says so.
 */
const resources = new AsyncDisposableStack();
let docker: PeerDaemon;
let setup: ImageSetup;
let socket: string;
let registry: string;

before(async () => {
  docker = resources.use(await startDockerd());
  const port = await freePort();
  registry = `127.0.0.1:${port}`;
  resources.use(await startRegistry({ port }));
  resources.use(await startRegistry({ port, netnsOf: docker.pid }));
  const folder = mkdtempSync(join(tmpdir(), "skiff-image-api-"));
  resources.defer(() => rmSync(folder, { recursive: true }));
  const layer = (name: string): Buffer => {
    mkdirSync(join(folder, name));
    writeFileSync(join(folder, name, name), name.repeat(100));
    return tarOf(join(folder, name));
  };
  const rich = join(folder, "rich");
  writeLayout(rich, [layer("one"), layer("two"), layer("three")], {
    Cmd: ["-c", "true"],
    Entrypoint: ["sh"],
    Env: ["A=<b>&c"],
    ExposedPorts: { "80/tcp": {} },
    Volumes: { "/data": {} },
    WorkingDir: "/w",
    User: "1000",
    Labels: { a: "1", "com.example/x": "y" },
    StopSignal: "SIGINT",
  });
  for (const netns of [{}, { netnsOf: docker.pid }]) {
    pushLayout(busyboxLayout(), `${registry}/library/bb:latest`, netns);
    pushLayout(rich, `${registry}/t/rich:1`, netns);
    pushLayout(rich, `${registry}/t/rich:2`, netns);
  }
  setup = resources.use(await openImages());
  const front = createHttpFront({ routes: imageRoutes(setup.images), log: silentLog });
  resources.defer(() => front.close(500));
  const server = front.createServer();
  socket = join(setup.root, "api.sock");
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  resources.defer(() => void server.close());
});

after(() => resources.disposeAsync());

/** Lines of a progress stream that depend on timing: dockerd leaves out what a newer line overtakes. */
const moving = /"status":"(Downloading|Download complete|Extracting|Waiting|Verifying Checksum)"/;

function normal(answer: Answer<unknown>): unknown {
  if (answer.text.includes("\r\n")) {
    const lines = answer.text.split("\r\n").filter((line) => line !== "" && !moving.test(line));
    // Layers finish in any order here: they are unpacked side by side.
    return { status: answer.status, lines: lines.sort() };
  }
  const clean = (value: unknown, key: string): unknown => {
    if (Array.isArray(value)) {
      const entries = value.map((entry) => clean(entry, key) as { Created?: unknown; Id?: string });
      // Rows of the same second have no order in Docker.
      return entries.every((entry) => entry?.Created !== undefined) ? entries.sort(byTimeAndId) : entries;
    }
    if (typeof value !== "object" || value === null) {
      if (key === "DockerVersion" && value !== "") return "<version>";
      if (["UpperDir", "MergedDir", "WorkDir"].includes(key)) return "<path>";
      if (key === "LowerDir") return String(value).split(":").length;
      if (key === "LastTagTime" && value !== "0001-01-01T00:00:00Z") return "<time>";
      return value;
    }
    return Object.fromEntries(
      Object.entries(value)
        .sort(([left], [right]) => (left < right ? -1 : 1))
        .map(([name, entry]) => [name, clean(entry, name)]),
    );
  };
  return { status: answer.status, body: clean(answer.body ?? answer.text, "") };
}

function byTimeAndId(
  left: { Created?: unknown; Id?: string },
  right: { Created?: unknown; Id?: string },
): number {
  if (left.Created !== right.Created) return 0;
  return (left.Id ?? "") < (right.Id ?? "") ? -1 : 1;
}

interface Step {
  readonly method: string;
  readonly path: string;
  /** Where ours is a newer Docker's answer. */
  readonly ours?: { readonly status: number; readonly body: unknown };
}

async function both(step: Step): Promise<void> {
  const path = `/v1.41${step.path}`;
  const theirs = normal(await call(docker.socket, step.method, path));
  const ours = normal(await call(socket, step.method, path));
  assert.deepEqual(ours, step.ours ?? theirs, `${step.method} ${step.path}`);
}

const get = (path: string, ours?: Step["ours"]): Step => ({
  method: "GET",
  path,
  ...(ours === undefined ? {} : { ours }),
});
const post = (path: string, ours?: Step["ours"]): Step => ({
  method: "POST",
  path,
  ...(ours === undefined ? {} : { ours }),
});
const del = (path: string): Step => ({ method: "DELETE", path });
const message = (status: number, text: string): Step["ours"] => ({ status, body: { message: text } });
const filters = (value: object): string => encodeURIComponent(JSON.stringify(value));

test("pull, list, inspect, history, tag and removal answer as dockerd's", async () => {
  const rich = `${registry}/t/rich`;
  const steps: readonly Step[] = [
    get("/images/json"),
    post(`/images/create?fromImage=${registry}/library/bb&tag=latest`),
    post(`/images/create?fromImage=${registry}/library/bb&tag=latest`),
    post(`/images/create?fromImage=${registry}/library/bb:latest&tag=latest`),
    post(`/images/create?fromImage=${rich}`),
    post(`/images/create?fromImage=${rich}:2`),
    get("/images/json"),
    get("/images/json?all=1"),
    get(`/images/json?filters=${filters({ reference: ["*bb*"] })}`),
    get(`/images/json?filters=${filters({ label: ["a=1"] })}`),
    get(`/images/json?filters=${filters({ label: ["a=2"] })}`),
    get(`/images/json?filters=${filters({ dangling: ["true"] })}`),
    get(`/images/json?filters=${filters({ before: ["nosuch"] })}`),
    get(`/images/${registry}/library/bb/json`),
    get(`/images/${rich}:1/json`),
    get(`/images/${rich}:1/history`),
    get(`/images/${registry}/library/bb:latest/history`),
    post(`/images/${rich}:1/tag?repo=mine&tag=v1`),
    post(`/images/${rich}:1/tag?repo=mine`),
    post(`/images/nosuch/tag?repo=mine`),
    get("/images/mine:v1/json"),
    get("/images/json"),
    del("/images/mine:v1"),
    del("/images/mine:v1"),
    del("/images/nosuch"),
    del(`/images/${rich}:1`),
    del(`/images/${rich}:2`),
    del("/images/mine"),
    get("/images/json"),
    del(`/images/${registry}/library/bb:latest`),
    get("/images/json"),
    post("/images/prune"),
  ];
  for (const step of steps) await both(step);
});

test("errors of pulls and names answer as dockerd's", async () => {
  const lower = "invalid reference format: repository name";
  const zero = `sha256:${"0".repeat(64)}`;
  const steps: readonly Step[] = [
    post(`/images/create?fromImage=${registry}/library/bb&tag=nosuch`),
    post(`/images/create?fromImage=${registry}/library/nosuch&tag=latest`),
    post(`/images/create?fromImage=${registry}/library/nosuch`),
    post(`/images/create?fromImage=${registry}/library/bb&tag=${zero}`),
    post("/images/create?fromImage=127.0.0.1:1/x&tag=latest"),
    post("/images/create?fromImage=x&tag=-bad"),
    post("/images/create?fromImage=Bad&tag=latest", message(400, `${lower} (library/Bad) must be lowercase`)),
    post(`/images/create?fromImage=${"a".repeat(64)}&tag=latest`),
    get("/images/nosuch/json", message(404, "No such image: nosuch:latest")),
    get(`/images/${zero}/json`, message(404, `No such image: ${zero}`)),
    get("/images/Bad/json", message(400, `${lower} (library/Bad) must be lowercase`)),
    get("/images/nosuch/history"),
    get(`/images/json?filters=${filters({ bad: ["x"] })}`, message(400, "invalid filter 'bad'")),
    get(
      `/images/json?filters=${filters({ dangling: ["x"] })}`,
      message(400, "invalid filter 'dangling=[x]'"),
    ),
  ];
  for (const step of steps) await both(step);
});

test("conflicts of removal by id answer as dockerd's", async () => {
  const rich = `${registry}/t/rich`;
  await both(post(`/images/create?fromImage=${rich}&tag=1`));
  await both(post(`/images/${rich}:1/tag?repo=other`));
  const { id } = setup.images.store.resolve(`${rich}:1`);
  await both(del(`/images/${id}`));
  await both(del(`/images/${id.slice(7, 19)}`));
  await both(get(`/images/${id.slice(7, 19)}/json`));
  await both(del(`/images/${id}?force=1`));
  await both(get("/images/json"));
});

test("shapes follow the API version", async () => {
  await call(socket, "POST", `/v1.51/images/create?fromImage=${registry}/t/rich&tag=1`);
  const row = async (version: string): Promise<Record<string, unknown>> =>
    (await call<Record<string, unknown>[]>(socket, "GET", `/v${version}/images/json`)).body?.[0] ?? {};
  const details = async (version: string): Promise<Record<string, unknown>> =>
    (await call<Record<string, unknown>>(socket, "GET", `/v${version}/images/${registry}/t/rich:1/json`))
      .body ?? {};
  assert.equal("VirtualSize" in (await row("1.43")), true);
  assert.equal("VirtualSize" in (await row("1.44")), false);
  assert.equal("ContainerConfig" in (await details("1.44")), true);
  assert.equal("ContainerConfig" in (await details("1.45")), false);
  assert.equal("Hostname" in ((await details("1.49"))["Config"] as object), true);
  assert.equal("Hostname" in ((await details("1.50"))["Config"] as object), false);
  const tar = gzipSync(tarOf(join(setup.root, "content/ingest")));
  const imported = await call(socket, "POST", "/v1.51/images/create?fromSrc=-", tar, {
    "Content-Type": "application/x-tar",
  });
  assert.match(imported.text, /^\{"status":"sha256:[0-9a-f]{64}"\}\r\n$/);
  const dangling = async (version: string): Promise<unknown> =>
    (
      await call<{ RepoTags: unknown; Id: string }[]>(
        socket,
        "GET",
        `/v${version}/images/json?filters=${filters({ dangling: ["true"] })}`,
      )
    ).body?.[0]?.RepoTags;
  assert.deepEqual(await dangling("1.42"), ["<none>:<none>"]);
  assert.deepEqual(await dangling("1.43"), []);
});

test("a failure inside a stream is its last line; one before it is the status", async () => {
  const none = await call<{ message: string }>(
    socket,
    "POST",
    `/v1.51/images/create?fromImage=${registry}/library/bb&tag=latest&platform=linux/s390x/x/y`,
  );
  assert.equal(none.status, 400);
  const wrong = await call(
    socket,
    "POST",
    `/v1.51/images/create?fromImage=${registry}/library/bb&tag=latest&platform=linux/arm64`,
  );
  assert.equal(wrong.status, 200);
  assert.match(
    wrong.text,
    /WARNING: image with reference .* does not match the specified platform \(linux\/arm64\)/,
  );
});
