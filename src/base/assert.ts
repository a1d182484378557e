/**
 * Crash-only assertions (invariant 8): a broken invariant ends the daemon, a bad request never does.
 * The daemon installs a handler for `AssertionFailure` that logs and exits; tests see a plain throw.
 */
export class AssertionFailure extends Error {
  constructor(message: string) {
    super(message);
    this.name = "AssertionFailure";
  }
}

export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionFailure(message);
}
