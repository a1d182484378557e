import { EngineError } from "#base/errors.ts";
import type { Reference } from "#wire/reference.ts";
import { Authorizer } from "./auth.ts";
import type { Credentials } from "./credentials.ts";
import { type EndpointConfig, endpointsFor } from "./endpoints.ts";
import { Remote } from "./remote.ts";
import { RemoteRepository } from "./remote-repository.ts";
import { defaultTiming, type RegistryTiming } from "./timing.ts";
import { Transport, type TransportConfig } from "./transport.ts";

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
    const remotes = endpointsFor(reference.domain, this.#config).map((endpoint) => {
      const authorizer = new Authorizer({
        transport: this.#transport,
        endpoint,
        credentials,
        scope: `repository:${path}:pull`,
        trustedRealms: this.#config.trustedRealms ?? [],
      });
      return new Remote(this.#transport, endpoint, authorizer, this.#timing);
    });
    if (remotes.length === 0) throw new EngineError("invalid", `no endpoint for ${reference.domain}`);
    return new RemoteRepository(path, remotes, this.#timing);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#transport[Symbol.asyncDispose]();
  }
}
