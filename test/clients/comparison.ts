import { spawnSync } from "node:child_process";

/**
 * The comparison: the same command lines against two daemons or with two command lines, and what differs in exit code,
 * standard output and standard error. What is allowed to differ is the closed table below and nothing else.
 */
export interface Normalisation {
  readonly why: string;
  readonly pattern: RegExp;
  readonly replacement: string | ((substring: string, ...groups: string[]) => string);
}

export const normalisations: readonly Normalisation[] = [
  {
    why: "the roots are the test's own",
    pattern: /\/tmp\/skiff-[A-Za-z0-9_-]+\/(data|run|exec)/g,
    replacement: "<root>",
  },
  {
    why: "the sockets are the test's own",
    pattern: /unix:\/\/\/tmp\/skiff-[A-Za-z0-9_./-]+/g,
    replacement: "unix://<socket>",
  },
  {
    why: "a registry's port is chosen by the kernel",
    pattern: /127\.0\.0\.1:\d{4,5}(?=\/)/g,
    replacement: "<registry>",
  },
  {
    why: "times are those of the run",
    pattern: /\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| ?[+-]\d\d:?\d\d)?( UTC)?/g,
    replacement: "<time>",
  },
  {
    why: "ages are those of the run; Docker says them in words",
    pattern:
      /\b(Less than a second|About a minute|About an hour|\d+ (seconds?|minutes?|hours?|days?|weeks?|months?|years?))( ago)?( {1,})/g,
    replacement: (_all, _a, _b, ago, padding) =>
      `<age>${ago ?? ""}${(padding ?? "").length > 1 ? "  " : " "}`,
  },
  {
    why: "the same at the end of a line",
    pattern:
      /\b(Less than a second|About a minute|About an hour|\d+ (seconds?|minutes?|hours?|days?|weeks?|months?|years?))( ago)?$/gm,
    replacement: (_all, _a, _b, ago) => `<age>${ago ?? ""}`,
  },
  { why: "generated names are random", pattern: /\b[a-z]+_[a-z]+(?=\s*$)/gm, replacement: "<name>" },
  {
    why: "rows of top: process ids, start and CPU times are the kernel's, the terminal is looked up in the daemon's own /dev",
    pattern: /^(\S+ +)\d+( +)\d+( +)\d+( +)\d\d:\d\d +(?:\?|pts\/\d+)( +)\d\d:\d\d:\d\d/gm,
    replacement: "$1<pid>$2<pid>$3<c>$4<start> <tty>$5<cpu>",
  },
];

/** Texts where Docker's own wording changed between the reference (20.10) and the engine that we follow (28). */
export const newerWordings: readonly Normalisation[] = [
  {
    why: "Engine 23 and later name the task step",
    pattern: /failed to create task for container: /g,
    replacement: "",
  },
  {
    why: "Engine 28 ends a start failure's text without containerd's ': unknown'",
    pattern: /: unknown$/gm,
    replacement: "",
  },
  {
    why: "Engine 25 and later: removing a running container",
    pattern:
      /(You cannot remove a running container .+?\. Stop the container before attempting removal or force remove|cannot remove container "[^"]+": container is running: stop the container before removing or force remove)/g,
    replacement: "<cannot remove a running container>",
  },
  {
    why: "Engine 24 and later begin these in lower case, and name a paused container by its id",
    pattern: /\b(Container|container) (\S+|<id \d+> ?) is (not running|already paused|not paused|paused)/g,
    replacement: (_all, _word, name, state) =>
      `container ${state === "paused" ? "<container>" : name} is ${state}`,
  },
  { why: "the same", pattern: /\b[Cc]annot kill container/g, replacement: "cannot kill container" },
  { why: "the same", pattern: /\b[Ii]nvalid filter/g, replacement: "invalid filter" },
  {
    why: "Engine 25 and later say it once",
    pattern: /no such image: \S+: No such image/g,
    replacement: "No such image",
  },
  {
    why: "Engine 24 and later list the policies",
    pattern: /invalid restart policy(?: '(\w+)'|: unknown policy '(\w+)'; use one of .*)$/gm,
    replacement: (_all, old, now) => `invalid restart policy ${old ?? now}`,
  },
  {
    why: "Engine 24 and later look the name up before plugins",
    pattern:
      /(error looking up logging plugin (\w+): plugin "\w+" not found|logger: no log driver named '(\w+)' is registered)/g,
    replacement: (_all, _text, old, now) => `no log driver ${old ?? now}`,
  },
  {
    why: "Engine 24 and later unpack in their own process",
    pattern: /(Error processing tar file\(exit status 1\)|failed to register layer): /g,
    replacement: "cannot unpack: ",
  },
  {
    why: "ports are published over IPv4 only until networks have IPv6 (docs/SCOPE.md)",
    pattern: /(, \[::\]:\d+->\d+\/\w+|^(\d+\/\w+ -> )?\[::\]:\d+\n)/gm,
    replacement: "",
  },
  {
    why: "the same as Docker's client 20.10 writes it",
    pattern: /(, :::\d+->\d+\/\w+|^(\d+\/\w+ -> )?:::\d+\n)/gm,
    replacement: "",
  },
  {
    why: "Docker's client 20.10 says now and then that it no longer waits for a container that never began",
    pattern: /^time="<time>" level=error msg="error waiting for container: context canceled"\n/gm,
    replacement: "",
  },
  {
    why: "refused at the start, not at create (docs/SCOPE.md): only Docker's client 20.10 tells the two apart",
    pattern: /(Cannot mkdir: \S+ is not a directory\.)\nSee 'docker run --help'\.$/gm,
    replacement: "$1",
  },
  { why: "util-linux script shows the end of its own input", pattern: /\^@|\^D[\b]*/g, replacement: "" },
];

export interface Step {
  /** Arguments after the program's name. */
  readonly args: readonly string[];
  readonly stdin?: string;
  /** Run in a real pseudo-terminal (util-linux `script`), with this typed. */
  readonly terminal?: boolean;
  readonly env?: Readonly<Record<string, string>>;
  /** Where the reference's exit code is an older engine's: both are pinned. */
  readonly exitCodes?: { readonly reference: number; readonly ours: number; readonly why: string };
  /** Lines are compared without their order, with the reason. */
  readonly sorted?: string;
  /** What is not compared in this step, with the reason: only whole streams, for output that is the host's own. */
  readonly ignore?: { readonly stream: "stdout" | "stderr"; readonly why: string };
}

export interface Result {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Side {
  readonly name: string;
  readonly program: string;
  readonly host: string;
}

export function runStep(side: Side, step: Step): Result {
  const env = { ...process.env, DOCKER_HOST: side.host, DOCKER_CLI_HINTS: "false", ...step.env };
  const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
  const [program, args] = step.terminal
    ? ["script", ["-qefc", [side.program, ...step.args].map(quote).join(" "), "/dev/null"]]
    : [side.program, [...step.args]];
  const result = spawnSync(program, args, {
    env,
    input: step.stdin ?? "",
    encoding: "utf8",
    timeout: 60_000,
    maxBuffer: 64 * 1024 * 1024,
  });
  return { exitCode: result.status ?? -1, stdout: result.stdout, stderr: result.stderr };
}

/** Replaces random ids by `<id N>`, numbered in order of first appearance; a short form gets its long form's number. */
class IdNames {
  readonly #names = new Map<string, string>();

  rename(text: string): string {
    return text.replace(
      /\b(sha256:)?([0-9a-f]{64}|[0-9a-f]{12})\b/g,
      (_all, prefix: string | undefined, id: string) => {
        const key = id.slice(0, 12);
        let name = this.#names.get(key);
        if (name === undefined) {
          name = `<id ${this.#names.size + 1}>`;
          this.#names.set(key, name);
        }
        return `${prefix ?? ""}${name}${id.length === 12 ? " " : ""}`;
      },
    );
  }
}

function normalise(text: string, ids: IdNames, programName: string): string {
  let result = ids.rename(text);
  for (const { pattern, replacement } of [...normalisations, ...newerWordings]) {
    result = result.replace(pattern, replacement as string);
  }
  // A program prints its own name; columns are as wide as their widest cell, which an id or age may be.
  return result
    .replaceAll(programName, "docker")
    .replace(/ {2,}/g, "  ")
    .replace(/[ \t]+$/gm, "");
}

export interface Difference {
  readonly step: string;
  readonly part: "exit code" | "stdout" | "stderr";
  readonly left: string;
  readonly right: string;
}

/** Compares two recordings of the same steps. */
export function compare(
  steps: readonly Step[],
  left: { readonly side: Side; readonly results: readonly Result[] },
  right: { readonly side: Side; readonly results: readonly Result[] },
): Difference[] {
  const differences: Difference[] = [];
  const nameOf = (side: Side): string => side.program.split("/").at(-1) ?? side.program;
  const leftIds = new IdNames();
  const rightIds = new IdNames();
  steps.forEach((step, index) => {
    const a = left.results[index]!;
    const b = right.results[index]!;
    const label = `${step.terminal ? "(terminal) " : ""}${step.args.join(" ")}`;
    const { exitCodes } = step;
    const asAgreed =
      exitCodes !== undefined && a.exitCode === exitCodes.reference && b.exitCode === exitCodes.ours;
    if (a.exitCode !== b.exitCode && !asAgreed) {
      differences.push({
        step: label,
        part: "exit code",
        left: String(a.exitCode),
        right: String(b.exitCode),
      });
    }
    for (const part of ["stdout", "stderr"] as const) {
      const order = (text: string): string =>
        step.sorted === undefined ? text : text.split("\n").sort().join("\n");
      const l = order(normalise(a[part], leftIds, nameOf(left.side)));
      const r = order(normalise(b[part], rightIds, nameOf(right.side)));
      if (l !== r && step.ignore?.stream !== part) differences.push({ step: label, part, left: l, right: r });
    }
  });
  return differences;
}

export function describeDifferences(differences: readonly Difference[]): string {
  return differences
    .map(
      ({ step, part, left, right }) =>
        `$ ${step}\n  ${part}:\n  - ${left.trimEnd().replaceAll("\n", "\n  - ")}\n  + ${right.trimEnd().replaceAll("\n", "\n  + ")}`,
    )
    .join("\n");
}
