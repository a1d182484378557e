import assert from "node:assert/strict";
import { lstatSync, readFileSync, readlinkSync, renameSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { type TarItem, tarOf } from "#snapshot/suite.ts";
import { type Archive, applyNaively, applyOurs, type Naivety, Scene } from "./hostile-scene.ts";

/**
 * SECURITY.md §1.1 and 1.2: links against an extractor. Every attack runs first against a naive extractor, where it must
 * do damage (or it proves nothing), then against ours, where the canary must be as before.
 */
interface Attack {
  readonly name: string;
  readonly naivety?: Naivety;
  readonly archive: (scene: Scene) => Archive;
}

const one = (items: readonly TarItem[]): Archive => ({ parts: [tarOf(items)] });

/** Directories down to a place `depth` levels below the root, and the way back up. */
const prefixes = [
  { at: "", make: [], up: "" },
  { at: "a/", make: [{ path: "a/" }], up: "../" },
  { at: "a/b/", make: [{ path: "a/" }, { path: "a/b/" }], up: "../../" },
  { at: "a/b/c/", make: [{ path: "a/" }, { path: "a/b/" }, { path: "a/b/c/" }], up: "../../../" },
] as const;

/** Spellings of a way out to the canary, from a place below the root. */
function waysOut(scene: Scene, up: string): { form: string; before: TarItem[]; target: string }[] {
  return [
    { form: "absolute", before: [], target: scene.canary },
    { form: "relative", before: [], target: `${up}../../canary` },
    { form: "x/..", before: [{ path: "x/" }], target: `${up}x/../../../canary` },
    { form: "dots and slashes", before: [], target: `.//${up}.././/..///canary/.` },
    { form: "beyond the host's root", before: [], target: `${"../".repeat(40)}${scene.canary.slice(1)}` },
    {
      form: "through another link",
      before: [{ path: "hop", link: "../.." }],
      target: `${up}hop/canary`,
    },
    {
      form: "through a link that is later a way up",
      before: [{ path: "p/" }, { path: "p/q/" }, { path: "p/up", link: "q/../../../.." }],
      target: `${up}p/up/canary`,
    },
  ];
}

/** What is done through a symlink `<at>l` that leads to the canary directory. */
const through: readonly { what: string; items: (at: string) => TarItem[] }[] = [
  { what: "make a file", items: (at) => [{ path: `${at}l/planted`, content: "evil" }] },
  { what: "overwrite a file", items: (at) => [{ path: `${at}l/secret`, content: "evil" }] },
  { what: "make a directory", items: (at) => [{ path: `${at}l/planted/` }] },
  { what: "chmod the directory", items: (at) => [{ path: `${at}l/sub/`, mode: 0o777 }] },
  { what: "delete by a whiteout", items: (at) => [{ path: `${at}l/.wh.secret` }] },
  {
    what: "link a file in and write it",
    items: (at) => [
      { path: "h", type: "link", link: `${at}l/secret` },
      { path: "h", content: "evil" },
    ],
  },
  { what: "plant a symlink", items: (at) => [{ path: `${at}l/planted`, link: "/etc/passwd" }] },
  { what: "set an attribute", items: (at) => [{ path: `${at}l/sub/`, xattrs: { "user.evil": "1" } }] },
];

function symlinkAttacks(): Attack[] {
  const attacks: Attack[] = [];
  const forms = waysOut({ canary: "/x" } as Scene, "").length;
  for (const [depth, prefix] of prefixes.entries()) {
    for (let form = 0; form < forms; form += 1) {
      for (const { what, items } of through) {
        const label = waysOut({ canary: "/x" } as Scene, "")[form]?.form ?? "";
        attacks.push({
          name: `symlink, depth ${depth}, ${label}: ${what}`,
          archive: (scene) => {
            const way = waysOut(scene, prefix.up)[form];
            assert.ok(way !== undefined);
            const link: TarItem = { path: `${prefix.at}l`, link: way.target };
            return one([...prefix.make, ...way.before, link, ...items(prefix.at)]);
          },
        });
      }
    }
  }
  return attacks;
}

function hardlinkAttacks(): Attack[] {
  return prefixes.flatMap((prefix, depth) =>
    [
      { form: "relative", before: [], link: "../../canary/secret" },
      { form: "x/..", before: [{ path: "x/" }], link: "x/../../../canary/secret" },
      { form: "through a symlink", before: [{ path: "s", link: "../../canary" }], link: "s/secret" },
      {
        form: "through a symlink to the file",
        before: [{ path: "s", link: "../../canary/secret" }],
        link: "s",
      },
    ].flatMap(({ form, before, link }): Attack[] => [
      {
        name: `hardlink, depth ${depth}, ${form}: write`,
        archive: () =>
          one([
            ...prefix.make,
            ...before,
            { path: `${prefix.at}h`, type: "link", link },
            { path: `${prefix.at}h`, content: "evil" },
          ]),
      },
      {
        name: `hardlink, depth ${depth}, ${form}: chmod`,
        archive: () =>
          one([...prefix.make, ...before, { path: `${prefix.at}h`, type: "link", link, mode: 0o4777 }]),
      },
    ]),
  );
}

const nfc = "\u00e9";
const nfd = "e\u0301";

const single: readonly Attack[] = [
  { name: "a name with ..", archive: () => one([{ path: "../../canary/secret", content: "evil" }]) },
  {
    name: "a name with x/../..",
    archive: () => one([{ path: "x/../../../canary/planted", content: "evil" }]),
  },
  { name: "a whiteout with ..", archive: () => one([{ path: "../../canary/.wh.secret" }]) },
  {
    name: "a whiteout named ..",
    archive: () =>
      one([
        { path: "d/" },
        { path: ".wh.../" },
        { path: "d/.wh..", content: "" },
        { path: "../../canary/.wh.sub" },
      ]),
  },
  {
    name: "a/b/c/up -> ../..",
    archive: () =>
      one([
        { path: "a/" },
        { path: "a/b/" },
        { path: "a/b/c/" },
        { path: "a/b/c/up", link: "../../../.." },
        { path: "a/b/c/up/../canary/planted", content: "evil" },
        { path: "a/w", link: "b/c/up/../canary" },
        { path: "a/w/planted", content: "evil" },
      ]),
  },
  {
    name: "a/b/escape -> c/up/../..",
    archive: () =>
      one([
        { path: "a/" },
        { path: "a/b/" },
        { path: "a/b/c/" },
        { path: "a/b/c/up", link: "../../.." },
        { path: "a/b/escape", link: "c/up/../../canary" },
        { path: "a/b/escape/planted", content: "evil" },
      ]),
  },
  {
    name: "a file over a symlink to a file",
    archive: (scene) =>
      one([
        { path: "f", link: join(scene.canary, "secret") },
        { path: "f", content: "evil" },
      ]),
  },
  {
    name: "a directory over a symlink",
    archive: () =>
      one([
        { path: "d", link: "../../canary" },
        { path: "d/", mode: 0o777 },
        { path: "d/planted", content: "evil" },
      ]),
  },
  {
    name: "a directory replaced by a symlink between entries",
    naivety: "cached",
    archive: () =>
      one([
        { path: "d/" },
        { path: "d/x", content: "1" },
        { path: "d", link: "../../canary" },
        { path: "d/secret", content: "evil" },
      ]),
  },
  {
    name: "NFC and NFD twins",
    naivety: "cached",
    archive: () =>
      one([
        { path: `${nfc}/` },
        { path: nfd, link: "../../canary" },
        { path: `${nfd}/secret`, content: "evil" },
      ]),
  },
  {
    name: "chmod through a symlink",
    archive: () => one([{ path: "l", link: "../../canary/secret", mode: 0o4777 }]),
  },
  {
    name: "utimes through a symlink",
    archive: () => one([{ path: "l", link: "../../canary/secret", mtimeNs: 1n }]),
  },
  {
    name: "an attribute through a symlink",
    archive: () => one([{ path: "l", link: "../../canary/secret", xattrs: { "user.evil": "1" } }]),
  },
  {
    name: "a parent swapped for a symlink during the unpack",
    archive: () => {
      const whole = tarOf([
        { path: "d/" },
        { path: "d/x", content: "1" },
        { path: "d/secret", content: "evil" },
      ]);
      // After the header and data of d/x: the parent is known by now.
      return {
        parts: [whole.subarray(0, 512 * 3), whole.subarray(512 * 3)],
        between: (scene) => {
          renameSync(join(scene.root, "d"), join(scene.root, "old"));
          symlinkSync(scene.canary, join(scene.root, "d"));
        },
      };
    },
  },
  {
    name: "the parent of a directory's time swapped at the end",
    archive: () => {
      const whole = tarOf([{ path: "d/" }, { path: "d/sub/", mtimeNs: 5n, mode: 0o777 }]);
      return {
        parts: [whole.subarray(0, 512), whole.subarray(512)],
        between: (scene) => {
          renameSync(join(scene.root, "d"), join(scene.root, "old"));
          symlinkSync(scene.canary, join(scene.root, "d"));
        },
      };
    },
  },
];

const attacks = [...symlinkAttacks(), ...hardlinkAttacks(), ...single];

test(`${attacks.length} link attacks: each harms a naive extractor and not ours`, () => {
  let refused = 0;
  for (const attack of attacks) {
    {
      using scene = new Scene();
      applyNaively(scene, attack.archive(scene), attack.naivety ?? "none");
      assert.notDeepEqual(scene.damage(), [], `${attack.name}: harmless even to the naive extractor`);
    }
    using scene = new Scene();
    if (applyOurs(scene, attack.archive(scene)) !== undefined) refused += 1;
    assert.deepEqual(scene.damage(), [], attack.name);
  }
  // Most go through as files inside the root, as in Docker's chroot; those that climb by name are refused.
  assert.ok(refused > 0 && refused < attacks.length, `${refused} refused`);
});

test("what real images do with links is still taken", () => {
  using scene = new Scene();
  const code = applyOurs(
    scene,
    one([
      { path: "usr/" },
      { path: "usr/bin/" },
      { path: "usr/bin/real", content: "program", mode: 0o755 },
      { path: "abs", type: "link", link: "/usr/bin/real" },
      { path: "bin", link: "usr/bin" },
      { path: "bin/tool", content: "tool" },
      { path: "through", type: "link", link: "bin/tool" },
      { path: "var/" },
      { path: "run/" },
      { path: "var/run", link: "/run" },
      { path: "var/run/pid", content: "1" },
      { path: "far", link: "../../../../etc/passwd" },
      { path: "null", type: "char", device: [1, 3], mode: 0o666 },
      { path: "disk", type: "block", device: [8, 0] },
      { path: "pipe", type: "fifo" },
      { path: `${nfc}`, content: "1" },
      { path: `${nfd}`, content: "2" },
    ]),
  );
  assert.equal(code, undefined);
  assert.deepEqual(scene.damage(), []);
  const at = (path: string): string => join(scene.root, path);
  assert.equal(lstatSync(at("abs")).ino, lstatSync(at("usr/bin/real")).ino);
  assert.equal(readFileSync(at("usr/bin/tool"), "utf8"), "tool");
  assert.equal(lstatSync(at("through")).ino, lstatSync(at("usr/bin/tool")).ino);
  assert.equal(readFileSync(at("run/pid"), "utf8"), "1");
  assert.equal(readlinkSync(at("far")), "../../../../etc/passwd");
  const device = lstatSync(at("null"));
  assert.deepEqual([device.isCharacterDevice(), device.rdev, device.mode & 0o7777], [true, 0x103, 0o666]);
  assert.ok(lstatSync(at("disk")).isBlockDevice() && lstatSync(at("pipe")).isFIFO());
  assert.equal(readFileSync(at(nfc), "utf8") + readFileSync(at(nfd), "utf8"), "12");
});

test("owners out of range are refused, not wrapped", () => {
  for (const uid of [4_294_967_295, 4_294_967_296, -1]) {
    using scene = new Scene();
    assert.equal(applyOurs(scene, one([{ path: "f", content: "x", uid }])), "bad-archive", String(uid));
  }
  using scene = new Scene();
  assert.equal(applyOurs(scene, one([{ path: "f", content: "x", uid: 4_294_967_294 }])), undefined);
  assert.equal(lstatSync(join(scene.root, "f")).uid, 4_294_967_294);
});
