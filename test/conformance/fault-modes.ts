import type { Fault, FaultRegistry, FaultTurn } from "./fault-registry.ts";

/** What a registry does wrong on one way, and what comes of it. */
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

const json = { "content-type": "application/vnd.oci.image.manifest.v1+json" };

/** An answer's status and headers when nothing else is wrong with them. */
function head(turn: FaultTurn): [number, Record<string, string>] {
  if (turn.kind === "begin") return [202, { location: `${turn.path}never` }];
  return [turn.kind === "put-manifest" || turn.kind === "upload" ? 201 : 200, {}];
}

const status =
  (code: number, headers: Record<string, string> = {}, body: string | Buffer = "") =>
  ({ response }: FaultTurn): void => {
    response.writeHead(code, headers).end(body);
  };
const stall = (): void => {};
const reset = ({ socket }: FaultTurn): void => {
  socket.resetAndDestroy();
};
const raw =
  (...parts: readonly string[]) =>
  ({ socket }: FaultTurn): void => {
    socket.write(parts.join("\r\n"));
  };
const rawAndClose =
  (...parts: readonly string[]) =>
  ({ socket }: FaultTurn): void => {
    socket.end(parts.join("\r\n"));
  };
/** Byte after byte, for as long as anybody listens. */
const trickle =
  (text: string) =>
  ({ socket }: FaultTurn): void => {
    let at = 0;
    const timer = setInterval(() => {
      socket.write(text[at % text.length]!);
      at += 1;
    }, 30);
    socket.on("close", () => clearInterval(timer));
  };
const trickleBody = (turn: FaultTurn): void => {
  const [code, headers] = head(turn);
  turn.response.writeHead(code, headers).write("{");
  const timer = setInterval(() => turn.response.write(" "), 30);
  turn.response.on("close", () => clearInterval(timer));
};
/** As fast as it is taken, without an end. */
const endless = (turn: FaultTurn): void => {
  const [code, headers] = head(turn);
  const { response } = turn;
  response.writeHead(code, headers);
  const more = (): void => {
    while (!response.destroyed && response.write(Buffer.alloc(64 * 1024, " ")));
  };
  response.on("drain", more);
  more();
};
const partial =
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
const cutUpload = ({ request, socket }: FaultTurn): void => {
  let length = 0;
  request.on("data", (chunk: Buffer) => {
    length += chunk.length;
    if (length > 50_000) socket.destroy();
  });
};

const way = (
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
const once = { times: 1 };

/** Nothing of what the user gave goes to anybody but the registry itself. */
const nothingSecret = (_registry: FaultRegistry, other: FaultRegistry): string | undefined => {
  const told = other.seen.find(
    ({ headers, path, body }) => headers.authorization !== undefined || /user|secret/.test(path + body),
  );
  return told === undefined ? undefined : `credentials went to another origin: ${told.method} ${told.path}`;
};
const basic = (registry: FaultRegistry): void => {
  registry.auth = "basic";
};
const bearer = (registry: FaultRegistry): void => {
  registry.auth = "bearer";
};
const atMost =
  (kind: Fault["at"], count: number) =>
  (registry: FaultRegistry): string | undefined =>
    registry.of(kind).length <= count
      ? undefined
      : `asked ${registry.of(kind).length} times instead of ${count}`;

const deep = `${"[".repeat(200_000)}${"]".repeat(200_000)}`;
const page = { "content-type": "text/html" };

function lengths({ layer }: Surroundings): Mode[] {
  const changed = Buffer.from(layer);
  changed[1000]! ^= 1;
  return [
    {
      name: "breaks off in the middle, once",
      pull: way("layer", partial(layer, 50_000), "ok", once),
      push: way("upload", cutUpload, "ok", { times: 1, early: true }),
    },
    {
      name: "breaks off in the middle, always at the same place",
      pull: way(
        "layer",
        ({ response }) => {
          response.writeHead(200, { "content-length": layer.length });
          response.write(layer.subarray(0, 5000), () => setTimeout(() => response.destroy(), 5));
        },
        /EOF|reset/,
      ),
      push: way("upload", cutUpload, /EOF|reset|broken/, { early: true, after: atMost("upload", 8) }),
    },
    {
      name: "resets the connection, once",
      pull: way("layer", reset, "ok", once),
      push: way("begin", reset, "ok", once),
    },
    {
      name: "resets every connection",
      pull: way("manifest", reset, /EOF|reset/),
      push: way("head", reset, /EOF|reset/),
    },
    {
      name: "announces more bytes than there are to be",
      pull: way("layer", status(200, {}, Buffer.concat([layer, layer])), /verification failed/),
      push: way(
        "upload",
        raw("HTTP/1.1 201 Created", "Content-Length: 100000", "", "x"),
        /blob unknown/,
        once,
      ),
    },
    {
      name: "announces fewer bytes than there are to be",
      pull: way("layer", status(200, {}, layer.subarray(0, 100)), /unexpected EOF/),
      push: way("begin", rawAndClose("HTTP/1.1 202 Accepted", "Content-Length: 0", "", "x"), /location/),
    },
    {
      name: "has other bytes of the same length",
      pull: way("layer", status(200, {}, changed), /verification failed/),
      push: way(
        "upload",
        status(201, { "docker-content-digest": `sha256:${"1".repeat(64)}` }),
        /verification failed/,
      ),
    },
    {
      name: "answers with another range",
      pull: {
        faults: [
          { at: "layer", times: 1, act: partial(layer, 50_000) },
          { at: "layer", act: status(206, { "content-range": "bytes 60000-99999/100000" }, layer) },
        ],
        expect: /another range/,
      },
      push: {
        faults: [
          { at: "upload", times: 1, early: true, act: cutUpload },
          { at: "status", act: status(204, { range: "0-99999999999" }) },
        ],
        expect: "ok",
      },
    },
    {
      name: "says 416",
      pull: {
        faults: [
          { at: "layer", times: 1, act: partial(layer, 50_000) },
          { at: "layer", times: 1, act: status(416) },
        ],
        expect: "ok",
      },
      push: way("upload", status(416, { range: "0-10" }), "ok", once),
    },
    {
      name: "says that it has a part that was never sent",
      push: {
        faults: [
          { at: "upload", times: 1, early: true, act: ({ socket }) => socket.destroy() },
          { at: "status", act: status(204, { range: `0-${layer.length - 2}` }) },
        ],
        expect: "ok",
      },
    },
  ];
}

function documents(): Mode[] {
  const wrong = { "docker-content-digest": `sha256:${"0".repeat(64)}` };
  return [
    {
      name: "sends a page instead of a document",
      pull: way("manifest", status(200, page, "<html>"), /text\/html|unsupported|invalid/),
      push: way(
        "upload",
        (turn) => {
          turn.response.setHeader("content-type", "text/html");
          turn.honest();
        },
        "ok",
      ),
    },
    {
      name: "sends a document that is too large",
      pull: way("manifest", status(200, json, Buffer.alloc(5_000_000, " ")), /larger than/),
      push: way("put-manifest", status(400, page, Buffer.alloc(5_000_000, " ")), /400 Bad Request/),
    },
    {
      name: "sends without an end",
      pull: way("manifest", endless, /larger than/),
      push: way("put-manifest", endless, "ok", { after: () => undefined }),
    },
    {
      name: "nests JSON two hundred thousand deep",
      pull: way("manifest", status(200, json, deep), /not valid JSON|nested/),
      push: way("put-manifest", status(400, json, deep), /400 Bad Request/),
    },
    {
      name: "says a key twice",
      pull: way("manifest", status(200, json, '{"schemaVersion":2,"layers":[],"layers":[]}'), /twice/),
    },
    {
      name: "names another digest than that of the bytes",
      pull: way(
        "manifest",
        (turn) => {
          turn.response.setHeader("docker-content-digest", wrong["docker-content-digest"]);
          turn.honest();
        },
        /verification failed/,
      ),
      push: way("put-manifest", status(201, wrong), /verification failed/),
    },
    {
      name: "names a digest that is none",
      pull: way(
        "manifest",
        (turn) => {
          turn.response.setHeader("docker-content-digest", "sha256:../../etc/passwd");
          turn.honest();
        },
        /digest/,
      ),
      push: way("put-manifest", status(201, { "docker-content-digest": "sha256:../x" }), /digest/),
    },
    {
      name: "compresses what is not to be compressed",
      pull: way(
        "manifest",
        (turn) => {
          turn.response.setHeader("content-encoding", "gzip");
          turn.honest();
        },
        "ok",
      ),
    },
  ];
}

function busy({ layer }: Surroundings): Mode[] {
  const later = { "retry-after": "1" };
  return [
    {
      name: "is busy, for a second",
      pull: way("layer", status(429, later), "ok", once),
      push: way("begin", status(429, later), "ok", once),
    },
    {
      name: "is busy, until a date",
      pull: way(
        "manifest",
        (turn) => status(429, { "retry-after": new Date(Date.now() + 1000).toUTCString() })(turn),
        "ok",
        once,
      ),
      push: way(
        "upload",
        (turn) => status(503, { "retry-after": new Date(Date.now() + 1000).toUTCString() })(turn),
        "ok",
        once,
      ),
    },
    {
      name: "is busy for a day",
      pull: way("manifest", status(429, { "retry-after": "86400" }), /too many requests/, {
        after: atMost("manifest", 1),
      }),
      push: way("put-manifest", status(429, { "retry-after": "86400" }), /too many requests/, {
        after: atMost("put-manifest", 1),
      }),
    },
    {
      name: "is busy until nobody knows when",
      pull: way("config", status(429, { "retry-after": "-5 fortnights" }), "ok", once),
      push: way("head", status(429, { "retry-after": "soon" }), "ok", once),
    },
    {
      name: "fails, once",
      pull: way("config", status(503), "ok", once),
      push: way("put-manifest", status(500), "ok", once),
    },
    {
      name: "fails, always",
      pull: way("layer", status(500), /500 Internal Server Error/, { after: atMost("layer", 3) }),
      push: way("upload", status(502, page, "<html>"), /502 Bad Gateway/, { after: atMost("upload", 3) }),
    },
    {
      name: "says nothing, once",
      pull: way("manifest", stall, "ok", once),
      push: way("begin", stall, "ok", once),
    },
    {
      name: "says nothing in the middle, once",
      pull: way(
        "layer",
        ({ response }) => {
          response.writeHead(200, { "content-length": layer.length });
          response.write(layer.subarray(0, 1000));
        },
        "ok",
        once,
      ),
      push: way(
        "put-manifest",
        ({ response }) => {
          response.writeHead(201, { "content-length": "10" });
          response.write("x");
        },
        "ok",
        { after: () => undefined },
      ),
    },
    {
      name: "sends a header byte by byte, without an end",
      pull: way("manifest", trickle("HTTP/1.1 200 OK\r\nx: "), /timeout|canceled|EOF|reset|Parse|HPE/),
      push: way("begin", trickle("HTTP/1.1 202 Accepted\r\nx: "), /timeout|canceled|EOF|reset|Parse|HPE/),
    },
    {
      name: "sends a body byte by byte, without an end",
      pull: way("manifest", trickleBody, /minimum rate/),
      push: way(
        "head",
        (turn) => trickle("HTTP/1.1 404 Not Found\r\nx: ")(turn),
        /timeout|canceled|EOF|reset/,
      ),
    },
    {
      name: "answers the beginning of an upload byte by byte, without an end",
      push: way("begin", trickleBody, /unknown/i),
    },
  ];
}

function elsewhere({ other }: Surroundings): Mode[] {
  const to = (location: string): Fault["act"] => status(307, { location });
  const there = (path: string): string => `http://${other.address}${path}`;
  return [
    {
      name: "redirects to another origin, which sees no credentials",
      pull: way("layer", (turn) => to(there(turn.path))(turn), "ok", { setUp: basic, after: nothingSecret }),
      push: way("upload", (turn) => to(there(turn.path))(turn), /307/, {
        setUp: basic,
        after: nothingSecret,
      }),
    },
    {
      name: "redirects for ever",
      pull: way("config", (turn) => to(turn.path)(turn), /stopped after 10 redirects/, {
        after: atMost("config", 11),
      }),
      push: way("head", (turn) => to(turn.path)(turn), /stopped after 10 redirects/, {
        after: atMost("head", 11),
      }),
    },
    {
      name: "redirects to a link-local address",
      pull: way("layer", to("http://169.254.169.254/latest/"), /link-local/),
      push: way("begin", status(202, { location: "http://169.254.169.254/up/1" }), /link-local/),
    },
    {
      name: "redirects to what is no address",
      pull: way("manifest", to("http://["), /Location/),
      push: way("begin", status(202, { location: "http://[" }), /Location/),
    },
    {
      name: "redirects to a file",
      pull: way("manifest", to("file:///etc/shadow"), /scheme/),
      push: way("begin", status(202, { location: "file:///etc/shadow" }), /protocol/),
    },
    {
      name: "gives no location",
      pull: way("manifest", status(307), /307/),
      push: way("begin", status(202), /no upload location/),
    },
    {
      name: "has uploads sent to another origin, which sees no credentials",
      push: way(
        "begin",
        (turn) => {
          // Begun there, too: it takes the bytes.
          void fetch(there(turn.path), { method: "POST" }).then((answer) =>
            turn.response.writeHead(202, { location: there(answer.headers.get("location")!) }).end(),
          );
        },
        /blob unknown/,
        { setUp: basic, after: nothingSecret },
      ),
    },
    {
      name: "forgets an upload",
      pull: way("layer", status(404), /404|unknown/),
      push: way("upload", status(404, json, '{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}'), "ok", once),
    },
  ];
}

function tokens({ other }: Surroundings): Mode[] {
  const token = (act: Fault["act"], expect: Way["expect"], more: Partial<Fault> & Partial<Way> = {}): Way =>
    way("token", act, expect, { setUp: bearer, ...more });
  const both = (name: string, make: () => Way): Mode => ({ name, pull: make(), push: make() });
  const renewing = (at: Fault["at"]): Way =>
    way(
      at,
      (turn) => {
        turn.registry.renew();
        turn.honest();
      },
      "ok",
      { times: 1, setUp: bearer },
    );
  return [
    both("has a token server that fails, once", () => token(status(503), "ok", once)),
    both("has a token server that fails, always", () =>
      token(status(500), /500 Internal Server Error/, { after: atMost("token", 6) }),
    ),
    both("has a token server that says nothing", () =>
      token(stall, /timeout/, { after: atMost("token", 6) }),
    ),
    both("has a token server that sends without an end", () => token(endless, /larger than/)),
    both("has a token server that sends something else", () =>
      token(status(200, page, "<html>"), /decode token/),
    ),
    both("has a token server whose token breaks the header", () =>
      token(status(200, {}, '{"token":"a\\r\\nX-Evil: 1"}'), /did not include a token/),
    ),
    both("accepts none of its own tokens", () =>
      token(status(200, {}, '{"token":"worthless"}'), /authentication required|unauthorized/, {
        after: atMost("token", 6),
      }),
    ),
    both("redirects the token request to another origin, which sees no credentials", () =>
      token(
        status(307, { location: `http://${other.address}/token` }),
        /authentication required|unauthorized|ok/,
        { after: nothingSecret },
      ),
    ),
    both("has its token server on another origin, which sees no credentials", () => ({
      faults: [],
      expect: "ok",
      setUp: (registry) => {
        registry.auth = "bearer";
        registry.realm = `http://${other.address}/token`;
      },
      after: nothingSecret,
    })),
    ...["file:///etc/passwd", "http://169.254.169.254/token", "gopher://x/", "http://["].map((realm) =>
      both(`has its token server at ${realm}`, () => ({
        faults: [],
        expect: /realm|link-local/,
        setUp: (registry: FaultRegistry) => {
          registry.auth = "bearer";
          registry.realm = realm;
        },
      })),
    ),
    {
      name: "wants another token in the middle",
      pull: renewing("layer"),
      push: renewing("upload"),
    },
  ];
}

function wire(): Mode[] {
  const begin = "HTTP/1.1 202 Accepted";
  const ok = "HTTP/1.1 200 OK";
  const both = (name: string, pull: readonly string[], push: readonly string[], expect: RegExp): Mode => ({
    name,
    pull: way("manifest", rawAndClose(...pull), expect),
    push: way("begin", rawAndClose(...push), expect),
  });
  return [
    both(
      "speaks something else",
      ["SSH-2.0-OpenSSH_9.2", ""],
      ["220 smtp ready", ""],
      /EOF|Parse|HPE|Expected|HTTP/,
    ),
    both(
      "gives two lengths",
      [ok, "Content-Length: 2", "Content-Length: 3", "", "{}"],
      [begin, "Content-Length: 0", "Content-Length: 5", "", ""],
      /EOF|[Ll]ength/,
    ),
    both(
      "gives two locations",
      ["HTTP/1.1 307 Temporary Redirect", "Location: /a", "Location: /b", "Content-Length: 0", "", ""],
      [begin, "Location: /a", "Location: /b", "Content-Length: 0", "", ""],
      /location/i,
    ),
    both(
      "gives two digests",
      [
        ok,
        `Docker-Content-Digest: sha256:${"1".repeat(64)}`,
        `Docker-Content-Digest: sha256:${"2".repeat(64)}`,
        "Content-Length: 2",
        "",
        "{}",
      ],
      [
        begin,
        `Docker-Content-Digest: sha256:${"1".repeat(64)}`,
        `Docker-Content-Digest: sha256:${"2".repeat(64)}`,
        "Content-Length: 2",
        "",
        "{}",
      ],
      /digest/i,
    ),
    both(
      "gives two kinds of content and two pauses",
      [
        "HTTP/1.1 429 Busy",
        "Retry-After: 1",
        "Retry-After: 2",
        "Content-Type: a/b",
        "Content-Type: c/d",
        "Content-Length: 0",
        "",
        "",
      ],
      [
        "HTTP/1.1 429 Busy",
        "Retry-After: 1",
        "Retry-After: 2",
        "Content-Type: a/b",
        "Content-Type: c/d",
        "Content-Length: 0",
        "",
        "",
      ],
      /content-type|retry-after/i,
    ),
    both(
      "sends a header of a megabyte",
      [ok, `X: ${"y".repeat(1_000_000)}`, "", ""],
      [begin, `X: ${"y".repeat(1_000_000)}`, "", ""],
      /eader|EOF|reset/,
    ),
    both(
      "sends broken chunks",
      [ok, "Transfer-Encoding: chunked", "", "zz", "{}", ""],
      [begin, "Location: /v2/x/1", "Transfer-Encoding: chunked", "", "-5", "", ""],
      /EOF|Parse|HPE|chunk|unknown|404|Invalid/i,
    ),
  ];
}

export function faultModes(surroundings: Surroundings): readonly Mode[] {
  return [
    ...lengths(surroundings),
    ...documents(),
    ...busy(surroundings),
    ...elsewhere(surroundings),
    ...tokens(surroundings),
    ...wire(),
  ];
}
