import { randomBytes } from "node:crypto";
import { constants, type Stats } from "node:fs";
import { type FileHandle, open, realpath, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { hash } from "bcryptjs";
import { describeErrno, errnoOf } from "#base/errors.ts";
import { parsePasswordFile } from "./htpasswd.ts";
import { SettingsError } from "./settings.ts";
import { readBounded, unreadable } from "./settings-file.ts";

/** Some 80 ms a check; each step more doubles it. */
const cost = 10;
/** bcrypt reads no further: a longer password would be checked by its beginning alone. */
const passwordBytesMax = 72;

/**
 * Sets a user's password in a password file, or removes the user where `password` is undefined; other lines stay as they
 * are. The file is made when missing (0600), else keeps its owner, group and mode; it is replaced as a whole, so that a
 * server never reads half of it, where a link leads to it. Throws `SettingsError`.
 */
export async function editPasswordFile(
  named: string,
  user: string,
  password: string | undefined,
): Promise<void> {
  if (!/^[^\s:#\p{C}][^:\p{C}]{0,254}$/u.test(user)) {
    throw new SettingsError("a user's name has up to 255 characters and no colon or control character");
  }
  const path = await realpath(named).catch(() => named);
  const { text, access } = await existing(path);
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
  await replace(path, `${others.join("\n")}\n`, access);
}

/** Who may read and write a file. */
type Access = Pick<Stats, "uid" | "gid" | "mode">;

async function existing(path: string): Promise<{ text: string; access?: Access }> {
  try {
    const text = await readBounded(path);
    parsePasswordFile(text);
    await using file = await open(path, constants.O_RDONLY);
    return { text, access: await file.stat() };
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return { text: "" };
    throw unreadable(path, error);
  }
}

async function replace(path: string, text: string, access: Access | undefined): Promise<void> {
  const temporary = join(dirname(path), `.htpasswd-${randomBytes(6).toString("hex")}`);
  try {
    {
      await using file = await open(temporary, "wx", 0o600);
      await file.writeFile(text);
      if (access !== undefined) await give(file, path, access);
      await file.sync();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw unreadable(path, error);
  }
}

/** A file of another owner or group would lock a server out that runs as that user: then nothing is changed. */
async function give(file: FileHandle, path: string, { uid, gid, mode }: Access): Promise<void> {
  const own = await file.stat();
  if (own.uid !== uid || own.gid !== gid) {
    await file.chown(uid, gid).catch((error: unknown) => {
      const why = `cannot keep the owner ${uid}:${gid} of the file (${describeErrno(errnoOf(error) ?? "")})`;
      throw new SettingsError(`${path}: ${why}`);
    });
  }
  // The umask has no say in what was there before.
  await file.chmod(mode & 0o777);
}
