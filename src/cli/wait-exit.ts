import type { ApiClient } from "#sdk/client.ts";
import { parseJson, readText } from "#sdk/client.ts";
import type { WaitResult } from "#sdk/types.ts";
import type { CliContext } from "./context.ts";
import { errorText } from "./error-text.ts";

/** The exit code of the container's next exit; 125 when the daemon cannot say. */
export interface ExitWatch {
  readonly code: Promise<number>;
  /** Stops waiting; `code` then never settles. */
  cancel(): void;
}

/**
 * Registers for the next exit, or the removal of a `--rm` container, before it is started: the daemon answers with
 * its headers once the waiter stands, so that a quick exit is not missed.
 */
export async function watchExit(context: CliContext, id: string, removed: boolean): Promise<ExitWatch> {
  const abort = new AbortController();
  const { client } = context;
  const response = await waitRequest(client, id, removed, abort.signal);
  const code = readText(response.body).then(
    (text) => {
      const result = parseJson(text) as WaitResult;
      if (result.Error !== undefined && result.Error !== null) {
        context.error(`Error waiting for container: ${result.Error.Message}`);
        return 125;
      }
      return result.StatusCode;
    },
    (error: unknown) => {
      if (abort.signal.aborted) return new Promise<number>(() => {});
      context.error(`error waiting for container: ${errorText(error)}`);
      return 125;
    },
  );
  return { code, cancel: () => abort.abort() };
}

function waitRequest(
  client: ApiClient,
  id: string,
  removed: boolean,
  signal: AbortSignal,
): ReturnType<ApiClient["request"]> {
  return client.request("POST", `/containers/${id}/wait`, {
    query: { condition: removed ? "removed" : "next-exit" },
    signal,
  });
}
