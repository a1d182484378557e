import { formatTime } from "#base/clock.ts";
import { jsonStream } from "#sdk/client.ts";
import type { EventMessage } from "#sdk/types.ts";
import { parseTemplate, type Template, TemplateError } from "#wire/template.ts";
import { goType } from "#wire/template-value.ts";
import { type Command, ExitError, noArguments } from "./command.ts";
import type { CliContext } from "./context.ts";
import { filtersParameter } from "./filters.ts";
import { filter, string } from "./flag-types.ts";
import { type Flags, flag } from "./flags.ts";
import { inspectFormatHelp } from "./format-help.ts";
import { sanitizeCell } from "./sanitize.ts";
import { timestampOf } from "./times.ts";
import { parseDuration } from "./units.ts";

export const events: Command = {
  usage: "[OPTIONS]",
  flags: [
    flag("f,filter", filter, "Show only events that match"),
    flag("format", string, inspectFormatHelp),
    flag("since", string, "Begin with events since this time"),
    flag("until", string, "End at this time"),
  ],
  args: noArguments,
  run: runEvents,
};

async function runEvents(context: CliContext, flags: Flags): Promise<number> {
  const template = compile(flags.text("format"));
  const response = await context.client.request("GET", "/events", {
    query: {
      since: timeOption(flags, "since"),
      until: timeOption(flags, "until"),
      filters: filtersParameter(flags.list("filter")),
    },
  });
  for await (const event of jsonStream<EventMessage>(response.body)) {
    context.print(template === undefined ? plainLine(event) : render(template, event));
  }
  return 0;
}

function timeOption(flags: Flags, name: "since" | "until"): string | undefined {
  const text = flags.text(name);
  if (text === "") return undefined;
  try {
    return timestampOf(text, parseDuration);
  } catch {
    throw new ExitError(1, `failed to parse value as time or duration: ${JSON.stringify(text)}`);
  }
}

function compile(format: string): Template | undefined {
  if (format === "") return undefined;
  try {
    return parseTemplate(format === "json" ? "{{json .}}" : format);
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    throw new ExitError(64, `Error parsing format: ${error.message}`);
  }
}

function render(template: Template, event: EventMessage): string {
  const actor = event.Actor;
  const value = {
    ...event,
    // The old names of the fields, for templates written for them; newer daemons do not send them.
    Status: event.Action,
    ID: actor.ID,
    From: actor.Attributes?.["image"] ?? "",
    Type: event.Type,
    Action: event.Action,
    Actor: { ID: actor.ID, Attributes: new Map(Object.entries(actor.Attributes ?? {})) },
    Scope: event.scope ?? "",
    Time: event.time ?? 0,
    TimeNano: event.timeNano ?? 0,
  };
  try {
    return template.execute(eventValue(value, event));
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    throw new ExitError(64, `Error parsing format: ${error.message}`);
  }
}

/** Fields by Go's names; as JSON it is the message as it came. */
function eventValue(fields: Record<string, unknown>, event: EventMessage): object {
  const value: object = { ...event, Actor: fields["Actor"] };
  for (const [name, item] of Object.entries(fields)) {
    if (!Object.hasOwn(value, name)) Object.defineProperty(value, name, { value: item, enumerable: false });
  }
  return Object.defineProperty(value, goType, { value: eventTypeName, enumerable: false });
}

const eventTypeName = "*events.Message";

function plainLine(event: EventMessage): string {
  const attributes = Object.entries(event.Actor.Attributes ?? {})
    .map(([name, value]) => `${name}=${value}`)
    .sort();
  const details = attributes.length === 0 ? "" : ` (${attributes.join(", ")})`;
  const when = localNanoTime(event);
  return sanitizeCell(`${when} ${event.Type} ${event.Action} ${event.Actor.ID}${details}`);
}

const two = (value: number): string => String(value).padStart(2, "0");

/** RFC 3339 with all nine digits, in local time. */
function localNanoTime(event: EventMessage): string {
  const ns = event.timeNano !== undefined ? BigInt(event.timeNano) : BigInt(event.time ?? 0) * 1_000_000_000n;
  const fraction = (ns % 1_000_000_000n).toString().padStart(9, "0");
  const seconds = Number(ns / 1_000_000_000n);
  const offset = -new Date(seconds * 1000).getTimezoneOffset();
  const local = formatTime(BigInt(seconds + offset * 60) * 1_000_000_000n).slice(0, 19);
  if (offset === 0) return `${local}.${fraction}Z`;
  const sign = offset < 0 ? "-" : "+";
  return `${local}.${fraction}${sign}${two(Math.floor(Math.abs(offset) / 60))}:${two(Math.abs(offset) % 60)}`;
}
