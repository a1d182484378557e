/**
 * Firewalls of others. An `accept` in our table does not help when another chain of the same hook drops forwarded
 * packets: Docker sets FORWARD to DROP, ufw and firewalld end theirs with a refusal. On such a host, and only there,
 * accept rules for our bridge go where the host's rules are, marked by a comment, and are taken out again.
 */

import { messageOf } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import { type Nft, NftError, type NftObject } from "#sys/nft.ts";

/** Where rules go: `family table chain`, and the rule that they have to come before. */
interface Place {
  readonly chain: string;
  readonly before: number | undefined;
}

interface Rule {
  readonly handle: number;
  readonly comment: string | undefined;
  readonly expressions: readonly unknown[];
}

export class HostFirewall {
  readonly #nft: Nft;
  readonly #bridge: string;
  readonly #ownTable: string;
  readonly #enabled: boolean;
  readonly #log: Log;
  #rules: readonly string[] = [];

  constructor(options: { nft: Nft; bridge: string; ownTable: string; enabled: boolean; log: Log }) {
    this.#nft = options.nft;
    this.#bridge = options.bridge;
    this.#ownTable = options.ownTable;
    this.#enabled = options.enabled;
    this.#log = options.log;
  }

  /** The rules that are in now, as text. */
  get rules(): readonly string[] {
    return this.#rules;
  }

  /** Looks at the host's forward chains; adds the rules where they are needed and removes them where they are not. */
  synchronise(): void {
    const wanted = this.#enabled ? this.#blockedPlaces() : [];
    const rules: string[] = [];
    for (const place of wanted) {
      try {
        rules.push(...this.#ensure(place));
      } catch (error) {
        if (!(error instanceof NftError)) throw error;
        this.#log.warn("cannot add accept rules to the host's firewall", {
          chain: place.chain,
          error: messageOf(error),
        });
      }
    }
    this.#removeExcept(new Set(wanted.map((place) => place.chain)));
    this.#rules = rules;
  }

  /** Takes every rule of ours out of the host's chains. */
  remove(): void {
    this.#removeExcept(new Set());
    this.#rules = [];
  }

  #accepts(): string[] {
    return [`iifname "${this.#bridge}" accept`, `oifname "${this.#bridge}" accept`];
  }

  #ensure(place: Place): string[] {
    const accepts = this.#accepts();
    const present = this.#rulesOf(place.chain).filter((rule) => rule.comment === this.#ownTable);
    if (present.length !== accepts.length) {
      const position = place.before === undefined ? "" : `position ${place.before} `;
      const verb = place.before === undefined ? "add" : "insert";
      this.#nft.run(
        [
          ...present.map((rule) => `delete rule ${place.chain} handle ${rule.handle}`),
          ...accepts.map(
            (rule) => `${verb} rule ${place.chain} ${position}${rule} comment "${this.#ownTable}"`,
          ),
        ].join("\n"),
      );
    }
    return accepts.map((rule) => `${place.chain}: ${rule}`);
  }

  #removeExcept(kept: ReadonlySet<string>): void {
    for (const chain of this.#chainsWithRules()) {
      if (kept.has(chain)) continue;
      const commands = this.#rulesOf(chain)
        .filter((rule) => rule.comment === this.#ownTable)
        .map((rule) => `delete rule ${chain} handle ${rule.handle}`);
      if (commands.length > 0) this.#nft.run(commands.join("\n"));
    }
  }

  /** The chains in which rules of ours can be. */
  #chainsWithRules(): string[] {
    return this.#chains()
      .filter((chain) => chain.hook === "forward" || chain.name === "DOCKER-USER")
      .map((chain) => chain.path);
  }

  #blockedPlaces(): Place[] {
    const chains = this.#chains();
    const places = new Map<string, Place>();
    for (const chain of chains) {
      if (chain.hook !== "forward") continue;
      const rules = this.#rulesOf(chain.path);
      const refusal = rules.find((rule) => refusesEverything(rule));
      if (chain.policy !== "drop" && refusal === undefined) continue;
      const user = chains.find((other) => other.table === chain.table && other.name === "DOCKER-USER");
      if (user === undefined) places.set(chain.path, { chain: chain.path, before: refusal?.handle });
      else {
        // The administrator's own rules in DOCKER-USER come first; a RETURN at its end would hide ours behind it.
        const end = this.#rulesOf(user.path).find(
          (rule) => rule.expressions.length > 0 && returnsAlways(rule),
        );
        places.set(user.path, { chain: user.path, before: end?.handle });
      }
    }
    return [...places.values()];
  }

  #chains(): HostChain[] {
    return ["ip", "inet"]
      .flatMap((family) => this.#list(`list chains ${family}`))
      .flatMap((object) => readChain(object))
      .filter((chain) => !chain.table.split(" ")[1]?.startsWith("skiff-"));
  }

  #rulesOf(chain: string): Rule[] {
    return this.#list(`list chain ${chain}`).flatMap((object) => readRule(object));
  }

  #list(command: string): NftObject[] {
    try {
      return this.#nft.list(command);
    } catch (error) {
      if (error instanceof NftError && error.missing) return [];
      throw error;
    }
  }
}

interface HostChain {
  readonly path: string;
  /** `family name` */
  readonly table: string;
  readonly name: string;
  readonly hook: string | undefined;
  readonly policy: string | undefined;
}

function readChain(object: NftObject): HostChain[] {
  const chain = object["chain"];
  if (chain === undefined) return [];
  const table = `${chain["family"]} ${chain["table"]}`;
  const name = String(chain["name"]);
  // A base chain of type nat or route takes no part in refusing.
  const hook = chain["type"] === "filter" ? (chain["hook"] as string | undefined) : undefined;
  return [{ path: `${table} ${name}`, table, name, hook, policy: chain["policy"] as string | undefined }];
}

function readRule(object: NftObject): Rule[] {
  const rule = object["rule"];
  if (rule === undefined) return [];
  const expressions = Array.isArray(rule["expr"]) ? (rule["expr"] as unknown[]) : [];
  return [
    {
      handle: Number(rule["handle"]),
      comment: rule["comment"] as string | undefined,
      expressions: expressions.filter((expression) => !hasKey(expression, "counter")),
    },
  ];
}

function hasKey(expression: unknown, key: string): boolean {
  return typeof expression === "object" && expression !== null && Object.hasOwn(expression, key);
}

function refusesEverything(rule: Rule): boolean {
  const [only] = rule.expressions;
  return rule.expressions.length === 1 && (hasKey(only, "drop") || hasKey(only, "reject"));
}

function returnsAlways(rule: Rule): boolean {
  return rule.expressions.length === 1 && hasKey(rule.expressions[0], "return");
}
