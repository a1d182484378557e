import { arch, version as nodeVersion } from "node:process";
import { apiVersionMax } from "#sdk/client.ts";
import { parseTemplate, type Template, TemplateError } from "#wire/template.ts";
import { goType, jsonNames, toGoJson } from "#wire/template-value.ts";
import { type Command, ExitError, noArguments } from "./command.ts";
import type { CliContext } from "./context.ts";
import { daemonHint, errorText } from "./error-text.ts";
import { string } from "./flag-types.ts";
import { type Flags, flag } from "./flags.ts";
import { inspectFormatHelp } from "./format-help.ts";
import { sanitizeCell } from "./sanitize.ts";
import { buildTime, gitCommit, version } from "./version.ts";

export const versionCommand: Command = {
  usage: "[OPTIONS]",
  flags: [flag("f,format", string, inspectFormatHelp)],
  args: noArguments,
  run: runVersion,
};

interface Component {
  readonly Name: string;
  readonly Version: string;
  readonly Details?: Readonly<Record<string, string>> | null;
}

interface ServerVersion {
  readonly Platform?: { readonly Name: string };
  readonly Components?: readonly Component[] | null;
  readonly Version: string;
  readonly ApiVersion: string;
  readonly MinAPIVersion?: string;
  readonly GitCommit: string;
  readonly GoVersion: string;
  readonly Os: string;
  readonly Arch: string;
  readonly KernelVersion?: string;
  readonly Experimental?: boolean;
  readonly BuildTime?: string;
}

/** Go's name of the machine. */
export function goArch(): string {
  const names: Readonly<Record<string, string>> = { x64: "amd64", ia32: "386" };
  return names[arch] ?? arch;
}

/** What the client says of itself, in the order of Docker's JSON. */
export function clientVersion(context: CliContext, apiVersion: string): Record<string, unknown> {
  const fields = {
    Version: version,
    APIVersion: apiVersion,
    DefaultAPIVersion: apiVersionMax,
    GitCommit: gitCommit,
    GoVersion: `node ${nodeVersion}`,
    Os: "linux",
    Arch: goArch(),
    ...(buildTime === "" ? {} : { BuildTime: buildTime }),
    Context: context.contextName,
  };
  Object.defineProperty(fields, "Platform", { value: null, enumerable: false });
  Object.defineProperty(fields, "BuildTime", { value: buildTime, enumerable: buildTime !== "" });
  return Object.defineProperty(fields, jsonNames, { value: { APIVersion: "ApiVersion" }, enumerable: false });
}

async function runVersion(context: CliContext, flags: Flags): Promise<number> {
  const template = compile(flags.text("format"));
  let server: ServerVersion | undefined;
  let failure: unknown;
  let apiVersion: string = apiVersionMax;
  try {
    server = await context.client.json<ServerVersion>("GET", "/version");
    apiVersion = await context.client.apiVersion();
  } catch (error) {
    if (error instanceof ExitError) throw error;
    failure = error;
  }
  const client = clientVersion(context, apiVersion);
  const format = flags.text("format");
  if (format === "json")
    context.print(
      toGoJson(
        { Client: client, Server: server === undefined ? null : serverValue(server) },
        { escapeHtml: true },
      ),
    );
  else if (template !== undefined) printTemplate(context, template, { client, server, failure });
  else context.write(sanitizeLines(table(client, server)));
  if (failure !== undefined)
    throw new ExitError(1, errorText(failure) + daemonHint(failure, context.program));
  return 0;
}

/** Without a daemon a template may have nothing to show; that the daemon is not there is what is told then. */
function printTemplate(
  context: CliContext,
  template: Template,
  { client, server, failure }: { client: object; server: ServerVersion | undefined; failure: unknown },
): void {
  try {
    context.print(render(template, client, server));
  } catch (error) {
    if (failure === undefined) throw error;
  }
}

function sanitizeLines(text: string): string {
  return text.split("\n").map(sanitizeCell).join("\n");
}

function compile(format: string): Template | undefined {
  if (format === "" || format === "json") return undefined;
  try {
    return parseTemplate(format);
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    throw new ExitError(64, `template parsing error: ${named(error)}`);
  }
}

/** This template has a name in Docker's client, which its messages show. */
function named(error: TemplateError): string {
  return error.message
    .replace("template: :", "template: version:")
    .replace('executing ""', 'executing "version"');
}

function serverValue(server: ServerVersion): object {
  const value: Record<string, unknown> = {};
  for (const [name, item] of Object.entries(server)) {
    if (name === "Components") value[name] = (server.Components ?? []).map(componentValue);
    else value[name === "ApiVersion" ? "APIVersion" : name] = item;
  }
  for (const [name, empty] of Object.entries({
    Experimental: false,
    BuildTime: "",
    MinAPIVersion: "",
    KernelVersion: "",
  })) {
    if (!Object.hasOwn(value, name)) Object.defineProperty(value, name, { value: empty, enumerable: false });
  }
  return Object.defineProperty(value, jsonNames, { value: { APIVersion: "ApiVersion" }, enumerable: false });
}

function componentValue(component: Component): object {
  const details = new Map(Object.entries(component.Details ?? {}));
  if (details.has("BuildTime")) details.set("BuildTime", calendarTime(details.get("BuildTime")!));
  return { ...component, Details: details };
}

function render(template: Template, client: object, server: ServerVersion | undefined): string {
  const value = { Client: client, Server: server === undefined ? null : serverValue(server) };
  Object.defineProperty(value, goType, { value: "system.versionInfo", enumerable: false });
  try {
    return template.execute(value);
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    process.stdout.write(`${error.output}\n`);
    throw new ExitError(1, named(error));
  }
}

const days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"] as const;
const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"] as const;

/** An RFC 3339 time as Go's time.ANSIC in UTC: `Thu May  7 21:09:36 2026`. Other texts stay. */
function calendarTime(text: string): string {
  const time = new Date(text);
  if (Number.isNaN(time.getTime()) || !/^\d{4}-/.test(text)) return text;
  const day = String(time.getUTCDate()).padStart(2, " ");
  const clock = time.toISOString().slice(11, 19);
  return `${days[time.getUTCDay()]} ${months[time.getUTCMonth()]} ${day} ${clock} ${time.getUTCFullYear()}`;
}

function row(name: string, value: string): string {
  return ` ${`${name}:`.padEnd(18)} ${value}`;
}

function table(client: Record<string, unknown>, server: ServerVersion | undefined): string {
  const api = String(client["APIVersion"]);
  const downgraded = api === apiVersionMax ? "" : ` (downgraded from ${apiVersionMax})`;
  const lines = [
    "Client:",
    row("Version", version),
    row("API version", `${api}${downgraded}`),
    row("Node version", nodeVersion),
    row("Git commit", gitCommit),
    ...(buildTime === "" ? [] : [row("Built", buildTime)]),
    row("OS/Arch", `linux/${goArch()}`),
    row("Context", String(client["Context"])),
  ];
  if (server !== undefined) lines.push("", ...serverLines(server));
  return `${lines.join("\n")}\n`;
}

function serverLines(server: ServerVersion): string[] {
  const platform = server.Platform?.Name ?? "";
  const lines = [`Server:${platform === "" ? "" : ` ${platform}`}`];
  for (const component of componentsOf(server)) {
    lines.push(` ${component.Name}:`);
    const details = component.Details ?? {};
    const inner = (name: string, value: string): string => `  ${`${name}:`.padEnd(17)} ${value}`;
    lines.push(inner("Version", component.Version));
    if (component.Name === "Engine") {
      lines.push(
        inner(
          "API version",
          `${details["ApiVersion"] ?? ""} (minimum version ${details["MinAPIVersion"] ?? ""})`,
        ),
        inner("Go version", details["GoVersion"] ?? ""),
        inner("Git commit", details["GitCommit"] ?? ""),
        inner("Built", calendarTime(details["BuildTime"] ?? "")),
        inner("OS/Arch", `${details["Os"] ?? ""}/${details["Arch"] ?? ""}`),
        inner("Experimental", details["Experimental"] ?? ""),
      );
    } else for (const name of Object.keys(details).sort()) lines.push(inner(name, details[name]!));
  }
  return lines;
}

/** Daemons before 18.02 tell no components: what they tell is the engine's. */
function componentsOf(server: ServerVersion): readonly Component[] {
  if (server.Components !== undefined && server.Components !== null && server.Components.length > 0) {
    return server.Components;
  }
  return [
    {
      Name: "Engine",
      Version: server.Version,
      Details: {
        ApiVersion: server.ApiVersion,
        MinAPIVersion: server.MinAPIVersion ?? "",
        GitCommit: server.GitCommit,
        GoVersion: server.GoVersion,
        Os: server.Os,
        Arch: server.Arch,
        BuildTime: server.BuildTime ?? "",
        Experimental: String(server.Experimental ?? false),
      },
    },
  ];
}
