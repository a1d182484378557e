import { ApiError } from "#sdk/api-error.ts";
import type { DeletedImage } from "#sdk/types.ts";
import { atLeast, type Command, ExitError, exactly } from "./command.ts";
import { platformJson } from "./commands-pull.ts";
import type { CliContext } from "./context.ts";
import { errorText } from "./error-text.ts";
import { strings } from "./flag-types.ts";
import { type Flags, flag, toggle } from "./flags.ts";

/** A path part that keeps the slashes of an image name. */
export function imagePath(name: string): string {
  return encodeURIComponent(name).replaceAll("%2F", "/").replaceAll("%3A", ":").replaceAll("%40", "@");
}

export const removeImages: Command = {
  usage: "[OPTIONS] IMAGE [IMAGE...]",
  flags: [
    toggle("f,force", "Remove the image by force"),
    toggle("no-prune", "Keep untagged parents"),
    flag("platform", strings, "Remove one platform of an image only"),
  ],
  args: atLeast(1),
  run: runRemove,
};

async function runRemove(context: CliContext, flags: Flags, names: readonly string[]): Promise<number> {
  const failures: string[] = [];
  let fatal = false;
  const platforms = flags.list("platform").map((text) => platformJson(text)!);
  for (const name of names) {
    try {
      const removed = await context.client.json<DeletedImage[]>("DELETE", `/images/${imagePath(name)}`, {
        query: {
          force: flags.bool("force") ? true : undefined,
          noprune: flags.bool("no-prune") ? true : undefined,
          platforms: platforms.length === 0 ? undefined : platforms,
        },
      });
      for (const item of removed) {
        context.print(
          item.Deleted !== undefined && item.Deleted !== ""
            ? `Deleted: ${item.Deleted}`
            : `Untagged: ${item.Untagged}`,
        );
      }
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 404)) fatal = true;
      failures.push(errorText(error));
    }
  }
  if (failures.length === 0) return 0;
  const message = failures.join("\n");
  if (!flags.bool("force") || fatal) throw new ExitError(1, message);
  context.error(message);
  return 0;
}

export const tag: Command = {
  usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
  flags: [],
  args: exactly(2),
  run: runTag,
};

async function runTag(
  context: CliContext,
  _flags: Flags,
  [source, target]: readonly string[],
): Promise<number> {
  const { familiarName, parseReference, withDefaultTag } = await import("./reference.ts");
  const reference = (text: string): ReturnType<typeof parseReference> => {
    try {
      return parseReference(text);
    } catch (error) {
      throw new ExitError(
        1,
        `Error parsing reference: ${JSON.stringify(text)} is not a valid repository/tag: ${(error as Error).message}`,
      );
    }
  };
  if (!/^[0-9a-f]{64}$/.test(source!)) reference(source!);
  const wanted = withDefaultTag(reference(target!));
  if (wanted.digest !== "") throw new ExitError(1, "refusing to create a tag with a digest reference");
  await context.client.run("POST", `/images/${imagePath(source!)}/tag`, {
    query: { repo: familiarName(wanted), tag: wanted.tag },
  });
  return 0;
}
