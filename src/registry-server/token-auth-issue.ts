import { generateKeyPairSync, randomUUID } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { SignJWT } from "jose";
import { RegistryFault } from "./registry-fault.ts";
import { type Credentials, parseBasic } from "./serve-credentials.ts";
import type { TokenKey } from "./token-auth-keys.ts";
import type { AccessRules } from "./token-auth-rules.ts";
import { type AccessEntry, requestedScopes } from "./token-auth-scope.ts";

/** Long enough for the requests of a push; a client asks for another one when it has run out. */
const lifetimeSeconds = 300;
const formBytesMax = 64 * 1024;

export interface TokenIssuerOptions {
  readonly issuer: string;
  readonly service: string;
  readonly verify: (user: string, password: string) => Promise<boolean>;
  readonly rules: () => Promise<AccessRules>;
}

export interface TokenAnswer {
  /** Undefined: nobody has said who they are. */
  readonly user: string | undefined;
  readonly body: object;
}

/**
 * A token server of our own (distribution project, "Token authentication specification"; the POST form is its OAuth 2
 * variant). Its key is made at the start and never written down: tokens of an earlier process are asked for again.
 */
export class TokenIssuer {
  readonly #options: TokenIssuerOptions;
  readonly #pair = generateKeyPairSync("ed25519");
  /** For the verifier. */
  readonly keys: readonly TokenKey[] = [{ key: this.#pair.publicKey, algorithm: "EdDSA", ids: [] }];

  constructor(options: TokenIssuerOptions) {
    this.#options = options;
  }

  /** Who asked, and what to answer. Rejects with `RegistryFault`. */
  async answer(request: IncomingMessage): Promise<TokenAnswer> {
    const asked = await readRequest(request);
    const { credentials } = asked;
    if (credentials !== undefined && !(await this.#options.verify(credentials.user, credentials.password))) {
      throw new RegistryFault(401, "UNAUTHORIZED", {
        message: "incorrect username or password",
        headers: { "www-authenticate": `Basic realm="${this.#options.service}"` },
      });
    }
    const rules = await this.#options.rules();
    const access = requestedScopes(asked.scopes).flatMap(({ entry, access }): AccessEntry[] => {
      const { repository } = access;
      const allowed = access.actions.filter((action) => rules.allows(credentials?.user, repository, action));
      if (allowed.length === 0) return [];
      return [{ ...entry, actions: entry.type === "registry" ? ["*"] : allowed }];
    });
    const token = await this.#sign(credentials?.user ?? "", access);
    return {
      user: credentials?.user,
      body: {
        token,
        access_token: token,
        expires_in: lifetimeSeconds,
        issued_at: new Date().toISOString(),
      },
    };
  }

  #sign(user: string, access: readonly AccessEntry[]): Promise<string> {
    const { issuer, service } = this.#options;
    return new SignJWT({ access })
      .setProtectedHeader({ alg: "EdDSA", typ: "JWT" })
      .setIssuer(issuer)
      .setAudience(service)
      .setSubject(user)
      .setIssuedAt()
      .setNotBefore("0s")
      .setExpirationTime(`${lifetimeSeconds}s`)
      .setJti(randomUUID())
      .sign(this.#pair.privateKey);
  }
}

interface TokenRequest {
  readonly credentials: Credentials | undefined;
  readonly scopes: readonly string[];
}

async function readRequest(request: IncomingMessage): Promise<TokenRequest> {
  const { authorization } = request.headers;
  if (request.method === "GET" || request.method === "HEAD") {
    const { searchParams } = new URL(request.url ?? "/", "http://registry.invalid");
    const credentials = parseBasic(authorization);
    if (authorization !== undefined && credentials === undefined) throw malformed("authorization");
    return { credentials, scopes: searchParams.getAll("scope") };
  }
  if (request.method !== "POST")
    throw new RegistryFault(405, "UNSUPPORTED", { headers: { allow: "GET, HEAD, POST" } });
  const form = new URLSearchParams((await readForm(request)).toString("utf8"));
  if (form.get("grant_type") !== "password") throw malformed("grant_type: only password is known");
  const [user, password] = [form.get("username"), form.get("password")];
  if (user === null || password === null) throw malformed("username and password");
  return { credentials: { user, password }, scopes: form.getAll("scope") };
}

function malformed(what: string): RegistryFault {
  return new RegistryFault(400, "UNKNOWN", { message: `invalid token request: ${what}` });
}

async function readForm(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > formBytesMax) throw new RegistryFault(413, "SIZE_INVALID");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
