import { EngineError } from "#base/errors.ts";
import type { RuntimeStartFailure } from "./runtime.ts";

/** Docker answers 400 for 126 and 127 on start, 500 else; `message` is already in Docker's words where they are known. */
export class RuntimeStartError extends EngineError implements RuntimeStartFailure {
  readonly exitCode: 126 | 127 | 128;
  /** The runtime's own text, for the log. */
  readonly detail: string;

  constructor(message: string, exitCode: 126 | 127 | 128, detail: string = message) {
    super(exitCode === 128 ? "system" : "invalid", message, { code: "start-failed" });
    this.name = "RuntimeStartError";
    this.exitCode = exitCode;
    this.detail = detail;
  }
}
