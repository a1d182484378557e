import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import type { ImageId } from "#base/digest.ts";
import type { JsonMessage } from "#wire/json-message.ts";
import { busyboxLayout, pushLayout, tarOf, writeLayout } from "../peers/images.ts";
import type { ImageSetup } from "./image-setup.ts";

/** What the tests of images on the move share. */

export const never = new AbortController().signal;

/** A tar of one folder that has these files. */
export function tarWith(files: Readonly<Record<string, string>>): Buffer {
  const folder = mkdtempSync(join(tmpdir(), "skiff-tar-"));
  try {
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(join(folder, name, ".."), { recursive: true });
      writeFileSync(join(folder, name), text);
    }
    return tarOf(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Pushes a busybox image and one of three layers (`t/rich`, tags 1 and 2) to a registry with skopeo. */
export function fillRegistry(address: string, creds?: string): void {
  const folder = mkdtempSync(join(tmpdir(), "skiff-rich-"));
  const options = creds === undefined ? {} : { creds };
  try {
    const layers = ["one", "two", "three"].map((name) => tarWith({ [`d/${name}`]: name.repeat(20_000) }));
    writeLayout(folder, layers, { Cmd: ["sh"], Labels: { a: "<1>" } });
    pushLayout(busyboxLayout(), `${address}/library/bb:latest`, options);
    pushLayout(folder, `${address}/t/rich:1`, options);
    pushLayout(folder, `${address}/t/rich:2`, options);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** As a request's body comes: whoever takes it in may give its memory back, so it is a copy. */
function bodyOf(bytes: Buffer): Readable {
  return Readable.from([Buffer.from(bytes)]);
}

/** Imports a tar as an image, as `docker import` does. Returns its id. */
export async function importTar(setup: ImageSetup, tar: Buffer, repository = ""): Promise<ImageId> {
  let id = "";
  await setup.images.import(
    { source: "-", body: bodyOf(tar), repository, tag: "", message: "", changes: [], platform: "" },
    (line) => {
      if (line.kind === "status") id = line.status;
    },
    never,
  );
  return id as ImageId;
}

export async function save(setup: ImageSetup, names: readonly string[]): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of await setup.images.save(names, never)) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

export async function load(
  setup: ImageSetup,
  archive: Buffer | AsyncIterable<Uint8Array>,
  options: { quiet?: boolean; signal?: AbortSignal } = {},
): Promise<JsonMessage[]> {
  const lines: JsonMessage[] = [];
  const body = Buffer.isBuffer(archive) ? bodyOf(archive) : archive;
  const request = { body, quiet: options.quiet ?? true, platform: undefined };
  await setup.images.load(request, (line) => lines.push(line), options.signal ?? never);
  return lines;
}

/** The texts of `stream` lines, without their ends. */
export function texts(lines: readonly JsonMessage[]): string[] {
  return lines.flatMap((line) => (line.kind === "stream" ? [line.text.trimEnd()] : []));
}

export async function push(
  setup: ImageSetup,
  name: string,
  options: { tag?: string; auth?: object; signal?: AbortSignal } = {},
): Promise<JsonMessage[]> {
  const lines: JsonMessage[] = [];
  const registryAuth =
    options.auth === undefined ? undefined : Buffer.from(JSON.stringify(options.auth)).toString("base64url");
  await setup.images.push(
    { name, tag: options.tag ?? "latest", registryAuth },
    (line) => lines.push(line),
    options.signal ?? never,
  );
  return lines;
}

/** The last action that was told of each layer. */
export function lastActions(lines: readonly JsonMessage[]): string[] {
  const last = new Map<string, string>();
  for (const line of lines) if (line.kind === "progress") last.set(line.id, line.action);
  return [...last.values()];
}
