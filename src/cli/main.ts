import { basename } from "node:path";
import { runCommandLine } from "./dispatch.ts";

// A reader that went away (`skiff ps | head -1`) ends us quietly, as SIGPIPE ends other programs.
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(141);
    throw error;
  });
}

const called = basename(process.env["SKIFF_CALLED_AS"] || "skiff");
const { SKIFF_CALLED_AS: _, ...env } = process.env;
const code = await runCommandLine({
  program: called === "docker" ? "docker" : "skiff",
  words: process.argv.slice(2),
  env,
});

// Streams to pipes and files may still hold output; after that nothing may keep us: stdin, a socket, a timer.
await Promise.all(
  [process.stdout, process.stderr].map(
    (stream) =>
      new Promise<void>((resolve) =>
        stream.writableLength === 0 ? resolve() : stream.write("", () => resolve()),
      ),
  ),
);
process.exit(code);
