import { SettingsError } from "./settings.ts";

/** User → bcrypt hash. */
export type PasswordFile = ReadonlyMap<string, string>;

const bcryptPattern = /^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}$/;
/** 2^15 rounds take two seconds: more would let anybody keep the checker busy with one request. */
const costMax = 15;

/** What other hashes are called, by their first characters (Apache's password formats, crypt(5)). */
const otherKinds: readonly (readonly [string, string])[] = [
  ["$apr1$", "MD5 (apr1)"],
  ["{SHA}", "SHA-1"],
  ["$1$", "MD5"],
  ["$5$", "SHA-256 crypt"],
  ["$6$", "SHA-512 crypt"],
  ["$y$", "yescrypt"],
  ["$argon2", "Argon2"],
  ["$2", "malformed bcrypt"],
];

/**
 * Reads an Apache password file: `user:hash` a line, empty lines and `#` comments. Only bcrypt counts (`htpasswd -B`):
 * the older kinds are guessed in hours. Throws `SettingsError` that names the line, never its content.
 */
export function parsePasswordFile(text: string): PasswordFile {
  const users = new Map<string, string>();
  for (const [index, raw] of text.split("\n").entries()) {
    const line = raw.trim();
    if (line === "" || line.startsWith("#")) continue;
    const refuse = (why: string): SettingsError => new SettingsError(`line ${index + 1}: ${why}`);
    const colon = line.indexOf(":");
    if (colon < 1) throw refuse("not of the form user:hash");
    const user = line.slice(0, colon);
    const hash = line.slice(colon + 1);
    const match = bcryptPattern.exec(hash);
    if (match === null) throw refuse(`${kindOf(hash)} hashes are not accepted, only bcrypt (htpasswd -B)`);
    const cost = Number(match[1]);
    if (cost < 4 || cost > costMax) throw refuse(`bcrypt cost ${cost} is not from 4 to ${costMax}`);
    if (users.has(user)) throw refuse("this user has a line before");
    users.set(user, hash);
  }
  return users;
}

function kindOf(hash: string): string {
  return otherKinds.find(([start]) => hash.startsWith(start))?.[1] ?? "plain-text or DES crypt";
}

/**
 * A hash that no password has, as dear to check as the dearest in the file: an unknown user costs as much as a known one
 * with a wrong password, and so cannot be told from it by the time.
 */
export function decoyHash(users: PasswordFile): string {
  const costs = [...users.values()].map((hash) => hash.slice(4, 6)).sort();
  return `$2b$${costs.at(-1) ?? "10"}$${".".repeat(53)}`;
}
