import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { execError, runtimeMessage, startError } from "./shim-start-text.ts";

const create =
  "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: ";
const processFailed = `${create}unable to start container process: `;

describe("a runtime's words become Docker's", () => {
  const cases: readonly (readonly [string, string, string, number])[] = [
    [
      "executable file `nope` not found in $PATH: No such file or directory",
      "nope",
      `${processFailed}exec: "nope": executable file not found in $PATH: unknown`,
      127,
    ],
    [
      "executable file `/nope` not found in $PATH: No such file or directory",
      "/nope",
      `${processFailed}exec: "/nope": stat /nope: no such file or directory: unknown`,
      127,
    ],
    [
      "open executable: Operation not permitted",
      "/etc",
      `${processFailed}exec: "/etc": permission denied: unknown`,
      126,
    ],
    [
      "open executable: Permission denied",
      "/etc/passwd",
      `${processFailed}exec: "/etc/passwd": permission denied: unknown`,
      126,
    ],
    [
      "chdir `/x`: Permission denied",
      "true",
      `${processFailed}chdir to cwd ("/x") set in config.json failed: permission denied: unknown`,
      126,
    ],
    [
      "error stat'ing file `/gone`: No such file or directory",
      "true",
      `${create}error stat'ing file \`/gone\`: No such file or directory: unknown`,
      127,
    ],
    [
      "write to `/sys/fs/cgroup/pids/x/pids.max`: Invalid argument",
      "true",
      `${create}write to \`/sys/fs/cgroup/pids/x/pids.max\`: Invalid argument: unknown`,
      128,
    ],
    [
      'time="2026-01-01T00:00:00Z" level=error msg="runc run failed: unable to start container process: exec: \\"nope\\": executable file not found in $PATH"',
      "nope",
      `${processFailed}exec: "nope": executable file not found in $PATH: unknown`,
      127,
    ],
    [
      'time="2026-01-01T00:00:00Z" level=warning msg="a warning"\ntime="2026-01-01T00:00:00Z" level=error msg="runc run failed: unable to start container process: error during container init: exec: \\"/etc\\": permission denied"\n',
      "/etc",
      `${processFailed}exec: "/etc": permission denied: unknown`,
      126,
    ],
    [
      '{"level":"error","msg":"runc run failed: container with given ID already exists","time":"x"}',
      "true",
      `${create}container with given ID already exists: unknown`,
      128,
    ],
    ["", "true", `${create}the runtime failed without a word: unknown`, 128],
  ];
  for (const [text, program, message, exitCode] of cases) {
    it(text.slice(0, 80) || "(nothing)", () => {
      const error = startError(text, { program, cwd: "/x" });
      assert.equal(error.message, message);
      assert.equal(error.exitCode, exitCode);
      assert.equal(error.kind, exitCode === 128 ? "system" : "invalid");
    });
  }

  it("a file where a directory must be carries Docker's hint", () => {
    const error = startError("mount `/tmp` to `etc/passwd`: Not a directory", { program: "true", cwd: "/" });
    assert.match(error.message, /Not a directory: unknown: Are you trying to mount a directory onto a file/);
    assert.equal(error.exitCode, 127);
  });
});

it("the last error in the log counts", () => {
  assert.equal(
    runtimeMessage(
      '{"msg":"first","level":"error"}\n{"msg":"note","level":"info"}\n{"msg":"second","level":"error"}\n{"ms',
    ),
    "second",
  );
});

it("an exec's failure is worded by its stage", () => {
  const subject = { program: "x", cwd: "/d" };
  const prefix = "OCI runtime exec failed: exec failed: unable to start container process: ";
  assert.equal(
    execError(4, "no such file or directory", "", subject).message,
    `${prefix}exec: "x": executable file not found in $PATH: unknown`,
  );
  assert.equal(
    execError(3, "permission denied", "", subject).message,
    `${prefix}chdir to cwd ("/d") set in config.json failed: permission denied: unknown`,
  );
  assert.equal(
    execError(1, "invalid argument", "setns", subject).message,
    `${prefix}setns: invalid argument: unknown`,
  );
  assert.equal(execError(1, "invalid argument", "setns", subject).exitCode, 128);
});
