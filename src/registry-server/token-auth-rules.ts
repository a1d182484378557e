import type { RegistryAction } from "./registry.ts";
import { SettingsError } from "./settings.ts";

/** Who may do what, of the users of the password file. */
export interface AccessRules {
  /** `user` undefined: nobody has said who they are. */
  allows(user: string | undefined, repository: string | undefined, action: RegistryAction): boolean;
}

const actionNames: ReadonlySet<string> = new Set(["pull", "push", "delete", "catalog"]);
const rulesMax = 10_000;

interface Rule {
  readonly users: ReadonlySet<string>;
  readonly anonymous: boolean;
  readonly repositories: readonly RegExp[];
  readonly actions: ReadonlySet<string>;
}

/** Without rules: every user may do everything, and everybody may pull where `anonymousPull`. */
export function plainRules(anonymousPull: boolean): AccessRules {
  return {
    allows: (user, _repository, action) => user !== undefined || (anonymousPull && action === "pull"),
  };
}

/**
 * Reads `{"rules": [{"users": ["ann", "*"], "anonymous": false, "repositories": ["team/*", "**"], "actions": ["pull"]}]}`.
 * A request is allowed when one rule allows it. `*` among the users is every user of the password file, `anonymous` is
 * everybody else as well; `*` in a repository stands for anything within one part of a name, and `**` for anything. Throws `SettingsError`.
 */
export function parseAccessRules(text: string, anonymousPull: boolean): AccessRules {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    throw new SettingsError("not a JSON document");
  }
  const { rules, ...rest } = object(document, "the document");
  refuseOthers(rest, "the document");
  if (!Array.isArray(rules) || rules.length > rulesMax)
    throw new SettingsError("rules is not a list of rules");
  const parsed = rules.map((value, index) => parseRule(value, `rules[${index}]`));
  const anonymousRules = plainRules(anonymousPull);
  return {
    allows: (user, repository, action) =>
      parsed.some((rule) => holds(rule, user, repository, action)) ||
      anonymousRules.allows(undefined, repository, action),
  };
}

function holds(
  rule: Rule,
  user: string | undefined,
  repository: string | undefined,
  action: RegistryAction,
): boolean {
  // What everybody may do, a user may do too.
  const who = rule.anonymous || (user !== undefined && (rule.users.has(user) || rule.users.has("*")));
  if (!who || !rule.actions.has(action)) return false;
  // The catalog is of no repository.
  return repository === undefined || rule.repositories.some((pattern) => pattern.test(repository));
}

function parseRule(value: unknown, where: string): Rule {
  const { users, anonymous = false, repositories, actions, ...rest } = object(value, where);
  refuseOthers(rest, where);
  if (typeof anonymous !== "boolean") throw new SettingsError(`${where}.anonymous is not true or false`);
  const actionList = texts(actions, `${where}.actions`);
  const strange = actionList.find((action) => !actionNames.has(action));
  if (strange !== undefined) {
    throw new SettingsError(
      `${where}.actions: ${JSON.stringify(strange)} is none of ${[...actionNames].join(", ")}`,
    );
  }
  return {
    users: new Set(texts(users ?? [], `${where}.users`)),
    anonymous,
    repositories: texts(repositories ?? [], `${where}.repositories`).map(patternOf),
    actions: new Set(actionList),
  };
}

function patternOf(text: string): RegExp {
  const source = text
    .replace(/[.+?^${}()|[\]\\]/g, "\\$&")
    .replace(/\*+/g, (stars) => (stars.length > 1 ? ".*" : "[^/]*"));
  return new RegExp(`^${source}$`);
}

function object(value: unknown, where: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new SettingsError(`${where} is not a JSON object`);
  }
  return value as Record<string, unknown>;
}

/** A key that is spelled wrong would be a rule that is not there. */
function refuseOthers(rest: object, where: string): void {
  const [first] = Object.keys(rest);
  if (first !== undefined) throw new SettingsError(`${where} has an unknown key ${JSON.stringify(first)}`);
}

function texts(value: unknown, where: string): string[] {
  if (!Array.isArray(value) || value.some((entry) => typeof entry !== "string")) {
    throw new SettingsError(`${where} is not a list of texts`);
  }
  return value;
}
