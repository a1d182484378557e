import { type IncomingHttpHeaders, request } from "node:http";

export interface Answer<T> {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** The body as JSON, or undefined when it is none. */
  readonly body: T | undefined;
}

/** One plain request to a daemon's unix socket: no client library between the test and the wire. */
export function call<T = unknown>(
  socketPath: string,
  method: string,
  path: string,
  body?: unknown,
  headers: Readonly<Record<string, string>> = {},
): Promise<Answer<T>> {
  return new Promise((resolve, reject) => {
    const raw =
      typeof body === "string" || Buffer.isBuffer(body)
        ? body
        : body === undefined
          ? undefined
          : JSON.stringify(body);
    const sent = request(
      {
        socketPath,
        method,
        path,
        agent: false,
        headers: {
          ...(raw === undefined
            ? {}
            : { "Content-Type": "application/json", "Content-Length": String(Buffer.byteLength(raw)) }),
          ...headers,
        },
      },
      (answer) => {
        const chunks: Buffer[] = [];
        answer.on("data", (chunk: Buffer) => chunks.push(chunk));
        answer.on("error", reject);
        answer.on("end", () => {
          const text = Buffer.concat(chunks).toString("utf8");
          let parsed: T | undefined;
          try {
            parsed = JSON.parse(text) as T;
          } catch {
            parsed = undefined;
          }
          resolve({ status: answer.statusCode ?? 0, headers: answer.headers, text, body: parsed });
        });
      },
    );
    sent.on("error", reject);
    sent.end(raw);
  });
}
