import { lstatSync, readlinkSync, type Stats, statSync } from "node:fs";
import { posix } from "node:path";
import { Readable } from "node:stream";
import { TarReader } from "#archive/tar-read.ts";
import { errnoOf } from "#base/errors.ts";
import type { Response } from "#sdk/http-connection.ts";
import { containerPart } from "#sdk/path-part.ts";
import { type Command, ExitError, exactly } from "./command.ts";
import type { CliContext } from "./context.ts";
import { HostExtractor } from "./copy-extract.ts";
import { type CopyEnd, planCopy, rebased, splitArgument, splitEntry, withEnding } from "./copy-path.ts";
import { CopyProgress, copiedSize } from "./copy-progress.ts";
import { fileError, localSource, tarOf } from "./copy-source.ts";
import { toggle } from "./flags.ts";

/** Bits of Go's os.FileMode, in which the daemon tells a file's kind. */
const goMode = { directory: 2 ** 31, symlink: 2 ** 27, device: 2 ** 26, irregular: 2 ** 19 } as const;

interface PathStat {
  readonly name: string;
  readonly mode: number;
  readonly linkTarget: string;
}

interface CopyRequest {
  readonly container: string;
  readonly source: string;
  readonly destination: string;
  readonly archive: boolean;
  readonly followLink: boolean;
  readonly quiet: boolean;
}

function has(stat: PathStat, bit: number): boolean {
  return Math.floor(stat.mode / bit) % 2 === 1;
}

export const copy: Command = {
  usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tdocker cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
  description:
    "Copy files between a container and this machine\n\nWith '-' as the source, a tar archive is read from stdin and unpacked into a directory\nof the container. With '-' as the destination, what is copied goes to stdout as a tar archive.",
  flags: [
    toggle("a,archive", "Keep the owner's uid and gid"),
    toggle("L,follow-link", "Follow a symbolic link as the source"),
    toggle("q,quiet", "Do not show the progress (as where stdout is no terminal)"),
  ],
  args: exactly(2),
  run: async (context, flags, [from = "", to = ""]) => {
    if (from === "") throw new ExitError(1, "source can not be empty");
    if (to === "") throw new ExitError(1, "destination can not be empty");
    const source = splitArgument(from);
    const destination = splitArgument(to);
    const request = {
      container: source.container || destination.container,
      source: source.path,
      destination: destination.path,
      archive: flags.bool("archive"),
      followLink: flags.bool("follow-link"),
      quiet: flags.changed("quiet") ? flags.bool("quiet") : process.stdout.isTTY !== true,
    };
    if (source.container !== "" && destination.container !== "") {
      throw new ExitError(1, "copying between containers is not supported");
    }
    if (source.container !== "") await copyOut(context, request);
    else if (destination.container !== "") await copyIn(context, request);
    else throw new ExitError(1, "must specify at least one container source");
    return 0;
  },
};

function localPath(path: string): string {
  const absolute = posix.resolve(path);
  return withEnding(absolute, path);
}

function archivePath(container: string): string {
  return `/containers/${containerPart(container)}/archive`;
}

function statOf(response: Response): PathStat {
  try {
    const header = response.headers["x-docker-container-path-stat"] ?? "";
    return JSON.parse(Buffer.from(header, "base64").toString()) as PathStat;
  } catch {
    throw new ExitError(1, "unable to decode container path stat header");
  }
}

/** Undefined where the daemon will not say; the copy itself then tells why. */
async function statPath(context: CliContext, container: string, path: string): Promise<PathStat | undefined> {
  const response = await context.client.raw("HEAD", archivePath(container), {
    query: { path },
  });
  response.body.resume();
  return response.status === 200 ? statOf(response) : undefined;
}

/** Where a link of a container leads, as a path in it. */
function targetOf(path: string, stat: PathStat): string {
  if (stat.linkTarget.startsWith("/")) return stat.linkTarget;
  return posix.join(splitEntry(path).directory, stat.linkTarget);
}

async function copyOut(context: CliContext, request: CopyRequest): Promise<void> {
  const { container, quiet } = request;
  const toStdout = request.destination === "-";
  const destination = toStdout ? "-" : localPath(request.destination);
  checkOutput(destination);
  let source = request.source;
  let rebaseName = "";
  if (request.followLink) {
    const stat = await statPath(context, container, source);
    if (stat !== undefined && has(stat, goMode.symlink)) {
      ({ path: source, rebaseName } = rebased(source, targetOf(source, stat)));
    }
  }
  const response = await context.client.request("GET", archivePath(container), {
    query: { path: source },
  });
  if (toStdout) {
    await toStdoutStream(response.body);
    return;
  }
  const end = {
    path: source,
    exists: true,
    isDirectory: has(statOf(response), goMode.directory),
    rebaseName,
  };
  const progress = new CopyProgress("Copying from container - ", quiet);
  try {
    await unpack(progress.counted(response.body as AsyncIterable<Buffer>), end, destination);
  } finally {
    response.body.destroy();
    progress.stop();
    if (!quiet) context.error(`Successfully copied ${copiedSize(progress.bytes)} to ${destination}`);
  }
}

async function toStdoutStream(body: Readable): Promise<void> {
  for await (const chunk of body as AsyncIterable<Buffer>) {
    if (!process.stdout.write(chunk)) await new Promise((go) => process.stdout.once("drain", go));
  }
}

async function unpack(chunks: AsyncIterable<Buffer>, source: CopyEnd, destination: string): Promise<void> {
  const target = localDestination(destination);
  const plan = planCopy(source, target);
  // An archive has its entries under the name that the container knows; `-L` asks for the link's own.
  const { rebaseName } = source;
  const own = splitEntry(source.path).name;
  const names =
    rebaseName === "" ? plan : { ...plan, rename: { from: own, to: plan.rename?.to ?? rebaseName } };
  using extractor = new HostExtractor(names);
  const tar = new TarReader(extractor);
  for await (const chunk of chunks) tar.push(chunk);
  tar.finish();
  extractor.complete();
}

const linksMax = 10;

/** The destination behind its links; its directory must be there. */
function localDestination(path: string): CopyEnd {
  const end = (at: string, stat: Stats | undefined): CopyEnd => ({
    path: at,
    exists: stat !== undefined,
    isDirectory: stat?.isDirectory() === true,
    rebaseName: "",
  });
  let at = path;
  for (let links = 0; ; links += 1) {
    const stat = lstatOf(at);
    if (stat !== undefined && !stat.isSymbolicLink()) return end(at, stat);
    if (stat === undefined) break;
    if (links > linksMax) throw new ExitError(1, `too many symlinks in ${path}`);
    const target = readlinkSync(at);
    at = target.startsWith("/") ? target : posix.join(splitEntry(at).directory, target);
  }
  const { directory } = splitEntry(at);
  const parent = statOrThrow(directory);
  if (!parent.isDirectory()) throw new ExitError(1, "not a directory");
  return end(at, undefined);
}

function lstatOf(path: string): Stats | undefined {
  try {
    return lstatSync(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw fileError("lstat", path, error);
  }
}

function statOrThrow(path: string): Stats {
  try {
    return statSync(path);
  } catch (error) {
    throw fileError("stat", path, error);
  }
}

/** Refuses what cannot be written before the daemon is asked. */
function checkOutput(path: string): void {
  const directory = posix.dirname(posix.normalize(path).replace(/(?<=.)\/$/, ""));
  if (directory !== "." && statSync(directory, { throwIfNoEntry: false }) === undefined) {
    throw new ExitError(1, `invalid output path: directory ${JSON.stringify(directory)} does not exist`);
  }
  let stat: Stats | undefined;
  try {
    stat = statSync(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return;
    throw fileError("stat", path, error);
  }
  if (stat.isCharacterDevice() || stat.isBlockDevice()) {
    throw new ExitError(
      1,
      `invalid output path: ${JSON.stringify(path)} must be a directory or a regular file: got a device`,
    );
  }
}

async function copyIn(context: CliContext, request: CopyRequest): Promise<void> {
  const { container, quiet } = request;
  const fromStdin = request.source === "-";
  const sourcePath = fromStdin ? "-" : localPath(request.source);
  const target = await containerDestination(context, container, request.destination);
  if (fromStdin) {
    if (!target.isDirectory) {
      throw new ExitError(1, `destination "${container}:${request.destination}" must be a directory`);
    }
    await put(context, request, target.path, process.stdin);
    return;
  }
  const source = localSource(sourcePath, request.followLink);
  const plan = planCopy(source, target);
  const progress = new CopyProgress("Copying to container - ", quiet);
  try {
    const chunks = progress.counted(tarOf(source, plan, (line) => context.error(line)));
    await put(context, request, plan.directory, Readable.from(chunks, { objectMode: false }));
  } finally {
    progress.stop();
    if (!quiet)
      context.error(`Successfully copied ${copiedSize(progress.bytes)} to ${container}:${target.path}`);
  }
}

/** The destination behind a link. Where it cannot be looked at, it may be new: the copy tells. */
async function containerDestination(context: CliContext, container: string, path: string): Promise<CopyEnd> {
  let at = path;
  let stat = await statPath(context, container, path);
  if (stat !== undefined && has(stat, goMode.symlink)) {
    at = targetOf(path, stat);
    stat = await statPath(context, container, at);
  }
  for (const [bit, what] of [
    [goMode.device, "a device"],
    [goMode.irregular, "an irregular file"],
  ] as const) {
    if (stat === undefined || !has(stat, bit)) continue;
    throw new ExitError(
      1,
      `destination "${container}:${path}" must be a directory or a regular file: got ${what}`,
    );
  }
  const isDirectory = stat !== undefined && has(stat, goMode.directory);
  return { path: at, exists: stat !== undefined, isDirectory, rebaseName: "" };
}

async function put(context: CliContext, request: CopyRequest, path: string, body: Readable): Promise<void> {
  await context.client.run("PUT", archivePath(request.container), {
    query: {
      path,
      noOverwriteDirNonDir: "true",
      copyUIDGID: request.archive ? "true" : undefined,
    },
    headers: { "Content-Type": "application/x-tar" },
    body,
  });
}
