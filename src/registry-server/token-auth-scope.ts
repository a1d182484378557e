import type { RegistryAccess, RegistryAction } from "./registry.ts";

/** One entry of a token's `access` claim (distribution project, "Token authentication specification"). */
export interface AccessEntry {
  readonly type: string;
  readonly name: string;
  readonly actions: readonly string[];
}

const repositoryActions: ReadonlySet<string> = new Set(["pull", "push", "delete"]);
/** A client asks for one or two; more are not looked at. */
const scopesMax = 16;

/** The scope that a request needs, as a challenge names it; undefined for `/v2/`. */
export function scopeOf({ repository, actions }: RegistryAccess): string | undefined {
  if (repository !== undefined) return `repository:${repository}:${actions.join(",")}`;
  return actions.includes("catalog") ? "registry:catalog:*" : undefined;
}

/** Whether the entries of a checked token grant all that a request needs. */
export function grants(entries: readonly AccessEntry[], { repository, actions }: RegistryAccess): boolean {
  return actions.every((action) =>
    entries.some((entry) =>
      repository === undefined
        ? entry.type === "registry" && entry.name === "catalog" && entry.actions.includes("*")
        : entry.type === "repository" &&
          entry.name === repository &&
          (entry.actions.includes(action) || entry.actions.includes("*")),
    ),
  );
}

/** The `access` claim of a token, or undefined where it is malformed. A token without the claim grants nothing. */
export function accessEntries(claim: unknown): readonly AccessEntry[] | undefined {
  if (claim === undefined || claim === null) return [];
  if (!Array.isArray(claim)) return undefined;
  const isEntry = (value: unknown): value is AccessEntry => {
    const { type, name, actions } = (value ?? {}) as Partial<Record<keyof AccessEntry, unknown>>;
    if (typeof type !== "string" || typeof name !== "string") return false;
    return Array.isArray(actions) && actions.every((action) => typeof action === "string");
  };
  return claim.every(isEntry) ? claim : undefined;
}

export interface RequestedScope {
  readonly entry: { readonly type: string; readonly name: string };
  /** What the entry asks for, as requests name it. */
  readonly access: RegistryAccess;
}

/** Scopes as clients ask for them at a token endpoint: `repository:NAME:pull,push`, several by spaces or parameters. */
export function requestedScopes(texts: readonly string[]): RequestedScope[] {
  const words = texts.flatMap((text) => text.split(" ")).filter((word) => word !== "");
  return words.slice(0, scopesMax).flatMap((word): RequestedScope[] => {
    const match = /^(repository|registry)(?:\([a-z0-9]+\))?:(.{1,300}):([a-z*,]{1,60})$/.exec(word);
    if (match === null) return [];
    const [, type = "", name = "", list = ""] = match;
    if (type === "registry") {
      return name === "catalog" ? [{ entry: { type, name }, access: { actions: ["catalog"] } }] : [];
    }
    const asked = list === "*" ? [...repositoryActions] : [...new Set(list.split(","))];
    const actions = asked.filter((action) => repositoryActions.has(action)) as RegistryAction[];
    return [{ entry: { type, name }, access: { repository: name, actions } }];
  });
}
