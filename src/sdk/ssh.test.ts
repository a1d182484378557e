import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSsh, sshArguments } from "./ssh.ts";

test("hosts are read as Docker's client reads them", () => {
  assert.deepEqual(parseSsh("ssh://box"), { host: "box" });
  assert.deepEqual(parseSsh("ssh://me@box:2222"), { host: "box", user: "me", port: "2222" });
  assert.deepEqual(parseSsh("ssh://me@[fd00::1]:22/run/x.sock"), {
    host: "fd00::1",
    user: "me",
    port: "22",
    socket: "/run/x.sock",
  });
  assert.deepEqual(parseSsh("ssh://box/"), { host: "box" });
  for (const [text, reason] of [
    ["ssh://", /hostname is empty/],
    ["ssh://me:secret@box", /plain-text password is not supported/],
    ["ssh://box?x=1", /query parameters are not allowed: "x=1"/],
    ["ssh://box#f", /fragments are not allowed: "f"/],
    ["ssh://-oProxyCommand=x", /begins with "-"/],
    ["ssh://-l@box", /begins with "-"/],
    ["ssh://%2doProxyCommand=x@box", /begins with "-"/],
    ["ssh://box\nx", /white space/],
    ["ssh://bo x", /white space/],
    ["ssh://%zz@box", /not a percent-encoded name/],
  ] as const)
    assert.throws(() => parseSsh(text), reason, text);
});

test("the far side runs skiff where it is, as docker always docker; its socket's path is one word", () => {
  const target = parseSsh("ssh://me@box:2222/tmp/it's%20here.sock");
  const args = sshArguments(target, "docker");
  assert.deepEqual(args.slice(-7, -1), ["-l", "me", "-p", "2222", "--", "box"]);
  assert.equal(args.at(-1), "docker --host 'unix:///tmp/it'\\''s here.sock' system dial-stdio");
  const own = sshArguments(parseSsh("ssh://box"), "skiff");
  assert.equal(own.at(-2), "box");
  assert.equal(
    own.at(-1),
    "sh -c 'if command -v skiff >/dev/null 2>&1; then exec skiff system dial-stdio; else exec docker system dial-stdio; fi'",
  );
});
