import { STATUS_CODES } from "node:http";
import { EngineError } from "#base/errors.ts";
import { Authorizer } from "./auth.ts";
import type { Credentials } from "./credentials.ts";
import type { Endpoint } from "./endpoints.ts";
import { TransportError } from "./network-error.ts";
import { RegistryError } from "./registry-error.ts";
import type { RegistryTiming } from "./timing.ts";
import { discard, type Transport } from "./transport.ts";

export interface LoginResult {
  /** A token to be kept instead of the password; "" when the registry gives none. */
  readonly identityToken: string;
}

export interface LoginOptions {
  readonly transport: Transport;
  readonly timing: RegistryTiming;
  readonly endpoints: readonly Endpoint[];
  readonly credentials: Credentials;
  readonly trustedRealms: readonly string[];
}

/**
 * Tries credentials at a registry: `/v2/`, its challenge, and `/v2/` again. Throws `unauthorized` with Docker's text, or
 * the `TransportError` of the last address.
 */
export async function login(options: LoginOptions, signal: AbortSignal): Promise<LoginResult> {
  let failure: unknown;
  for (const endpoint of options.endpoints) {
    const contact = { reached: false };
    try {
      return await loginAt(options, endpoint, contact, signal);
    } catch (error) {
      failure = error;
      // Who was reached by https is not given the password by http.
      if (signal.aborted || contact.reached || !(error instanceof TransportError)) throw error;
    }
  }
  throw failure;
}

async function loginAt(
  { transport, timing, credentials, trustedRealms }: LoginOptions,
  endpoint: Endpoint,
  contact: { reached: boolean },
  signal: AbortSignal,
): Promise<LoginResult> {
  const url = new URL(`${endpoint.base}/v2/`);
  const authorizer = new Authorizer({
    transport,
    timing,
    endpoint,
    credentials,
    scope: "",
    trustedRealms,
    wantsRefreshToken: true,
  });
  for (let round = 0; ; round += 1) {
    const { authorization } = authorizer;
    const answer = await transport.send({
      method: "GET",
      url,
      verifyTls: endpoint.verifyTls,
      signal,
      ...(authorization === undefined ? {} : { authorization }),
    });
    contact.reached = true;
    await discard(answer);
    if (answer.status === 200) return { identityToken: authorizer.refreshToken };
    const refused = (): EngineError => {
      const status = `${answer.status} ${STATUS_CODES[answer.status] ?? ""}`.trim();
      const message = `login attempt to ${url.href} failed with status: ${status}`;
      return new EngineError(answer.status === 401 ? "unauthorized" : "system", message, {
        code: "login-failed",
      });
    };
    if (answer.status !== 401 || round > 0 || answer.url.origin !== url.origin) throw refused();
    try {
      if (!(await authorizer.answer(answer, authorization, signal))) throw refused();
    } catch (error) {
      if (!(error instanceof RegistryError) || (error.status !== 401 && error.status !== 403)) throw error;
      throw new EngineError("unauthorized", `Get "${url.href}": ${error.message}`, {
        code: "login-failed",
        cause: error,
      });
    }
  }
}
