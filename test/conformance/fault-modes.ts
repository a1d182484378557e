import {
  atMost,
  cutUpload,
  endless,
  json,
  type Mode,
  once,
  page,
  partial,
  raw,
  rawAndClose,
  reset,
  type Surroundings,
  sideBySide,
  stall,
  status,
  trickle,
  trickleBody,
  way,
} from "./fault-acts.ts";
import { elsewhere, tokens, wire } from "./fault-modes-wire.ts";

const deep = `${"[".repeat(200_000)}${"]".repeat(200_000)}`;

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
      push: way("upload", status(502, page, "<html>"), /502 Bad Gateway/, {
        after: atMost("upload", 3 * sideBySide),
      }),
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

/** Everything that a registry does wrong here. */
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
