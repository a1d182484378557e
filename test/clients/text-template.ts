import assert from "node:assert/strict";

/**
 * Compares texts with what they should be but for what no two runs share. A template may hold `<id:x>` (12 hexadecimal
 * digits), `<full:x>` (64), `<age>`, `<size>`, `<name:x>` (a generated name): what `x` stands for is learned where it first
 * appears and must be the same ever after, in both lengths. Runs of blanks count as two, since columns are as wide as their
 * widest cell.
 */
export class TextTemplates {
  readonly #known = new Map<string, string>();

  /** Makes `<id:name>` known from elsewhere. */
  learn(name: string, hex: string): void {
    this.#known.set(`id:${name}`, hex.replace("sha256:", "").slice(0, 12));
  }

  /** The 12 digits of `<id:name>`. */
  id(name: string): string {
    const value = this.#known.get(`id:${name}`);
    assert.ok(value !== undefined, `nothing was learned of <id:${name}>`);
    return value;
  }

  match(actual: string, template: string, what: string): void {
    const names: string[] = [];
    const settled = tidy(template);
    const source = settled.replace(
      /<(id|full|name):(\w+)>|<(age|size)>|[.*+?^${}()|[\]\\]/g,
      (token, kind, name, plain) => {
        if (plain === "age") return "(?:Less than a second|About an? \\w+|\\d+ \\w+)(?: ago)?";
        if (plain === "size") return "[\\d.]+[kMG]?B";
        if (kind === undefined) return `\\${token}`;
        names.push(kind === "name" ? `name:${name}` : `id:${name}`);
        return kind === "name" ? "(\\w+)" : kind === "id" ? "([0-9a-f]{12})" : "([0-9a-f]{64})";
      },
    );
    const found = new RegExp(`^${source}$`).exec(tidy(actual));
    // Both texts in the message: what differs is easier seen than told.
    if (found === null) assert.equal(tidy(actual), settled, what);
    for (const [index, name] of names.entries()) {
      const value = found![index + 1]!.slice(0, name.startsWith("id:") ? 12 : undefined);
      const known = this.#known.get(name) ?? value;
      assert.equal(value, known, `${what}: <${name}> changed`);
      this.#known.set(name, known);
    }
  }
}

function tidy(text: string): string {
  return text
    .replace(/ {2,}/g, "  ")
    .replace(/[ \t\r]+$/gm, "")
    .trimEnd();
}
