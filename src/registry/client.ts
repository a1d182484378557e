import { EngineError } from "#base/errors.ts";
import { defaultDomain, type Reference } from "#wire/reference.ts";
import { Authorizer } from "./auth.ts";
import type { Credentials } from "./credentials.ts";
import { type EndpointConfig, endpointsFor } from "./endpoints.ts";
import { type LoginResult, login } from "./login.ts";
import { TransportError } from "./network-error.ts";
import { PushRepository } from "./push-repository.ts";
import { Remote } from "./remote.ts";
import { RemoteRepository } from "./remote-repository.ts";
import { type SearchResult, searchRegistry } from "./search.ts";
import { defaultTiming, type RegistryTiming } from "./timing.ts";
import { Transport, type TransportConfig } from "./transport.ts";

/** Docker Hub answers searches elsewhere than pulls. */
const searchBase = "https://index.docker.io";

export interface RegistryConfig extends EndpointConfig {
  readonly userAgent: string;
  readonly timing?: RegistryTiming;
  /** Origins (`https://auth.example.com`) of token servers trusted with credentials of registries on other origins. */
  readonly trustedRealms?: readonly string[];
  readonly certificatesFor?: NonNullable<TransportConfig["certificatesFor"]>;
  readonly proxy?: NonNullable<TransportConfig["proxy"]>;
}

/** The registry client of a daemon: connections are pooled over all pulls, credentials live only in a repository. */
export class RegistryClient implements AsyncDisposable {
  readonly #config: RegistryConfig;
  readonly #transport: Transport;
  readonly #timing: RegistryTiming;

  constructor(config: RegistryConfig) {
    this.#config = config;
    this.#timing = config.timing ?? defaultTiming;
    const { userAgent, certificatesFor, proxy } = config;
    this.#transport = new Transport({
      userAgent,
      timing: this.#timing,
      ...(certificatesFor === undefined ? {} : { certificatesFor }),
      ...(proxy === undefined ? {} : { proxy }),
    });
  }

  get transport(): Transport {
    return this.#transport;
  }

  /** A repository for reading. Nothing is sent yet. */
  repository(reference: Reference, credentials?: Credentials): RemoteRepository {
    const { path } = reference;
    const remotes = this.#remotes(reference.domain, credentials, `repository:${path}:pull`);
    if (remotes.length === 0) throw new EngineError("invalid", `no endpoint for ${reference.domain}`);
    return new RemoteRepository(path, remotes, this.#timing);
  }

  /** A repository for writing. `mountFrom`: others of the same registry that may be read for it. Nothing is sent yet. */
  pushRepository(
    reference: Reference,
    credentials: Credentials | undefined,
    mountFrom: readonly string[] = [],
  ): PushRepository {
    const { path, domain } = reference;
    const scope = `repository:${path}:pull,push`;
    const moreScopes = mountFrom.map((other) => `repository:${other}:pull`);
    const remotes = this.#remotes(domain, credentials, scope, moreScopes).filter(
      ({ endpoint }) => !endpoint.mirror,
    );
    return new PushRepository(path, remotes, this.#timing);
  }

  /** Tries credentials at a registry, which may be another than any image here names. */
  async login(domain: string, credentials: Credentials, signal: AbortSignal): Promise<LoginResult> {
    const endpoints = endpointsFor(domain, this.#config).filter(({ mirror }) => !mirror);
    const trustedRealms = this.#config.trustedRealms ?? [];
    return await login(
      { transport: this.#transport, timing: this.#timing, endpoints, credentials, trustedRealms },
      signal,
    );
  }

  /** Searches a registry that has the old search; the first of its addresses that answers. */
  async search(domain: string, term: string, limit: number, signal: AbortSignal): Promise<SearchResult[]> {
    const own = endpointsFor(domain, this.#config).filter(({ mirror }) => !mirror);
    const endpoints = domain === defaultDomain ? [{ base: searchBase, verifyTls: true }] : own;
    let failure: unknown;
    for (const { base, verifyTls } of endpoints) {
      try {
        return await searchRegistry(this.#transport, { base, verifyTls, term, limit }, signal);
      } catch (error) {
        failure = error;
        if (!(error instanceof TransportError)) throw error;
      }
    }
    throw failure;
  }

  #remotes(
    domain: string,
    credentials: Credentials | undefined,
    scope: string,
    moreScopes: readonly string[] = [],
  ): Remote[] {
    return endpointsFor(domain, this.#config).map((endpoint) => {
      const authorizer = new Authorizer({
        transport: this.#transport,
        endpoint,
        timing: this.#timing,
        credentials,
        scope,
        moreScopes,
        trustedRealms: this.#config.trustedRealms ?? [],
      });
      return new Remote(this.#transport, endpoint, authorizer, this.#timing);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#transport[Symbol.asyncDispose]();
  }
}
