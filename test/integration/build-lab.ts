import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type IncomingMessage, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TarWriter } from "#archive/tar-write.ts";
import { type ByteString, bytesOfText } from "#base/byte-string.ts";
import { busyboxRoot, tarOf } from "../peers/images.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";

/** One entry of a context: a text is a file. */
export type Entry =
  | string
  | { readonly link: string }
  | { readonly hardlink: string }
  | { readonly directory: true }
  | { readonly mode: number; readonly text: string };

/** A tar archive as a client sends it, with names as they are: also those that no client would send. */
export function contextTar(entries: Readonly<Record<string, Entry>>, mtimeSeconds = 1_700_000_000): Buffer {
  const chunks: Buffer[] = [];
  const tar = new TarWriter((chunk) => chunks.push(Buffer.from(chunk)));
  for (const [name, entry] of Object.entries(entries)) {
    const common = {
      path: bytesOfText(name),
      uid: 0,
      gid: 0,
      mtimeNs: BigInt(mtimeSeconds) * 1_000_000_000n,
      deviceMajor: 0,
      deviceMinor: 0,
      linkPath: "" as ByteString,
      sizeBytes: 0,
      mode: 0o644,
    };
    if (typeof entry === "object" && "link" in entry)
      tar.entry({ ...common, type: "symlink", mode: 0o777, linkPath: bytesOfText(entry.link) });
    else if (typeof entry === "object" && "hardlink" in entry)
      tar.entry({ ...common, type: "link", linkPath: bytesOfText(entry.hardlink) });
    else if (typeof entry === "object" && "directory" in entry)
      tar.entry({ ...common, type: "directory", mode: 0o755 });
    else {
      const data = Buffer.from(typeof entry === "string" ? entry : entry.text);
      tar.entry({
        ...common,
        type: "file",
        sizeBytes: data.length,
        ...(typeof entry === "string" ? {} : { mode: entry.mode }),
      });
      tar.data(data);
    }
  }
  tar.finish();
  return Buffer.concat(chunks);
}

/** What the steps of a build say, without the builder's own lines. */
export function said(output: string): string[] {
  return output
    .split("\n")
    .filter((line) => line !== "" && !/^(?:Step | ---> |Removing |Successfully )/.test(line));
}

export interface BuildAnswer {
  readonly status: number;
  /** All `stream` texts together. */
  readonly output: string;
  /** Error of the stream, or of the answer. */
  readonly error: string;
  readonly code: number | undefined;
  /** Of the last image that was told of. */
  readonly id: string;
}

/** One build over the wire. `onOutput` sees the output so far; returning "stop" cuts the connection. */
export async function build(
  daemon: TestDaemon,
  entries: Readonly<Record<string, Entry>> | Buffer,
  query: Readonly<Record<string, string>> = {},
  onOutput: (output: string) => "stop" | undefined = () => undefined,
): Promise<BuildAnswer> {
  const body = Buffer.isBuffer(entries) ? entries : contextTar(entries);
  const path = `/v1.41/build?${new URLSearchParams(query)}`;
  const sent = request({
    socketPath: daemon.socket,
    method: "POST",
    path,
    agent: false,
    headers: { "Content-Type": "application/x-tar", "Content-Length": body.length },
  });
  sent.end(body);
  const [answer] = (await once(sent, "response")) as [IncomingMessage];
  let text = "";
  let output = "";
  let error = "";
  let code: number | undefined;
  let id = "";
  const take = (line: string): void => {
    const message = JSON.parse(line) as {
      stream?: string;
      aux?: { ID?: string };
      errorDetail?: { message: string; code?: number };
      message?: string;
    };
    output += message.stream ?? "";
    id = message.aux?.ID ?? id;
    error = message.errorDetail?.message ?? message.message ?? error;
    code = message.errorDetail?.code ?? code;
  };
  try {
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      text += chunk.toString("utf8");
      for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
        const line = text.slice(0, end).trim();
        text = text.slice(end + 1);
        if (line !== "") take(line);
      }
      if (onOutput(output) === "stop") {
        sent.destroy();
        break;
      }
    }
  } catch (failure) {
    // Cut by ourselves, or by a daemon that was killed.
    error = String(failure);
  }
  if (text.trim() !== "") take(text);
  return { status: answer.statusCode ?? 0, output, error, code, id };
}

/** A daemon with `busybox`. */
export async function startBuildDaemon(): Promise<TestDaemon> {
  const daemon = await startSkiffd();
  const folder = mkdtempSync(join(tmpdir(), "skiff-build-base-"));
  let body: Buffer;
  try {
    busyboxRoot(folder);
    body = tarOf(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const sent = request({
    socketPath: daemon.socket,
    method: "POST",
    path: "/images/create?fromSrc=-&repo=busybox&tag=latest",
    agent: false,
    headers: { "Content-Type": "application/x-tar" },
  });
  sent.end(body);
  const [answer] = (await once(sent, "response")) as [IncomingMessage];
  answer.resume();
  await once(answer, "end");
  return daemon;
}
