import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { after, before, test } from "node:test";
import { parseGitReference } from "#wire/git-reference.ts";
import { fetchGit, type GitTree } from "./git-source.ts";

/** Repositories of the test's own, served by a plain file server: git's "dumb" http, which is the harder one. */
const home = mkdtempSync(join(tmpdir(), "skiff-git-"));
const environment = {
  PATH: process.env["PATH"] ?? "",
  HOME: home,
  GIT_CONFIG_NOSYSTEM: "1",
  GIT_AUTHOR_NAME: "a",
  GIT_AUTHOR_EMAIL: "a",
  GIT_COMMITTER_NAME: "a",
  GIT_COMMITTER_EMAIL: "a",
  GIT_AUTHOR_DATE: "1700000000 +0000",
  GIT_COMMITTER_DATE: "1700000000 +0000",
};
let server: Server;
let address = "";

function git(directory: string, ...args: readonly string[]): string {
  return execFileSync("git", ["-c", "protocol.file.allow=always", "-C", directory, ...args], {
    env: environment,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  }).trim();
}

function commit(directory: string, files: Readonly<Record<string, string>>): string {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(directory, name, ".."), { recursive: true });
    writeFileSync(join(directory, name), text);
  }
  git(directory, "add", "-A");
  git(directory, "commit", "-q", "-m", "x");
  git(directory, "update-server-info");
  return git(directory, "rev-parse", "HEAD");
}

function repository(name: string): string {
  const directory = join(home, name);
  mkdirSync(directory);
  git(directory, "init", "-q", "-b", "main");
  return directory;
}

let first = "";
before(async () => {
  server = createServer((request, response) => {
    const path = join(
      home,
      decodeURIComponent(new URL(request.url ?? "/", "http://x").pathname).replace(/\.git\//, "/.git/"),
    );
    if (!existsSync(path) || extname(path) === ".sock") {
      response.writeHead(404).end();
      return;
    }
    response.end(readFileSync(path));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  address = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
  const inner = repository("inner");
  commit(inner, { "in.txt": "inner\n" });
  const outer = repository("outer");
  symlinkSync("/etc", join(outer, "escape"));
  first = commit(outer, {
    "a.txt": "one\n",
    "d/b.txt": "two\n",
    ".gitattributes": "a.txt export-ignore\nd/b.txt export-subst\n",
    "d/s.txt": "$Format:%H$\n",
  });
  git(outer, "branch", "old");
  git(outer, "submodule", "--quiet", "add", inner, "sub/inner");
  writeFileSync(
    join(outer, ".gitmodules"),
    '[submodule "sub/inner"]\n\tpath = sub/inner\n\turl = ../inner.git\n',
  );
  commit(outer, { "a.txt": "three\n" });
});
after(() => {
  server.close();
  rmSync(home, { recursive: true, force: true });
});

async function fetched(
  text: string,
  use: (tree: GitTree, directory: string) => Promise<void>,
): Promise<void> {
  const directory = mkdtempSync(join(home, "fetch-"));
  const { PATH } = environment;
  try {
    const signal = new AbortController().signal;
    await use(await fetchGit(parseGitReference(text), { directory, env: { PATH }, signal }), directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

async function listed(tree: GitTree): Promise<string[]> {
  const parts: Buffer[] = [];
  for await (const part of tree.archive()) parts.push(part);
  const input = Buffer.concat(parts);
  return execFileSync("tar", ["-tf", "-"], { input, encoding: "utf8" })
    .split("\n")
    .filter((name) => name !== "" && !name.endsWith("/"));
}

test("the archive has what a checkout has, submodules in their places", async () => {
  await fetched(`${address}/outer.git`, async (tree, directory) => {
    const names = await listed(tree);
    assert.deepEqual(names.sort(), [
      ".gitattributes",
      ".gitmodules",
      "a.txt",
      "d/b.txt",
      "d/s.txt",
      "escape",
      "sub/inner/in.txt",
    ]);
    const target = join(directory, "out");
    mkdirSync(target);
    await tree.checkOut(target);
    assert.equal(readFileSync(join(target, "a.txt"), "utf8"), "three\n");
    assert.equal(readFileSync(join(target, "sub/inner/in.txt"), "utf8"), "inner\n");
    assert.equal(readFileSync(join(target, "d/s.txt"), "utf8"), "$Format:%H$\n");
    assert.equal(tree.committedAt, 1_700_000_000);
  });
});

test("branches, commits and directories", async () => {
  for (const ref of ["old", first, first.slice(0, 10), "refs/heads/old"]) {
    await fetched(`${address}/outer.git#${ref}:d`, async (tree) => {
      assert.equal(tree.commit, first);
      assert.deepEqual(await listed(tree), ["b.txt", "s.txt"]);
    });
  }
});

test("what is kept as .git is a working directory's, without the host's hooks", async () => {
  await fetched(`${address.replace("//", "//user:secret@")}/outer.git#old`, async (tree, directory) => {
    await tree.keepGitDirectory();
    assert.equal(git(directory, "rev-parse", "HEAD"), first);
    assert.ok(!existsSync(join(directory, ".git/hooks")));
    const files = readdirSync(join(directory, ".git"), {
      recursive: true,
      encoding: "utf8",
      withFileTypes: true,
    });
    for (const file of files)
      if (file.isFile())
        assert.ok(!readFileSync(join(file.parentPath, file.name)).includes("secret"), file.name);
  });
});

test("what is not there, and what leads out, is refused in git's words", async () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    [`${address}/outer.git#nope`, /error fetching: fatal: couldn't find remote ref nope/],
    [`${address}/none.git`, /error fetching: fatal: repository .*not found/],
    [`${address}/outer.git#old:none`, /no directory "none"/],
    [`${address}/outer.git#old:a.txt`, /no directory/],
    [`${address}/outer.git#old:escape`, /no directory/],
    [`${address}/outer.git#old:escape/ssl`, /no directory/],
    [`${address}/outer.git#${"1".repeat(40)}`, /names no commit/],
  ];
  for (const [text, expected] of cases)
    await assert.rejects(
      fetched(text, async () => {}),
      { code: "git", message: expected },
      text,
    );
});

test("submodules by transports that run programs are refused", async () => {
  const bad = repository("bad");
  git(bad, "submodule", "--quiet", "add", join(home, "inner"), "sub");
  for (const url of ["ext::touch /tmp/never", join(home, "inner"), "file:///etc", "--upload-pack=x", "-x"]) {
    writeFileSync(join(bad, ".gitmodules"), `[submodule "sub"]\n\tpath = sub\n\turl = ${url}\n`);
    commit(bad, { x: url });
    await assert.rejects(
      fetched(`${address}/bad.git`, async () => {}),
      { code: "git-reference" },
      url,
    );
  }
  writeFileSync(
    join(bad, ".gitmodules"),
    '[submodule "sub"]\n\tpath = sub\n\turl = git@127.0.0.1:private.git\n',
  );
  commit(bad, { x: "ssh" });
  await assert.rejects(
    fetched(`${address}/bad.git`, async () => {}),
    /sub is to be fetched by ssh, but its repository was not/,
  );
});

test("a build that ends meanwhile ends git", async () => {
  const directory = mkdtempSync(join(home, "fetch-"));
  const silent = createServer(() => {});
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const stop = new AbortController();
  silent.once("request", () => stop.abort(new Error("gone")));
  const { port } = silent.address() as { port: number };
  const reference = parseGitReference(`http://127.0.0.1:${port}/r.git`);
  await assert.rejects(fetchGit(reference, { directory, env: environment, signal: stop.signal }), /gone/);
  silent.closeAllConnections();
  silent.close();
});
