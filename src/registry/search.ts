import { EngineError } from "#base/errors.ts";
import { plainText, registryError } from "./registry-error.ts";
import { readBody, type Transport } from "./transport.ts";

export interface SearchResult {
  readonly name: string;
  readonly description: string;
  readonly starCount: number;
  readonly isOfficial: boolean;
  readonly isAutomated: boolean;
}

/** A hundred results with long descriptions stay below a tenth of it. */
const answerBytesMax = 4 * 1024 * 1024;
const resultsMax = 100;

/** Asks a registry's search (v1 API: `GET /v1/search`). Throws what the registry says, `TransportError` without an answer. */
export async function searchRegistry(
  transport: Transport,
  request: { base: string; verifyTls: boolean; term: string; limit: number },
  signal: AbortSignal,
): Promise<SearchResult[]> {
  const url = new URL(`${request.base}/v1/search`);
  url.searchParams.set("q", request.term);
  url.searchParams.set("n", String(request.limit));
  const answer = await transport.send({ method: "GET", url, verifyTls: request.verifyTls, signal });
  const body = (await readBody(answer, answerBytesMax)).toString("utf8");
  if (answer.status !== 200) throw registryError(answer, body);
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch (cause) {
    throw new EngineError("system", "error decoding registry search results", { code: "bad-search", cause });
  }
  const results = (value as { results?: unknown } | null)?.results;
  return (Array.isArray(results) ? results : []).slice(0, resultsMax).flatMap(resultOf);
}

function resultOf(value: unknown): SearchResult[] {
  const fields = (value ?? {}) as Readonly<Record<string, unknown>>;
  const { name, description, star_count: stars } = fields;
  if (typeof name !== "string") return [];
  return [
    {
      name: plainText(name, 300),
      description: typeof description === "string" ? plainText(description) : "",
      starCount: typeof stars === "number" && Number.isSafeInteger(stars) ? stars : 0,
      isOfficial: fields["is_official"] === true,
      isAutomated: fields["is_automated"] === true,
    },
  ];
}
