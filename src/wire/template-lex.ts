/** Tokens of a Go text/template (https://pkg.go.dev/text/template). Spaces inside actions are tokens: they part operands. */
export type TokenKind =
  | "assign"
  | "bool"
  | "char"
  | "charConstant"
  | "declare"
  | "dot"
  | "eof"
  | "error"
  | "field"
  | "identifier"
  | "keyword"
  | "leftDelim"
  | "leftParen"
  | "nil"
  | "number"
  | "pipe"
  | "rightDelim"
  | "rightParen"
  | "space"
  | "string"
  | "text"
  | "variable";

export interface Token {
  readonly kind: TokenKind;
  readonly text: string;
  /** Offset in the template's text. */
  readonly at: number;
  /** Counted from 1. */
  readonly line: number;
}

const keywords: ReadonlySet<string> = new Set([
  "block",
  "break",
  "continue",
  "define",
  "else",
  "end",
  "if",
  "range",
  "template",
  "with",
]);

const spaces = " \t\r\n";
const wordPattern = /[\p{L}\p{Nd}_]+/uy;
const numberPattern =
  /[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d+)?)/y;

/** Cuts a template into tokens. An error becomes the last token: the parser reports it when it gets there, as Go's does. */
export function lexTemplate(source: string): Token[] {
  return new Lexer(source).run();
}

class Lexer {
  readonly #source: string;
  readonly #tokens: Token[] = [];
  #at = 0;
  #line = 1;
  #failed = false;
  #depth = 0;

  constructor(source: string) {
    this.#source = source;
  }

  run(): Token[] {
    while (!this.#failed) {
      const open = this.#source.indexOf("{{", this.#at);
      this.#text(open < 0 ? this.#source.length : open);
      if (open < 0) {
        this.#push("eof", "", this.#at);
        break;
      }
      this.#action();
    }
    return this.#tokens;
  }

  #text(end: number): void {
    const start = this.#at;
    let text = this.#source.slice(start, end);
    if (this.#trimsBefore(end)) text = trimRight(text);
    if (text !== "") this.#push("text", text, start);
    this.#advance(end);
  }

  // `{{- ` (dash and a space) trims the text before it.
  #trimsBefore(open: number): boolean {
    return this.#source.startsWith("{{-", open) && spaces.includes(this.#source[open + 3] ?? "x");
  }

  #action(): void {
    const open = this.#at;
    const trims = this.#trimsBefore(open);
    const inner = open + (trims ? 4 : 2);
    if (this.#source.startsWith("/*", inner)) {
      this.#comment(inner);
      return;
    }
    this.#push("leftDelim", "{{", open);
    this.#advance(inner);
    this.#depth = 0;
    while (!this.#failed && !this.#rightDelim()) this.#inside();
  }

  #comment(inner: number): void {
    const close = this.#source.indexOf("*/", inner);
    if (close < 0) {
      this.#fail("unclosed comment");
      return;
    }
    this.#advance(close + 2);
    const end = this.#rightDelimAt(this.#at);
    if (end === undefined) this.#fail("comment ends before closing delimiter");
    else this.#leaveAction(end);
  }

  /** Where the action ends when a right delimiter is at `at`, and whether text after it is trimmed. */
  #rightDelimAt(at: number): { end: number; trims: boolean } | undefined {
    if (this.#source.startsWith("}}", at)) return { end: at + 2, trims: false };
    if (spaces.includes(this.#source[at] ?? "x") && this.#source.startsWith("-}}", at + 1)) {
      return { end: at + 4, trims: true };
    }
    return undefined;
  }

  #leaveAction(found: { end: number; trims: boolean }): void {
    this.#advance(found.end);
    if (!found.trims) return;
    let at = found.end;
    while (at < this.#source.length && spaces.includes(this.#source[at]!)) at += 1;
    this.#advance(at);
  }

  #rightDelim(): boolean {
    const found = this.#rightDelimAt(this.#at);
    if (found === undefined) return false;
    if (this.#depth > 0) {
      this.#fail("unclosed left paren");
      return true;
    }
    this.#push("rightDelim", "}}", this.#at);
    this.#leaveAction(found);
    return true;
  }

  #inside(): void {
    const source = this.#source;
    const start = this.#at;
    const char = source[start];
    if (char === undefined) {
      this.#fail("unclosed action");
    } else if (spaces.includes(char)) {
      let end = start;
      while (end < source.length && spaces.includes(source[end]!) && this.#rightDelimAt(end) === undefined) {
        end += 1;
      }
      this.#take("space", end);
    } else if (source.startsWith(":=", start)) this.#take("declare", start + 2);
    else if (char === "=") this.#take("assign", start + 1);
    else if (char === "|") this.#take("pipe", start + 1);
    else if (char === '"') this.#quoted();
    else if (char === "`") this.#rawQuoted();
    else if (char === "'") this.#charConstant();
    else if (char === "$") this.#word("variable", start + 1);
    else if (char === "." && !/\d/.test(source[start + 1] ?? "")) this.#dotOrField();
    else if (/[\d+.-]/.test(char)) this.#number();
    else if (char === "(") {
      this.#depth += 1;
      this.#take("leftParen", start + 1);
    } else if (char === ")") {
      this.#depth -= 1;
      if (this.#depth < 0) this.#fail("unexpected right paren");
      else this.#take("rightParen", start + 1);
    } else if (/[\p{L}_]/u.test(char)) this.#identifier();
    else if (/[\x21-\x7e]/.test(char)) this.#take("char", start + 1);
    else {
      const code = source.codePointAt(start)!;
      const hex = code.toString(16).toUpperCase().padStart(4, "0");
      this.#fail(`unrecognized character in action: U+${hex} '${String.fromCodePoint(code)}'`);
    }
  }

  #wordEnd(from: number): number {
    wordPattern.lastIndex = from;
    return wordPattern.test(this.#source) ? wordPattern.lastIndex : from;
  }

  #dotOrField(): void {
    const end = this.#wordEnd(this.#at + 1);
    if (end === this.#at + 1) this.#take("dot", end);
    else this.#word("field", this.#at + 1);
  }

  #word(kind: TokenKind, from: number): void {
    const end = this.#wordEnd(from);
    if (this.#atTerminator(end)) this.#take(kind, end);
    else this.#badCharacter(end);
  }

  #identifier(): void {
    const end = this.#wordEnd(this.#at);
    if (!this.#atTerminator(end)) {
      this.#badCharacter(end);
      return;
    }
    const word = this.#source.slice(this.#at, end);
    let kind: TokenKind = "identifier";
    if (keywords.has(word)) kind = "keyword";
    else if (word === "true" || word === "false") kind = "bool";
    else if (word === "nil") kind = "nil";
    this.#take(kind, end);
  }

  #atTerminator(at: number): boolean {
    const char = this.#source[at];
    return (
      char === undefined ||
      spaces.includes(char) ||
      ".,|:()=".includes(char) ||
      this.#source.startsWith("}}", at)
    );
  }

  #badCharacter(at: number): void {
    const code = this.#source.codePointAt(at)!;
    const hex = code.toString(16).toUpperCase().padStart(4, "0");
    this.#fail(`bad character U+${hex} '${String.fromCodePoint(code)}'`);
  }

  #quoted(): void {
    let at = this.#at + 1;
    for (;;) {
      const char = this.#source[at];
      if (char === undefined || char === "\n") {
        this.#fail("unterminated quoted string");
        return;
      }
      if (char === '"') break;
      at += char === "\\" ? 2 : 1;
    }
    this.#take("string", at + 1);
  }

  #rawQuoted(): void {
    const close = this.#source.indexOf("`", this.#at + 1);
    if (close < 0) this.#fail("unterminated raw quoted string");
    else this.#take("string", close + 1);
  }

  #charConstant(): void {
    const match = /'(?:\\.[^']*|[^'\\\n])'/uy;
    match.lastIndex = this.#at;
    if (match.test(this.#source)) this.#take("charConstant", match.lastIndex);
    else this.#fail("unterminated character constant");
  }

  #number(): void {
    numberPattern.lastIndex = this.#at;
    const found = numberPattern.test(this.#source);
    const end = found ? numberPattern.lastIndex : this.#wordEnd(this.#at + 1);
    if (found && this.#wordEnd(end) === end) this.#take("number", end);
    else
      this.#fail(
        `bad number syntax: ${JSON.stringify(this.#source.slice(this.#at, this.#wordEnd(end) + (found ? 0 : 1)))}`,
      );
  }

  #take(kind: TokenKind, end: number): void {
    this.#push(kind, this.#source.slice(this.#at, end), this.#at);
    this.#advance(end);
  }

  #advance(end: number): void {
    for (let at = this.#at; at < end; at += 1) if (this.#source[at] === "\n") this.#line += 1;
    this.#at = end;
  }

  #push(kind: TokenKind, text: string, at: number): void {
    this.#tokens.push({ kind, text, at, line: this.#line });
  }

  #fail(message: string): void {
    this.#failed = true;
    this.#push("error", message, this.#at);
  }
}

function trimRight(text: string): string {
  let end = text.length;
  while (end > 0 && spaces.includes(text[end - 1]!)) end -= 1;
  return text.slice(0, end);
}
