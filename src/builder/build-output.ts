/** What a build tells. Texts are for `stream` lines, ids for `aux` ones. */
export type BuildLine =
  | { readonly kind: "stdout" | "stderr"; readonly text: string }
  | { readonly kind: "aux"; readonly id: string };

export type BuildReport = (line: BuildLine) => void;

/** Output kept for a stage whose turn has not come; what BuildKit's log limit is, too. */
const heldBytesMax = 2 * 1024 * 1024;

/**
 * Puts the output of stages that run at the same time into the Dockerfile's order: the first unfinished stage speaks, the
 * others are kept until it is their turn.
 */
export class OrderedOutput {
  readonly #report: BuildReport;
  readonly #held: BuildLine[][] = [];
  readonly #bytes: number[] = [];
  readonly #ended: boolean[] = [];
  #turn = 0;

  constructor(report: BuildReport, stages: number) {
    this.#report = report;
    for (let index = 0; index < stages; index += 1) {
      this.#held.push([]);
      this.#bytes.push(0);
      this.#ended.push(false);
    }
  }

  of(stage: number): BuildReport {
    return (line) => {
      if (stage === this.#turn) {
        this.#report(line);
        return;
      }
      const bytes = (this.#bytes[stage] ?? 0) + (line.kind === "aux" ? 0 : line.text.length);
      const clipped = (this.#bytes[stage] ?? 0) > heldBytesMax;
      this.#bytes[stage] = bytes;
      if (line.kind !== "aux" && clipped) return;
      this.#held[stage]?.push(line);
      if (bytes > heldBytesMax && !clipped) {
        this.#held[stage]?.push({ kind: "stdout", text: "\n[output clipped, log limit 2MiB reached]\n" });
      }
    };
  }

  /** A stage is over: the next one's output follows. */
  end(stage: number): void {
    this.#ended[stage] = true;
    while (this.#ended[this.#turn] === true) {
      this.#turn += 1;
      for (const line of this.#held[this.#turn] ?? []) this.#report(line);
      this.#held[this.#turn] = [];
    }
  }
}
