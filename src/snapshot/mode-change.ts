/** One clause of a symbolic mode, `go=rX` (chmod(1)). */
export interface ModeChange {
  /** Of u, g, o. */
  readonly who: string;
  readonly operator: "+" | "-" | "=";
  /** Of r, w, x, X, s, t. */
  readonly permissions: string;
}

/** Reads a symbolic mode, undefined for what is none. */
export function parseModeChanges(text: string): ModeChange[] | undefined {
  const changes: ModeChange[] = [];
  for (const clause of text.split(",")) {
    const match = /^([ugoa]*)((?:[-+=][rwxXst]*)+)$/.exec(clause);
    if (match === null) return undefined;
    const who = match[1] === "" || match[1]?.includes("a") === true ? "ugo" : (match[1] ?? "");
    for (const [, operator = "=", permissions = ""] of (match[2] ?? "").matchAll(/([-+=])([rwxXst]*)/g)) {
      if (permissions === "" && operator !== "=") return undefined;
      changes.push({ who, operator: operator as ModeChange["operator"], permissions });
    }
  }
  return changes;
}

const shifts: Readonly<Record<string, number>> = { u: 6, g: 3, o: 0 };
const plainBits: Readonly<Record<string, number>> = { r: 4, w: 2, x: 1 };

/** A mode with the changes made, in their order. `X` is `x` for directories and for what somebody may execute. */
export function applyModeChanges(
  before: number,
  isDirectory: boolean,
  changes: readonly ModeChange[],
): number {
  let mode = before;
  for (const { who, operator, permissions } of changes) {
    const mayRun = isDirectory || (mode & 0o111) !== 0;
    let bits = 0;
    let mask = 0;
    for (const one of who) {
      const shift = shifts[one] ?? 0;
      mask |= 7 << shift;
      if (one === "u") mask |= 0o4000;
      if (one === "g") mask |= 0o2000;
      for (const permission of permissions) {
        if (permission === "X") bits |= mayRun ? 1 << shift : 0;
        else bits |= (plainBits[permission] ?? 0) << shift;
      }
      if (permissions.includes("s")) bits |= one === "u" ? 0o4000 : one === "g" ? 0o2000 : 0;
    }
    if (permissions.includes("t")) bits |= 0o1000;
    if (operator === "+") mode |= bits;
    else if (operator === "-") mode &= ~bits;
    else mode = (mode & ~mask) | bits;
  }
  return mode;
}
