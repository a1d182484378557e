import assert from "node:assert/strict";
import { test } from "node:test";
import { defaultTiming } from "#registry/timing.ts";
import { openImages, pull, statuses } from "./image-setup.ts";
import { imageOf, layerTar, ScriptedRegistry, sendError, type Turn } from "./scripted-registry.ts";

/** Who receives credentials (SECURITY.md §1.17): the registry that was named, and nobody a registry points at. */

const timing = { ...defaultTiming, backoffMs: 5, backoffMaxMs: 10, attemptsMax: 2 };
const auth = { username: "user", password: "secret" };
const basic = `Basic ${Buffer.from("user:secret").toString("base64")}`;
const image = imageOf([layerTar("auth", 50_000)]);

async function lab(run: (own: ScriptedRegistry, other: ScriptedRegistry) => Promise<void>): Promise<void> {
  await using own = await ScriptedRegistry.start();
  await using other = await ScriptedRegistry.start();
  own.serve("latest", image);
  other.serve("latest", image);
  await run(own, other);
}

/** Asks for a Bearer token of `realm`, and accepts only `token`. */
function bearer(turn: Turn, realm: string, token: string): boolean {
  if (turn.request.headers.authorization === `Bearer ${token}`) return false;
  const challenge = `Bearer realm="${realm}",service="registry.test",scope="repository:a/b:pull"`;
  sendError(turn.response, 401, "UNAUTHORIZED", "authentication required", { "www-authenticate": challenge });
  return true;
}

test("a token of the registry's own origin: credentials, service and scope are sent, the token is kept", async () => {
  await lab(async (own) => {
    own.script = (turn) => {
      if (turn.url.pathname !== "/token") return bearer(turn, `http://${own.address}/token`, "t0k");
      assert.equal(turn.request.headers.authorization, basic);
      assert.equal(turn.url.searchParams.get("service"), "registry.test");
      assert.equal(turn.url.searchParams.get("scope"), "repository:a/b:pull");
      assert.equal(turn.url.searchParams.get("account"), "user");
      turn.response.end(JSON.stringify({ token: "t0k", expires_in: 300 }));
      return true;
    };
    await using setup = await openImages({ config: { timing } });
    await pull(setup, `${own.address}/a/b`, "latest", { auth });
    assert.equal(own.asked("/token").length, 1);
  });
});

test("a token that runs out is renewed", async () => {
  await lab(async (own) => {
    let issued = 0;
    own.script = (turn) => {
      if (turn.url.pathname === "/token") {
        issued += 1;
        turn.response.end(JSON.stringify({ access_token: `t${issued}` }));
        return true;
      }
      const wanted = turn.url.pathname.includes("/blobs/") ? "t2" : "t1";
      return bearer(turn, `http://${own.address}/token`, wanted);
    };
    await using setup = await openImages({ config: { timing } });
    await pull(setup, `${own.address}/a/b`);
    assert.equal(issued, 2);
  });
});

test("an identity token is exchanged by POST", async () => {
  await lab(async (own) => {
    own.script = (turn) => {
      if (turn.url.pathname !== "/token") return bearer(turn, `http://${own.address}/token`, "oauth");
      assert.equal(turn.request.method, "POST");
      const form = new URLSearchParams(turn.body);
      assert.equal(form.get("grant_type"), "refresh_token");
      assert.equal(form.get("refresh_token"), "id-token");
      assert.equal(form.get("scope"), "repository:a/b:pull");
      turn.response.end(JSON.stringify({ access_token: "oauth" }));
      return true;
    };
    await using setup = await openImages({ config: { timing } });
    await pull(setup, `${own.address}/a/b`, "latest", { auth: { identitytoken: "id-token" } });
  });
});

test("a registry token is sent as it is", async () => {
  await lab(async (own) => {
    own.script = (turn) => turn.url.pathname !== "/v2/" && bearer(turn, "http://127.0.0.1:1/none", "ready");
    await using setup = await openImages({ config: { timing } });
    await pull(setup, `${own.address}/a/b`, "latest", { auth: { registrytoken: "ready" } });
  });
});

test("a realm on another origin is asked without credentials", async () => {
  await lab(async (own, other) => {
    own.script = (turn) => bearer(turn, `http://${other.address}/token`, "anonymous");
    other.script = (turn) => {
      turn.response.end(JSON.stringify({ token: "anonymous" }));
      return true;
    };
    await using setup = await openImages({ config: { timing } });
    await pull(setup, `${own.address}/a/b`, "latest", { auth });
    await pull(setup, `${own.address}/a/b`, "latest", { auth: { identitytoken: "id-token" } });
    assert.equal(other.seen.length > 0, true);
    for (const seen of other.seen) {
      assert.equal(seen.headers.authorization, undefined);
      assert.doesNotMatch(seen.path + seen.body, /user|secret|id-token/);
    }
  });
});

test("Basic goes to the registry alone; a redirect to another origin loses it", async () => {
  await lab(async (own, other) => {
    own.script = (turn) => {
      if (turn.request.headers.authorization !== basic) {
        sendError(turn.response, 401, "UNAUTHORIZED", "x", { "www-authenticate": 'Basic realm="r"' });
        return true;
      }
      if (!turn.url.pathname.includes("/blobs/")) return false;
      turn.response.writeHead(307, { location: `http://${other.address}${turn.url.pathname}` }).end();
      return true;
    };
    await using setup = await openImages({ config: { timing } });
    await pull(setup, `${own.address}/a/b`, "latest", { auth });
    assert.equal(other.asked("/blobs/").length, 2);
    for (const { headers } of other.seen) assert.equal(headers.authorization, undefined);
  });
});

test("a server that a redirect led to cannot ask for credentials", async () => {
  await lab(async (own, other) => {
    own.script = (turn) => {
      if (!turn.url.pathname.includes("/blobs/")) return false;
      turn.response.writeHead(302, { location: `http://${other.address}/stolen` }).end();
      return true;
    };
    other.script = (turn) => {
      turn.response.writeHead(401, { "www-authenticate": 'Basic realm="give"' }).end();
      return true;
    };
    await using setup = await openImages({ config: { timing } });
    await assert.rejects(pull(setup, `${own.address}/a/b`, "latest", { auth }));
    assert.ok(other.seen.length > 0);
    for (const { headers } of other.seen) assert.equal(headers.authorization, undefined);
  });
});

test("a redirect without end, to another scheme, and to link-local addresses is refused", async () => {
  await lab(async (own) => {
    await using setup = await openImages({ config: { timing } });
    const through = async (location: string, expected: RegExp): Promise<void> => {
      own.script = (turn) => {
        if (!turn.url.pathname.includes("/manifests/")) return false;
        turn.response.writeHead(302, { location }).end();
        return true;
      };
      await assert.rejects(pull(setup, `${own.address}/a/b`), { message: expected });
    };
    await through(`http://${own.address}/v2/a/b/manifests/latest`, /stopped after 10 redirects/);
    await through("file:///etc/passwd", /unsupported protocol scheme/);
    await through("http://169.254.169.254/latest/meta-data/", /link-local/);
    await through("http://[fe80::1]/x", /link-local/);
    await through("http://[::ffff:169.254.169.254]/x", /link-local/);
    assert.ok(own.seen.length < 100);
  });
});

test("a realm at a link-local address or of no use is refused", async () => {
  await lab(async (own) => {
    await using setup = await openImages({ config: { timing } });
    for (const realm of ["http://169.254.169.254/token", "ftp://x/", "not a url", ""]) {
      own.script = (turn) => bearer(turn, realm, "never");
      await assert.rejects(pull(setup, `${own.address}/a/b`), { message: /link-local|realm/ });
    }
  });
});

test("garbage from the token server is an error, not a header", async () => {
  await lab(async (own) => {
    await using setup = await openImages({ config: { timing } });
    for (const body of ["", "[]", "null", '{"token":5}', '{"token":"a\\r\\nx: y"}', "x".repeat(600_000)]) {
      own.script = (turn) => {
        if (turn.url.pathname !== "/token") return bearer(turn, `http://${own.address}/token`, "never");
        turn.response.end(body);
        return true;
      };
      await assert.rejects(pull(setup, `${own.address}/a/b`), { message: /token|larger/ });
    }
    own.script = (turn) => {
      if (turn.url.pathname !== "/token") return bearer(turn, `http://${own.address}/token`, "never");
      turn.response.writeHead(401).end(JSON.stringify({ details: "incorrect username or password" }));
      return true;
    };
    await assert.rejects(pull(setup, `${own.address}/a/b`, "latest", { auth }), {
      message: /unauthorized: incorrect username or password$/,
    });
  });
});

test("a mirror serves docker.io without ever seeing credentials, and is passed over when it has nothing", async () => {
  await lab(async (own, other) => {
    own.script = (turn) => {
      assert.equal(turn.request.headers.authorization, undefined);
      return false;
    };
    other.script = (turn) => {
      turn.response.writeHead(404).end();
      return true;
    };
    const mirrors = [`http://${other.address}/`, `http://${own.address}`];
    await using setup = await openImages({ config: { timing, mirrors } });
    const lines = await pull(setup, "busybox", "latest", { auth });
    assert.equal(statuses(lines).at(-1), "Status: Downloaded newer image for busybox:latest");
    assert.ok(other.asked("/v2/library/busybox/manifests/latest").length > 0);
    assert.ok(own.asked("/v2/library/busybox/manifests/latest").length > 0);
    // Another registry's images are never asked of a mirror.
    const before = own.seen.length;
    await assert.rejects(pull(setup, "127.0.0.1:1/busybox"));
    assert.equal(own.seen.length, before);
  });
});

test("all tags over pages; a next link to elsewhere is not followed", async () => {
  await lab(async (own, other) => {
    own.serve("v1", image);
    own.serve("v2", imageOf([layerTar("v2", 1000)]));
    own.script = (turn) => {
      if (!turn.url.pathname.endsWith("/tags/list")) return false;
      const next = turn.url.searchParams.get("last") === null;
      const link = next ? "</v2/a/b/tags/list?last=v1&n=1>" : `<http://${other.address}/v2/a/b/tags/list>`;
      turn.response.writeHead(200, { link: `${link}; rel="next"` });
      turn.response.end(JSON.stringify({ name: "a/b", tags: next ? ["v1", "../x", 7] : ["v2"] }));
      return true;
    };
    await using setup = await openImages({ config: { timing } });
    const lines = statuses(await pull(setup, `${own.address}/a/b`, ""));
    assert.equal(lines.filter((line) => line === "Pulling from a/b").length, 2);
    assert.equal(lines.at(-1), `Status: Downloaded newer image for ${own.address}/a/b`);
    assert.equal(other.seen.length, 0);
    assert.equal(setup.images.list({ all: false, sharedSize: false, filters: undefined }).length, 2);
  });
});
