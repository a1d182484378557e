import assert from "node:assert/strict";
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { silentLog } from "#base/log.ts";
import { decoyHash, parsePasswordFile } from "./htpasswd.ts";
import { editPasswordFile } from "./htpasswd-edit.ts";
import { PasswordVerifier } from "./htpasswd-verify.ts";
import { SettingsFile } from "./settings-file.ts";

/** Of "secret", cost 5. */
const hash = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";
const folder = mkdtempSync(join(tmpdir(), "skiff-htpasswd-"));
test.after(() => rmSync(folder, { recursive: true }));

test("users, comments, empty lines, CRLF", () => {
  const users = parsePasswordFile(`# people\n\nann:${hash}\r\nbob:${hash.replace("2y", "2b")}\n`);
  assert.deepEqual([...users.keys()], ["ann", "bob"]);
  assert.equal(parsePasswordFile("").size, 0);
});

const refused: readonly (readonly [string, RegExp])[] = [
  ["ann:$apr1$x$y", /^line 1: MD5 \(apr1\) hashes are not accepted, only bcrypt/],
  [`ann:${hash}\nbob:{SHA}abc`, /^line 2: SHA-1/],
  ["ann:$6$a$b", /SHA-512 crypt/],
  ["ann:$y$j9T$b", /yescrypt/],
  ["ann:secret", /plain-text or DES crypt/],
  ["ann:$2y$05$short", /malformed bcrypt/],
  [`ann:${hash.replace("$05$", "$31$")}`, /cost 31/],
  [`ann:${hash}\nann:${hash}`, /^line 2: this user has a line before/],
  [":x", /user:hash/],
  ["ann", /user:hash/],
];
for (const [text, message] of refused) {
  test(`refused: ${text.slice(-20)}`, () => {
    assert.throws(
      () => parsePasswordFile(text),
      (error: Error) => {
        assert.match(error.message, message);
        // A password in plain text must not come out by the error.
        assert.doesNotMatch(error.message, /secret/);
        return true;
      },
    );
  });
}

test("an unknown user costs what the dearest known one does", () => {
  assert.match(decoyHash(parsePasswordFile(`a:${hash}\nb:${hash.replace("$05$", "$12$")}`)), /^\$2b\$12\$/);
  assert.equal(parsePasswordFile(`x:${decoyHash(new Map())}`).size, 1);
});

async function verifierOf(name: string, text: string): Promise<PasswordVerifier> {
  const path = join(folder, name);
  writeFileSync(path, text);
  return new PasswordVerifier(await SettingsFile.open(path, parsePasswordFile, silentLog));
}

test("right, wrong, unknown; side by side; remembered", async () => {
  await using verifier = await verifierOf("one", `ann:${hash}\n`);
  const asked = [
    ["ann", "secret"],
    ["ann", "secret"],
    ["ann", "wrong"],
    ["ann", ""],
    ["eve", "secret"],
    ["ann", "s".repeat(5000)],
  ] as const;
  const answers = await Promise.all(asked.map(([user, password]) => verifier.verify(user, password)));
  assert.deepEqual(answers, [true, true, false, false, false, false]);
  let soonestMs = Number.POSITIVE_INFINITY;
  for (let tries = 0; tries < 3; tries += 1) {
    const started = performance.now();
    for (let round = 0; round < 200; round += 1) assert.equal(await verifier.verify("ann", "secret"), true);
    soonestMs = Math.min(soonestMs, performance.now() - started);
  }
  // 200 checks of cost 5 take 400 ms at the very least.
  assert.ok(soonestMs < 300, `${soonestMs} ms`);
});

test("a flood of guesses is told to wait", async () => {
  await using verifier = await verifierOf("flood", `ann:${hash}\n`);
  const guesses = Array.from({ length: 100 }, (_, index) => verifier.verify("ann", `guess ${index}`));
  const outcomes = await Promise.allSettled(guesses);
  const busy = outcomes.filter((outcome) => outcome.status === "rejected");
  assert.equal(busy.length, 36);
  assert.ok(busy.every(({ reason }) => reason.status === 429));
});

test("a changed file counts; one that cannot be read does not", async () => {
  await using verifier = await verifierOf("change", `ann:${hash}\n`);
  const path = join(folder, "change");
  assert.equal(await verifier.verify("ann", "secret"), true);
  const until = async (user: string, expected: boolean): Promise<void> => {
    for (let tries = 0; (await verifier.verify(user, "secret")) !== expected; tries += 1) {
      assert.ok(tries < 1000);
      await sleep(20);
    }
  };
  writeFileSync(path, `bob:${hash}\n`);
  await until("ann", false);
  await until("bob", true);
  writeFileSync(path, "bob:plain\n");
  await sleep(300);
  assert.equal(await verifier.verify("bob", "secret"), true);
  writeFileSync(path, "");
  await until("bob", false);
});

test("a changed file keeps its owner, group and mode, and a link to it stays one", async () => {
  const path = join(folder, "owned");
  writeFileSync(path, "");
  const isRoot = process.getuid!() === 0;
  const owner = isRoot ? [65534, 65533] : [process.getuid!(), process.getgid!()];
  chownSync(path, owner[0]!, owner[1]!);
  chmodSync(path, 0o666);
  symlinkSync("owned", join(folder, "link"));
  const umask = process.umask(0o077);
  try {
    await editPasswordFile(join(folder, "link"), "ann", "one");
  } finally {
    process.umask(umask);
  }
  const { uid, gid, mode } = statSync(path);
  assert.deepEqual([uid, gid, mode & 0o777], [...owner, 0o666]);
  assert.ok(lstatSync(join(folder, "link")).isSymbolicLink());
  assert.match(readFileSync(path, "utf8"), /^ann:/);
  if (!isRoot) return;
  // Somebody who may write into the folder, and not give files away.
  chmodSync(folder, 0o777);
  process.seteuid!(65534);
  try {
    await assert.rejects(editPasswordFile(path, "bob", "two"), {
      message: /cannot keep the owner 65534:65533/,
    });
  } finally {
    process.seteuid!(0);
  }
  assert.doesNotMatch(readFileSync(path, "utf8"), /bob/);
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith(".htpasswd-")),
    [],
  );
});

test("passwords are set, changed and removed, and the rest of the file stays", async () => {
  const path = join(folder, "edit");
  await editPasswordFile(path, "ann", "one");
  assert.equal(statSync(path).mode & 0o777, 0o600);
  writeFileSync(path, `# people\n${readFileSync(path, "utf8")}`, { mode: 0o640 });
  await editPasswordFile(path, "bob", "two");
  await editPasswordFile(path, "ann", "three");
  const text = readFileSync(path, "utf8");
  assert.match(text, /^# people\nbob:\$2b\$10\$.{53}\nann:\$2b\$10\$.{53}\n$/);
  await using verifier = new PasswordVerifier(await SettingsFile.open(path, parsePasswordFile, silentLog));
  assert.deepEqual(
    await Promise.all([
      verifier.verify("ann", "three"),
      verifier.verify("ann", "one"),
      verifier.verify("bob", "two"),
    ]),
    [true, false, true],
  );
  await editPasswordFile(path, "bob", undefined);
  assert.doesNotMatch(readFileSync(path, "utf8"), /bob/);
  for (const [user, password, message] of [
    ["bob", undefined, /no user bob/],
    ["a:b", "x", /no colon/],
    ["a\nb", "x", /no colon or control/],
    ["ann", "", /empty/],
    ["ann", "x".repeat(73), /longer than 72/],
  ] as const)
    await assert.rejects(editPasswordFile(path, user, password), { message });
});
