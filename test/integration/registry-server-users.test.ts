import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { SignJWT } from "jose";
import { busyboxLayout } from "../peers/images.ts";
import { ensurePeers, provideDockerCli } from "../peers/peer-cache.ts";
import { freePort } from "../peers/registry.ts";
import { startSkiffd } from "../peers/skiffd.ts";
import { openImages, pull } from "./image-setup.ts";
import { basic, Client, passwordFile, run, serve, skiff, temporaryFolder } from "./registry-server-lab.ts";
import { importTar, lastActions, push, tarWith } from "./transfer-lab.ts";

/** Who may do what: passwords, tokens of our own and of another server, rules; by our client, docker's and skopeo. */

before(provideDockerCli);

const skopeo = (...args: string[]) =>
  run(ensurePeers().path("skopeo"), ["--insecure-policy", ...args], ensurePeers().env);

test("in the daemon, with tokens: login, push and pull by docker and skiff; anonymous pulls; collection", async () => {
  await using stack = new AsyncDisposableStack();
  const folder = temporaryFolder(stack);
  const users = await passwordFile(join(folder, "users"), { ann: "secret" });
  const address = `127.0.0.1:${await freePort()}`;
  const flags = [`listen=${address}`, `htpasswd=${users}`, "anonymous-pull", "gc-grace=0"];
  const daemon = stack.use(await startSkiffd({ args: flags.flatMap((flag) => ["--registry", flag]) }));
  assert.match(daemon.log(), /"msg":"the registry is ready","part":"registry","listen":"127/);
  const root = join(daemon.dataRoot, "registry");

  const name = `${address}/team/app:1`;
  for (const program of [skiff, "docker"]) {
    const config = join(folder, program === skiff ? "ours" : "docker");
    mkdirSync(config);
    const env = { ...process.env, DOCKER_HOST: daemon.host, DOCKER_CONFIG: config };
    const call = (args: readonly string[], input = "") => run(program, args, env, input);
    const login = ["login", "-u", "ann", "--password-stdin", address];
    const wrong = await call(login, "wrong");
    assert.equal(wrong.code, 1);
    assert.match(wrong.err, /401 Unauthorized|incorrect username or password/);
    assert.match((await call(["push", name])).err, /does not exist|An image does not exist/);

    const archive = join(folder, "layer.tar");
    writeFileSync(archive, tarWith({ [`from-${config.slice(-4)}`]: program }));
    assert.equal((await call(["import", archive, name])).code, 0);
    const refused = await call(["push", name]);
    assert.notEqual(refused.code, 0);
    assert.match(refused.err, /unauthorized|denied|no basic auth/i);
    const right = await call(login, "secret");
    assert.deepEqual([right.code, /Login Succeeded/.test(right.out)], [0, true], right.err);
    const pushed = await call(["push", name]);
    assert.match(pushed.out, /1: digest: sha256:[0-9a-f]{64}/, pushed.err);
    assert.equal((await call(["logout", address])).code, 0);
    // Everybody may pull, by a token that says no more.
    assert.equal((await call(["rmi", name])).code, 0);
    assert.match((await call(["pull", name])).out, /Status: Downloaded newer image/);
    assert.equal((await call(["rmi", name])).code, 0);
  }
  assert.match((await skopeo("list-tags", "--tls-verify=false", `docker://${address}/team/app`)).out, /"1"/);

  const report = await run(skiff, ["registry", "gc", "--root", root, "--delete-untagged"]);
  assert.equal((JSON.parse(report.out) as { manifests: number }).manifests, 1, report.out);
  assert.equal(await daemon.stop(), 0);
  // Its lock is gone with the daemon.
  assert.equal((await run(skiff, ["registry", "gc", "--root", root])).code, 0);
  await daemon.restart();
});

test("passwords with each request: our client and skopeo; a user who is removed is out at once; rules", async () => {
  await using stack = new AsyncDisposableStack();
  const folder = temporaryFolder(stack);
  const users = await passwordFile(join(folder, "users"), { ann: "secret", bob: "other" });
  const acl = join(folder, "acl.json");
  const rule = (users: string[], repositories: string[], ...actions: string[]) => ({
    users,
    repositories,
    actions,
  });
  writeFileSync(
    acl,
    JSON.stringify({
      rules: [rule(["ann"], ["team/*"], "pull", "push", "catalog"), rule(["*"], ["**"], "pull")],
    }),
  );
  const server = stack.use(await serve(folder, "--htpasswd", users, "--acl", acl));
  const setup = stack.use(await openImages());
  const auth = { username: "ann", password: "secret" };
  await importTar(setup, tarWith({ a: "1" }), `${server.address}/team/app`);
  await setup.images.tag(`${server.address}/team/app`, `${server.address}/else/app`, "");
  const name = `${server.address}/team/app`;
  await assert.rejects(push(setup, name), { message: /no basic auth credentials/ });
  assert.deepEqual(lastActions(await push(setup, name, { auth })), ["Pushed"]);
  await assert.rejects(push(setup, `${server.address}/else/app`, { auth }), { message: /denied/ });
  const bob = { username: "bob", password: "other" };
  await assert.rejects(push(setup, name, { auth: bob }), { message: /denied/ });
  await setup.images.remove(name, { force: true, prune: true });
  await pull(setup, name, "latest", { auth: bob });

  const source = `oci:${busyboxLayout()}:latest`;
  const target = `docker://${server.address}/team/busybox:1`;
  const copied = await skopeo(
    "copy",
    "--dest-tls-verify=false",
    "--dest-creds",
    "ann:secret",
    source,
    target,
  );
  assert.equal(copied.code, 0, copied.err);
  const denied = await skopeo("inspect", "--tls-verify=false", "--creds", "eve:secret", target);
  assert.match(denied.err, /unauthorized|authentication required/i);

  // One hash for all requests of a push: the others are answered from memory, and cost less than what each guess costs.
  for (let guess = 0; guess < 3; guess += 1) {
    const stranger = new Client(server.address, "team/app", basic("bob", `guess ${guess}`));
    assert.equal((await stranger.ask("GET", "/tags/list")).status, 401);
  }
  const times = (holds: (record: Record<string, unknown>) => boolean): number[] =>
    server
      .requests()
      .filter(holds)
      .map(({ ms }) => Number(ms))
      .sort((one, other) => one - other);
  const hashMs = times(({ status, url }) => status === 401 && url === "/v2/team/app/tags/list")[0]!;
  const annsMs = times(({ user }) => user === "ann");
  assert.ok(annsMs[Math.floor(annsMs.length / 2)]! < hashMs, `${annsMs}; a hash costs ${hashMs}`);
  const catalog = await fetch(`http://${server.address}/v2/_catalog`, {
    headers: { authorization: basic("bob", "other") },
  });
  assert.deepEqual([catalog.status, /DENIED/.test(await catalog.text())], [403, true]);

  assert.equal((await run(skiff, ["registry", "passwd", "--remove", users, "bob"])).code, 0);
  const client = new Client(server.address, "team/app", basic("bob", "other"));
  const deadline = performance.now() + 10_000;
  while ((await client.ask("GET", "/tags/list")).status === 200) {
    assert.ok(performance.now() < deadline);
    await sleep(20);
  }
});

test("tokens of another server: challenge, scope, what a token does not say", async () => {
  await using stack = new AsyncDisposableStack();
  const folder = temporaryFolder(stack);
  const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const keys = join(folder, "keys.json");
  writeFileSync(keys, JSON.stringify({ keys: [{ ...pair.publicKey.export({ format: "jwk" }), kid: "k1" }] }));
  const asked: URL[] = [];
  const sign = (access: object[], change: object = {}): Promise<string> =>
    new SignJWT({ iss: "issuer.test", aud: "registry.test", sub: "ann", access, ...change })
      .setProtectedHeader({ alg: "ES256", kid: "k1" })
      .setExpirationTime("60s")
      .sign(pair.privateKey);
  const realm = createServer((request, response) => {
    const url = new URL(request.url!, "http://realm");
    asked.push(url);
    const access = url.searchParams.getAll("scope").map((scope) => {
      const [type = "", name = "", actions = ""] = scope.split(":");
      return { type, name, actions: actions.split(",") };
    });
    sign(access).then((token) => response.end(JSON.stringify({ token })));
  });
  await new Promise<void>((resolve) => realm.listen(0, "127.0.0.1", resolve));
  stack.defer(() => void realm.close());
  const url = `http://127.0.0.1:${(realm.address() as AddressInfo).port}/auth`;
  const names = ["--token-service", "registry.test", "--token-issuer", "issuer.test"];
  const server = stack.use(await serve(folder, "--token-realm", url, ...names, "--token-keys", keys));

  const challenge = async (path: string, method = "GET", token?: string): Promise<string> => {
    const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
    const answer = await fetch(`http://${server.address}${path}`, { method, headers });
    return answer.status === 401 ? answer.headers.get("www-authenticate")! : String(answer.status);
  };
  const start = `Bearer realm="${url}",service="registry.test"`;
  assert.equal(await challenge("/v2/"), start);
  assert.equal(await challenge("/v2/a/b/tags/list"), `${start},scope="repository:a/b:pull"`);
  assert.equal(await challenge("/v2/_catalog"), `${start},scope="registry:catalog:*"`);
  const uploads = "/v2/a/b/blobs/uploads/";
  assert.equal(await challenge(uploads, "POST"), `${start},scope="repository:a/b:pull,push"`);
  const reader = await sign([{ type: "repository", name: "a/b", actions: ["pull"] }]);
  assert.equal(await challenge("/v2/", "GET", reader), "200");
  const insufficient = `${start},scope="repository:a/b:pull,push",error="insufficient_scope"`;
  assert.equal(await challenge(uploads, "POST", reader), insufficient);
  assert.match(await challenge("/v2/", "GET", await sign([], { aud: "other" })), /error="invalid_token"$/);
  assert.match(await challenge("/v2/", "GET", "x.y.z"), /error="invalid_token"$/);

  const setup = stack.use(await openImages());
  const name = `${server.address}/a/b`;
  await importTar(setup, tarWith({ a: "1" }), name);
  assert.deepEqual(lastActions(await push(setup, name)), ["Pushed"]);
  assert.equal(asked[0]?.searchParams.get("service"), "registry.test");
  await setup.images.remove(name, { force: true, prune: true });
  await pull(setup, name);
  assert.equal(server.requests().find(({ method }) => method === "PUT")?.["user"], "ann");
  assert.doesNotMatch(readFileSync(join(folder, "out"), "utf8"), /eyJ/);
});

test("the token endpoint: forms, scopes cut down to what is allowed, guesses", async () => {
  await using stack = new AsyncDisposableStack();
  const folder = temporaryFolder(stack);
  const users = await passwordFile(join(folder, "users"), { ann: "secret" });
  const server = stack.use(await serve(folder, "--htpasswd", users, "--anonymous-pull"));
  const endpoint = `http://${server.address}/token`;
  const scopes = "service=x&scope=repository:a/b:pull,push&scope=registry:catalog:*";
  const granted = async (answer: Response): Promise<unknown> => {
    const { token } = (await answer.json()) as { token: string };
    const claims = JSON.parse(Buffer.from(token.split(".")[1]!, "base64url").toString()) as {
      access: unknown;
    };
    return claims.access;
  };
  const all = [
    { type: "repository", name: "a/b", actions: ["pull", "push"] },
    { type: "registry", name: "catalog", actions: ["*"] },
  ];
  const authorization = basic("ann", "secret");
  assert.deepEqual(await granted(await fetch(`${endpoint}?${scopes}`, { headers: { authorization } })), all);
  const readOnly = [{ type: "repository", name: "a/b", actions: ["pull"] }];
  assert.deepEqual(await granted(await fetch(`${endpoint}?${scopes}`)), readOnly);
  const form = `grant_type=password&username=ann&password=secret&${scopes}`;
  const post = (body: string): Promise<Response> =>
    fetch(endpoint, { method: "POST", body: new URLSearchParams(body) });
  assert.deepEqual(await granted(await post(form)), all);
  for (const [answer, expected] of [
    [await post(form.replace("secret", "guess")), 401],
    [await post("grant_type=refresh_token&refresh_token=x"), 400],
    [await post(`${form}&x=${"y".repeat(100_000)}`), 413],
    [await fetch(endpoint, { headers: { authorization: "Digest x" } }), 400],
    [await fetch(endpoint, { headers: { authorization: basic("eve", "secret") } }), 401],
    [await fetch(endpoint, { method: "DELETE" }), 405],
  ] as const)
    assert.equal(answer.status, expected);
  // A password is taken at the registry itself, too.
  assert.equal(
    (await new Client(server.address, "a/b", authorization).ask("POST", "/blobs/uploads/")).status,
    202,
  );
  assert.match(readFileSync(join(folder, "out"), "utf8"), /"route":"token","status":401/);
});
