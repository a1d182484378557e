import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type JWTPayload, SignJWT, UnsecuredJWT } from "jose";
import { TokenVerifier } from "./token-auth.ts";
import { parseTokenKeys, type TokenKey } from "./token-auth-keys.ts";
import { parseAccessRules, plainRules } from "./token-auth-rules.ts";
import { grants, requestedScopes, scopeOf } from "./token-auth-scope.ts";

const ed = generateKeyPairSync("ed25519");
const ec = generateKeyPairSync("ec", { namedCurve: "P-256" });
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
const other = generateKeyPairSync("ed25519");
const jwk = (key: KeyObject, kid?: string): object => ({
  ...key.export({ format: "jwk" }),
  ...(kid && { kid }),
});
const jwks = JSON.stringify({ keys: [jwk(ed.publicKey, "one"), jwk(ec.publicKey), jwk(rsa.publicKey)] });
const keys = parseTokenKeys(jwks);
const verifier = new TokenVerifier({ issuer: "who", service: "reg", keys: async () => keys });
const access = [{ type: "repository", name: "a/b", actions: ["pull"] }];
const now = Math.floor(Date.now() / 1000);
const good: JWTPayload = { iss: "who", aud: "reg", sub: "ann", exp: now + 60, nbf: now - 5, access };

function sign(
  payload: JWTPayload,
  key: KeyObject,
  header: { alg: string; [name: string]: unknown },
): Promise<string> {
  return new SignJWT(payload).setProtectedHeader(header).sign(key);
}

test("the three algorithms, with and without a key id", async () => {
  for (const [alg, key] of [
    ["EdDSA", ed.privateKey],
    ["ES256", ec.privateKey],
    ["RS256", rsa.privateKey],
  ] as const) {
    assert.deepEqual(await verifier.verify(await sign(good, key, { alg })), { user: "ann", access });
  }
  assert.ok(await verifier.verify(await sign(good, ed.privateKey, { alg: "EdDSA", kid: "one" })));
  assert.equal(
    await verifier.verify(await sign(good, ed.privateKey, { alg: "EdDSA", kid: "two" })),
    undefined,
  );
  // The audience may be a list, and what somebody remembers of a token is the same as what was checked.
  const token = await sign({ ...good, aud: ["x", "reg"] }, ed.privateKey, { alg: "EdDSA" });
  assert.deepEqual(await verifier.verify(token), await verifier.verify(token));
});

const bad: readonly (readonly [string, JWTPayload])[] = [
  ["issuer", { ...good, iss: "else" }],
  ["audience", { ...good, aud: "else" }],
  ["expired", { ...good, exp: now - 60 }],
  ["not yet", { ...good, nbf: now + 120 }],
  ["access of another form", { ...good, access: "all" }],
  ["access without actions", { ...good, access: [{ type: "repository", name: "a" }] }],
];
for (const [what, payload] of bad) {
  test(`refused: ${what}`, async () => {
    assert.equal(await verifier.verify(await sign(payload, ed.privateKey, { alg: "EdDSA" })), undefined);
  });
}

test("refused: without end, unsigned, another's key, a key that the token brings along, a public key as a secret", async () => {
  const { exp: _, ...endless } = good;
  const hmac = async (): Promise<string> =>
    await new SignJWT(good)
      .setProtectedHeader({ alg: "HS256" })
      .sign(Buffer.from(rsa.publicKey.export({ type: "spki", format: "pem" })));
  const valid = await sign(good, ed.privateKey, { alg: "EdDSA" });
  const tokens = [
    await sign(endless, ed.privateKey, { alg: "EdDSA" }),
    new UnsecuredJWT(good).encode(),
    await sign(good, other.privateKey, { alg: "EdDSA" }),
    await sign(good, other.privateKey, { alg: "EdDSA", jwk: jwk(other.publicKey) }),
    await hmac(),
    `${valid.slice(0, -4)}AAAA`,
    valid.replace(/^[^.]+/, Buffer.from('{"alg":"RS256"}').toString("base64url")),
    "",
    "a.b.c",
    `${valid}${"x".repeat(20_000)}`,
  ];
  for (const token of tokens) assert.equal(await verifier.verify(token), undefined);
  assert.ok(await verifier.verify(valid));
});

test("certificates and public keys in PEM; their ids are those of Docker's token servers, and their end counts", async () => {
  const folder = mkdtempSync(join(tmpdir(), "skiff-keys-"));
  try {
    const at = (name: string): string => join(folder, name);
    const make = [
      "-x509",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-nodes",
      "-subj",
      "/CN=t",
    ];
    execFileSync("openssl", ["req", ...make, "-keyout", at("key"), "-out", at("cert")], { stdio: "ignore" });
    const bundle = `${readFileSync(at("cert"), "utf8")}${ed.publicKey.export({ type: "spki", format: "pem" })}`;
    const found = parseTokenKeys(bundle);
    assert.deepEqual(
      found.map(({ algorithm }) => algorithm),
      ["ES256", "EdDSA"],
    );
    assert.match(found[0]!.ids[1]!, /^([A-Z2-7]{4}:){11}[A-Z2-7]{4}$/);
    assert.throws(() => parseTokenKeys(readFileSync(at("key"), "utf8")), { message: /private key/ });
    const ended: TokenKey = { ...keys[0]!, notAfterMs: Date.now() - 1000 };
    const late = new TokenVerifier({ issuer: "who", service: "reg", keys: async () => [ended] });
    assert.equal(await late.verify(await sign(good, ed.privateKey, { alg: "EdDSA" })), undefined);
  } finally {
    rmSync(folder, { recursive: true });
  }
  const small = generateKeyPairSync("rsa", { modulusLength: 1024 }).publicKey;
  for (const text of [
    "",
    "{",
    "hello",
    JSON.stringify(jwk(ed.privateKey)),
    '{"keys":[{"kty":"oct","k":"AAAA"}]}',
    JSON.stringify(jwk(small)),
    JSON.stringify({ keys: [] }),
  ])
    assert.throws(() => parseTokenKeys(text), { name: "Error" });
});

test("what a token grants is what it says, to the letter", () => {
  const entries = [
    { type: "repository", name: "a/b", actions: ["pull", "push"] },
    { type: "repository", name: "all", actions: ["*"] },
    { type: "registry", name: "catalog", actions: ["*"] },
  ];
  const cases: readonly (readonly [Parameters<typeof grants>[1], boolean])[] = [
    [{ actions: [] }, true],
    [{ actions: ["catalog"] }, true],
    [{ repository: "a/b", actions: ["pull", "push"] }, true],
    [{ repository: "a/b", actions: ["delete"] }, false],
    [{ repository: "a", actions: ["pull"] }, false],
    [{ repository: "a/b/c", actions: ["pull"] }, false],
    [{ repository: "all", actions: ["delete"] }, true],
    [{ repository: "catalog", actions: ["pull"] }, false],
  ];
  for (const [access, expected] of cases) assert.equal(grants(entries, access), expected);
  assert.equal(grants([], { actions: ["catalog"] }), false);
  assert.equal(scopeOf({ repository: "a/b", actions: ["pull", "push"] }), "repository:a/b:pull,push");
  assert.equal(scopeOf({ actions: ["catalog"] }), "registry:catalog:*");
  assert.equal(scopeOf({ actions: [] }), undefined);
});

test("scopes as clients ask", () => {
  const asked = requestedScopes([
    "repository:a/b:pull,push,fly repository(plugin):c:*",
    "registry:catalog:*",
    "x",
    "a:b:c",
  ]);
  assert.deepEqual(
    asked.map(({ access }) => access),
    [
      { repository: "a/b", actions: ["pull", "push"] },
      { repository: "c", actions: ["pull", "push", "delete"] },
      { actions: ["catalog"] },
    ],
  );
});

test("rules: users, everybody, patterns", () => {
  const text = JSON.stringify({
    rules: [
      { users: ["ann"], repositories: ["team/*"], actions: ["pull", "push"] },
      { users: ["*"], repositories: ["**"], actions: ["pull"] },
      { anonymous: true, repositories: ["public/**"], actions: ["pull"] },
      { users: ["root"], actions: ["catalog"] },
    ],
  });
  const rules = parseAccessRules(text, false);
  const cases: readonly (readonly [
    string | undefined,
    string | undefined,
    "pull" | "push" | "catalog",
    boolean,
  ])[] = [
    ["ann", "team/app", "push", true],
    ["ann", "team/app/deep", "push", false],
    ["ann", "teams/app", "push", false],
    ["bob", "team/app", "push", false],
    ["bob", "anything/at/all", "pull", true],
    [undefined, "team/app", "pull", false],
    [undefined, "public/a/b", "pull", true],
    [undefined, "publicx", "pull", false],
    ["root", undefined, "catalog", true],
    ["bob", undefined, "catalog", false],
  ];
  for (const [user, repository, action, expected] of cases) {
    assert.equal(rules.allows(user, repository, action), expected, `${user} ${repository} ${action}`);
  }
  assert.equal(parseAccessRules('{"rules":[]}', true).allows(undefined, "x", "pull"), true);
  assert.equal(plainRules(true).allows(undefined, "x", "push"), false);
  for (const wrong of [
    "",
    "[]",
    '{"rules":{}}',
    '{"rule":[]}',
    '{"rules":[{"user":["a"],"actions":[]}]}',
    '{"rules":[{"actions":["fly"]}]}',
  ])
    assert.throws(() => parseAccessRules(wrong, false), { name: "Error" });
});
