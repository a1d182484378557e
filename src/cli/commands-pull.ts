import { type Command, ExitError, exactly } from "./command.ts";
import type { CliContext } from "./context.ts";
import { registryAuthHeader } from "./credentials.ts";
import { boolean, string } from "./flag-types.ts";
import { type Flags, flag, toggle } from "./flags.ts";
import { showProgress } from "./progress.ts";
import { pullImage, streamFailure } from "./pull-image.ts";
import {
  familiarName,
  familiarString,
  type ImageReference,
  parseReference,
  withDefaultTag,
} from "./reference.ts";

export const pull: Command = {
  usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
  flags: [
    toggle("a,all-tags", "Fetch every tag of the repository"),
    flag("disable-content-trust", boolean, "Skip the check of signatures", { shown: "true", initial: true }),
    flag("platform", string, "Platform to fetch where there are several"),
    toggle("q,quiet", "Print the name only"),
  ],
  args: exactly(1),
  run: runPull,
};

function reference(text: string): ImageReference {
  try {
    return parseReference(text);
  } catch (error) {
    throw new ExitError(1, error instanceof Error ? error.message : String(error));
  }
}

async function runPull(context: CliContext, flags: Flags, args: readonly string[]): Promise<number> {
  let wanted = reference(args[0]!);
  const allTags = flags.bool("all-tags");
  const quiet = flags.bool("quiet");
  if (allTags && (wanted.tag !== "" || wanted.digest !== "")) {
    throw new ExitError(1, "tag can't be used with --all-tags/-a");
  }
  if (!allTags && wanted.tag === "" && wanted.digest === "") {
    wanted = withDefaultTag(wanted);
    if (!quiet) context.print(`Using default tag: ${wanted.tag}`);
  }
  try {
    await pullImage(context, {
      reference: wanted,
      allTags,
      platform: context.platform(flags.text("platform")),
      target: quiet ? undefined : process.stdout,
    });
  } catch (error) {
    throw streamFailure(error);
  }
  const domain = wanted.domain;
  const full = `${domain}/${wanted.path}${wanted.tag === "" ? "" : `:${wanted.tag}`}${wanted.digest === "" ? "" : `@${wanted.digest}`}`;
  context.print(full);
  return 0;
}

export const push: Command = {
  usage: "[OPTIONS] NAME[:TAG]",
  flags: [
    toggle("a,all-tags", "Send every tag of the repository"),
    flag("disable-content-trust", boolean, "Skip signing", { shown: "true", initial: true }),
    flag("platform", string, "Send one platform of an image only"),
    toggle("q,quiet", "Print the name only"),
  ],
  args: exactly(1),
  run: runPush,
};

async function runPush(context: CliContext, flags: Flags, args: readonly string[]): Promise<number> {
  let wanted = reference(args[0]!);
  const all = flags.bool("all-tags");
  if (all && (wanted.tag !== "" || wanted.digest !== "")) {
    throw new ExitError(1, "tag can't be used with --all-tags/-a");
  }
  const quiet = flags.bool("quiet");
  if (!all && wanted.tag === "" && wanted.digest === "") {
    wanted = withDefaultTag(wanted);
    if (!quiet) context.print(`Using default tag: ${wanted.tag}`);
  }
  const response = await context.client.request("POST", `/images/${familiarName(wanted)}/push`, {
    query: { tag: all ? "" : wanted.tag, platform: platformJson(flags.text("platform")) },
    headers: await registryAuthHeader(context.config, wanted),
  });
  try {
    await showProgress(response.body, quiet ? { write: () => {} } : process.stdout);
  } catch (error) {
    throw streamFailure(error);
  }
  if (quiet) context.print(`${wanted.domain}/${familiarString({ ...wanted, domain: "docker.io" })}`);
  return 0;
}

/** A platform as the API takes it since 1.46: JSON of its parts. */
export function platformJson(text: string): string | undefined {
  if (text === "") return undefined;
  const [os = "", architecture = "", variant = ""] = text.split("/");
  return JSON.stringify({ os, architecture, ...(variant === "" ? {} : { variant }) });
}
