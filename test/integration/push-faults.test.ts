import assert from "node:assert/strict";
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import { defaultTiming } from "#registry/timing.ts";
import { type PeerRegistry, startRegistry } from "../peers/registry.ts";
import { type ImageSetup, openImages, pull, statuses } from "./image-setup.ts";
import { type ProxyTurn, PushProxy } from "./push-proxy.ts";
import { layerTar } from "./scripted-registry.ts";
import { importTar, lastActions, push } from "./transfer-lab.ts";

/**
 * A registry that breaks off, stalls, is busy, lies or sends elsewhere while an image is pushed: either the image is there
 * whole in the end, or the push fails with a reason and its tag points at nothing.
 */
const resources = new AsyncDisposableStack();
let registry: PeerRegistry;
let setup: ImageSetup;
let next = 0;

const timing = {
  ...defaultTiming,
  // Far longer than a busy machine keeps an honest registry silent.
  headersMs: 10_000,
  idleMs: 2000,
  backoffMs: 10,
  backoffMaxMs: 40,
  attemptsMax: 3,
  retryAfterMsMax: 3000,
};

before(async () => {
  registry = resources.use(await startRegistry());
  setup = resources.use(await openImages({ config: { timing } }));
  await importTar(setup, layerTar("one", 3_000_000), "made");
});

after(() => resources.disposeAsync());

/** A repository nobody used, behind a proxy with this script. */
async function through(
  script: (turn: ProxyTurn) => boolean,
): Promise<{ proxy: PushProxy; name: string } & AsyncDisposable> {
  const proxy = await PushProxy.start(registry.port);
  proxy.script = script;
  next += 1;
  const name = `${proxy.address}/f/n${next}`;
  await setup.images.tag("made", name, "");
  return { proxy, name, [Symbol.asyncDispose]: () => proxy[Symbol.asyncDispose]() };
}

async function assertWhole(name: string): Promise<void> {
  await using other = await openImages();
  await pull(other, `${registry.address}/${name.split("/").slice(1).join("/")}`);
}

async function assertNoTag(name: string): Promise<void> {
  const path = name.split("/").slice(1).join("/");
  const answer = await fetch(`http://${registry.address}/v2/${path}/manifests/latest`);
  assert.equal(answer.status, 404);
}

/** The upload of the layer, not that of the config. */
const isLayer = ({ method, path, request }: ProxyTurn): boolean =>
  method === "PUT" && path.includes("/uploads/") && Number(request.headers["content-length"]) > 1_000_000;

test("an upload that breaks off goes on where it broke", async () => {
  const kept: Buffer[] = [];
  let brokenAt = 0;
  await using round = await through((turn) => {
    const { method, path, request, response } = turn;
    const take = (then: () => void): true => {
      request.on("data", (chunk: Buffer) => kept.push(chunk));
      request.on("end", then);
      return true;
    };
    if (isLayer(turn)) {
      request.on("error", () => {});
      request.on("data", (chunk: Buffer) => {
        if (brokenAt > 0) return;
        kept.push(chunk);
        if (Buffer.concat(kept).length < 1_000_000) return;
        brokenAt = Buffer.concat(kept).length;
        request.destroy();
      });
      return true;
    }
    const location = path.split("?")[0];
    if (method === "GET" && path.includes("/uploads/")) {
      response.writeHead(204, { location, range: `0-${brokenAt - 1}` }).end();
      return true;
    }
    if (method === "PATCH") return take(() => response.writeHead(202, { location }).end());
    if (method !== "PUT" || brokenAt === 0 || !path.includes("/uploads/") || path.includes("_state"))
      return false;
    // Debian's registry cannot resume by itself: what was gathered goes there whole.
    const digest = new URL(path, "http://x").searchParams.get("digest")!;
    void sendWhole(round.name, Buffer.concat(kept), digest).then((status) =>
      response.writeHead(status).end(),
    );
    return true;
  });
  assert.deepEqual(lastActions(await push(setup, round.name)), ["Pushed"]);
  const [patch] = round.proxy.asked("PATCH", "/uploads/");
  assert.match(String(patch?.headers["content-range"]), new RegExp(`^${brokenAt}-\\d+$`));
  await assertWhole(round.name);
});

async function sendWhole(name: string, bytes: Buffer, digest: string): Promise<number> {
  const path = name.split("/").slice(1).join("/");
  const begun = await fetch(`http://${registry.address}/v2/${path}/blobs/uploads/`, { method: "POST" });
  const url = new URL(begun.headers.get("location")!, `http://${registry.address}`);
  url.searchParams.set("digest", digest);
  return (await fetch(url, { method: "PUT", body: new Uint8Array(bytes) })).status;
}

test("an upload whose state is lost begins anew", async () => {
  let met = 0;
  await using round = await through((turn) => {
    if (isLayer(turn) && ++met === 1) turn.forward({ cutAt: 500_000 });
    else if (turn.method === "GET" && turn.path.includes("/uploads/")) turn.response.writeHead(404).end();
    else return false;
    return true;
  });
  await push(setup, round.name);
  assert.equal(met, 2);
  assert.equal(round.proxy.asked("PATCH", "/uploads/").length, 0);
  await assertWhole(round.name);
});

const busy: readonly (readonly [string, (turn: ProxyTurn) => boolean])[] = [
  ["beginning an upload", ({ method, path }) => method === "POST" && path.includes("/uploads/")],
  ["asking for a blob", ({ method }) => method === "HEAD"],
  ["sending a layer", isLayer],
  ["putting the manifest", ({ method, path }) => method === "PUT" && path.includes("/manifests/")],
];
for (const [what, matches] of busy) {
  for (const [status, waitMs] of [
    [429, 1000],
    [503, 0],
  ] as const) {
    test(`${status} at ${what}: waited for, ${waitMs} ms`, async () => {
      let refused = false;
      await using round = await through((turn) => {
        if (refused || !matches(turn)) return false;
        refused = true;
        turn.request.resume();
        turn.response.writeHead(status, waitMs === 0 ? {} : { "retry-after": String(waitMs / 1000) }).end();
        return true;
      });
      const begun = performance.now();
      await push(setup, round.name);
      assert.ok(performance.now() - begun >= waitMs * 0.9);
      if (status === 503) await assertWhole(round.name);
    });
  }
  test(`500 for ever at ${what}: an error, and no tag`, async () => {
    await using round = await through((turn) => {
      if (!matches(turn)) return false;
      turn.request.resume();
      turn.response.writeHead(500).end();
      return true;
    });
    await assert.rejects(push(setup, round.name), {
      message: "received unexpected HTTP status: 500 Internal Server Error",
    });
    await assertNoTag(round.name);
  });
}

/** Sent while it is still packed: its length is not known then. */
const isEarly = ({ method, request }: ProxyTurn): boolean =>
  method === "PATCH" && request.headers["content-length"] === undefined;

/** Pushes an image that was never packed before, whose layer is large enough to be sent while it is. */
async function pushLarge(name: string): Promise<void> {
  // No two are alike.
  await importTar(setup, layerTar(name.replaceAll("/", "-"), 10_000_000), "large");
  await setup.images.tag("large", name, "");
  assert.deepEqual(lastActions(await push(setup, name)), ["Pushed"]);
  await assertWhole(name);
}

test("a large layer is sent while it is packed", async () => {
  await using round = await through(() => false);
  await pushLarge(round.name);
  const [patch, ...more] = round.proxy.seen.filter(({ method }) => method === "PATCH");
  assert.equal(patch?.headers["transfer-encoding"], "chunked");
  assert.deepEqual(more, []);
  // Its end names the digest and sends nothing; the other is the config.
  const ends = round.proxy.asked("PUT", "/uploads/").map(({ headers }) => Number(headers["content-length"]));
  assert.equal(ends.filter((length) => length === 0).length, 1);
  assert.equal(ends.length, 2);
  // Remembered: the next registry gets it as it is.
  await using other = await through(() => false);
  await setup.images.tag("large", other.name, "");
  await push(setup, other.name);
  assert.equal(other.proxy.asked("PATCH", "/uploads/").length, 0);
});

const spoiled: readonly (readonly [string, (turn: ProxyTurn) => void])[] = [
  ["will not have it without a length", ({ request, response }) => refuse(request, response, 411)],
  ["is busy", ({ request, response }) => refuse(request, response, 503)],
  ["breaks off", (turn) => turn.forward({ cutAt: 3_000_000 })],
  ["does not read", ({ request }) => void request.pause()],
];
for (const [what, spoil] of spoiled) {
  test(`a layer that is sent while it is packed, to a registry that ${what}: sent again, whole`, async () => {
    let met = 0;
    await using round = await through((turn) => {
      if (!isEarly(turn)) return false;
      met += 1;
      spoil(turn);
      return true;
    });
    await pushLarge(round.name);
    assert.equal(met, 1);
  });
}

function refuse(request: ProxyTurn["request"], response: ProxyTurn["response"], status: number): void {
  request.resume();
  response.writeHead(status).end();
}

test("a stall is given up and tried again", async () => {
  // More than the kernel's buffers take; packed before.
  await importTar(setup, layerTar("big", 20_000_000), "big");
  const known = `${registry.address}/f/big`;
  await setup.images.tag("big", known, "");
  await push(setup, known);
  let met = 0;
  await using round = await through((turn) => {
    if (!isLayer(turn) || ++met > 1) return false;
    turn.request.pause();
    return true;
  });
  await setup.images.tag("big", round.name, "");
  await push(setup, round.name);
  assert.equal(met, 2);
  await assertWhole(round.name);
});

test("what the registry refuses is told in its words", async () => {
  await using round = await through((turn) => {
    if (turn.method !== "POST") return false;
    const errors = [{ code: "DENIED", message: "requested access to the resource is denied" }];
    turn.response.writeHead(403, { "content-type": "application/json" }).end(JSON.stringify({ errors }));
    return true;
  });
  await assert.rejects(push(setup, round.name), {
    message: "denied: requested access to the resource is denied",
  });
  await assertNoTag(round.name);
});

test("a registry that says another digest than it was given", async () => {
  await using round = await through((turn) => {
    if (turn.method !== "PUT" || !turn.path.includes("/manifests/")) return false;
    turn.forward({
      answer: (headers) => {
        headers["docker-content-digest"] = `sha256:${"0".repeat(64)}`;
      },
    });
    return true;
  });
  await assert.rejects(push(setup, round.name), { code: "wrong-digest" });
});

test("an upload location elsewhere receives no credentials", async () => {
  const elsewhere: IncomingHttpHeaders[] = [];
  const server = createServer((request, response) => {
    elsewhere.push(request.headers);
    request.resume();
    request.on("end", () => response.writeHead(201).end());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  try {
    await using round = await through((turn) => {
      if (turn.path === "/v2/") turn.response.writeHead(401, { "www-authenticate": 'Basic realm="r"' }).end();
      else if (turn.method === "HEAD") turn.response.writeHead(404).end();
      else if (turn.method === "POST") {
        turn.response.writeHead(202, { location: `http://127.0.0.1:${port}/up/x?state=1` }).end();
      } else return false;
      return true;
    });
    const auth = { username: "user", password: "secret" };
    await assert.rejects(push(setup, round.name, { auth }));
    assert.equal(elsewhere.length, 2);
    for (const headers of elsewhere) assert.equal(headers.authorization, undefined);
    assert.match(String(round.proxy.asked("POST", "/uploads/")[0]?.headers.authorization), /^Basic /);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

for (const location of ["ftp://127.0.0.1/x", "http://[", ""]) {
  test(`an upload location that is none: ${JSON.stringify(location)}`, async () => {
    await using round = await through((turn) => {
      if (turn.method !== "POST") return false;
      turn.response.writeHead(202, location === "" ? {} : { location }).end();
      return true;
    });
    await assert.rejects(push(setup, round.name), { code: "registry-unreachable" });
    await assertNoTag(round.name);
  });
}

test("a client that goes away stops the push, and no tag is there", async () => {
  const stop = new AbortController();
  await using round = await through((turn) => {
    if (!isLayer(turn)) return false;
    stop.abort();
    return true;
  });
  await assert.rejects(push(setup, round.name, { signal: stop.signal }), { kind: "cancelled" });
  await assertNoTag(round.name);
  assert.equal(
    statuses(await push(setup, round.name.replace(round.proxy.address, registry.address)).catch(() => []))
      .length,
    0,
  );
});
