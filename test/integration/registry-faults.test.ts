import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { RegistryTiming } from "#registry/timing.ts";
import { defaultTiming } from "#registry/timing.ts";
import { type ImageSetup, openImages, pull, statuses } from "./image-setup.ts";
import {
  imageOf,
  layerTar,
  type ScriptedImage,
  ScriptedRegistry,
  sendBlob,
  sendError,
  type Turn,
} from "./scripted-registry.ts";

/**
 * A registry that truncates, lies, stalls, is busy or sends elsewhere (SECURITY.md, faults). For each: either the pull
 * succeeds with the right bytes, or it fails with Docker's words; nothing wrong or half made is ever there.
 */
const timing: RegistryTiming = {
  ...defaultTiming,
  headersMs: 10_000,
  // Far longer than a busy machine keeps an honest registry silent.
  idleMs: 1500,
  rateWindowMs: 1000,
  rateBytesMin: 1024,
  backoffMs: 10,
  backoffMaxMs: 40,
  retryAfterMsMax: 3000,
};

let image: ScriptedImage;
before(() => {
  image = imageOf([layerTar("one", 600_000), layerTar("two", 300_000)]);
});

const isBlob = (turn: Turn, index: number): boolean =>
  turn.url.pathname.endsWith(image.layers[index]!.digest);

function leftovers(setup: ImageSetup): string[] {
  const folder = join(setup.root, "overlay2");
  const layers = readdirSync(folder).filter((name) => name !== "tmp" && name !== "trash");
  return [...layers, ...readdirSync(join(folder, "tmp"))];
}

/** Nothing but partials of sound layers, which a later pull resumes. `bad`: layers of which not even that may stay. */
async function assertNothing(setup: ImageSetup, bad: readonly number[] = []): Promise<void> {
  assert.deepEqual(setup.images.store.listAll(), []);
  assert.deepEqual(await setup.content.list(), []);
  assert.deepEqual(setup.snapshotter.listLayers(), []);
  assert.deepEqual(leftovers(setup), []);
  const partials = readdirSync(join(setup.root, "content", "ingest"));
  for (const index of bad) assert.equal(partials.includes(image.layers[index]!.digest.slice(7)), false);
}

interface Round {
  readonly registry: ScriptedRegistry;
  readonly setup: ImageSetup;
  readonly name: string;
}

async function round(run: (round: Round) => Promise<void>, config = {}): Promise<void> {
  await using registry = await ScriptedRegistry.start();
  registry.serve("latest", image);
  await using setup = await openImages({ config: { timing, ...config } });
  await run({ registry, setup, name: `${registry.address}/a/b` });
}

async function assertPulled({ setup, name }: Round): Promise<void> {
  const found = setup.images.store.resolve(name);
  assert.equal(found.id, image.config.digest);
  assert.equal(found.sizeBytes, 900_000);
  for (const layer of found.layers) {
    assert.equal(await setup.content.has(layer.blobDigest!), true);
    assert.equal(existsSync(setup.snapshotter.pathOf(layer.key)), true);
  }
}

async function succeeds(
  script: ScriptedRegistry["script"],
  after: (round: Round) => void = () => {},
): Promise<void> {
  await round(async (all) => {
    all.registry.script = script;
    const lines = await pull(all.setup, all.name);
    assert.match(statuses(lines).at(-1) ?? "", /^Status: Downloaded newer image/);
    await assertPulled(all);
    after(all);
  });
}

async function fails(
  script: ScriptedRegistry["script"],
  expected: RegExp,
  bad: readonly number[] = [],
  after: (round: Round) => void = () => {},
): Promise<void> {
  await round(async (all) => {
    all.registry.script = script;
    await assert.rejects(pull(all.setup, all.name), (error: Error) => {
      assert.match(error.message, expected);
      return true;
    });
    await assertNothing(all.setup, bad);
    after(all);
    // And an honest registry afterwards heals it.
    all.registry.script = () => false;
    await pull(all.setup, all.name);
    await assertPulled(all);
  });
}

function truncate(turn: Turn, bytes: Buffer, at: number): void {
  const from = Number(/\d+/.exec(turn.request.headers.range ?? "")?.[0] ?? 0);
  const rest = bytes.subarray(from);
  turn.response.writeHead(from === 0 ? 200 : 206, {
    "content-length": rest.length,
    ...(from === 0 ? {} : { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` }),
  });
  turn.response.write(rest.subarray(0, at), () => setTimeout(() => turn.response.destroy(), 20));
}

test("an honest registry", () => succeeds(() => false));

test("a blob that breaks off goes on from there", async () => {
  await succeeds(
    (turn) => {
      if (!isBlob(turn, 0) || turn.count >= 3) return false;
      truncate(turn, image.layers[0]!.bytes, 100_000);
      return true;
    },
    ({ registry }) => {
      const ranges = registry.asked(image.layers[0]!.digest).map(({ headers }) => headers.range);
      assert.deepEqual(ranges, [undefined, "bytes=100000-", "bytes=200000-", "bytes=300000-"]);
    },
  );
});

test("a server without ranges sends it again, and what is there is not written twice", async () => {
  await succeeds((turn) => {
    if (!isBlob(turn, 0)) return false;
    const { bytes } = image.layers[0]!;
    if (turn.count === 0) truncate(turn, bytes, 250_000);
    else turn.response.writeHead(200, { "content-length": bytes.length }).end(bytes);
    return true;
  });
});

test("a blob that always breaks off at once ends the pull", async () => {
  await fails(
    (turn) => {
      if (!isBlob(turn, 0)) return false;
      turn.response.writeHead(200, { "content-length": image.layers[0]!.bytes.length });
      turn.response.flushHeaders();
      setTimeout(() => turn.response.destroy(), 5);
      return true;
    },
    /EOF|connection reset/,
    [],
    ({ registry }) => assert.equal(registry.asked(image.layers[0]!.digest).length, timing.attemptsMax),
  );
});

test("a blob that is shorter than the manifest says", async () => {
  await fails((turn) => {
    if (!isBlob(turn, 0) || turn.request.headers.range !== undefined) {
      if (!isBlob(turn, 0)) return false;
      turn.response.writeHead(416).end();
      return true;
    }
    turn.response.end(image.layers[0]!.bytes.subarray(0, 1000));
    return true;
  }, /unexpected EOF/);
});

test("a blob that is longer than the manifest says, announced and not", async () => {
  for (const announced of [true, false]) {
    await fails(
      (turn) => {
        if (!isBlob(turn, 0)) return false;
        const bytes = Buffer.concat([image.layers[0]!.bytes, Buffer.alloc(100_000)]);
        turn.response.writeHead(200, announced ? { "content-length": bytes.length } : {}).end(bytes);
        return true;
      },
      /^filesystem layer verification failed for digest sha256:/,
      [0],
    );
  }
});

test("other bytes of the same length", async () => {
  await fails(
    (turn) => {
      if (!isBlob(turn, 0)) return false;
      const bytes = Buffer.from(image.layers[0]!.bytes);
      bytes.writeUInt8(bytes.readUInt8(300_000) ^ 1, 300_000);
      sendBlob(turn.request, turn.response, bytes);
      return true;
    },
    /^filesystem layer verification failed for digest sha256:/,
    [0],
  );
});

test("bytes that are no archive at all", async () => {
  await fails(
    (turn) => {
      if (!isBlob(turn, 1)) return false;
      sendBlob(turn.request, turn.response, Buffer.alloc(image.layers[1]!.bytes.length, "x"));
      return true;
    },
    /^filesystem layer verification failed for digest sha256:/,
    [1],
  );
});

test("a partial that an earlier pull left damaged is dropped and fetched again", async () => {
  await round(async (all) => {
    let first = true;
    all.registry.script = (turn) => {
      if (!isBlob(turn, 0) || !first) return false;
      const bytes = Buffer.alloc(image.layers[0]!.bytes.length, 7);
      if (turn.count === 0) truncate(turn, bytes, 50_000);
      else turn.response.destroy();
      return true;
    };
    await assert.rejects(pull(all.setup, all.name));
    assert.equal(readdirSync(join(all.setup.root, "content", "ingest")).length > 0, true);
    first = false;
    await pull(all.setup, all.name);
    await assertPulled(all);
    const ranges = all.registry.asked(image.layers[0]!.digest).map(({ headers }) => headers.range);
    assert.equal(ranges.includes("bytes=50000-"), true);
    assert.equal(ranges.at(-1), undefined);
  });
});

test("busy with Retry-After is waited for", async () => {
  const started = performance.now();
  await succeeds((turn) => {
    if (!isBlob(turn, 0) || turn.count > 0) return false;
    sendError(turn.response, 429, "TOOMANYREQUESTS", "slow down", { "retry-after": "1" });
    return true;
  });
  assert.ok(performance.now() - started >= 990);
});

test("busy for longer than we wait fails with the registry's words", async () => {
  await fails(
    (turn) => {
      if (!turn.url.pathname.includes("/manifests/")) return false;
      sendError(turn.response, 429, "TOOMANYREQUESTS", "You have reached your pull rate limit.", {
        "retry-after": "99999",
      });
      return true;
    },
    /^toomanyrequests: You have reached your pull rate limit\.$/,
    [],
    ({ registry }) => assert.equal(registry.asked("/manifests/").length, 1),
  );
});

test("errors of the server are tried again, and given up in the end", async () => {
  await succeeds((turn) => {
    if (turn.count > 1 || turn.url.pathname === "/v2/") return false;
    turn.response.writeHead(turn.count === 0 ? 500 : 503).end("oops");
    return true;
  });
  await fails((turn) => {
    if (!turn.url.pathname.includes("/manifests/")) return false;
    turn.response.writeHead(502).end("<html>");
    return true;
  }, /^received unexpected HTTP status: 502 Bad Gateway$/);
  await fails((turn) => {
    if (!isBlob(turn, 1)) return false;
    turn.response.writeHead(500).end();
    return true;
  }, /^received unexpected HTTP status: 500 Internal Server Error$/);
});

test("connections that break before an answer", async () => {
  await succeeds((turn) => {
    if (turn.count > 0 || turn.url.pathname === "/v2/") return false;
    turn.request.socket.destroy();
    return true;
  });
});

test("a stall within a blob is given up and resumed", async () => {
  await succeeds(
    (turn) => {
      if (!isBlob(turn, 0) || turn.count > 0) return false;
      const { bytes } = image.layers[0]!;
      turn.response.writeHead(200, { "content-length": bytes.length });
      turn.response.write(bytes.subarray(0, 200_000));
      return true;
    },
    ({ registry }) => {
      assert.equal(registry.asked(image.layers[0]!.digest)[1]?.headers.range, "bytes=200000-");
    },
  );
});

test("a trickle below the minimum rate is given up and resumed", async () => {
  await succeeds(
    (turn) => {
      if (!isBlob(turn, 0) || turn.count > 0) return false;
      const { bytes } = image.layers[0]!;
      turn.response.writeHead(200, { "content-length": bytes.length });
      let at = 0;
      const timer = setInterval(() => {
        turn.response.write(bytes.subarray(at, at + 10));
        at += 10;
      }, 50);
      turn.response.on("close", () => clearInterval(timer));
      return true;
    },
    ({ registry }) => assert.ok(registry.asked(image.layers[0]!.digest).length === 2),
  );
});

test("a partial answer of another range is not believed", async () => {
  await fails((turn) => {
    if (!isBlob(turn, 0)) return false;
    const { bytes } = image.layers[0]!;
    if (turn.count === 0) truncate(turn, bytes, 100_000);
    else {
      turn.response.writeHead(206, { "content-range": `bytes 200000-${bytes.length - 1}/${bytes.length}` });
      turn.response.end(bytes.subarray(200_000));
    }
    return true;
  }, /another range/);
});

test("404, 401 and 403 in Docker's words", async () => {
  await round(async ({ setup, registry, name }) => {
    await assert.rejects(pull(setup, name, "none"), {
      kind: "notFound",
      message: `manifest for ${name}:none not found: manifest unknown: manifest unknown`,
    });
    const denied = `pull access denied for ${name}, repository does not exist or may require 'docker login': denied: requested access to the resource is denied`;
    registry.script = (turn) => {
      if (turn.url.pathname === "/v2/") return false;
      sendError(turn.response, 403, "DENIED", "requested access to the resource is denied");
      return true;
    };
    await assert.rejects(pull(setup, name), { kind: "notFound", message: denied });
    registry.script = (turn) => {
      if (turn.url.pathname === "/v2/") return false;
      sendError(turn.response, 401, "UNAUTHORIZED", "authentication required");
      return true;
    };
    await assert.rejects(pull(setup, name), { message: "unauthorized: authentication required" });
    registry.script = (turn) => {
      turn.response.writeHead(401, { "www-authenticate": 'Basic realm="x"' }).end();
      return true;
    };
    await assert.rejects(pull(setup, name), {
      message: new RegExp(`^(Get|Head) "http://${name.split("/")[0]}/v2/.*": no basic auth credentials$`),
    });
    await assertNothing(setup);
  });
});

test("a registry that is not there", async () => {
  const registry = await ScriptedRegistry.start();
  const { address } = registry;
  await registry[Symbol.asyncDispose]();
  await using setup = await openImages({ config: { timing } });
  await assert.rejects(pull(setup, `${address}/x`), {
    kind: "system",
    message: `Get "http://${address}/v2/": dial tcp ${address}: connect: connection refused`,
  });
});

test("a pull that is cancelled stops at once and leaves nothing but a partial", async () => {
  await round(async ({ setup, registry, name }) => {
    registry.script = (turn) => {
      if (!isBlob(turn, 0)) return false;
      turn.response.writeHead(200, { "content-length": image.layers[0]!.bytes.length });
      turn.response.write(image.layers[0]!.bytes.subarray(0, 1000));
      return true;
    };
    const stop = new AbortController();
    const pulling = pull(setup, name, "latest", { signal: stop.signal });
    await sleep(150);
    const started = performance.now();
    stop.abort();
    await assert.rejects(pulling, { kind: "cancelled" });
    assert.ok(performance.now() - started < 10_000);
    await assertNothing(setup);
  });
});

test("two pulls of one image share its downloads, and one may leave", async () => {
  await round(async ({ setup, registry, name }) => {
    const held = Promise.withResolvers<void>();
    registry.script = async (turn) => {
      if (isBlob(turn, 0)) await held.promise;
      return false;
    };
    const joined = new Set<number>();
    const joining = (index: number, signal?: AbortSignal): Promise<unknown> =>
      pull(setup, name, "latest", {
        ...(signal === undefined ? {} : { signal }),
        onLine: (line) => {
          // The other layer's end: this one is waited for.
          if (line.kind === "progress" && line.action === "Download complete") joined.add(index);
        },
      });
    const stop = new AbortController();
    const [first, second, third] = [joining(1, stop.signal), joining(2), joining(3)];
    while (joined.size < 3 || registry.asked(image.layers[0]!.digest).length === 0) await sleep(5);
    stop.abort();
    await assert.rejects(first, { kind: "cancelled" });
    held.resolve();
    await Promise.all([second, third]);
    for (const layer of image.layers) assert.equal(registry.asked(layer.digest).length, 1);
    assert.equal(setup.images.store.list().length, 1);
  });
});
