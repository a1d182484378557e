import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { createTarDecoder } from "modern-tar";
import type { ByteString } from "#base/byte-string.ts";
import { entryTypes, type TarEntry } from "./tar-format.ts";
import { TarReader } from "./tar-read.ts";
import { type TarHeader, TarWriter } from "./tar-write.ts";

interface Item {
  readonly header: TarHeader;
  readonly content: Buffer;
}

function write(items: readonly Item[]): Buffer {
  const chunks: Buffer[] = [];
  const writer = new TarWriter((chunk) => chunks.push(Buffer.from(chunk)));
  for (const { header, content } of items) {
    writer.entry(header);
    writer.data(content);
  }
  writer.finish();
  return Buffer.concat(chunks);
}

function read(bytes: Buffer, pieceBytes: number): { entry: TarEntry; content: Buffer }[] {
  const found: { entry: TarEntry; content: Buffer }[] = [];
  const reader = new TarReader({
    entry: (entry) => found.push({ entry, content: Buffer.alloc(entry.sizeBytes) }),
    data: (chunk, offset) => found.at(-1)?.content.set(chunk, offset),
    end: () => {},
  });
  for (let at = 0; at < bytes.length; at += pieceBytes) reader.push(bytes.subarray(at, at + pieceBytes));
  reader.finish();
  return found;
}

const nameArbitrary = fc
  .array(
    fc.oneof(
      fc.constantFrom("a", "dir", "ä", "x".repeat(90), "with space", "\xff\xfe", "=\n", "é"),
      fc.string({
        unit: fc.integer({ min: 1, max: 255 }).map((code) => String.fromCharCode(code)),
        minLength: 1,
      }),
    ),
    { minLength: 1, maxLength: 6 },
  )
  .map((names) => names.join("/").replace(/\/+$/, "") || "n")
  .map((name) => name as ByteString);

const itemArbitrary: fc.Arbitrary<Item> = fc
  .record({
    path: nameArbitrary,
    type: fc.constantFrom(...entryTypes),
    mode: fc.integer({ min: 0, max: 0o7777 }),
    uid: fc.oneof(fc.integer({ min: 0, max: 70_000 }), fc.constantFrom(2_097_151, 2_097_152, 4_294_967_294)),
    gid: fc.oneof(fc.integer({ min: 0, max: 70_000 }), fc.constantFrom(2_097_151, 2_097_152)),
    mtimeNs: fc.oneof(
      fc.bigInt({ min: -(10n ** 18n), max: 10n ** 19n }),
      fc.integer({ min: 0, max: 2 ** 31 }).map((seconds) => BigInt(seconds) * 10n ** 9n),
    ),
    linkPath: nameArbitrary,
    deviceMajor: fc.integer({ min: 0, max: 4095 }),
    deviceMinor: fc.integer({ min: 0, max: 1_048_575 }),
    xattrs: fc.dictionary(
      fc.constantFrom("user.a", "security.capability", "user.ä"),
      fc.uint8Array({ maxLength: 40 }),
    ),
    content: fc.uint8Array({ maxLength: 1500 }),
  })
  .map(({ content, xattrs, ...rest }) => {
    const isFile = rest.type === "file";
    const isDevice = rest.type === "char" || rest.type === "block";
    const isLink = rest.type === "link" || rest.type === "symlink";
    const attributes = new Map(Object.entries(xattrs).map(([name, value]) => [name, Buffer.from(value)]));
    return {
      content: isFile ? Buffer.from(content) : Buffer.alloc(0),
      header: {
        ...rest,
        sizeBytes: isFile ? content.length : 0,
        linkPath: isLink ? rest.linkPath : ("" as ByteString),
        deviceMajor: isDevice ? rest.deviceMajor : 0,
        deviceMinor: isDevice ? rest.deviceMinor : 0,
        ...(attributes.size === 0 ? {} : { xattrs: attributes }),
      },
    };
  });

test("what the writer writes the reader reads, however the bytes are cut", () => {
  fc.assert(
    fc.property(
      fc.array(itemArbitrary, { maxLength: 8 }),
      fc.integer({ min: 1, max: 2000 }),
      (items, piece) => {
        const bytes = write(items);
        assert.equal(bytes.length % 512, 0);
        const found = read(bytes, piece);
        assert.equal(found.length, items.length);
        for (const [index, item] of items.entries()) {
          const expected =
            item.header.type === "directory"
              ? { ...item.header, path: `${item.header.path}/` as ByteString }
              : item.header;
          assert.deepEqual(found[index]?.entry, expected);
          assert.ok(found[index]?.content.equals(item.content));
        }
      },
    ),
    { numRuns: 300 },
  );
});

test("the same entries give the same bytes", () => {
  fc.assert(
    fc.property(fc.array(itemArbitrary, { maxLength: 4 }), (items) => {
      assert.ok(
        write(items).equals(
          write(structuredClone(items).map((item) => ({ ...item, content: Buffer.from(item.content) }))),
        ),
      );
    }),
    { numRuns: 50 },
  );
});

test("cut anywhere inside an entry, an archive is refused", () => {
  const header: TarHeader = {
    path: `${"long/".repeat(40)}name` as ByteString,
    type: "file",
    mode: 0o644,
    uid: 0,
    gid: 0,
    sizeBytes: 700,
    mtimeNs: 1n,
    linkPath: "" as ByteString,
    deviceMajor: 0,
    deviceMinor: 0,
  };
  const bytes = write([{ header, content: Buffer.alloc(700, 1) }]);
  const dataEnd = bytes.length - 1024 - 324;
  for (let length = 1; length < dataEnd; length += 1) {
    assert.throws(() => read(bytes.subarray(0, length), 999), { code: "truncated-archive" }, `${length}`);
  }
  for (const length of [0, dataEnd, dataEnd + 324, dataEnd + 324 + 512]) read(bytes.subarray(0, length), 512);
});

test("every flipped header byte is noticed or harmless: never a crash of another kind", () => {
  const header: TarHeader = {
    path: "dir/file" as ByteString,
    type: "file",
    mode: 0o644,
    uid: 3_000_000,
    gid: 0,
    sizeBytes: 10,
    mtimeNs: 1_500_000_000_123_000_000n,
    linkPath: "" as ByteString,
    deviceMajor: 0,
    deviceMinor: 0,
    xattrs: new Map([["user.k", Buffer.from("v")]]),
  };
  const bytes = write([{ header, content: Buffer.from("0123456789") }]);
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.integer({ min: 0, max: 255 })), {
        minLength: 1,
        maxLength: 3,
      }),
      (flips) => {
        const broken = Buffer.from(bytes);
        for (const [at, value] of flips) broken[at] = value;
        try {
          read(broken, 700);
        } catch (error) {
          assert.equal((error as { name: string }).name, "EngineError", String(error));
        }
      },
    ),
    { numRuns: 2000 },
  );
});

function gnuTar(args: readonly string[], input?: Buffer): Buffer {
  const result = spawnSync("tar", args, { ...(input === undefined ? {} : { input }), maxBuffer: 64 << 20 });
  assert.equal(result.status, 0, result.stderr.toString());
  return result.stdout;
}

test("GNU tar and modern-tar agree on what we write", async () => {
  const long = `${"directory/".repeat(20)}file` as ByteString;
  const base = {
    mode: 0o640,
    uid: 5,
    gid: 3_000_000,
    linkPath: "" as ByteString,
    deviceMajor: 0,
    deviceMinor: 0,
  };
  const mtimeNs = 1_600_000_000_500_000_000n;
  const bytes = write([
    { header: { ...base, path: long, type: "file", sizeBytes: 3, mtimeNs }, content: Buffer.from("abc") },
    {
      header: { ...base, path: "l" as ByteString, type: "symlink", sizeBytes: 0, mtimeNs, linkPath: long },
      content: Buffer.alloc(0),
    },
    {
      header: { ...base, path: "fifo" as ByteString, type: "fifo", sizeBytes: 0, mtimeNs },
      content: Buffer.alloc(0),
    },
  ]);
  const listing = gnuTar(["--full-time", "--numeric-owner", "-tvf", "-"], bytes).toString();
  assert.match(listing, new RegExp(`^-rw-r----- 5/3000000 +3 2020-09-13 12:26:40.5 ${long}$`, "m"));
  assert.match(listing, new RegExp(`^l.* l -> ${long}$`, "m"));
  assert.match(listing, /^p.* fifo$/m);
  const names: string[] = [];
  const stream = new Blob([new Uint8Array(bytes)]).stream().pipeThrough(createTarDecoder());
  for await (const entry of stream) {
    names.push(`${entry.header.type} ${entry.header.name}`);
    await entry.body.cancel();
  }
  assert.deepEqual(names.slice(0, 2), [`file ${long}`, "symlink l"]);
});

test("archives of GNU tar in all its formats are read", () => {
  const directory = mkdtempSync(join(tmpdir(), "skiff-tar-"));
  try {
    const long = `${"d".repeat(80)}/${"f".repeat(95)}`;
    const sparse = spawnSync(
      "sh",
      [
        "-ec",
        `
      mkdir -p ${"d".repeat(80)}; echo long > ${long}; ln -s ${long} link; ln ${long} hard; mkfifo fifo
      truncate -s 3M sparse; printf hole | dd of=sparse bs=1 seek=1000000 conv=notrunc status=none
      for i in $(seq 1 30); do printf x$i | dd of=sparse bs=1 seek=$((i * 70000)) conv=notrunc status=none; done
      touch -d @-1.5 old; chown 3000000:7 old`,
      ],
      { cwd: directory },
    );
    assert.equal(sparse.status, 0, sparse.stderr.toString());
    const expected = readFileSync(join(directory, "sparse"));
    const formats = [
      ["--format=gnu", "-S"],
      ["--format=oldgnu", "-S"],
      ["--format=posix", "-S", "--sparse-version=0.0"],
      ["--format=posix", "-S", "--sparse-version=0.1"],
      ["--format=posix", "-S", "--sparse-version=1.0"],
      ["--format=posix"],
    ];
    for (const format of formats) {
      const bytes = gnuTar([...format, "--sort=name", "-cf", "-", "-C", directory, "."]);
      for (const piece of [511, 4096, bytes.length]) {
        const found = new Map(read(bytes, piece).map((item) => [item.entry.path as string, item]));
        const file = found.get(`./${long}`);
        const hard = found.get("./hard");
        const first = file?.entry.type === "file" ? file : hard;
        assert.equal(first?.content.toString(), "long\n", format.join(" "));
        assert.equal(found.get("./link")?.entry.linkPath, long);
        assert.equal(found.get("./fifo")?.entry.type, "fifo");
        assert.equal(found.get("./old")?.entry.uid, 3_000_000);
        const oldNs = format[0] === "--format=posix" ? -1_500_000_000n : -2_000_000_000n;
        assert.equal(found.get("./old")?.entry.mtimeNs, oldNs, format.join(" "));
        const item = found.get("./sparse");
        assert.equal(item?.entry.sizeBytes, expected.length, format.join(" "));
        assert.ok(item?.content.equals(expected), format.join(" "));
        assert.equal(item?.entry.sparse !== undefined, format.includes("-S"));
      }
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test("a global header holds for every entry that says nothing else", () => {
  const directory = mkdtempSync(join(tmpdir(), "skiff-tar-"));
  try {
    writeFileSync(join(directory, "one"), "1");
    const bytes = gnuTar([
      "--format=posix",
      "--pax-option=globexthdr.name=g,uid=77,gid:=88",
      "-cf",
      "-",
      "-C",
      directory,
      "one",
    ]);
    const [item] = read(bytes, 512);
    assert.deepEqual([item?.entry.uid, item?.entry.gid], [77, 88]);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
