import { ExitError } from "./command.ts";
import type { CliContext } from "./context.ts";
import { registryAuthHeader } from "./credentials.ts";
import { type ProgressTarget, StreamError, showProgress } from "./progress.ts";
import { familiarName, type ImageReference } from "./reference.ts";

export interface PullOptions {
  readonly reference: ImageReference;
  readonly allTags: boolean;
  readonly platform: string;
  /** Undefined: nothing is shown. */
  readonly target: ProgressTarget | undefined;
}

/** Pulls an image and shows the progress. Throws `StreamError` and `ApiError`. */
export async function pullImage(context: CliContext, options: PullOptions): Promise<void> {
  const { reference, allTags, platform, target } = options;
  const response = await context.client.request("POST", "/images/create", {
    query: {
      fromImage: familiarName(reference),
      tag: allTags ? undefined : reference.digest || reference.tag,
      platform: platform === "" ? undefined : platform.toLowerCase(),
    },
    headers: await registryAuthHeader(context.config, reference),
  });
  await showProgress(response.body, target ?? { write: () => {} });
}

/** Checks `os[/arch[/variant]]` as the client does before it asks the daemon. */
export function checkPlatform(text: string): void {
  if (text === "") return;
  const parts = text.split("/");
  const fits = parts.length <= 3 && parts.every((part) => /^[A-Za-z0-9_.-]+$/.test(part));
  if (!fits) {
    const reason =
      parts.length > 3
        ? "cannot parse platform specifier: invalid argument"
        : `${JSON.stringify(parts.find((part) => !/^[A-Za-z0-9_.-]+$/.test(part)))} is an invalid component of ${JSON.stringify(text)}: platform specifier component must match "^[A-Za-z0-9_.-]+$": invalid argument`;
    throw new Error(
      `error parsing specified platform: ${JSON.stringify(text)}: ${reason}`.replace(
        /: ("[^"]+"): cannot/,
        ": $1: cannot",
      ),
    );
  }
}

/** An error inside a progress stream, as a command prints it: without Docker's prefix for refused requests. */
export function streamFailure(error: unknown): unknown {
  return error instanceof StreamError ? new ExitError(1, error.message) : error;
}
