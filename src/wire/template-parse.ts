import { TemplateError } from "./template-error.ts";
import { goQuote } from "./template-format.ts";
import { lexTemplate, type Token } from "./template-lex.ts";
import { goUnquote, parseNumber } from "./template-literal.ts";
import {
  type Command,
  type Node,
  type Operand,
  operandText,
  type ParsedTemplate,
  type Pipe,
} from "./template-node.ts";

/**
 * Parses a template. `known` says which functions exist. Throws `TemplateError` with Go's words
 * (`template: :1: function "x" not defined`).
 */
export function parseTemplateText(source: string, known: (name: string) => boolean): ParsedTemplate {
  return new Parser(source, known).run();
}

interface ListEnd {
  readonly nodes: Node[];
  readonly by: "end" | "else" | "eof";
}

/** Go stops at the same kind of depth; the recursion here must too. */
const depthMax = 1000;

class Parser {
  readonly #tokens: Token[];
  readonly #known: (name: string) => boolean;
  readonly #defined = new Map<string, readonly Node[]>();
  #next = 0;
  #variables: string[] = ["$"];
  #rangeDepth = 0;
  #depth = 0;

  constructor(source: string, known: (name: string) => boolean) {
    this.#tokens = lexTemplate(source);
    this.#known = known;
  }

  run(): ParsedTemplate {
    const list = this.#list(true);
    if (list.by !== "eof") this.#fail(`unexpected {{${list.by}}}`);
    return { body: list.nodes, defined: this.#defined };
  }

  #fail(message: string): never {
    const token = this.#tokens[Math.max(0, this.#next - 1)];
    throw new TemplateError(`template: :${token?.line ?? 1}: ${message}`);
  }

  #take(): Token {
    const token = this.#tokens[this.#next] ?? this.#tokens.at(-1)!;
    if (this.#next < this.#tokens.length) this.#next += 1;
    if (token.kind === "error") this.#fail(token.text);
    return token;
  }

  #peek(): Token {
    const token = this.#tokens[this.#next] ?? this.#tokens.at(-1)!;
    if (token.kind === "error") this.#take();
    return token;
  }

  #takeNonSpace(): Token {
    let token = this.#take();
    while (token.kind === "space") token = this.#take();
    return token;
  }

  #peekNonSpace(): Token {
    while (this.#peek().kind === "space") this.#take();
    return this.#peek();
  }

  #unexpected(token: Token, context: string): never {
    this.#fail(`unexpected ${describe(token)} in ${context}`);
  }

  #list(top: boolean): ListEnd {
    const nodes: Node[] = [];
    for (;;) {
      const token = this.#take();
      if (token.kind === "text") nodes.push({ kind: "text", text: token.text });
      else if (token.kind === "eof") {
        if (!top) this.#fail("unexpected EOF");
        return { nodes, by: "eof" };
      } else {
        const word = this.#peekNonSpace();
        if (word.kind === "keyword" && (word.text === "end" || word.text === "else")) {
          this.#take();
          if (word.text === "end") this.#expectClose("end");
          return { nodes, by: word.text };
        }
        const node = this.#action(word);
        if (node !== undefined) nodes.push(node);
      }
    }
  }

  #expectClose(context: string): void {
    const token = this.#takeNonSpace();
    if (token.kind !== "rightDelim") this.#unexpected(token, context);
  }

  #action(word: Token): Node | undefined {
    if (word.kind !== "keyword") {
      const pipe = this.#pipeline("command", "rightDelim");
      return { kind: "action", at: word.at, pipe };
    }
    this.#take();
    switch (word.text) {
      case "if":
      case "with":
      case "range":
        return this.#control(word.text, word.at);
      case "break":
      case "continue":
        if (this.#rangeDepth === 0) this.#fail(`{{${word.text}}} outside {{range}}`);
        this.#expectClose(word.text);
        return { kind: word.text, at: word.at };
      case "template":
        return this.#template();
      case "block":
        return this.#block();
      case "define":
        this.#define();
        return undefined;
      default:
        return this.#unexpected(word, "command");
    }
  }

  #control(kind: "if" | "with" | "range", at: number): Node {
    const scope = this.#variables.length;
    this.#enter();
    const pipe = this.#pipeline(kind, "rightDelim");
    if (kind === "range") this.#rangeDepth += 1;
    const body = this.#list(false);
    if (kind === "range") this.#rangeDepth -= 1;
    let otherwise: readonly Node[] | undefined;
    if (body.by === "else") otherwise = this.#elseBranch(kind);
    this.#variables.length = scope;
    this.#depth -= 1;
    return { kind, at, pipe, body: body.nodes, otherwise };
  }

  #elseBranch(kind: "if" | "with" | "range"): readonly Node[] {
    const next = this.#peekNonSpace();
    if (next.kind === "keyword" && next.text === kind && kind !== "range") {
      this.#take();
      return [this.#control(kind, next.at)];
    }
    this.#expectClose("else");
    const list = this.#list(false);
    if (list.by === "else") this.#fail("expected end; found {{else}}");
    return list.nodes;
  }

  #enter(): void {
    this.#depth += 1;
    if (this.#depth > depthMax) this.#fail("max expression depth exceeded");
  }

  #templateName(context: string): string {
    const token = this.#takeNonSpace();
    if (token.kind !== "string") this.#unexpected(token, context);
    return this.#unquote(token);
  }

  #template(): Node {
    const { at } = this.#peekNonSpace();
    const name = this.#templateName("template clause");
    if (this.#peekNonSpace().kind === "rightDelim") {
      this.#take();
      return { kind: "template", at, name, pipe: undefined };
    }
    return { kind: "template", at, name, pipe: this.#pipeline("template clause", "rightDelim") };
  }

  #block(): Node {
    const { at } = this.#peekNonSpace();
    const name = this.#templateName("block clause");
    const pipe = this.#pipeline("block clause", "rightDelim");
    this.#defined.set(name, this.#separateList());
    return { kind: "template", at, name, pipe };
  }

  #define(): void {
    const name = this.#templateName("define clause");
    this.#expectClose("define clause");
    this.#defined.set(name, this.#separateList());
  }

  #separateList(): readonly Node[] {
    const outer = this.#variables;
    this.#variables = ["$"];
    this.#enter();
    const list = this.#list(false);
    this.#depth -= 1;
    this.#variables = outer;
    if (list.by === "else") this.#fail("unexpected {{else}} in define clause");
    return list.nodes;
  }

  #pipeline(context: string, end: "rightDelim" | "rightParen"): Pipe {
    const first = this.#peekNonSpace();
    const declared = this.#declarations(context);
    const commands: Command[] = [];
    for (;;) {
      const token = this.#peekNonSpace();
      if (token.kind === end) {
        this.#take();
        this.#checkPipeline(commands, context);
        return { at: first.at, line: first.line, ...declared, commands };
      }
      if (!startsOperand(token)) {
        this.#take();
        this.#unexpected(token, context);
      }
      commands.push(this.#command());
    }
  }

  #declarations(context: string): { variables: string[]; assigns: boolean } {
    const variables: string[] = [];
    const start = this.#next;
    const undo = { variables: [] as string[], assigns: false };
    for (;;) {
      const token = this.#peekNonSpace();
      if (token.kind !== "variable") break;
      this.#take();
      const next = this.#peekNonSpace();
      if (next.kind === "declare" || next.kind === "assign") {
        this.#take();
        variables.push(token.text);
        if (next.kind === "declare") this.#variables.push(...variables);
        return { variables, assigns: next.kind === "assign" };
      }
      if (next.kind !== "char" || next.text !== "," || context !== "range" || variables.length > 0) {
        if (next.kind === "char" && next.text === ",") {
          this.#take();
          this.#fail(`too many declarations in ${context}`);
        }
        break;
      }
      this.#take();
      variables.push(token.text);
    }
    this.#next = start;
    return undo;
  }

  #checkVariable(name: string): void {
    if (!this.#variables.includes(name)) this.#fail(`undefined variable ${goQuote(name)}`);
  }

  #checkPipeline(commands: readonly Command[], context: string): void {
    if (commands.length === 0) this.#fail(`missing value for ${context}`);
    for (const [index, command] of commands.entries()) {
      const kind = command.words[0]!.kind;
      if (index > 0 && (kind === "constant" || kind === "dot" || kind === "nil")) {
        this.#fail(`non executable command in pipeline stage ${index + 1}`);
      }
    }
  }

  #command(): Command {
    const at = this.#peekNonSpace().at;
    const words: Operand[] = [];
    for (;;) {
      this.#peekNonSpace();
      const operand = this.#operand();
      if (operand !== undefined) words.push(operand);
      const token = this.#take();
      if (token.kind === "space") continue;
      if (token.kind === "rightDelim" || token.kind === "rightParen") {
        this.#next -= 1;
      } else if (token.kind !== "pipe") this.#unexpected(token, "operand");
      break;
    }
    if (words.length === 0) this.#fail("empty command");
    return { at, words };
  }

  #operand(): Operand | undefined {
    const base = this.#term();
    if (base === undefined) return undefined;
    const first = this.#peek();
    if (first.kind !== "field") return base;
    const names: string[] = [];
    while (this.#peek().kind === "field") names.push(this.#take().text.slice(1));
    if (base.kind === "field" || base.kind === "variable") {
      return { ...base, at: first.at, names: [...base.names, ...names] };
    }
    if (base.kind === "constant" || base.kind === "nil") {
      this.#fail(`unexpected . after term ${goQuote(operandText(base))}`);
    }
    return { kind: "chain", at: first.at, base, names };
  }

  #term(): Operand | undefined {
    const token = this.#peekNonSpace();
    const { at, text } = token;
    const taken = (operand: Operand): Operand => {
      this.#take();
      return operand;
    };
    switch (token.kind) {
      case "identifier":
        this.#take();
        if (!this.#known(text)) this.#fail(`function ${goQuote(text)} not defined`);
        return { kind: "function", at, name: text };
      case "dot":
        return taken({ kind: "dot", at });
      case "nil":
        return taken({ kind: "nil", at });
      case "variable":
        this.#take();
        this.#checkVariable(text);
        return { kind: "variable", at, name: text, names: [] };
      case "field":
        return taken({ kind: "field", at, names: [text.slice(1)] });
      case "bool":
        return taken({ kind: "constant", at, value: text === "true", source: text });
      case "number":
        return taken({ kind: "constant", at, value: parseNumber(text), source: text });
      case "charConstant":
        return taken({
          kind: "constant",
          at,
          value: this.#unquote({ ...token, text: `"${text.slice(1, -1)}"` }).codePointAt(0),
          source: text,
        });
      case "string":
        this.#take();
        return { kind: "constant", at, value: this.#unquote(token), source: text };
      case "leftParen": {
        this.#take();
        this.#enter();
        const pipe = this.#pipeline("parenthesized pipeline", "rightParen");
        this.#depth -= 1;
        return { kind: "pipe", at, pipe };
      }
      default:
        return undefined;
    }
  }

  #unquote(token: Token): string {
    const text = token.text;
    if (text.startsWith("`")) return text.slice(1, -1).replaceAll("\r", "");
    const value = goUnquote(text);
    if (value === undefined) this.#fail("invalid syntax");
    return value;
  }
}

function startsOperand(token: Token): boolean {
  return [
    "bool",
    "charConstant",
    "dot",
    "field",
    "identifier",
    "leftParen",
    "nil",
    "number",
    "string",
    "variable",
  ].includes(token.kind);
}

function describe(token: Token): string {
  if (token.kind === "eof") return "EOF";
  if (token.kind === "keyword" || token.kind === "dot" || token.kind === "nil") return `<${token.text}>`;
  return token.text.length > 10 ? `${goQuote(token.text.slice(0, 10))}...` : goQuote(token.text);
}
