/** What a template is parsed into, and how Go prints it in messages. */

/** The parts of an expression. `at` is the offset that Go reports for the node, `source` the text it shows. */
export type Operand =
  | { readonly kind: "dot"; readonly at: number }
  | { readonly kind: "nil"; readonly at: number }
  | { readonly kind: "constant"; readonly at: number; readonly value: unknown; readonly source: string }
  | { readonly kind: "field"; readonly at: number; readonly names: readonly string[] }
  | {
      readonly kind: "variable";
      readonly at: number;
      readonly name: string;
      readonly names: readonly string[];
    }
  | { readonly kind: "function"; readonly at: number; readonly name: string }
  | { readonly kind: "chain"; readonly at: number; readonly base: Operand; readonly names: readonly string[] }
  | { readonly kind: "pipe"; readonly at: number; readonly pipe: Pipe };

export interface Command {
  readonly at: number;
  readonly words: readonly Operand[];
}

export interface Pipe {
  readonly at: number;
  readonly line: number;
  readonly variables: readonly string[];
  /** `=` instead of `:=`. */
  readonly assigns: boolean;
  readonly commands: readonly Command[];
}

export type Node =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "action"; readonly at: number; readonly pipe: Pipe }
  | {
      readonly kind: "if" | "range" | "with";
      readonly at: number;
      readonly pipe: Pipe;
      readonly body: readonly Node[];
      readonly otherwise: readonly Node[] | undefined;
    }
  | { readonly kind: "template"; readonly at: number; readonly name: string; readonly pipe: Pipe | undefined }
  | { readonly kind: "break" | "continue"; readonly at: number };

export interface ParsedTemplate {
  readonly body: readonly Node[];
  readonly defined: ReadonlyMap<string, readonly Node[]>;
}

/** The node as Go prints it in `at <…>`. */
export function operandText(operand: Operand): string {
  switch (operand.kind) {
    case "dot":
      return ".";
    case "nil":
      return "nil";
    case "constant":
      return operand.source;
    case "field":
      return operand.names.map((name) => `.${name}`).join("");
    case "variable":
      return operand.name + operand.names.map((name) => `.${name}`).join("");
    case "function":
      return operand.name;
    case "chain":
      return operandText(operand.base) + operand.names.map((name) => `.${name}`).join("");
    case "pipe":
      return `(${pipeText(operand.pipe)})`;
  }
}

export function commandText(command: Command): string {
  return command.words.map(operandText).join(" ");
}

export function pipeText(pipe: Pipe): string {
  const commands = pipe.commands.map(commandText).join(" | ");
  if (pipe.variables.length === 0) return commands;
  return `${pipe.variables.join(", ")} ${pipe.assigns ? "=" : ":="} ${commands}`;
}
