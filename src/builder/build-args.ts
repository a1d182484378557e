import type { Platform } from "#wire/oci-image.ts";

/** Known without an ARG, and part of neither history nor cache keys (Dockerfile reference, "Predefined ARGs"). */
const proxyNames: ReadonlySet<string> = new Set(
  ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"].flatMap((name) => [
    name,
    name.toUpperCase(),
  ]),
);
/** What only steers the build. */
const controlNames: ReadonlySet<string> = new Set(["SOURCE_DATE_EPOCH"]);

function platformArgs(prefix: string, { os, architecture, variant = "" }: Platform): [string, string][] {
  const text = `${os}/${architecture}${variant === "" ? "" : `/${variant}`}`;
  return [
    [`${prefix}PLATFORM`, text],
    [`${prefix}OS`, os],
    [`${prefix}ARCH`, architecture],
    [`${prefix}VARIANT`, variant],
  ];
}

/** The arguments of a build, by the scopes of the Dockerfile reference ("Scope", "Impact on build caching"). */
export class BuildArgs {
  readonly #given: ReadonlyMap<string, string | undefined>;
  /** The platform's, to be asked for by an ARG. */
  readonly #automatic: ReadonlyMap<string, string>;
  readonly #global = new Map<string, string | undefined>();
  readonly #used: Set<string>;
  readonly #stage = new Map<string, string | undefined>();

  constructor(
    given: ReadonlyMap<string, string | undefined>,
    platforms: { readonly build: Platform; readonly target: Platform; readonly stage: string },
    used: Set<string> = new Set(),
  ) {
    this.#given = given;
    this.#used = used;
    this.#automatic = new Map([
      ...platformArgs("BUILD", platforms.build),
      ...platformArgs("TARGET", platforms.target),
      ["TARGETSTAGE", platforms.stage],
    ]);
  }

  /** For one stage: global values are there, to be asked for by an ARG. */
  forStage(): BuildArgs {
    const copy = new BuildArgs(this.#given, { build: none, target: none, stage: "" }, this.#used);
    const automatic = copy.#automatic as Map<string, string>;
    for (const [name, value] of this.#automatic) automatic.set(name, value);
    for (const [name, value] of this.#global) copy.#global.set(name, value);
    return copy;
  }

  /** ARG before the first FROM. */
  declareGlobal(name: string, fallback: string | undefined): void {
    this.#used.add(name);
    this.#global.set(name, this.#given.has(name) ? this.#given.get(name) : fallback);
  }

  /** In FROM: global arguments and the platform's. */
  global(name: string): string | undefined {
    return this.#global.get(name) ?? this.#automatic.get(name);
  }

  /** ARG in a stage. */
  declare(name: string, fallback: string | undefined): void {
    this.#used.add(name);
    const given = this.#given.has(name) ? this.#given.get(name) : undefined;
    this.#stage.set(name, given ?? fallback ?? this.#global.get(name) ?? this.#automatic.get(name));
  }

  /** Value of an argument that the stage has declared. */
  stage(name: string): string | undefined {
    return this.#stage.get(name);
  }

  /** What RUN gets in its environment and history shows, sorted: without those that the environment covers. */
  visible(env: readonly string[]): string[] {
    const covered = new Set(env.map((entry) => entry.split("=", 1)[0]));
    return [...this.#stage]
      .filter(([name, value]) => value !== undefined && !covered.has(name))
      .map(([name, value]) => `${name}=${value}`)
      .sort();
  }

  /** Proxies that were given, for RUN's environment only. */
  proxies(): string[] {
    return [...this.#given]
      .filter(([name, value]) => proxyNames.has(name) && value !== undefined && !this.#stage.has(name))
      .map(([name, value]) => `${name}=${value}`);
  }

  /** Given, and asked for by no ARG. */
  unused(): string[] {
    return [...this.#given.keys()]
      .filter((name) => !this.#used.has(name) && !proxyNames.has(name) && !controlNames.has(name))
      .sort();
  }
}

const none: Platform = { os: "", architecture: "" };
