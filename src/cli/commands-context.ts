import { messageOf } from "#base/errors.ts";
import { toGoJson } from "#wire/template-value.ts";
import { type Command, ExitError, exactly, noArguments } from "./command.ts";
import type { CliContext } from "./context.ts";
import {
  type ContextMeta,
  checkContextName,
  contextExists,
  contextMetaDirectory,
  contextTlsDirectory,
  listContexts,
  readContext,
  readContextTls,
} from "./contexts.ts";
import { string } from "./flag-types.ts";
import { flag, toggle } from "./flags.ts";
import { formatHelp, inspectFormatHelp } from "./format-help.ts";
import { formatListing, type Row } from "./formatter.ts";
import { resolveTarget } from "./global-options.ts";
import { inspectAll } from "./inspector.ts";

const headers = {
  Name: "NAME",
  Description: "DESCRIPTION",
  DockerEndpoint: "DOCKER ENDPOINT",
  Current: "",
  Error: "ERROR",
} as const;

export const listAllContexts: Command = {
  usage: "[OPTIONS]",
  flags: [flag("format", string, formatHelp), toggle("q,quiet", "Print names only")],
  args: noArguments,
  run: async (context, flags) => {
    const quiet = flags.bool("quiet");
    let format = flags.text("format") || "table";
    const table = format === "table";
    if (table) {
      format = quiet
        ? "{{.Name}}"
        : "table {{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}";
    }
    const rows = [
      defaultRow(context),
      ...listContexts(context.configDirectory).map((meta) => storedRow(context, meta)),
      ...missingRow(context),
    ];
    rows.sort((one, other) => (String(one["Name"]) < String(other["Name"]) ? -1 : 1));
    context.write(formatListing({ format, headers, typeName: "*formatter.clientContextContext", rows }));
    if ((context.env["DOCKER_HOST"] ?? "") !== "" && !quiet) {
      context.error(
        "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable.",
      );
    }
    return 0;
  },
};

function defaultRow(context: CliContext): Row {
  return {
    Name: "default",
    Description: "Current DOCKER_HOST based configuration",
    DockerEndpoint: defaultEndpoint(context),
    Current: context.contextName === "default",
    Error: "",
  };
}

function defaultEndpoint(context: CliContext): string {
  const { globals: flags, env, program, configDirectory } = context;
  return resolveTarget({ flags, env, program, configDirectory, contextName: "default" }).host;
}

function storedRow(context: CliContext, meta: ContextMeta): Row {
  return {
    Name: meta.Name,
    Description: String(meta.Metadata["Description"] ?? ""),
    DockerEndpoint: meta.Endpoints["docker"]?.Host ?? "",
    Current: context.contextName === meta.Name,
    Error: "",
  };
}

const errorLengthMax = 45;

/** The context in use is listed, too, when it is not there. */
function missingRow({ contextName, configDirectory }: CliContext): Row[] {
  if (contextName === "default" || contextExists(configDirectory, contextName)) return [];
  try {
    readContext(configDirectory, contextName);
    return [];
  } catch (error) {
    const text = messageOf(error);
    const shown = text.length > errorLengthMax ? `${text.slice(0, errorLengthMax - 1)}…` : text;
    return [{ Name: contextName, Description: "", DockerEndpoint: "", Current: true, Error: shown }];
  }
}

export const showContext: Command = {
  usage: "",
  flags: [],
  args: noArguments,
  run: async (context) => {
    context.print(context.contextName);
    return 0;
  },
};

export const useContext: Command = {
  usage: "CONTEXT",
  flags: [],
  args: exactly(1),
  run: async (context, _flags, [name]) => {
    if (name !== "default") {
      checkContextName(name!);
      readContext(context.configDirectory, name!);
    }
    const { currentContext: _old, ...rest } = context.config;
    context.saveConfig(name === "default" ? rest : { ...rest, currentContext: name! });
    context.print(name!);
    context.error(`Current context is now ${JSON.stringify(name)}`);
    if ((context.env["DOCKER_HOST"] ?? "") !== "") {
      context.error(
        `Warning: DOCKER_HOST environment variable overrides the active context. To use ${JSON.stringify(name)}, either set the global --context flag, or unset DOCKER_HOST environment variable.`,
      );
    }
    return 0;
  },
};

export const inspectContexts: Command = {
  usage: "[OPTIONS] [CONTEXT] [CONTEXT...]",
  flags: [flag("f,format", string, inspectFormatHelp)],
  args: { kind: "any" },
  run: async (context, flags, names) => {
    const wanted = names.length === 0 ? [context.contextName] : names;
    return inspectAll(context, flags.text("format"), wanted, async (name) => ({
      text: toGoJson(describe(context, name), { escapeHtml: true }),
      kind: "other",
    }));
  },
};

function describe(context: CliContext, name: string): object {
  const directory = context.configDirectory;
  if (name === "default") {
    return {
      Name: "default",
      Metadata: {},
      Endpoints: { docker: { Host: defaultEndpoint(context), SkipTLSVerify: false } },
      TLSMaterial: {},
      Storage: { MetadataPath: "<IN MEMORY>", TLSPath: "<IN MEMORY>" },
    };
  }
  try {
    const meta = readContext(directory, name);
    return {
      Name: meta.Name,
      Metadata: meta.Metadata,
      Endpoints: meta.Endpoints,
      TLSMaterial: Object.fromEntries(
        [...readContextTls(directory, name)].map(([endpoint, files]) => [endpoint, [...files.keys()]]),
      ),
      Storage: {
        MetadataPath: contextMetaDirectory(directory, name),
        TLSPath: contextTlsDirectory(directory, name),
      },
    };
  } catch (error) {
    throw new ExitError(1, error instanceof Error ? error.message : String(error));
  }
}
