import { createReadStream, createWriteStream, openSync, renameSync, rmSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { describeErrno, errnoOf, messageOf } from "#base/errors.ts";
import { containerPart } from "#sdk/path-part.ts";
import { atLeast, between, type Command, ExitError, exactly, noArguments } from "./command.ts";
import { platformJson } from "./commands-pull.ts";
import type { CliContext } from "./context.ts";
import { list, string } from "./flag-types.ts";
import { type Flags, flag, toggle } from "./flags.ts";
import { showProgress } from "./progress.ts";
import { streamFailure } from "./pull-image.ts";
import { familiarName, parseReference } from "./reference.ts";

const changes = flag("c,change", list, "Dockerfile instruction to apply to the image");

/** An archive goes to a file by way of a temporary one beside it, or to stdout unless that is a terminal. */
async function writeArchive(body: () => Promise<Readable>, output: string): Promise<void> {
  if (output === "") {
    if (process.stdout.isTTY === true) {
      throw new ExitError(1, "cowardly refusing to save to a terminal. Use the -o flag or redirect");
    }
    for await (const chunk of (await body()) as AsyncIterable<Buffer>) {
      if (!process.stdout.write(chunk)) await new Promise((go) => process.stdout.once("drain", go));
    }
    return;
  }
  const temporary = join(dirname(output), `.tmp-${basename(output)}${process.pid}`);
  try {
    await pipeline(await body(), createWriteStream(temporary, { flags: "wx", mode: 0o600 }));
    renameSync(temporary, output);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** Refuses what cannot be written before the daemon is asked. */
function checkOutput(output: string, what: string): void {
  if (output === "") return;
  const fail = (reason: string): never => {
    throw new ExitError(1, `failed to ${what}: ${reason}`);
  };
  try {
    if (!statSync(dirname(output) || ".").isDirectory())
      fail(`invalid output path: directory "${dirname(output)}" does not exist`);
  } catch (error) {
    if (error instanceof ExitError) throw error;
    fail(`invalid output path: directory "${dirname(output)}" does not exist`);
  }
  const stat = statSync(output, { throwIfNoEntry: false });
  if (stat?.isDirectory() === true) fail(`invalid output path: "${output}" must be a regular file`);
  if (stat?.isCharacterDevice() === true) fail("cannot write to a character device file");
  if (stat?.isBlockDevice() === true) fail("cannot write to a block device file");
}

export const exportContainer: Command = {
  usage: "[OPTIONS] CONTAINER",
  flags: [flag("o,output", string, "Write to a file instead of standard output")],
  args: exactly(1),
  run: async (context, flags, [name]) => {
    const output = flags.text("output");
    checkOutput(output, "export container");
    await writeArchive(
      async () => (await context.client.request("GET", `/containers/${containerPart(name!)}/export`)).body,
      output,
    );
    return 0;
  },
};

export const save: Command = {
  usage: "[OPTIONS] IMAGE [IMAGE...]",
  flags: [
    flag("o,output", string, "Write to a file instead of standard output"),
    flag("platform", string, "Save one platform of an image only"),
  ],
  args: atLeast(1),
  run: async (context, flags, names) => {
    const output = flags.text("output");
    checkOutput(output, "save image");
    await writeArchive(
      async () =>
        (
          await context.client.request("GET", "/images/get", {
            query: { names, platform: platformJson(flags.text("platform")) },
          })
        ).body,
      output,
    );
    return 0;
  },
};

/** Opens a file for sending; the message is Docker's. */
function openInput(path: string): Readable {
  try {
    return createReadStream(path, { fd: openSync(path, "r") });
  } catch (error) {
    const errno = errnoOf(error);
    throw new ExitError(1, `open ${path}: ${errno === undefined ? messageOf(error) : describeErrno(errno)}`);
  }
}

export const load: Command = {
  usage: "[OPTIONS]",
  flags: [
    flag("i,input", string, "Read from a file instead of standard input"),
    flag("platform", string, "Load one platform of an image only"),
    toggle("q,quiet", "Do not show the progress"),
  ],
  args: noArguments,
  run: async (context, flags) => {
    const path = flags.text("input");
    if (path === "" && process.stdin.isTTY === true) {
      throw new ExitError(1, "requested load from stdin, but stdin is empty");
    }
    const quiet = flags.bool("quiet") || process.stdout.isTTY !== true;
    const response = await context.client.request("POST", "/images/load", {
      query: { quiet, platform: platformJson(flags.text("platform")) },
      body: path === "" ? process.stdin : openInput(path),
      headers: { "Content-Type": "application/x-tar" },
    });
    return finish(response.body, process.stdout);
  },
};

async function finish(body: Readable, target: NodeJS.WriteStream): Promise<number> {
  try {
    await showProgress(body, target);
  } catch (error) {
    throw streamFailure(error);
  }
  return 0;
}

export const importImage: Command = {
  usage: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
  flags: [
    changes,
    flag("m,message", string, "Message for the image"),
    flag("platform", string, "Platform of the image"),
  ],
  args: atLeast(1),
  run: runImport,
};

async function runImport(
  context: CliContext,
  flags: Flags,
  [from, reference = ""]: readonly string[],
): Promise<number> {
  const source = from!;
  if (reference !== "") checkReference(reference);
  const isUrl = /^https?:\/\//.test(source);
  let body: Readable | undefined;
  if (source === "-") body = process.stdin;
  else if (!isUrl) body = openInput(source);
  const response = await context.client.request("POST", "/images/create", {
    query: {
      fromSrc: isUrl ? source : "-",
      repo: reference,
      message: flags.text("message") || undefined,
      platform: context.platform(flags.text("platform")).toLowerCase() || undefined,
      changes: flags.list("change"),
    },
    ...(body === undefined ? {} : { body }),
    headers: { "Content-Type": "text/plain" },
  });
  return finish(response.body, process.stdout);
}

function checkReference(text: string): ReturnType<typeof parseReference> {
  try {
    return parseReference(text);
  } catch (error) {
    throw new ExitError(1, error instanceof Error ? error.message : String(error));
  }
}

export const commit: Command = {
  usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
  flags: [
    flag("a,author", string, 'Author (like "Jane Roe <jane@example.com>")'),
    changes,
    flag("m,message", string, "Message for the image"),
    toggle("p,pause", "Freeze the container meanwhile", { shown: "true", initial: true }),
  ],
  args: between(1, 2),
  run: async (context, flags, [container, reference = ""]) => {
    const wanted = reference === "" ? undefined : checkReference(reference);
    if (wanted !== undefined && wanted.digest !== "") {
      throw new ExitError(1, "refusing to create a tag with a digest reference");
    }
    const result = await context.client.json<{ Id: string }>("POST", "/commit", {
      query: {
        container: container!,
        repo: wanted === undefined ? undefined : familiarName(wanted),
        tag: wanted === undefined ? undefined : wanted.tag || "latest",
        comment: flags.text("message") || undefined,
        author: flags.text("author") || undefined,
        changes: flags.list("change"),
        pause: flags.bool("pause") ? undefined : false,
      },
    });
    context.print(result.Id);
    return 0;
  },
};
