import assert from "node:assert/strict";
import { test } from "node:test";
import { groups, topCommands } from "../src/cli/commands.ts";
import { options } from "../src/daemon/config-options.ts";
import { manualPages, roff } from "./manual.ts";

test("roff: nothing of a text is taken for a request or an escape", () => {
  assert.equal(roff("a\\n\n.so x\n'br\n--all"), "a\\en\n\\&.so x\n\\&'br\n\\-\\-all");
});

test("every command that the help shows has a page, with its flags; the daemon's has every option", async () => {
  const pages = new Map((await manualPages()).map((page) => [page.name, page.text]));
  const shown = [...topCommands, ...groups.flatMap(({ commands }) => commands)].filter(
    ({ hidden }) => hidden !== true,
  );
  assert.equal(pages.size, shown.length + 2);
  for (const entry of topCommands.filter(({ hidden }) => hidden !== true)) {
    const { flags } = await entry.load();
    const text = pages.get(`skiff-${entry.name}`)!;
    for (const { name, hidden, aliasOf } of flags) {
      if (hidden !== true && aliasOf === undefined)
        assert.ok(text.includes(roff(`--${name}`)), `${entry.name} --${name}`);
    }
  }
  for (const { flag } of options) assert.ok(pages.get("skiffd")!.includes(roff(`--${flag}`)), flag);
});

test("pages are one paragraph a request: known requests only at the starts of lines", async () => {
  const requests = new Set("TH SH SS TP PP B BR I IR br".split(" "));
  for (const { name, text } of await manualPages()) {
    assert.ok(text.startsWith(`.TH ${name.toUpperCase()} `));
    for (const line of text.split("\n").filter((each) => each.startsWith("."))) {
      assert.ok(requests.has(/^\.(\w+)/.exec(line)?.[1] ?? ""), `${name}: ${line}`);
    }
  }
});
