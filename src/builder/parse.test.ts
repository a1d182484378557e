import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { DockerfileError } from "./dockerfile-error.ts";
import { parseDockerfile } from "./parse.ts";

/** The instructions behind `FROM x`, without what every one has. */
function parsed(text: string): unknown[] {
  const file = parseDockerfile(text, "Dockerfile");
  return file.stages.flatMap(({ instructions }) =>
    instructions.map(({ original: _original, position: _position, ...fields }) => fields),
  );
}

const shell = (text: string, heredocs: unknown[] = []): unknown => ({ form: "shell", text, heredocs });
const run = (command: unknown, more: object = {}): object => ({
  kind: "run",
  command,
  mounts: [],
  network: "default",
  security: "sandbox",
  ...more,
});
const copyBase = { heredocs: [], chown: "", chmod: "", link: false, parents: false, excludes: [] };
const copy = (sources: string[], target: string, more: object = {}): object => ({
  kind: "copy",
  from: "",
  sources,
  target,
  ...copyBase,
  ...more,
});
const add = (sources: string[], target: string, more: object = {}): object => ({
  kind: "add",
  checksum: "",
  keepGitDir: false,
  unpack: undefined,
  sources,
  target,
  ...copyBase,
  ...more,
});
const env = (pairs: string[][]): object => ({ kind: "env", pairs, literal: false });
const mount = (fields: object): object => ({
  type: "bind",
  target: "",
  source: "",
  from: "",
  readOnly: false,
  id: "",
  sharing: "shared",
  mode: undefined,
  uid: 0,
  gid: 0,
  sizeBytes: 0,
  required: false,
  env: "",
  ...fields,
});

/** One instruction, and what it is. */
const single: readonly (readonly [string, object])[] = [
  ["RUN echo a", run(shell("echo a"))],
  ["run echo a", run(shell("echo a"))],
  ["Run  echo   a", run(shell("echo   a"))],
  ["  RUN echo a  ", run(shell("echo a"))],
  ["\tRUN\techo", run(shell("echo"))],
  ['RUN ["a","b c"]', run({ form: "exec", words: ["a", "b c"] })],
  ['RUN [ "a" , "b" ]', run({ form: "exec", words: ["a", "b"] })],
  ["RUN [a]", run(shell("[a]"))],
  ["RUN ['a']", run(shell("['a']"))],
  ['RUN ["a", 1]', run(shell('["a", 1]'))],
  ["RUN []", run({ form: "exec", words: [] })],
  ["RUN a \\\n b", run(shell("a  b"))],
  ["RUN a\\\nb", run(shell("ab"))],
  ["RUN a \\\n# no\n b", run(shell("a  b"))],
  ["RUN a \\\n   # no\n b", run(shell("a  b"))],
  ["RUN a \\\n\n b", run(shell("a  b"))],
  ["RUN a \\  \n b", run(shell("a  b"))],
  ["RUN a \\\\\nRUN b", run(shell("a \\\\"))],
  ["RUN a # b", run(shell("a # b"))],
  ["RUN --network=none a", run(shell("a"), { network: "none" })],
  ["RUN --network=host a", run(shell("a"), { network: "host" })],
  ["RUN --security=insecure a", run(shell("a"), { security: "insecure" })],
  [
    "RUN --mount=type=tmpfs,target=/t a",
    run(shell("a"), { mounts: [mount({ type: "tmpfs", target: "/t" })] }),
  ],
  [
    "RUN --mount=type=tmpfs,target=/t,size=1m a",
    run(shell("a"), { mounts: [mount({ type: "tmpfs", target: "/t", sizeBytes: 1048576 })] }),
  ],
  [
    "RUN --mount=type=cache,target=/c a",
    run(shell("a"), { mounts: [mount({ type: "cache", target: "/c", id: "/c" })] }),
  ],
  [
    "RUN --mount=type=cache,dst=/c,id=x,sharing=locked,mode=0700,uid=1,gid=2,ro a",
    run(shell("a"), {
      mounts: [
        mount({
          type: "cache",
          target: "/c",
          id: "x",
          sharing: "locked",
          mode: 0o700,
          uid: 1,
          gid: 2,
          readOnly: true,
        }),
      ],
    }),
  ],
  ["RUN --mount=target=/b a", run(shell("a"), { mounts: [mount({ target: "/b", readOnly: true })] })],
  [
    "RUN --mount=type=bind,from=x,src=/s,destination=/b,rw a",
    run(shell("a"), { mounts: [mount({ target: "/b", source: "/s", from: "x" })] }),
  ],
  [
    "RUN --mount=type=secret,id=s a",
    run(shell("a"), { mounts: [mount({ type: "secret", id: "s", target: "/run/secrets/s" })] }),
  ],
  [
    "RUN --mount=type=secret,id=s,env=T,required a",
    run(shell("a"), { mounts: [mount({ type: "secret", id: "s", env: "T", required: true })] }),
  ],
  [
    "RUN --mount=type=ssh a",
    run(shell("a"), { mounts: [mount({ type: "ssh", target: "/run/buildkit/ssh_agent.0" })] }),
  ],
  [
    "RUN --mount=type=tmpfs,target=/a --mount=type=tmpfs,target=/b c",
    run(shell("c"), {
      mounts: [mount({ type: "tmpfs", target: "/a" }), mount({ type: "tmpfs", target: "/b" })],
    }),
  ],
  ["RUN <<E\na\nE", run(shell("<<E", [{ name: "E", expand: true, descriptor: "", content: "a\n" }]))],
  ["RUN <<'E'\n$a\nE", run(shell("<<'E'", [{ name: "E", expand: false, descriptor: "", content: "$a\n" }]))],
  [
    'RUN <<"E"\n# no comment\nE',
    run(shell('<<"E"', [{ name: "E", expand: false, descriptor: "", content: "# no comment\n" }])),
  ],
  ["RUN <<-E\n\t\ta\n\tE", run(shell("<<-E", [{ name: "E", expand: true, descriptor: "", content: "a\n" }]))],
  ["RUN <<E\nE", run(shell("<<E", [{ name: "E", expand: true, descriptor: "", content: "" }]))],
  [
    "RUN cat <<A <<B\n1\nA\n2\nB",
    run(
      shell("cat <<A <<B", [
        { name: "A", expand: true, descriptor: "", content: "1\n" },
        { name: "B", expand: true, descriptor: "", content: "2\n" },
      ]),
    ),
  ],
  ["RUN a 3<<E\nx\nE", run(shell("a 3<<E", [{ name: "E", expand: true, descriptor: "3", content: "x\n" }]))],
  ["RUN echo '<<E'", run(shell("echo '<<E'"))],
  ["RUN a <<<b", run(shell("a <<<b"))],
  ["RUN a<<E", run(shell("a<<E"))],
  ["RUN echo $((1<<2))", run(shell("echo $((1<<2))"))],
  ["COPY a b", copy(["a"], "b")],
  ["COPY a b c/", copy(["a", "b"], "c/")],
  ['COPY ["a b","c"]', copy(["a b"], "c")],
  ["COPY --from=x a b", copy(["a"], "b", { from: "x" })],
  ["COPY --chown=1:2 --chmod=755 a b", copy(["a"], "b", { chown: "1:2", chmod: "755" })],
  ["COPY --link a b", copy(["a"], "b", { link: true })],
  ["COPY --link=false a b", copy(["a"], "b")],
  ["COPY --link=true --parents a b", copy(["a"], "b", { link: true, parents: true })],
  ["COPY --exclude=*.md --exclude=x a b", copy(["a"], "b", { excludes: ["*.md", "x"] })],
  ["COPY --from='x' a b", copy(["a"], "b", { from: "x" })],
  ["COPY $A b", copy(["$A"], "b")],
  [
    "COPY <<E /f\nhi\nE",
    copy(["<<E"], "/f", { heredocs: [{ name: "E", expand: true, descriptor: "", content: "hi\n" }] }),
  ],
  ["ADD a b", add(["a"], "b")],
  ["ADD --checksum=sha256:x http://h/f b", add(["http://h/f"], "b", { checksum: "sha256:x" })],
  ["ADD --keep-git-dir a b", add(["a"], "b", { keepGitDir: true })],
  ["ADD --unpack=false a b", add(["a"], "b", { unpack: false })],
  ["ADD --unpack a b", add(["a"], "b", { unpack: true })],
  ["CMD a b", { kind: "cmd", command: shell("a b") }],
  ["CMD", { kind: "cmd", command: shell("") }],
  ['CMD ["a"]', { kind: "cmd", command: { form: "exec", words: ["a"] } }],
  ["ENTRYPOINT a", { kind: "entrypoint", command: shell("a") }],
  ['ENTRYPOINT ["a", "b"]', { kind: "entrypoint", command: { form: "exec", words: ["a", "b"] } }],
  ["ENV a=b", env([["a", "b"]])],
  [
    "ENV a=b c=d",
    env([
      ["a", "b"],
      ["c", "d"],
    ]),
  ],
  ["ENV a b", env([["a", "b"]])],
  ["ENV a b c=d", env([["a", "b c=d"]])],
  ['ENV a="b c"', env([["a", '"b c"']])],
  [
    "ENV a='b c' d=e\\ f",
    env([
      ["a", "'b c'"],
      ["d", "e\\ f"],
    ]),
  ],
  ["ENV a=", env([["a", ""]])],
  ["ENV a==b", env([["a", "=b"]])],
  [
    "ENV a=b \\\n    c=d",
    env([
      ["a", "b"],
      ["c", "d"],
    ]),
  ],
  ["LABEL a=b", { kind: "label", pairs: [["a", "b"]], literal: false }],
  [
    'LABEL "a.b"="c d" e=f',
    {
      kind: "label",
      pairs: [
        ['"a.b"', '"c d"'],
        ["e", "f"],
      ],
      literal: false,
    },
  ],
  ["LABEL a b", { kind: "label", pairs: [["a", "b"]], literal: false }],
  ["ARG a", { kind: "arg", args: [{ name: "a", value: undefined }] }],
  ["ARG a=b", { kind: "arg", args: [{ name: "a", value: "b" }] }],
  ["ARG a=", { kind: "arg", args: [{ name: "a", value: "" }] }],
  [
    "ARG a=b c",
    {
      kind: "arg",
      args: [
        { name: "a", value: "b" },
        { name: "c", value: undefined },
      ],
    },
  ],
  ['ARG a="b c"', { kind: "arg", args: [{ name: "a", value: '"b c"' }] }],
  ["MAINTAINER a b <c@d>", { kind: "maintainer", value: "a b <c@d>" }],
  ["USER a:b", { kind: "user", value: "a:b" }],
  ["WORKDIR /a b", { kind: "workdir", value: "/a b" }],
  ["STOPSIGNAL SIGTERM", { kind: "stopsignal", value: "SIGTERM" }],
  ["EXPOSE 80 443/udp", { kind: "expose", ports: ["80", "443/udp"] }],
  ["EXPOSE $P", { kind: "expose", ports: ["$P"] }],
  ["VOLUME /a /b", { kind: "volume", paths: ["/a", "/b"] }],
  ['VOLUME ["/a b"]', { kind: "volume", paths: ["/a b"] }],
  ['SHELL ["a", "-c"]', { kind: "shell", words: ["a", "-c"] }],
  ["HEALTHCHECK NONE", { kind: "healthcheck", health: { Test: ["NONE"] } }],
  ["HEALTHCHECK none", { kind: "healthcheck", health: { Test: ["NONE"] } }],
  ["HEALTHCHECK CMD a b", { kind: "healthcheck", health: { Test: ["CMD-SHELL", "a b"] } }],
  ['HEALTHCHECK cmd ["a"]', { kind: "healthcheck", health: { Test: ["CMD", "a"] } }],
  [
    "HEALTHCHECK --interval=5m --timeout=3s --start-period=1m30s --start-interval=500ms --retries=3 CMD a",
    {
      kind: "healthcheck",
      health: {
        Test: ["CMD-SHELL", "a"],
        Interval: 300e9,
        Timeout: 3e9,
        StartPeriod: 90e9,
        StartInterval: 5e8,
        Retries: 3,
      },
    },
  ],
  ["HEALTHCHECK --interval=0 CMD a", { kind: "healthcheck", health: { Test: ["CMD-SHELL", "a"] } }],
  ["ONBUILD RUN a", { kind: "onbuild", trigger: "RUN a" }],
  ["ONBUILD copy a b", { kind: "onbuild", trigger: "copy a b" }],
];
for (const [text, expected] of single) {
  test(JSON.stringify(text), () => assert.deepEqual(parsed(`FROM x\n${text}`)[0], expected));
}

const withBacktick: readonly (readonly [string, object])[] = [
  ["RUN a `\n b", run(shell("a  b"))],
  ["RUN a \\\nRUN b", run(shell("a \\"))],
  ["ENV a=b` c", env([["a", "b` c"]])],
];
for (const [text, expected] of withBacktick) {
  test(`# escape=\` ${JSON.stringify(text)}`, () => {
    assert.deepEqual(parsed(`# escape=\`\nFROM x\n${text}`)[0], expected);
  });
}

/** Whole files: stages as `name<base>platform`, and the number of instructions of each. */
const files: readonly (readonly [string, string])[] = [
  ["FROM a", "<a>:0"],
  ["from a", "<a>:0"],
  ["FROM a AS b", "b<a>:0"],
  ["FROM a as B", "b<a>:0"],
  ["FROM --platform=linux/arm64 a", "<a>linux/arm64:0"],
  ["FROM --platform=$BUILDPLATFORM a AS b", "b<a>$BUILDPLATFORM:0"],
  ["FROM a:$V", "<a:$V>:0"],
  ["FROM scratch", "<scratch>:0"],
  ["FROM a@sha256:00", "<a@sha256:00>:0"],
  ["FROM a\nRUN b\nFROM c\nRUN d\nRUN e", "<a>:1 <c>:2"],
  ["ARG V=1\nFROM a", "<a>:0"],
  ["ARG V=1\nARG W\nFROM a\nARG V", "<a>:1"],
  ["# comment\n\nFROM a\n\n# more\n", "<a>:0"],
  ["\uFEFFFROM a", "<a>:0"],
  ["FROM a\r\nRUN b\r\n", "<a>:1"],
  ["# syntax=docker/dockerfile:1\nFROM a", "<a>:0"],
  ["# check=skip=all\n# syntax=x\nFROM a", "<a>:0"],
  ["# unknown=1\n# escape=`\nFROM a\nRUN a \\\nb", "<a>:1"],
  ["FROM a\nRUN b \\", "<a>:1"],
  ["FROM a\n# escape=`\nRUN b \\\nc", "<a>:1"],
];
for (const [text, expected] of files) {
  test(`stages of ${JSON.stringify(text)}`, () => {
    const found = parseDockerfile(text, "Dockerfile").stages.map(
      ({ name, base, platform, instructions }) => `${name}<${base}>${platform}:${instructions.length}`,
    );
    assert.equal(found.join(" "), expected);
  });
}

const frontends: readonly (readonly [string, boolean])[] = [
  ["docker/dockerfile", true],
  ["docker/dockerfile:1", true],
  ["docker/dockerfile:1.7-labs", true],
  ["docker.io/docker/dockerfile-upstream:master", true],
  [`docker/dockerfile:1@sha256:${"0".repeat(64)}`, true],
  ["example.com/own/frontend:2", false],
  ["docker/dockerfilex", false],
  ["docker/other:1", false],
];
for (const [image, isOwn] of frontends) {
  test(`frontend ${image}`, () => {
    const { warnings, stages } = parseDockerfile(
      `# syntax = ${image}\nFROM a\nRUN <<E\nb\nE\n`,
      "Dockerfile",
    );
    assert.equal(stages[0]?.instructions.length, 1);
    assert.deepEqual(
      warnings,
      isOwn
        ? []
        : [`[WARNING]: The frontend "${image}" is not run: read as a Dockerfile of docker/dockerfile:1`],
    );
  });
}

/** What is refused, the line it names, and a part of what it says. */
const refused: readonly (readonly [string, number, string])[] = [
  ["", 1, "file with no instructions"],
  ["# only\n\n", 1, "file with no instructions"],
  ["RUN a", 1, "no build stage in current context"],
  ["ARG a\nRUN b", 2, "no build stage in current context"],
  ["ARG a", 1, "no build stage in current context"],
  ["FROM", 1, "FROM requires either one or three arguments"],
  ["FROM a b", 1, "FROM requires either one or three arguments"],
  ["FROM a AS", 1, "FROM requires either one or three arguments"],
  ["FROM a of b", 1, "FROM requires either one or three arguments"],
  ["FROM a AS 1", 1, "invalid name for build stage"],
  ["FROM a AS a/b", 1, "invalid name for build stage"],
  ["FROM --foo=x a", 1, "unknown flag: foo"],
  ["FROM x\nFOO", 2, "unknown instruction: FOO"],
  ["FROM x\nRUM a", 2, "did you mean RUN?"],
  ["FROM x\nCOPYY a b", 2, "did you mean COPY?"],
  ["FRM x", 1, "did you mean FROM?"],
  ["FROM x\nCONSTRUCTOR a", 2, "unknown instruction"],
  ["FROM x\n__PROTO__ a", 2, "unknown instruction"],
  ["FROM x\n\n\nRUN", 4, "RUN requires at least one argument"],
  ["FROM x\nRUN --mount=type=foo,target=/a b", 2, "unsupported mount type"],
  ["FROM x\nRUN --mount=type=cache b", 2, "target is required"],
  ["FROM x\nRUN --mount=type=cache,target=/c,sharing=maybe b", 2, "unsupported sharing"],
  ["FROM x\nRUN --mount=type=cache,target=/c,foo=1 b", 2, "unexpected key 'foo'"],
  ["FROM x\nRUN --mount=type=tmpfs,target=/c,size=many b", 2, "invalid value"],
  ["FROM x\nRUN --mount=type=cache,target=/c,mode=9 b", 2, "invalid value"],
  ["FROM x\nRUN --network=bridge b", 2, "invalid network mode"],
  ["FROM x\nRUN --security=root b", 2, "security"],
  ["FROM x\nRUN --network=none --network=none b", 2, "duplicate flag"],
  ["FROM x\nRUN --foo b", 2, "unknown flag: foo"],
  ["FROM x\nRUN --network b", 2, "missing a value on flag"],
  ["FROM x\nRUN --network=none", 2, "RUN requires at least one argument"],
  ["FROM x\nRUN <<E\nabc", 2, "unterminated heredoc"],
  ["FROM x\nRUN <<E\n E", 2, "unterminated heredoc"],
  ["FROM x\nCOPY a", 2, "COPY requires at least two arguments"],
  ["FROM x\nCOPY", 2, "COPY requires at least two arguments"],
  ["FROM x\nADD a", 2, "ADD requires at least two arguments"],
  ["FROM x\nCOPY --link=maybe a b", 2, "expecting boolean value"],
  ["FROM x\nCOPY --checksum=x a b", 2, "unknown flag: checksum"],
  ["FROM x\nADD --from=x a b", 2, "unknown flag: from"],
  ["FROM x\nENV", 2, "ENV requires at least one argument"],
  ["FROM x\nENV a", 2, "ENV must have two arguments"],
  ["FROM x\nENV a=b c", 2, "can't find = in"],
  ["FROM x\nENV =b", 2, "names can not be blank"],
  ["FROM x\nLABEL a", 2, "LABEL must have two arguments"],
  ["FROM x\nLABEL a=b c", 2, "can't find ="],
  ["FROM x\nARG", 2, "ARG requires at least one argument"],
  ["FROM x\nARG =b", 2, "ARG names can not be blank"],
  ["FROM x\nUSER", 2, "USER requires exactly one argument"],
  ["FROM x\nWORKDIR", 2, "WORKDIR requires exactly one argument"],
  ["FROM x\nSTOPSIGNAL", 2, "STOPSIGNAL requires exactly one argument"],
  ["FROM x\nSTOPSIGNAL A B", 2, "STOPSIGNAL requires exactly one argument"],
  ["FROM x\nMAINTAINER", 2, "MAINTAINER requires exactly one argument"],
  ["FROM x\nEXPOSE", 2, "EXPOSE requires at least one argument"],
  ["FROM x\nVOLUME", 2, "VOLUME requires at least one argument"],
  ["FROM x\nVOLUME []", 2, "VOLUME requires at least one argument"],
  ['FROM x\nVOLUME [""]', 2, "can not be an empty string"],
  ["FROM x\nSHELL a", 2, "SHELL requires the arguments to be in JSON form"],
  ["FROM x\nSHELL []", 2, "SHELL requires at least one argument"],
  ["FROM x\nHEALTHCHECK", 2, "HEALTHCHECK requires at least one argument"],
  ["FROM x\nHEALTHCHECK a", 2, "Unknown type"],
  ["FROM x\nHEALTHCHECK NONE a", 2, "takes no arguments"],
  ["FROM x\nHEALTHCHECK CMD", 2, "Missing command"],
  ["FROM x\nHEALTHCHECK --interval=5 CMD a", 2, "invalid duration"],
  ["FROM x\nHEALTHCHECK --interval=1us CMD a", 2, "cannot be less than 1ms"],
  ["FROM x\nHEALTHCHECK --interval=-5s CMD a", 2, "cannot be negative"],
  ["FROM x\nHEALTHCHECK --retries=x CMD a", 2, "retries"],
  ["FROM x\nONBUILD", 2, "ONBUILD requires at least one argument"],
  ["FROM x\nONBUILD ONBUILD RUN a", 2, "Chaining ONBUILD"],
  ["FROM x\nONBUILD FROM y", 2, "isn't allowed as an ONBUILD trigger"],
  ["FROM x\nONBUILD MAINTAINER y", 2, "isn't allowed as an ONBUILD trigger"],
  ["# escape=x\nFROM x", 1, "invalid escape token"],
  ["# escape=`\n# escape=`\nFROM x", 2, "only one escape parser directive"],
  [`FROM x\nRUN ${"a".repeat(70_000)}`, 2, "line greater than maximum allowed size"],
];
for (const [text, line, reason] of refused) {
  test(`refused: ${JSON.stringify(text.slice(0, 60))}`, () => {
    assert.throws(
      () => parseDockerfile(text, "some/Dockerfile"),
      (error: unknown) => {
        assert.ok(error instanceof DockerfileError);
        assert.ok(error.message.includes(reason), error.message);
        return true;
      },
    );
    // The place: of the file where the statement is, of a trigger's own text where that is wrong.
    try {
      parseDockerfile(text, "some/Dockerfile");
    } catch (error) {
      assert.ok(error instanceof DockerfileError);
      assert.equal(error.position.line, line);
      assert.match(error.message, /some\/Dockerfile:\d+:\d+\n/);
    }
  });
}

test("an error shows the line", () => {
  assert.throws(() => parseDockerfile("FROM x\n  FOO bar\n", "Dockerfile"), {
    message:
      "dockerfile parse error on line 2: unknown instruction: FOO\nDockerfile:2:3\n   2 |   FOO bar\n     |   ^",
  });
});

test("what is shown as a step is the joined text", () => {
  const { stages } = parseDockerfile("FROM x AS y\nRUN a && \\\n    b\n", "Dockerfile");
  assert.equal(stages[0]?.original, "FROM x AS y");
  assert.equal(stages[0]?.instructions[0]?.original, "RUN a &&     b");
  assert.deepEqual(stages[0]?.instructions[0]?.position, { line: 2, column: 1 });
});

test("lines broken at any blank mean the same", () => {
  const word = fc
    .stringMatching(/^[a-z0-9=./-]{1,8}$/)
    .filter((text) => !text.startsWith("-") && !text.startsWith("#"));
  fc.assert(
    fc.property(
      fc.array(word, { minLength: 1, maxLength: 8 }),
      fc.array(fc.boolean(), { minLength: 8, maxLength: 8 }),
      (all, breaks) => {
        const joined = all.join(" ");
        const broken = all
          .map((text, index) => (index > 0 && breaks[index] === true ? `\\\n${text}` : text))
          .join(" ");
        return (
          JSON.stringify(parsed(`FROM x\nRUN ${joined}`)) === JSON.stringify(parsed(`FROM x\nRUN ${broken}`))
        );
      },
    ),
  );
});

test("comments and empty lines between instructions change nothing", () => {
  const filler = fc
    .array(fc.constantFrom("", "# x", "  # y", "   "), { maxLength: 4 })
    .map((lines) => lines.map((line) => `${line}\n`).join(""));
  fc.assert(
    fc.property(filler, filler, (first, second) => {
      const text = `FROM x\n${first}RUN a\n${second}CMD b\n`;
      return JSON.stringify(parsed(text)) === JSON.stringify(parsed("FROM x\nRUN a\nCMD b"));
    }),
  );
});

test("any text is parsed or refused with its place", () => {
  const piece = fc.constantFrom(
    "FROM x\n",
    "RUN ",
    "COPY ",
    "ENV ",
    "a",
    "=",
    " ",
    "\n",
    "\\",
    "\\\n",
    '"',
    "'",
    "[",
    "]",
    "<<E",
    "E\n",
    "--mount=",
    "#",
    "$",
    "{",
    "}",
    ",",
    "type=cache",
    "\t",
    "ONBUILD ",
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
      try {
        parseDockerfile(pieces.join(""), "Dockerfile");
      } catch (error) {
        assert.ok(error instanceof DockerfileError, String(error));
        assert.ok(error.position.line >= 1 && error.position.column >= 1);
      }
    }),
    { numRuns: 3000 },
  );
});
