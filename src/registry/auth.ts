import { EngineError } from "#base/errors.ts";
import { parseChallenges } from "./challenge.ts";
import { basicAuthorization, type Credentials } from "./credentials.ts";
import type { Endpoint } from "./endpoints.ts";
import { isLinkLocal } from "./link-local.ts";
import { TransportError } from "./network-error.ts";
import { registryError } from "./registry-error.ts";
import { pause, retryDelay } from "./retry.ts";
import type { RegistryTiming } from "./timing.ts";
import { cancelled, type HttpAnswer, readBody, type Transport } from "./transport.ts";

/** Token answers carry a JWT of a few KiB. */
const tokenBytesMax = 512 * 1024;
const clientId = "skiff";

/**
 * Token servers that live on another origin than the registry they serve and yet receive its credentials, because
 * the operator is known to be the same. Everywhere else a realm on another origin is asked without credentials.
 */
const knownRealms: Readonly<Record<string, readonly string[]>> = {
  "https://registry-1.docker.io": ["https://auth.docker.io"],
  "https://registry.gitlab.com": ["https://gitlab.com"],
};

export interface AuthorizerOptions {
  readonly transport: Transport;
  readonly endpoint: Endpoint;
  readonly timing: RegistryTiming;
  readonly credentials: Credentials | undefined;
  /** `repository:library/busybox:pull`; empty for a login. */
  readonly scope: string;
  /** Scopes of other repositories, for mounting what lies there. */
  readonly moreScopes?: readonly string[];
  /** Ask the token server for a token that can be kept instead of the password. */
  readonly wantsRefreshToken?: boolean;
  /** Origins of token servers that the administrator trusts with credentials of any registry. */
  readonly trustedRealms: readonly string[];
}

/** Answers the challenges of one registry for one repository, and keeps the answer for the next request. */
export class Authorizer {
  readonly #options: AuthorizerOptions;
  #authorization: string | undefined;
  #pending: Promise<string> | undefined;
  #refreshToken = "";

  constructor(options: AuthorizerOptions) {
    this.#options = options;
    const token = this.#credentials?.registryToken ?? "";
    if (token !== "") this.#authorization = `Bearer ${token}`;
  }

  /** The value of the `Authorization` header for the registry's own origin, once a challenge was answered. */
  get authorization(): string | undefined {
    return this.#authorization;
  }

  /** What the token server gave to be kept, "" when it gave nothing. */
  get refreshToken(): string {
    return this.#refreshToken;
  }

  get #scopes(): string[] {
    return [this.#options.scope, ...(this.#options.moreScopes ?? [])].filter((scope) => scope !== "");
  }

  /** A mirror is somebody else's server: it gets none. */
  get #credentials(): Credentials | undefined {
    return this.#options.endpoint.mirror ? undefined : this.#options.credentials;
  }

  /**
   * Takes up the challenge of a 401. Concurrent requests share one token fetch. False when there is nothing (more)
   * to offer: the 401 is the answer then. Throws what the token server says.
   */
  async answer(challenge: HttpAnswer, used: string | undefined, signal: AbortSignal): Promise<boolean> {
    // Another request renewed the token meanwhile.
    if (this.#authorization !== undefined && this.#authorization !== used) return true;
    const challenges = parseChallenges(challenge.headers["www-authenticate"]);
    const bearer = challenges.find(({ scheme }) => scheme === "bearer");
    if (bearer !== undefined) {
      const error = bearer.parameters.get("error");
      if (used !== undefined && error !== "invalid_token" && error !== undefined) return false;
      this.#pending ??= this.#patientToken(bearer.parameters, signal).finally(() => {
        this.#pending = undefined;
      });
      const token = await this.#pending;
      this.#authorization = token;
      return token !== used;
    }
    if (challenges.some(({ scheme }) => scheme === "basic")) {
      const credentials = this.#credentials;
      if (credentials === undefined || credentials.username === "") {
        throw new EngineError("system", "no basic auth credentials", { code: "no-credentials" });
      }
      const next = basicAuthorization(credentials);
      if (next === used) return false;
      this.#authorization = next;
      return true;
    }
    return false;
  }

  /** A token server that is busy or breaks off is asked again, as the registry itself is. */
  async #patientToken(parameters: ReadonlyMap<string, string>, signal: AbortSignal): Promise<string> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#fetchToken(parameters, signal);
      } catch (error) {
        if (signal.aborted) throw cancelled(signal);
        const wait = retryDelay(error, attempt, this.#options.timing);
        if (wait === undefined) throw error;
        await pause(wait, signal);
      }
    }
  }

  async #fetchToken(parameters: ReadonlyMap<string, string>, signal: AbortSignal): Promise<string> {
    const realm = this.#realm(parameters.get("realm"));
    const credentials = this.#mayReceiveCredentials(realm) ? this.#credentials : undefined;
    const service = parameters.get("service");
    const answer = await (credentials !== undefined && credentials.identityToken !== ""
      ? this.#post(realm, service, credentials.identityToken, signal)
      : this.#get(realm, service, credentials, signal));
    const text = (await readBody(answer, tokenBytesMax)).toString("utf8");
    if (answer.status !== 200) throw registryError(answer, text);
    // First: it says what is wrong with an answer that is none.
    const token = tokenOf(text, realm);
    if (this.#options.wantsRefreshToken === true) this.#refreshToken = refreshTokenOf(text);
    return `Bearer ${token}`;
  }

  #realm(text: string | undefined): URL {
    const { endpoint } = this.#options;
    const bad = (why: string): TransportError =>
      new TransportError(`Get "${endpoint.base}/v2/": ${why}`, false);
    let realm: URL;
    try {
      realm = new URL(text ?? "");
    } catch {
      throw bad("no usable realm in the registry's auth challenge");
    }
    if (realm.protocol !== "https:" && realm.protocol !== "http:") throw bad("unsupported realm protocol");
    if (realm.protocol === "http:" && endpoint.base.startsWith("https:")) {
      throw bad("refusing a token realm that falls from https to http");
    }
    if (isLinkLocal(realm.hostname) && realm.host !== new URL(endpoint.base).host) {
      throw bad("refusing a token realm at a link-local address");
    }
    realm.username = "";
    realm.password = "";
    realm.hash = "";
    return realm;
  }

  #mayReceiveCredentials(realm: URL): boolean {
    const { endpoint, trustedRealms } = this.#options;
    const own = new URL(endpoint.base).origin;
    if (realm.origin === own) return true;
    if (realm.protocol !== "https:") return false;
    return (knownRealms[own] ?? []).includes(realm.origin) || trustedRealms.includes(realm.origin);
  }

  #verifyTls(realm: URL): boolean {
    const { endpoint } = this.#options;
    return realm.origin === new URL(endpoint.base).origin ? endpoint.verifyTls : true;
  }

  async #get(
    realm: URL,
    service: string | undefined,
    credentials: Credentials | undefined,
    signal: AbortSignal,
  ): Promise<HttpAnswer> {
    const url = new URL(realm);
    if (service !== undefined) url.searchParams.set("service", service);
    for (const scope of this.#scopes) url.searchParams.append("scope", scope);
    if (this.#options.wantsRefreshToken === true) {
      url.searchParams.set("offline_token", "true");
      url.searchParams.set("client_id", clientId);
    }
    const named = credentials !== undefined && credentials.username !== "";
    if (named) url.searchParams.set("account", credentials.username);
    return await this.#options.transport.send({
      method: "GET",
      url,
      verifyTls: this.#verifyTls(realm),
      signal,
      ...(named ? { authorization: basicAuthorization(credentials) } : {}),
    });
  }

  async #post(
    realm: URL,
    service: string | undefined,
    refreshToken: string,
    signal: AbortSignal,
  ): Promise<HttpAnswer> {
    const form = new URLSearchParams({
      grant_type: "refresh_token",
      refresh_token: refreshToken,
      scope: this.#scopes.join(" "),
      client_id: clientId,
    });
    if (service !== undefined) form.set("service", service);
    return await this.#options.transport.send({
      method: "POST",
      url: realm,
      headers: { "content-type": "application/x-www-form-urlencoded" },
      body: form.toString(),
      verifyTls: this.#verifyTls(realm),
      signal,
    });
  }
}

function refreshTokenOf(text: string): string {
  const { refresh_token: token } = JSON.parse(text) as { refresh_token?: unknown };
  return typeof token === "string" ? token : "";
}

function tokenOf(text: string, realm: URL): string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new TransportError(`unable to decode token response of ${realm.origin}`, false, cause);
  }
  const { token, access_token: accessToken } = (value ?? {}) as { token?: unknown; access_token?: unknown };
  const found = typeof token === "string" && token !== "" ? token : accessToken;
  // A token goes into a header: visible ASCII only.
  if (typeof found !== "string" || !/^[\x21-\x7e]+$/.test(found)) {
    throw new TransportError("authorization server did not include a token in the response", false);
  }
  return found;
}
