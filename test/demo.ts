import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { busyboxRoot, pushLayout, tarOf, writeLayout } from "./peers/images.ts";
import { startRegistry } from "./peers/registry.ts";
import { startSkiffd } from "./peers/skiffd.ts";

/**
 * `npm run demo`: an image is made from Debian's busybox with a random nonce baked in, pushed to a registry on loopback,
 * pulled by a private Skiff daemon after the local copy was deleted, and run. Nothing stays behind.
 */
const skiff = join(import.meta.dirname, "../bin/skiff");

function say(text: string): void {
  console.log(`\n== ${text}`);
}

async function demo(nonce: string): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const folder = mkdtempSync(join(tmpdir(), "skiff-demo-"));
  stack.defer(() => rmSync(folder, { recursive: true, force: true }));

  say(`making an image with the nonce ${nonce}`);
  const root = join(folder, "rootfs");
  busyboxRoot(root);
  writeFileSync(join(root, "nonce"), `${nonce}\n`);
  const layout = join(folder, "layout");
  const id = writeLayout(layout, [tarOf(root)], {
    Cmd: ["sh", "-c", "echo hello from $(hostname), pid $$; cat /nonce"],
  });
  console.log(id);

  say("starting a registry and a private daemon on temporary roots");
  const registry = stack.use(await startRegistry());
  const daemon = stack.use(await startSkiffd());
  const reference = `${registry.address}/demo:latest`;
  pushLayout(layout, reference);
  rmSync(layout, { recursive: true });
  rmSync(root, { recursive: true });
  console.log(`pushed ${reference}; the local copy is deleted`);

  const run = (...args: string[]): string => {
    console.log(`$ skiff ${args.join(" ")}`);
    const output = execFileSync(skiff, args, {
      env: { ...process.env, DOCKER_HOST: daemon.host },
      encoding: "utf8",
      stdio: ["ignore", "pipe", "inherit"],
    });
    process.stdout.write(output);
    return output;
  };
  say("pulling and running it with Skiff");
  run("pull", reference);
  run("images");
  const output = run("run", "--rm", "--name", "demo", reference);
  if (!output.includes(nonce)) throw new Error("the nonce did not come back");
  run("ps", "--all");
  run("rmi", reference);
}

const nonce = randomBytes(8).toString("hex");
// The daemon's disposal fails when anything of it is left: mounts, links, nft tables, cgroups, processes.
await demo(nonce);
say(`the nonce ${nonce} came back through registry, pull and run; nothing was left behind`);
