import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { describe, it } from "node:test";
import { string } from "./flag-types.ts";
import { flag, toggle } from "./flags.ts";
import { formatListing } from "./formatter.ts";
import { optionsTable, wrapText } from "./help.ts";
import { indentJson } from "./inspector.ts";
import { displayPorts } from "./ports-display.ts";
import { progressBar, showProgress } from "./progress.ts";
import { familiarString, parseReference, withDefaultTag } from "./reference.ts";
import { sanitizeCell } from "./sanitize.ts";
import { ellipsis } from "./short-text.ts";
import { alignColumns } from "./tabwriter.ts";
import { goUtcString, timestampOf } from "./times.ts";
import { parseDuration } from "./units.ts";

describe("alignColumns, as text/tabwriter", () => {
  it("pads cells to the block's widest, ten at least; the last cell is free", () => {
    assert.equal(alignColumns("A\tB\nlonger text\tx\n"), "A             B\nlonger text   x\n");
    assert.equal(alignColumns("A\tB\tC\n1\t2\t3\n"), "A         B         C\n1         2         3\n");
  });
  it("a line without the column ends its block", () => {
    assert.equal(
      alignColumns("a\tb\nplain\nlonger text here\tc\n"),
      "a         b\nplain\nlonger text here   c\n",
    );
  });
});

describe("formatListing", () => {
  const listing = (format: string) =>
    formatListing({
      format,
      headers: { ID: "CONTAINER ID", Name: "NAME" },
      typeName: "*x.Row",
      rows: [{ ID: "1", Name: "<a>", Label: (name: string) => name }],
    });
  it("prints tables, JSON and templates", () => {
    assert.equal(listing("table {{.ID}}\\t{{.Name}}"), "CONTAINER ID   NAME\n1              <a>\n");
    assert.equal(listing("json"), '{"ID":"1","Name":"\\u003ca\\u003e"}\n');
    assert.equal(listing('{{.ID}}-{{.Label "q"}}'), "1-q\n");
    assert.equal(listing('table {{.Label "com.some-thing"}}'), "some thing\ncom.some-thing\n");
  });
  it("keeps escape sequences, newlines and bidi marks of a name out of a table", () => {
    const evil = "a\x1b[2J\u202eb\x9b\nc\td";
    const table = formatListing({
      format: "table {{.Name}}\t{{.ID}}",
      headers: { Name: "N", ID: "I" },
      typeName: "x",
      rows: [{ Name: evil, ID: "1" }],
    });
    assert.doesNotMatch(table, /[\x1b\u202e\x9b]/);
    assert.equal(table.split("\n").length, 3);
    assert.equal(sanitizeCell(evil), "a\\x1b[2J\\u202eb\\x9b c d");
  });
});

describe("columns", () => {
  it("ports: ranges, published, several addresses", () => {
    const port = (PrivatePort: number, Type: string, PublicPort?: number, IP?: string) => ({
      PrivatePort,
      Type,
      ...(PublicPort === undefined ? {} : { PublicPort }),
      ...(IP === undefined ? {} : { IP }),
    });
    assert.equal(displayPorts([]), "");
    assert.equal(
      displayPorts([port(80, "tcp", 8080, "0.0.0.0"), port(80, "tcp", 8080, "::")]),
      "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
    );
    assert.equal(displayPorts([port(82, "tcp"), port(80, "tcp"), port(81, "tcp")]), "80-82/tcp");
    assert.equal(
      displayPorts([port(80, "tcp", 80, "1.2.3.4"), port(81, "tcp", 81, "1.2.3.4")]),
      "1.2.3.4:80-81->80-81/tcp",
    );
    assert.equal(displayPorts([port(443, "udp"), port(80, "tcp")]), "80/tcp, 443/udp");
  });
  it("ellipsis counts columns", () => {
    assert.equal(ellipsis("hello", 5), "hello");
    assert.equal(ellipsis("hello world", 8), "hello w…");
    assert.equal(ellipsis("数据数据", 5), "数据…");
    assert.equal(ellipsis("", 3), "");
  });
  it("times", () => {
    assert.equal(goUtcString("2026-11-24T13:57:59.347063981Z"), "2026-11-24 13:57:59.347063981 +0000 UTC");
    assert.equal(timestampOf("10s", parseDuration, 100_000), "90");
    assert.equal(timestampOf("1700000000.5", parseDuration), "1700000000.5");
    assert.equal(timestampOf("2013-01-02T13:23:37.123456789Z", parseDuration), "1357133017.123456789");
    assert.throws(() => timestampOf("zz", parseDuration));
  });
});

describe("help", () => {
  it("wraps beside the option's column with slack at the end", () => {
    assert.equal(
      wrapText("one two three four five six seven eight nine", 10, 45),
      "one two three four five six\n          seven eight nine",
    );
    assert.equal(wrapText("short", 10, 45), "short");
  });
  it("sorts options and hides hidden ones", () => {
    const table = optionsTable(
      [
        toggle("z,zed", "Last"),
        flag("a,all", string, "First", { shown: '"x"' }),
        toggle("no", "", { hidden: true }),
      ],
      80,
    );
    assert.equal(table, '  -a, --all string   First (default "x")\n  -z, --zed          Last');
  });
});

describe("references", () => {
  const known: readonly (readonly [string, string])[] = [
    ["busybox", "busybox:latest"],
    ["docker.io/library/busybox:1", "busybox:1"],
    ["index.docker.io/a/b", "a/b:latest"],
    ["localhost:5000/a", "localhost:5000/a:latest"],
    ["localhost/a:b", "localhost/a:b"],
    [
      "a.b/c/d@sha256:0e4835670b4f8afa2c87b725d4698d1a45c3f924bf4d92eb8b9cac66dc5530e2",
      "a.b/c/d@sha256:0e4835670b4f8afa2c87b725d4698d1a45c3f924bf4d92eb8b9cac66dc5530e2",
    ],
    ["centos:centos6", "centos:centos6"],
    ["a__b/c-d.e", "a__b/c-d.e:latest"],
  ];
  for (const [text, familiar] of known)
    it(text, () => assert.equal(familiarString(withDefaultTag(parseReference(text))), familiar));
  for (const text of ["", "a b", ":x", "a:", "a@x", "-a", "a//b", "a:.b", "http://a"]) {
    it(`refuses ${JSON.stringify(text)}`, () =>
      assert.throws(() => parseReference(text), /invalid reference format/));
  }
});

describe("json of inspect", () => {
  for (const value of [
    { a: 1, b: [], c: {}, d: [1, [2], { x: 'a"}, b"}' }] },
    [],
    [{}],
    "x",
    1,
    { "\u2028": null },
  ]) {
    it(JSON.stringify(value), () =>
      assert.equal(indentJson(JSON.stringify(value), "  "), JSON.stringify(value, null, 2)),
    );
  }
  it("keeps numbers and escapes as they were written", () => {
    assert.equal(
      indentJson('{"a":1.0,"b":12345678901234567890,"c":"\\u003c"}', " "),
      '{\n "a": 1.0,\n "b": 12345678901234567890,\n "c": "\\u003c"\n}',
    );
  });
});

describe("progress", () => {
  const lines = [
    { status: "Pulling from library/x", id: "latest" },
    { status: "Pulling fs layer", progressDetail: {}, id: "aaa" },
    { status: "Downloading", progressDetail: { current: 5, total: 10 }, id: "aaa" },
    { status: "Pull complete", progressDetail: {}, id: "aaa" },
    { status: "Status: Downloaded \x1b[2J" },
  ];
  const body = (messages: readonly object[]): Readable =>
    Readable.from([Buffer.from(messages.map((message) => JSON.stringify(message)).join("\r\n"))]);
  it("away from a terminal it is a line each, without byte counts", async () => {
    let text = "";
    await showProgress(body(lines), { write: (part) => (text += part) });
    assert.equal(
      text,
      "latest: Pulling from library/x\naaa: Pulling fs layer\naaa: Pull complete\nStatus: Downloaded \\x1b[2J\n",
    );
  });
  it("on a terminal an id's line is drawn over", async () => {
    let text = "";
    await showProgress(body(lines), { write: (part) => (text += part), isTTY: true, columns: 120 });
    assert.equal(text.split("\n").length - 1, 3);
    assert.match(text, /\x1b\[1A\r\x1b\[2Kaaa: Pull complete\x1b\[1B\r/);
    assert.doesNotMatch(text, /\x1b\[2J/);
  });
  it("an error in the stream ends it", async () => {
    await assert.rejects(
      showProgress(body([{ errorDetail: { message: "no space" }, error: "no space" }]), { write: () => {} }),
      /no space/,
    );
  });
  it("draws a bar", () => {
    assert.equal(
      progressBar({ progressDetail: { current: 25, total: 50 } }, 120),
      "[=========================>                         ]      25B/50B",
    );
    assert.equal(progressBar({ progressDetail: { current: 25, total: 50 } }, 80), "     25B/50B");
    assert.equal(progressBar({ progressDetail: {} }, 80), "");
  });
});
