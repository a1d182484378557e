/** `--format` of the list commands: tables, JSON lines, templates. */
import { parseTemplate, type Template, TemplateError } from "#wire/template.ts";
import { goType, marshalsAsMap } from "#wire/template-value.ts";
import { ExitError } from "./command.ts";
import { sanitizeCell, sanitizeText } from "./sanitize.ts";
import { alignColumns } from "./tabwriter.ts";

/** One line of a list: fields as Docker's formatter names them; functions take arguments (`Label`). */
export type Row = Record<string, unknown>;

export interface Listing {
  /** `table …`, `json`, or a template. */
  readonly format: string;
  /** Titles by field. */
  readonly headers: Readonly<Record<string, string>>;
  /** Go's name of the row's type, for messages: `*formatter.ContainerContext`. */
  readonly typeName: string;
  readonly rows: Iterable<Row>;
}

/** Finds the format to use: the flag, else the configured one, else the table of the command. */
export function chooseFormat(given: string, configured: string | undefined, quiet: boolean): string {
  if (given !== "") return given;
  return configured !== undefined && configured !== "" && !quiet ? configured : "table";
}

const headerLabel = (name: string): string => name.split(".").at(-1)!.replaceAll(/[-_]/g, " ");

/** The whole text of a listing, each row on a line. Throws `ExitError` with Docker's words for a bad template. */
export function formatListing(listing: Listing): string {
  const { format } = listing;
  const isTable = format.startsWith("table");
  const source = isTable ? format.slice("table".length) : format === "json" ? "{{json .}}" : format;
  const template = compileFormat(source);
  const show = isTable
    ? sanitizeCell
    : process.stdout.isTTY === true
      ? sanitizeText
      : (text: string): string => text;
  let body = "";
  for (const row of listing.rows) {
    const typed = markRow(row, listing.typeName);
    body += `${runFormat(template, isTable ? cleanRow(typed, show) : typed, show)}\n`;
  }
  if (!isTable) return body;
  const headers = new Map<string, unknown>(Object.entries(listing.headers));
  headers.set("Label", headerLabel);
  const head = runFormat(template, headers, (text) => text, true);
  return alignColumns(`${head}\n${body}`);
}

function markRow(row: Row, typeName: string): Row {
  Object.defineProperty(row, goType, { value: typeName, enumerable: false });
  return Object.defineProperty(row, marshalsAsMap, { value: true, enumerable: false });
}

/** Parses a format as Docker prepares it: outer spaces go, `\t` and `\n` are escapes. */
export function compileFormat(format: string): Template {
  const source = format
    .replace(/^ +| +$/g, "")
    .replaceAll("\\t", "\t")
    .replaceAll("\\n", "\n");
  try {
    return parseTemplate(source);
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    throw new ExitError(1, `template parsing error: ${error.message}`);
  }
}

// Cells are cleaned before the template runs, so that the tabs it holds stay what they are: column ends.
function cleanRow(row: Row, show: (text: string) => string): Row {
  const descriptors = Object.getOwnPropertyDescriptors(row);
  const clean: Row = {};
  markRow(clean, (row as Row & { [goType]: string })[goType]);
  for (const [name, descriptor] of Object.entries(descriptors)) {
    const { get, value } = descriptor;
    if (typeof value === "function") {
      clean[name] = (one: string) => cleanValue((value as (text: string) => unknown)(one), show);
    } else if (get !== undefined) {
      Object.defineProperty(clean, name, { get: () => cleanValue(get.call(row), show), enumerable: true });
    } else clean[name] = cleanValue(value, show);
  }
  return clean;
}

function cleanValue(value: unknown, show: (text: string) => string): unknown {
  return typeof value === "string" ? show(value) : value;
}

function runFormat(
  template: Template,
  data: unknown,
  show: (text: string) => string,
  header = false,
): string {
  try {
    const text = template.execute(data, { header });
    return header ? text : showKeepingTabs(text, show);
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    throw new ExitError(1, `template parsing error: ${error.message}`);
  }
}

function showKeepingTabs(text: string, show: (text: string) => string): string {
  return show === sanitizeCell ? text : show(text);
}
