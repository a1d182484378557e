/**
 * Go templates as Docker's `--format` takes them: parsed once, run over values described in `template-value.ts`.
 * The language is that of https://pkg.go.dev/text/template; messages are Go's, because users read and scripts match them.
 */
import { TemplateError } from "./template-error.ts";
import { goFormat, goQuote, goTypeName } from "./template-format.ts";
import {
  ArgumentCountError,
  fitsParameter,
  headerFunctions,
  parameterTypes,
  type TemplateFunction,
  templateFunctions,
} from "./template-functions.ts";
import {
  type Command,
  commandText,
  type Node,
  type Operand,
  operandText,
  type ParsedTemplate,
  type Pipe,
  pipeText,
} from "./template-node.ts";
import { parseTemplateText } from "./template-parse.ts";
import { goTypeOf, isStruct, isTrue, sortedKeys } from "./template-value.ts";

export { TemplateError } from "./template-error.ts";

export interface ExecuteOptions {
  /** For the header line of a table: `lower`, `json` and the like leave titles alone. */
  readonly header?: boolean;
  /** Go's `missingkey=error`: a map entry that is not there is an error, not `<no value>`. */
  readonly missingKeyFails?: boolean;
}

export interface Template {
  execute(data: unknown, options?: ExecuteOptions): string;
}

/** Parses a template; throws `TemplateError` (`template: :1: unclosed action`). */
export function parseTemplate(source: string): Template {
  const parsed = parseTemplateText(source, (name) => templateFunctions.has(name));
  return {
    execute: (data, options = {}) => new Execution(source, parsed, data, options).run(data),
  };
}

/** Output of one template: more than this is a loop, not a format. */
const outputCharactersMax = 256 * 1024 * 1024;
const templateDepthMax = 1000;

type Flow = "next" | "break" | "continue";
interface Variable {
  readonly name: string;
  value: unknown;
}

/** Marks that a pipeline's earlier stages gave no final value. */
const none: unique symbol = Symbol("none");

class Execution {
  readonly #source: string;
  readonly #parsed: ParsedTemplate;
  readonly #functions: ReadonlyMap<string, TemplateFunction>;
  readonly #missingKeyFails: boolean;
  #variables: Variable[];
  #out = "";
  #depth = 0;

  constructor(source: string, parsed: ParsedTemplate, data: unknown, options: ExecuteOptions) {
    this.#source = source;
    this.#parsed = parsed;
    this.#functions = options.header === true ? headerFunctions : templateFunctions;
    this.#missingKeyFails = options.missingKeyFails === true;
    this.#variables = [{ name: "$", value: data }];
  }

  run(data: unknown): string {
    this.#walk(this.#parsed.body, data);
    return this.#out;
  }

  #fail(at: number, context: string, message: string): never {
    const before = this.#source.slice(0, at);
    const line = before.split("\n").length;
    const lastLine = before.lastIndexOf("\n");
    const column = Buffer.byteLength(before.slice(lastLine + 1));
    throw new TemplateError(
      `template: :${line}:${column}: executing "" at <${context}>: ${message}`,
      this.#out,
    );
  }

  #failAt(operand: Operand, message: string): never {
    this.#fail(operand.at, operandText(operand), message);
  }

  #walk(nodes: readonly Node[], dot: unknown): Flow {
    for (const node of nodes) {
      switch (node.kind) {
        case "text":
          this.#out += node.text;
          break;
        case "action": {
          const value = this.#pipeline(node.pipe, dot);
          if (node.pipe.variables.length === 0) this.#print(value, node.pipe);
          break;
        }
        case "if":
        case "with":
        case "range": {
          const flow = this.#branch(node, dot);
          if (flow !== "next") return flow;
          break;
        }
        case "template":
          this.#template(node, dot);
          break;
        case "break":
        case "continue":
          return node.kind;
      }
      if (this.#out.length > outputCharactersMax) throw new TemplateError("template: output is too long");
    }
    return "next";
  }

  #branch(node: Node & { kind: "if" | "with" | "range" }, dot: unknown): Flow {
    const mark = this.#variables.length;
    try {
      if (node.kind === "range") return this.#range(node, dot);
      const value = this.#pipeline(node.pipe, dot);
      if (isTrue(value)) return this.#walk(node.body, node.kind === "with" ? value : dot);
      return node.otherwise === undefined ? "next" : this.#walk(node.otherwise, dot);
    } finally {
      this.#variables.length = mark;
    }
  }

  #range(node: Node & { kind: "if" | "with" | "range" }, dot: unknown): Flow {
    const value = this.#pipeline(node.pipe, dot);
    const mark = this.#variables.length;
    const declared = node.pipe.variables.length;
    let ran = false;
    for (const [key, item] of this.#items(value, node.pipe)) {
      ran = true;
      if (declared > 0) this.#setFromTop(node.pipe, 0, declared === 1 ? item : key);
      if (declared > 1) this.#setFromTop(node.pipe, 1, item);
      const flow = this.#walk(node.body, item);
      this.#variables.length = mark;
      if (flow === "break") return "next";
    }
    if (!ran && node.otherwise !== undefined) return this.#walk(node.otherwise, dot);
    return "next";
  }

  #setFromTop(pipe: Pipe, index: number, value: unknown): void {
    const name = pipe.variables[index]!;
    const variable = this.#variables.findLast((candidate) => candidate.name === name);
    if (variable !== undefined) variable.value = value;
  }

  *#items(value: unknown, pipe: Pipe): Generator<[unknown, unknown]> {
    if (value === undefined) return;
    if (Array.isArray(value)) yield* value.entries();
    else if (value instanceof Map) for (const key of sortedKeys(value)) yield [key, value.get(key)];
    else if (typeof value === "number" && Number.isInteger(value)) {
      for (let index = 0; index < value; index += 1) yield [index, index];
    } else if (isStruct(value) && goTypeOf(value) === undefined) {
      // Decoded JSON without a known type is a map to Go.
      for (const key of Object.keys(value).sort()) yield [key, value[key]];
    } else this.#fail(pipe.at, pipeText(pipe), `range can't iterate over ${goFormat(value)}`);
  }

  #template(node: Node & { kind: "template" }, dot: unknown): void {
    const body = this.#parsed.defined.get(node.name);
    if (body === undefined) {
      this.#fail(node.at, `{{template ${goQuote(node.name)}}}`, `template ${goQuote(node.name)} not defined`);
    }
    this.#depth += 1;
    if (this.#depth > templateDepthMax) {
      this.#fail(node.at, `{{template ${goQuote(node.name)}}}`, "exceeded maximum template depth (100000)");
    }
    const data = node.pipe === undefined ? undefined : this.#pipeline(node.pipe, dot);
    const outer = this.#variables;
    this.#variables = [{ name: "$", value: data }];
    this.#walk(body, data);
    this.#variables = outer;
    this.#depth -= 1;
  }

  #print(value: unknown, pipe: Pipe): void {
    if (typeof value === "function") {
      this.#fail(pipe.at, pipeText(pipe), "can't print func of type func");
    }
    // Decoded JSON holds null in an interface, which a pipeline turns into no value at all.
    const absent = value === undefined || (value === null && this.#missingKeyFails);
    this.#out += absent ? "<no value>" : goFormat(value);
  }

  #pipeline(pipe: Pipe, dot: unknown): unknown {
    let value: unknown = none;
    for (const command of pipe.commands) value = this.#command(command, dot, value);
    for (const name of pipe.variables) {
      if (pipe.assigns) {
        const variable = this.#variables.findLast((candidate) => candidate.name === name);
        if (variable === undefined) {
          this.#failAt(pipe.commands.at(-1)!.words[0]!, `undefined variable: ${name}`);
        }
        variable.value = value;
      } else this.#variables.push({ name, value });
    }
    return value;
  }

  #command(command: Command, dot: unknown, final: unknown): unknown {
    const [first, ...rest] = command.words as [Operand, ...Operand[]];
    switch (first.kind) {
      case "function":
        return this.#call(first, command, rest, dot, final);
      case "field":
        return this.#fields(first, dot, dot, first.names, rest, final);
      case "variable":
        return this.#fields(first, this.#variable(first), dot, first.names, rest, final);
      case "chain":
        return this.#fields(first, this.#operand(first.base, dot), dot, first.names, rest, final);
      case "pipe":
        this.#noArguments(first, rest, final);
        return this.#pipeline(first.pipe, dot);
      case "nil":
        return this.#failAt(first, "nil is not a command");
      default:
        this.#noArguments(first, rest, final);
        return this.#operand(first, dot);
    }
  }

  #noArguments(first: Operand, rest: readonly Operand[], final: unknown): void {
    if (rest.length > 0 || final !== none) {
      this.#failAt(first, `can't give argument to non-function ${operandText(first)}`);
    }
  }

  #variable(operand: Operand & { kind: "variable" }): unknown {
    const found = this.#variables.findLast((candidate) => candidate.name === operand.name);
    if (found === undefined) this.#failAt(operand, `undefined variable: ${operand.name}`);
    return found.value;
  }

  /** An operand as an argument. */
  #operand(operand: Operand, dot: unknown): unknown {
    switch (operand.kind) {
      case "dot":
        return dot;
      case "nil":
        return null;
      case "constant":
        return operand.value;
      case "field":
        return this.#fields(operand, dot, dot, operand.names, [], none);
      case "variable":
        return this.#fields(operand, this.#variable(operand), dot, operand.names, [], none);
      case "chain":
        return this.#fields(operand, this.#operand(operand.base, dot), dot, operand.names, [], none);
      case "pipe":
        return this.#pipeline(operand.pipe, dot);
      case "function":
        return this.#call(operand, { at: operand.at, words: [operand] }, [], dot, none);
    }
  }

  #fields(
    operand: Operand,
    base: unknown,
    dot: unknown,
    names: readonly string[],
    rest: readonly Operand[],
    final: unknown,
  ): unknown {
    if (names.length === 0 && (rest.length > 0 || final !== none)) this.#noArguments(operand, rest, final);
    let value = base;
    for (const [index, name] of names.entries()) {
      const last = index === names.length - 1;
      value = this.#field(operand, value, name, dot, last ? rest : [], last ? final : none);
    }
    return value;
  }

  #field(
    operand: Operand,
    receiver: unknown,
    name: string,
    dot: unknown,
    rest: readonly Operand[],
    final: unknown,
  ): unknown {
    if (receiver === undefined) {
      if (this.#missingKeyFails) this.#failAt(operand, `nil data; no entry for key ${goQuote(name)}`);
      return undefined;
    }
    if (receiver === null) this.#failAt(operand, `nil pointer evaluating interface {}.${name}`);
    const hasArguments = rest.length > 0 || final !== none;
    const known =
      receiver instanceof Map ? receiver.has(name) : isStruct(receiver) && Object.hasOwn(receiver, name);
    if (known) {
      const value =
        receiver instanceof Map ? receiver.get(name) : (receiver as Record<string, unknown>)[name];
      if (typeof value === "function")
        return this.#method(operand, value as TemplateFunction, name, rest, dot, final);
      if (hasArguments) {
        const what =
          receiver instanceof Map
            ? "is not a method but has arguments"
            : "has arguments but cannot be invoked as function";
        this.#failAt(operand, `${name} ${what}`);
      }
      return value;
    }
    if (receiver instanceof Map || (isStruct(receiver) && goTypeOf(receiver) === undefined)) {
      if (hasArguments) this.#failAt(operand, `${name} is not a method but has arguments`);
      // A struct of decoded JSON lacks what Go's type would lack: an error. A map's missing entry is no value.
      if (this.#missingKeyFails || !(receiver instanceof Map)) {
        this.#failAt(operand, `map has no entry for key ${goQuote(name)}`);
      }
      return undefined;
    }
    return this.#failAt(operand, `can't evaluate field ${name} in type ${goTypeName(receiver)}`);
  }

  #method(
    operand: Operand,
    method: TemplateFunction,
    name: string,
    rest: readonly Operand[],
    dot: unknown,
    final: unknown,
  ): unknown {
    const values = rest.map((word) => this.#operand(word, dot));
    if (final !== none) values.push(final);
    if (values.length !== method.length) {
      this.#failAt(operand, `wrong number of args for ${name}: want ${method.length} got ${values.length}`);
    }
    return method(...values);
  }

  #call(
    operand: Operand & { kind: "function" },
    command: Command,
    rest: readonly Operand[],
    dot: unknown,
    final: unknown,
  ): unknown {
    const { name } = operand;
    if (name === "and" || name === "or") {
      // Short-circuit: later arguments are not evaluated.
      let value: unknown = none;
      for (const word of rest) {
        value = this.#operand(word, dot);
        if (isTrue(value) === (name === "or")) return value;
      }
      if (final !== none) value = final;
      if (value === none) this.#failAt(operand, `wrong number of args for ${name}: want at least 1 got 0`);
      return value;
    }
    const values = rest.map((word) => this.#operand(word, dot));
    if (final !== none) values.push(final);
    this.#checkArguments(operand, rest, values);
    if (name === "call" && rest[0] !== undefined) {
      const what = `non-function ${operandText(rest[0])} of type ${goTypeName(values[0])}`;
      this.#fail(operand.at, commandText(command), `error calling call: ${what}`);
    }
    try {
      return this.#functions.get(name)!(...values);
    } catch (error) {
      if (error instanceof TemplateError) throw error;
      const message = error instanceof Error ? error.message : String(error);
      if (error instanceof ArgumentCountError) this.#failAt(operand, message);
      return this.#fail(operand.at, commandText(command), `error calling ${name}: ${message}`);
    }
  }

  /** Go checks arguments against the function's type before it calls it. */
  #checkArguments(
    operand: Operand & { kind: "function" },
    rest: readonly Operand[],
    values: readonly unknown[],
  ): void {
    for (const [index, type] of (parameterTypes[operand.name] ?? []).entries()) {
      if (index >= values.length || fitsParameter(values[index], type)) continue;
      const value = values[index];
      const place = rest[index] ?? operand;
      if (place.kind === "nil") this.#failAt(place, `cannot assign nil to ${type}`);
      if (place.kind === "constant") {
        this.#failAt(place, `expected ${type === "int" ? "integer" : type}; found ${operandText(place)}`);
      }
      if (value === undefined || value === null) this.#failAt(place, `invalid value; expected ${type}`);
      this.#failAt(place, `wrong type for value; expected ${type}; got ${goTypeName(value)}`);
    }
  }
}
