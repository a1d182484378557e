import { createHash } from "node:crypto";
import { decodeProtectedHeader, type JWTPayload, jwtVerify } from "jose";
import type { TokenKey } from "./token-auth-keys.ts";
import { type AccessEntry, accessEntries } from "./token-auth-scope.ts";

/** Clocks of two machines. */
const leewaySeconds = 30;
/** Node itself takes 16 KiB of headers. */
const tokenLengthMax = 16 * 1024;
const rememberedMax = 1024;
/** A key file that has changed must count soon. */
const rememberedMs = 60_000;

export interface CheckedToken {
  /** `sub`; empty for nobody. */
  readonly user: string;
  readonly access: readonly AccessEntry[];
}

export interface TokenVerifierOptions {
  readonly issuer: string;
  /** What `aud` must name. */
  readonly service: string;
  readonly keys: () => Promise<readonly TokenKey[]>;
}

/**
 * Checks tokens of a token server: signature by a key that we were given (never one that the token brings along), issuer,
 * audience, times (RFC 7519). A good token is remembered until it expires, for a minute at most.
 */
export class TokenVerifier {
  readonly #options: TokenVerifierOptions;
  readonly #remembered = new Map<string, { readonly token: CheckedToken; readonly untilMs: number }>();

  constructor(options: TokenVerifierOptions) {
    this.#options = options;
  }

  /** What the token says, or undefined where it does not hold. */
  async verify(token: string): Promise<CheckedToken | undefined> {
    if (token.length > tokenLengthMax) return undefined;
    const name = createHash("sha256").update(token).digest("base64");
    const known = this.#remembered.get(name);
    if (known !== undefined && known.untilMs > Date.now()) return known.token;
    const payload = await this.#payload(token);
    const access = accessEntries(payload?.["access"]);
    if (payload === undefined || access === undefined) return undefined;
    const checked = { user: typeof payload.sub === "string" ? payload.sub : "", access };
    const untilMs = Math.min((payload.exp ?? 0) * 1000, Date.now() + rememberedMs);
    this.#remembered.set(name, { token: checked, untilMs });
    if (this.#remembered.size > rememberedMax) this.#remembered.delete(this.#remembered.keys().next().value!);
    return checked;
  }

  async #payload(token: string): Promise<JWTPayload | undefined> {
    for (const { key, algorithm } of await this.#candidates(token)) {
      try {
        const { payload } = await jwtVerify(token, key, {
          algorithms: [algorithm],
          issuer: this.#options.issuer,
          audience: this.#options.service,
          clockTolerance: leewaySeconds,
          requiredClaims: ["exp"],
        });
        return payload;
      } catch {
        // Bad signature, claims or form: all the same to whoever sent it; the next key may fit.
      }
    }
    return undefined;
  }

  /** Keys that fit the token's algorithm and, where it names one, its key id. */
  async #candidates(token: string): Promise<readonly TokenKey[]> {
    let header: { alg?: unknown; kid?: unknown };
    try {
      header = decodeProtectedHeader(token);
    } catch {
      return [];
    }
    const now = Date.now();
    return (await this.#options.keys()).filter(
      ({ algorithm, ids, notBeforeMs = 0, notAfterMs = Number.POSITIVE_INFINITY }) =>
        algorithm === header.alg &&
        (header.kid === undefined || ids.some((id) => id === header.kid)) &&
        notBeforeMs <= now &&
        now <= notAfterMs,
    );
  }
}
