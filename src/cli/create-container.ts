import { existsSync, writeFileSync } from "node:fs";
import { ApiError } from "#sdk/api-error.ts";
import type { CreatedContainer } from "#sdk/types.ts";
import { ExitError } from "./command.ts";
import type { CreateRequest } from "./container-config.ts";
import type { CliContext } from "./context.ts";
import { daemonHint, errorText } from "./error-text.ts";
import type { Flags } from "./flags.ts";
import { checkPlatform, pullImage } from "./pull-image.ts";
import { familiarString, type ImageReference, parseReference, withDefaultTag } from "./reference.ts";

/** A failure of run or create: prefixed, with a pointer to the help, exit code 125 unless told otherwise. */
export function withHelp(context: CliContext, command: string, error: unknown, code = 125): ExitError {
  if (error instanceof ExitError) return error;
  const { program } = context;
  const text = errorText(error) + daemonHint(error, program);
  return new ExitError(
    code,
    `${program}: ${text}\n\nRun '${program} ${command} --help' for more information`,
  );
}

export function checkPullPolicy(policy: string): void {
  if (["always", "missing", "never", ""].includes(policy)) return;
  throw new Error(`invalid pull option: '${policy}': must be one of "always", "missing" or "never"`);
}

/** Makes the container, pulling its image where the policy asks for it. Gives its id; warnings go to stderr. */
export async function createContainer(
  context: CliContext,
  flags: Flags,
  request: CreateRequest,
): Promise<string> {
  const cidfile = flags.text("cidfile");
  if (cidfile !== "" && existsSync(cidfile)) {
    throw new Error(
      `container ID file found, make sure the other container isn't running or delete ${cidfile}`,
    );
  }
  const image = String(request.body["Image"]);
  const isId = /^[0-9a-f]{64}$/.test(image);
  const reference = isId ? undefined : withDefaultTag(parseReference(image));
  const platform = context.platform(flags.text("platform"));
  checkPlatform(platform);
  const pull = async (wanted: ImageReference): Promise<void> =>
    pullImage(context, {
      reference: wanted,
      allTags: false,
      platform,
      target: flags.bool("quiet") ? undefined : process.stderr,
    });
  // Since 1.44 the address belongs to the endpoint alone.
  if (await context.client.atLeast("1.44")) delete request.body["MacAddress"];
  const policy = flags.text("pull");
  if (policy === "always" && reference !== undefined) await pull(reference);
  const send = (): Promise<CreatedContainer> =>
    context.client.json("POST", "/containers/create", {
      query: {
        name: flags.text("name") || undefined,
        platform: platform === "" ? undefined : platform.toLowerCase(),
      },
      json: request.body,
    });
  let created: CreatedContainer;
  try {
    created = await send();
  } catch (error) {
    const missing =
      error instanceof ApiError &&
      error.status === 404 &&
      reference !== undefined &&
      isMissingImage(error, reference);
    if (!missing || policy !== "missing") throw error;
    if (!flags.bool("quiet")) context.error(`Unable to find image '${familiarString(reference)}' locally`);
    await pull(reference);
    created = await send();
  }
  for (const warning of created.Warnings ?? []) context.error(`WARNING: ${warning}`);
  if (cidfile !== "") writeFileSync(cidfile, created.Id, { mode: 0o644 });
  return created.Id;
}

function isMissingImage(error: ApiError, reference: ImageReference): boolean {
  const text = error.message.toLowerCase();
  return text.includes("no such image") || text.includes(`${familiarString(reference).toLowerCase()}`);
}
