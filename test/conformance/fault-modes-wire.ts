import {
  atMost,
  basic,
  bearer,
  endless,
  json,
  type Mode,
  nothingSecret,
  once,
  page,
  rawAndClose,
  type Surroundings,
  sideBySide,
  stall,
  status,
  type Way,
  way,
} from "./fault-acts.ts";
import type { Fault, FaultRegistry } from "./fault-registry.ts";

/** Addresses that a registry gives. */
export function elsewhere({ other }: Surroundings): Mode[] {
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
        after: atMost("head", 11 * sideBySide),
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

/** Authentication. */
export function tokens({ other }: Surroundings): Mode[] {
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

/** What is hardly HTTP. */
export function wire(): Mode[] {
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
