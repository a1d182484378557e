import { parseJson } from "#sdk/client.ts";
import { parseTemplate, type Template, TemplateError } from "#wire/template.ts";
import { goType, toGoJson } from "#wire/template-value.ts";
import { type Command, ExitError, noArguments } from "./command.ts";
import { clientVersion } from "./commands-version.ts";
import type { CliContext } from "./context.ts";
import { daemonHint, errorText } from "./error-text.ts";
import { string } from "./flag-types.ts";
import { type Flags, flag } from "./flags.ts";
import { inspectFormatHelp } from "./format-help.ts";
import { type ServerInfo, serverLines } from "./info-text.ts";
import { typedValue } from "./inspect-value.ts";
import { sanitizeCell } from "./sanitize.ts";
import { version } from "./version.ts";

export const info: Command = {
  usage: "[OPTIONS]",
  flags: [flag("f,format", string, inspectFormatHelp)],
  args: noArguments,
  run: runInfo,
};

async function runInfo(context: CliContext, flags: Flags): Promise<number> {
  const format = flags.text("format");
  const template = compile(format);
  let text = "{}";
  let failure: unknown;
  try {
    text = await context.client.text("GET", "/info");
  } catch (error) {
    if (error instanceof ExitError) throw error;
    failure = error;
  }
  const server = parseJson(text) as ServerInfo & Record<string, unknown>;
  const client = {
    Debug: context.globals.bool("debug"),
    ...clientVersion(context, ""),
    Plugins: [],
    Warnings: null,
  } as Record<string, unknown>;
  delete client["APIVersion"];
  if (format === "json") context.print(toGoJson({ ...server, ClientInfo: client }, { escapeHtml: true }));
  else if (template !== undefined) {
    try {
      context.print(render(template, server, client));
    } catch (error) {
      // Without a daemon there is little to show: that it is not there is what is told.
      if (failure === undefined) throw error;
    }
  } else {
    const lines = clientLines(context);
    lines.push("", "Server:", ...(failure === undefined ? [...serverLines(server), ""] : []));
    context.write(`${lines.map(sanitizeCell).join("\n")}\n`);
    for (const warning of server.Warnings ?? []) context.error(warning);
  }
  if (failure !== undefined)
    throw new ExitError(1, errorText(failure) + daemonHint(failure, context.program));
  return 0;
}

function clientLines(context: CliContext): string[] {
  return [
    "Client:",
    ` Version:    ${version}`,
    ` Context:    ${context.contextName}`,
    ` Debug Mode: ${context.globals.bool("debug")}`,
  ];
}

function compile(format: string): Template | undefined {
  if (format === "" || format === "json") return undefined;
  try {
    return parseTemplate(format);
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    throw new ExitError(64, `template parsing error: ${error.message}`);
  }
}

function render(template: Template, server: object, client: object): string {
  const value = typedValue({ ...server, ClientInfo: client }, "other") as Record<string, unknown>;
  Object.defineProperty(value, goType, { value: "system.dockerInfo", enumerable: false });
  try {
    return template.execute(value);
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    process.stdout.write(`${error.output}\n`);
    throw new ExitError(1, error.message);
  }
}
