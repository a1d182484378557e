import {
  createHash,
  createPublicKey,
  type JsonWebKeyInput,
  type KeyObject,
  X509Certificate,
} from "node:crypto";
import { messageOf } from "#base/errors.ts";
import { SettingsError } from "./settings.ts";

export type TokenAlgorithm = "RS256" | "ES256" | "EdDSA";

/** A key that tokens may be signed with. */
export interface TokenKey {
  readonly key: KeyObject;
  readonly algorithm: TokenAlgorithm;
  /** What a token's `kid` may call it. */
  readonly ids: readonly string[];
  /** Of its certificate, in milliseconds since the epoch. */
  readonly notBeforeMs?: number;
  readonly notAfterMs?: number;
}

const rsaBitsMin = 2048;
const keysMax = 256;
const pemBlock = /-----BEGIN ([A-Z ]+)-----[\s\S]+?-----END \1-----/g;

/** Reads a JWK set (RFC 7517) or a bundle of certificates and public keys in PEM. Throws `SettingsError`. */
export function parseTokenKeys(text: string): readonly TokenKey[] {
  const keys = text.trimStart().startsWith("{") ? fromJwks(text) : fromPem(text);
  if (keys.length === 0) throw new SettingsError("there is no public key in it");
  if (keys.length > keysMax) throw new SettingsError(`there are more than ${keysMax} keys in it`);
  return keys;
}

function fromJwks(text: string): TokenKey[] {
  let document: { keys?: unknown };
  try {
    document = JSON.parse(text);
  } catch {
    throw new SettingsError("not a JSON document");
  }
  const list = Array.isArray(document.keys) ? document.keys : [document];
  return list.map((jwk: JsonWebKeyInput["key"], index) => {
    // A secret that came here by mistake must not stay unnoticed, nor a symmetric key count as a public one.
    if (jwk.d !== undefined || jwk.kty === "oct")
      throw new SettingsError(`keys[${index}] is not a public key`);
    const { kid } = jwk as { kid?: unknown };
    return tokenKey(() => createPublicKey({ key: jwk, format: "jwk" }), `keys[${index}]`, kid);
  });
}

function fromPem(text: string): TokenKey[] {
  return [...text.matchAll(pemBlock)].map(([pem, label = ""], index) => {
    const where = `PEM block ${index + 1}`;
    if (label.includes("PRIVATE")) throw new SettingsError(`${where} is a private key`);
    if (label !== "CERTIFICATE") return tokenKey(() => createPublicKey(pem), where);
    let certificate: X509Certificate;
    try {
      certificate = new X509Certificate(pem);
    } catch (error) {
      throw new SettingsError(`${where}: ${messageOf(error)}`);
    }
    return {
      ...tokenKey(() => certificate.publicKey, where),
      notBeforeMs: certificate.validFromDate.getTime(),
      notAfterMs: certificate.validToDate.getTime(),
    };
  });
}

function tokenKey(read: () => KeyObject, where: string, kid?: unknown): TokenKey {
  let key: KeyObject;
  try {
    key = read();
  } catch (error) {
    throw new SettingsError(`${where}: ${messageOf(error)}`);
  }
  const ids = [thumbprint(key), fingerprint(key), ...(typeof kid === "string" && kid !== "" ? [kid] : [])];
  return { key, algorithm: algorithmOf(key, where), ids };
}

function algorithmOf(key: KeyObject, where: string): TokenAlgorithm {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details = {} } = key;
  if (type === "ed25519") return "EdDSA";
  if (type === "ec" && details.namedCurve === "prime256v1") return "ES256";
  if (type === "rsa" && (details.modulusLength ?? 0) >= rsaBitsMin) return "RS256";
  throw new SettingsError(`${where} is none of RSA from ${rsaBitsMin} bits, EC P-256, Ed25519`);
}

/** RFC 7638. */
function thumbprint(key: KeyObject): string {
  const { e, kty, n, crv, x, y } = key.export({ format: "jwk" });
  // Members in the order of their names, absent ones left out by JSON.
  return createHash("sha256").update(JSON.stringify({ crv, e, kty, n, x, y })).digest("base64url");
}

/** The id that Docker's token servers use: the first 240 bits of the key's SHA-256, base32, in groups of four. */
function fingerprint(key: KeyObject): string {
  const hash = createHash("sha256")
    .update(key.export({ type: "spki", format: "der" }))
    .digest()
    .subarray(0, 30);
  const bits = [...hash].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  const letters = bits
    .match(/.{5}/g)!
    .map((five) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[Number.parseInt(five, 2)]);
  return letters.join("").match(/.{4}/g)!.join(":");
}
