import { parseJson } from "#sdk/client.ts";
import { parseTemplate, type Template, TemplateError } from "#wire/template.ts";
import { ExitError } from "./command.ts";
import type { CliContext } from "./context.ts";
import { errorText } from "./error-text.ts";
import { type InspectedKind, rawValue, typedValue } from "./inspect-value.ts";

/** One object, as the daemon sent it. */
export interface Inspected {
  readonly text: string;
  readonly kind: InspectedKind;
}

/**
 * Prints objects: a JSON array, indented, or with `json` in one line; or what a template makes of each. The first
 * object that cannot be had ends it, but what came before is printed.
 */
export async function inspectAll(
  context: CliContext,
  format: string,
  names: readonly string[],
  get: (name: string) => Promise<Inspected>,
): Promise<number> {
  const template = format === "" || format === "json" ? undefined : compile(format);
  const failures: string[] = [];
  const found: string[] = [];
  for (const name of names) {
    try {
      const inspected = await get(name);
      found.push(template === undefined ? inspected.text : render(template, inspected));
    } catch (error) {
      failures.push(errorText(error));
      if (error instanceof TemplateError) break;
    }
  }
  if (template !== undefined) context.write(found.length === 0 ? "\n" : `${found.join("\n")}\n`);
  else if (format === "json") context.write(`[${found.map((text) => text.trim()).join(",")}]\n`);
  else context.write(`${found.length === 0 ? "[]" : indent(found)}\n`);
  if (failures.length > 0) throw new ExitError(1, failures.join("\n"));
  return 0;
}

function compile(format: string): Template {
  try {
    return parseTemplate(format);
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    throw new ExitError(64, `template parsing error: ${error.message}`);
  }
}

/** Runs a template over one object. Throws `TemplateError` with Docker's prefix. */
function render(template: Template, { text, kind }: Inspected): string {
  const json = parseJson(text);
  try {
    return template.execute(typedValue(json, kind));
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
  }
  try {
    return template.execute(rawValue(json), { missingKeyFails: true });
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    throw new TemplateError(`template parsing error: ${error.message}`);
  }
}

/** An array of objects, each as the daemon wrote it but for the white space: escapes, numbers and order stay. */
function indent(texts: readonly string[]): string {
  const items = texts.map((text) => `    ${indentJson(text.trim(), "    ").replaceAll("\n", "\n    ")}`);
  return `[\n${items.join(",\n")}\n]`;
}

/** json.Indent: `text` must be valid JSON. */
export function indentJson(text: string, step: string): string {
  const parts: string[] = [];
  let depth = 0;
  let opened = false;
  const newline = (): void => {
    parts.push(`\n${step.repeat(depth)}`);
  };
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{},:]|[^\s[\]{},:"]+/gs)) {
    const closes = token === "}" || token === "]";
    if (closes) depth -= 1;
    // An empty object or list stays on its line.
    if (opened !== closes) newline();
    opened = token === "{" || token === "[";
    if (opened) depth += 1;
    parts.push(token);
    if (token === ",") newline();
    else if (token === ":") parts.push(" ");
  }
  return parts.join("");
}
