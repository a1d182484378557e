import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { hash } from "bcryptjs";
import { errnoOf } from "#base/errors.ts";
import { parsePasswordFile } from "./htpasswd.ts";
import { SettingsError } from "./settings.ts";
import { readBounded, unreadable } from "./settings-file.ts";

/** Some 80 ms a check; each step more doubles it. */
const cost = 10;
/** bcrypt reads no further: a longer password would be checked by its beginning alone. */
const passwordBytesMax = 72;

/**
 * Sets a user's password in a password file, or removes the user where `password` is undefined; other lines stay as they
 * are. The file is made when missing (0600) and replaced as a whole, so that a server never reads half of it. Throws
 * `SettingsError`.
 */
export async function editPasswordFile(
  path: string,
  user: string,
  password: string | undefined,
): Promise<void> {
  if (!/^[^\s:#\p{C}][^:\p{C}]{0,254}$/u.test(user)) {
    throw new SettingsError("a user's name has up to 255 characters and no colon or control character");
  }
  const { text, mode } = await existing(path);
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  const others = lines.filter((line) => line.trim().split(":", 1)[0] !== user);
  if (password === undefined) {
    if (others.length === lines.length) throw new SettingsError(`${path}: there is no user ${user}`);
  } else {
    const bytes = Buffer.byteLength(password);
    if (bytes === 0) throw new SettingsError("the password is empty");
    if (bytes > passwordBytesMax)
      throw new SettingsError(`the password is longer than ${passwordBytesMax} bytes`);
    others.push(`${user}:${await hash(password, cost)}`);
  }
  await replace(path, `${others.join("\n")}\n`, mode);
}

async function existing(path: string): Promise<{ text: string; mode: number }> {
  try {
    const text = await readBounded(path);
    parsePasswordFile(text);
    await using file = await open(path, constants.O_RDONLY);
    return { text, mode: (await file.stat()).mode & 0o777 };
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return { text: "", mode: 0o600 };
    throw unreadable(path, error);
  }
}

async function replace(path: string, text: string, mode: number): Promise<void> {
  const temporary = join(dirname(path), `.htpasswd-${randomBytes(6).toString("hex")}`);
  try {
    {
      await using file = await open(temporary, "wx", mode);
      await file.writeFile(text);
      await file.sync();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw unreadable(path, error);
  }
}
