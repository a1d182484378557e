/** A template that does not parse or fails while it runs; the message is Go's. */
export class TemplateError extends Error {
  /** What was written before it failed. */
  readonly output: string;

  constructor(message: string, output = "") {
    super(message);
    this.name = "TemplateError";
    this.output = output;
  }
}
