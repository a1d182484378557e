/** Credentials for registries: `config.json`, or a helper program that keeps them elsewhere. */
import { spawn } from "node:child_process";
import type { ConfigFile, StoredAuth } from "./config-file.ts";
import type { ImageReference } from "./reference.ts";

/** The key under which credentials for Docker Hub have always been kept. */
export const hubServer = "https://index.docker.io/v1/";

export interface RegistryAuth {
  readonly username?: string;
  readonly password?: string;
  readonly serveraddress: string;
  readonly identitytoken?: string;
  readonly registrytoken?: string;
}

/** An answer beyond this is no credential. */
const helperOutputBytesMax = 1024 * 1024;
const helperTimeoutMs = 60_000;

/** The key for an image's registry. */
export function serverOf(reference: ImageReference): string {
  return reference.domain === "docker.io" ? hubServer : reference.domain;
}

export function helperFor(config: ConfigFile, server: string): string | undefined {
  const name = config.credHelpers?.[server] ?? config.credsStore;
  return name === undefined || name === "" ? undefined : name;
}

/** Runs `docker-credential-NAME VERB` with `input` on its stdin. Throws with what it said when it fails. */
export function runHelper(
  name: string,
  verb: "get" | "store" | "erase" | "list",
  input: string,
): Promise<string> {
  if (!/^[A-Za-z0-9._-]+$/.test(name)) throw new Error(`bad name of a credential helper: ${name}`);
  return new Promise((resolve, reject) => {
    const child = spawn(`docker-credential-${name}`, [verb], {
      stdio: ["pipe", "pipe", "inherit"],
      timeout: helperTimeoutMs,
    });
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => {
      output += chunk.toString();
      if (output.length > helperOutputBytesMax) child.kill();
    });
    child.on("error", (cause: NodeJS.ErrnoException) => {
      const text =
        cause.code === "ENOENT"
          ? `exec: "docker-credential-${name}": executable file not found in $PATH`
          : cause.message;
      reject(new Error(`error getting credentials - err: ${text}, out: \`\``));
    });
    child.on("close", (code) => {
      if (code === 0) resolve(output);
      else
        reject(
          new Error(
            `error ${verb === "get" ? "getting" : "storing"} credentials - err: exit status ${code ?? 1}, out: \`${output.trim()}\``,
          ),
        );
    });
    child.stdin.on("error", () => {});
    child.stdin.end(input);
  });
}

/** What is known for a server; an empty answer when nothing is. */
export async function credentialsFor(config: ConfigFile, server: string): Promise<RegistryAuth> {
  const helper = helperFor(config, server);
  if (helper !== undefined) {
    const found = await fromHelper(helper, server);
    if (found !== undefined) return found;
  }
  return fromFile(config, server);
}

async function fromHelper(helper: string, server: string): Promise<RegistryAuth | undefined> {
  let answer: string;
  try {
    answer = await runHelper(helper, "get", server);
  } catch (error) {
    if (error instanceof Error && error.message.includes("credentials not found in native keychain"))
      return undefined;
    throw error;
  }
  const parsed = JSON.parse(answer) as { Username?: string; Secret?: string };
  // A helper marks an identity token by this user name.
  if (parsed.Username === "<token>") return { serveraddress: server, identitytoken: parsed.Secret ?? "" };
  return { serveraddress: server, username: parsed.Username ?? "", password: parsed.Secret ?? "" };
}

function fromFile(config: ConfigFile, server: string): RegistryAuth {
  const bare = server.replace(/^https?:\/\//, "").split("/")[0]!;
  const auths = config.auths ?? {};
  let stored: StoredAuth | undefined = auths[server];
  if (stored === undefined) {
    // Older clients wrote URLs: the host decides.
    const key = Object.keys(auths).find((name) => name.replace(/^https?:\/\//, "").split("/")[0] === bare);
    stored = key === undefined ? undefined : auths[key];
  }
  if (stored === undefined) return { serveraddress: server };
  const decoded = stored.auth === undefined ? "" : Buffer.from(stored.auth, "base64").toString();
  const colon = decoded.indexOf(":");
  return {
    serveraddress: server,
    username: stored.username ?? (colon < 0 ? "" : decoded.slice(0, colon)),
    password: stored.password ?? (colon < 0 ? "" : decoded.slice(colon + 1).replace(/\0+$/, "")),
    ...(stored.identitytoken === undefined ? {} : { identitytoken: stored.identitytoken }),
    ...(stored.registrytoken === undefined ? {} : { registrytoken: stored.registrytoken }),
  };
}

/** The X-Registry-Auth header: base64url of the JSON. */
export function encodeAuth(auth: RegistryAuth): string {
  return Buffer.from(JSON.stringify(auth)).toString("base64").replaceAll("+", "-").replaceAll("/", "_");
}

/** The header for an image, for pull and push. */
export async function registryAuthHeader(
  config: ConfigFile,
  reference: ImageReference,
): Promise<Record<string, string>> {
  return { "X-Registry-Auth": encodeAuth(await credentialsFor(config, serverOf(reference))) };
}
