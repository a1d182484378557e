import assert from "node:assert/strict";
import { test } from "node:test";
import { guardedLookup, isLinkLocal } from "./link-local.ts";

test("link-local addresses in every spelling", () => {
  for (const address of [
    "169.254.169.254",
    "169.254.0.1",
    "[fe80::1]",
    "fe80::1%eth0",
    "febf::1",
    "::ffff:169.254.169.254",
    "[::ffff:a9fe:a9fe]",
  ]) {
    assert.equal(isLinkLocal(address), true, address);
  }
  for (const address of ["169.253.255.255", "170.0.0.1", "127.0.0.1", "::1", "fec0::1", "example.org", ""]) {
    assert.equal(isLinkLocal(address), false, address);
  }
});

/** What a URL makes of other ways to write an address is one of the above by then. */
test("addresses in other number systems, as URLs have them", () => {
  for (const host of ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518"]) {
    assert.equal(isLinkLocal(new URL(`http://${host}/`).hostname), true, host);
  }
});

test("a look-up that ends at a link-local address fails, whichever answers are wanted", async () => {
  const look = (host: string, all: boolean): Promise<unknown> =>
    new Promise((resolve, reject) =>
      guardedLookup(host, { all }, (error, address) => (error === null ? resolve(address) : reject(error))),
    );
  for (const all of [true, false]) {
    await assert.rejects(look("169.254.169.254", all), /link-local/);
    await assert.rejects(look("fe80::1", all), /link-local/);
    assert.ok(await look("127.0.0.1", all));
  }
});
