import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { busyboxRoot, tarOf } from "./peers/images.ts";
import { startRegistryServe } from "./peers/registry-serve.ts";
import { startSkiffd } from "./peers/skiffd.ts";

/**
 * `npm run demo`: a private daemon and a registry of Skiff's own start on temporary roots; `examples/hello` is built with a
 * random nonce, pushed, removed locally, pulled back and run. Nothing stays behind.
 */
const skiff = join(import.meta.dirname, "../bin/skiff");
const example = "examples/hello";

function say(text: string): void {
  console.log(`\n== ${text}`);
}

/** A root filesystem of Debian's busybox, as `docker import` takes it. */
function busyboxArchive(): Buffer {
  const root = mkdtempSync(join(tmpdir(), "skiff-demo-"));
  try {
    busyboxRoot(root);
    return tarOf(root);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

async function demo(nonce: string): Promise<void> {
  say("starting a registry and a private daemon on temporary roots");
  await using registry = await startRegistryServe();
  await using daemon = await startSkiffd();
  console.log(`registry ${registry.address}\ndaemon   ${daemon.host}`);
  const run = (args: readonly string[], input?: Buffer): string => {
    console.log(`$ skiff ${args.join(" ")}`);
    const output = execFileSync(skiff, args, {
      cwd: join(import.meta.dirname, ".."),
      env: { ...process.env, DOCKER_HOST: daemon.host },
      encoding: "utf8",
      stdio: [input === undefined ? "ignore" : "pipe", "pipe", "inherit"],
      ...(input === undefined ? {} : { input }),
    });
    process.stdout.write(output);
    return output;
  };

  say("a base image, from Debian's busybox");
  run(["import", "-c", 'CMD ["sh"]', "-", "busybox"], busyboxArchive());

  say(`building ${example} with the nonce ${nonce}, and pushing it`);
  const reference = `${registry.address}/hello:latest`;
  run(["build", "-t", reference, "--build-arg", `NONCE=${nonce}`, example]);
  run(["push", reference]);

  say("removing it here, and all that the build kept");
  run(["rmi", reference]);
  run(["image", "prune", "-f"]);
  run(["rmi", "busybox"]);
  run(["builder", "prune", "-a", "-f"]);
  if (run(["images", "-a", "-q"]) !== "") throw new Error("images are left");

  say("pulling it back and running it");
  run(["pull", reference]);
  const output = run(["run", "--rm", reference]);
  if (!output.includes(nonce)) throw new Error("the nonce did not come back");
  run(["rmi", reference]);
}

const nonce = randomBytes(8).toString("hex");
// The daemon's disposal fails when anything of it is left: mounts, links, nft tables, cgroups, processes.
await demo(nonce);
say(`the nonce ${nonce} came back through build, push, pull and run; nothing was left behind`);
