import type { IncomingMessage } from "node:http";
import type { Log } from "#base/log.ts";
import { parsePasswordFile } from "./htpasswd.ts";
import { PasswordVerifier } from "./htpasswd-verify.ts";
import type { Authorize, AuthorizeAnswer, RegistryAccess } from "./registry.ts";
import { parseBasic, parseBearer } from "./serve-credentials.ts";
import type { ServeSettings, TokenServerSettings } from "./settings.ts";
import { SettingsFile } from "./settings-file.ts";
import { TokenVerifier } from "./token-auth.ts";
import { type TokenAnswer, TokenIssuer } from "./token-auth-issue.ts";
import { parseTokenKeys } from "./token-auth-keys.ts";
import { type AccessRules, parseAccessRules, plainRules } from "./token-auth-rules.ts";
import { grants, scopeOf } from "./token-auth-scope.ts";

/** Who may do what at this server. */
export interface AccessControl extends AsyncDisposable {
  /** Undefined: everybody may do everything. */
  readonly authorize: Authorize | undefined;
  /** Answers a request for `/token`; undefined where tokens come from elsewhere or are not used. */
  readonly answerToken: ((request: IncomingMessage) => Promise<TokenAnswer>) | undefined;
}

/** Where the built-in token server answers. */
export const tokenPath = "/token";
const ownName = "skiff-registry";

/** Reads the files that the settings name. Throws `SettingsError`. */
export async function openAccessControl(settings: ServeSettings, log: Log): Promise<AccessControl> {
  const { htpasswd, tokenServer } = settings;
  if (htpasswd !== undefined) return await passwordControl(settings, htpasswd, log);
  if (tokenServer !== undefined) return await tokenControl(tokenServer, log);
  return { authorize: undefined, answerToken: undefined, [Symbol.asyncDispose]: async () => {} };
}

async function tokenControl(server: TokenServerSettings, log: Log): Promise<AccessControl> {
  const file = await SettingsFile.open(server.keys, parseTokenKeys, log);
  const verifier = new TokenVerifier({ ...server, keys: () => file.current() });
  return {
    authorize: async (request, access) => {
      const challenge = bearerChallenge({ realm: server.realm, service: server.service, access });
      return await byToken(verifier, request, access, challenge);
    },
    answerToken: undefined,
    [Symbol.asyncDispose]: async () => {},
  };
}

async function passwordControl(settings: ServeSettings, path: string, log: Log): Promise<AccessControl> {
  const passwords = await SettingsFile.open(path, parsePasswordFile, log);
  const rules = await openRules(settings, log);
  const verifier = new PasswordVerifier(passwords);
  const control = {
    authorize: (async (request, access) =>
      await byPassword(verifier, rules, request, access, `Basic realm="${ownName}"`)) as Authorize,
    answerToken: undefined,
    [Symbol.asyncDispose]: () => verifier[Symbol.asyncDispose](),
  };
  if (!settings.issueTokens) return control;

  const names = { issuer: ownName, service: ownName };
  const verify = verifier.verify.bind(verifier);
  const issuer = new TokenIssuer({ ...names, verify, rules });
  const tokens = new TokenVerifier({ ...names, keys: async () => issuer.keys });
  return {
    ...control,
    authorize: async (request, access) => {
      const realm = `${ownUrl(settings, request)}${tokenPath}`;
      const challenge = bearerChallenge({ realm, service: ownName, access });
      if (parseBasic(request.headers.authorization) === undefined) {
        return await byToken(tokens, request, access, challenge);
      }
      // Scripts that send a password with every request are served too.
      return await byPassword(verifier, rules, request, access, challenge());
    },
    answerToken: (request) => issuer.answer(request),
  };
}

async function openRules(settings: ServeSettings, log: Log): Promise<() => Promise<AccessRules>> {
  const { acl, anonymousPull } = settings;
  if (acl === undefined) {
    const rules = plainRules(anonymousPull);
    return async () => rules;
  }
  const file = await SettingsFile.open(acl, (text) => parseAccessRules(text, anonymousPull), log);
  return () => file.current();
}

/** The URL by which this client reached us, as it goes into a challenge to that very client. */
function ownUrl(settings: ServeSettings, request: IncomingMessage): string {
  if (settings.publicUrl !== undefined) return settings.publicUrl;
  const { host = "" } = request.headers;
  const { listen, tls } = settings;
  const local = `${listen.host.includes(":") ? `[${listen.host}]` : listen.host}:${listen.port}`;
  return `${tls === undefined ? "http" : "https"}://${/^[A-Za-z0-9._:[\]-]{1,300}$/.test(host) ? host : local}`;
}

function refused(status: 401 | 403, challenge?: string): AuthorizeAnswer {
  return { ok: false, status, headers: challenge === undefined ? {} : { "www-authenticate": challenge } };
}

type Challenge = (error?: "invalid_token" | "insufficient_scope") => string;

/** RFC 6750, section 3, with the names of Docker's token specification. */
function bearerChallenge(about: { realm: string; service: string; access: RegistryAccess }): Challenge {
  const scope = scopeOf(about.access);
  return (error) =>
    [
      `Bearer realm="${about.realm}",service="${about.service}"`,
      ...(scope === undefined ? [] : [`scope="${scope}"`]),
      ...(error === undefined ? [] : [`error="${error}"`]),
    ].join(",");
}

async function byToken(
  verifier: TokenVerifier,
  request: IncomingMessage,
  access: RegistryAccess,
  challenge: Challenge,
): Promise<AuthorizeAnswer> {
  const { authorization } = request.headers;
  if (authorization === undefined) return refused(401, challenge());
  const text = parseBearer(authorization);
  const token = text === undefined ? undefined : await verifier.verify(text);
  if (token === undefined) return refused(401, challenge("invalid_token"));
  if (!grants(token.access, access)) return refused(401, challenge("insufficient_scope"));
  return token.user === "" ? { ok: true } : { ok: true, user: token.user };
}

async function byPassword(
  verifier: PasswordVerifier,
  rules: () => Promise<AccessRules>,
  request: IncomingMessage,
  { repository, actions }: RegistryAccess,
  challenge: string,
): Promise<AuthorizeAnswer> {
  const credentials = parseBasic(request.headers.authorization);
  if (credentials === undefined) return refused(401, challenge);
  const { user, password } = credentials;
  if (!(await verifier.verify(user, password))) return refused(401, challenge);
  const current = await rules();
  const allowed = actions.every((action) => current.allows(user, repository, action));
  return allowed ? { ok: true, user } : refused(403);
}
