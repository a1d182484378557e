import type { Fault, FaultRegistry, FaultTurn } from "./fault-registry.ts";

export interface Way {
  readonly faults: readonly Fault[];
  /** "ok": done in spite of it, and whole. Else what the error says. */
  readonly expect: "ok" | RegExp;
  readonly setUp?: (registry: FaultRegistry) => void;
  /** Of the registry and of another origin that it may have pointed at. */
  readonly after?: (registry: FaultRegistry, other: FaultRegistry) => string | undefined;
}

export interface Mode {
  readonly name: string;
  readonly pull?: Way;
  readonly push?: Way;
}

/** Another origin, and the layer's bytes, for faults that need them. */
export interface Surroundings {
  readonly other: FaultRegistry;
  readonly layer: Buffer;
}

export const json = { "content-type": "application/vnd.oci.image.manifest.v1+json" };

/** An answer's status and headers when nothing else is wrong with them. */
function head(turn: FaultTurn): [number, Record<string, string>] {
  if (turn.kind === "begin") return [202, { location: `${turn.path}never` }];
  return [turn.kind === "put-manifest" || turn.kind === "upload" ? 201 : 200, {}];
}

export const status =
  (code: number, headers: Record<string, string> = {}, body: string | Buffer = "") =>
  ({ response }: FaultTurn): void => {
    response.writeHead(code, headers).end(body);
  };
export const stall = (): void => {};
export const reset = ({ socket }: FaultTurn): void => {
  socket.resetAndDestroy();
};
export const raw =
  (...parts: readonly string[]) =>
  ({ socket }: FaultTurn): void => {
    socket.write(parts.join("\r\n"));
  };
export const rawAndClose =
  (...parts: readonly string[]) =>
  ({ socket }: FaultTurn): void => {
    socket.end(parts.join("\r\n"));
  };
/** Byte after byte, for as long as anybody listens. */
export const trickle =
  (text: string) =>
  ({ socket }: FaultTurn): void => {
    let at = 0;
    const timer = setInterval(() => {
      socket.write(text[at % text.length]!);
      at += 1;
    }, 30);
    socket.on("close", () => clearInterval(timer));
  };
export const trickleBody = (turn: FaultTurn): void => {
  const [code, headers] = head(turn);
  turn.response.writeHead(code, headers).write("{");
  const timer = setInterval(() => turn.response.write(" "), 30);
  turn.response.on("close", () => clearInterval(timer));
};
/** As fast as it is taken, without an end. */
export const endless = (turn: FaultTurn): void => {
  const [code, headers] = head(turn);
  const { response } = turn;
  response.writeHead(code, headers);
  const more = (): void => {
    while (!response.destroyed && response.write(Buffer.alloc(64 * 1024, " ")));
  };
  response.on("drain", more);
  more();
};
export const partial =
  (bytes: Buffer, at: number) =>
  ({ request, response }: FaultTurn): void => {
    const from = Number(/\d+/.exec(request.headers.range ?? "")?.[0] ?? 0);
    const range = `bytes ${from}-${bytes.length - 1}/${bytes.length}`;
    response.writeHead(from === 0 ? 200 : 206, {
      "content-length": bytes.length - from,
      ...(from === 0 ? {} : { "content-range": range }),
    });
    response.write(bytes.subarray(from, from + at), () => setTimeout(() => response.destroy(), 10));
  };
/** Takes some of an upload, then breaks the connection. */
export const cutUpload = ({ request, socket }: FaultTurn): void => {
  let length = 0;
  request.on("data", (chunk: Buffer) => {
    length += chunk.length;
    if (length > 50_000) socket.destroy();
  });
};

export const way = (
  at: Fault["at"],
  act: Fault["act"],
  expect: Way["expect"],
  more: Partial<Fault> & Pick<Way, "setUp" | "after"> = {},
): Way => {
  const { times, early, setUp, after } = more;
  return {
    faults: [
      {
        at,
        act,
        ...(times === undefined ? {} : { times }),
        ...(early === undefined ? {} : { early }),
      },
    ],
    expect,
    ...(setUp === undefined ? {} : { setUp }),
    ...(after === undefined ? {} : { after }),
  };
};
export const once = { times: 1 };

/** Nothing of what the user gave goes to anybody but the registry itself. */
export const nothingSecret = (_registry: FaultRegistry, other: FaultRegistry): string | undefined => {
  const told = other.seen.find(
    ({ headers, path, body }) => headers.authorization !== undefined || /user|secret/.test(path + body),
  );
  return told === undefined ? undefined : `credentials went to another origin: ${told.method} ${told.path}`;
};
export const basic = (registry: FaultRegistry): void => {
  registry.auth = "basic";
};
export const bearer = (registry: FaultRegistry): void => {
  registry.auth = "bearer";
};
/** A push asks for its layer and its config at once. */
export const sideBySide = 2;
export const atMost =
  (kind: Fault["at"], count: number) =>
  (registry: FaultRegistry): string | undefined =>
    registry.of(kind).length <= count
      ? undefined
      : `asked ${registry.of(kind).length} times instead of ${count}`;

export const page = { "content-type": "text/html" };
