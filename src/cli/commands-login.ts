import { atMost, type Command, ExitError } from "./command.ts";
import { readLine } from "./confirm.ts";
import type { CliContext } from "./context.ts";
import { helperFor, hubServer, runHelper } from "./credentials.ts";
import { string } from "./flag-types.ts";
import { type Flags, flag, toggle } from "./flags.ts";

/** A password on stdin beyond this is a file redirected by mistake. */
const passwordBytesMax = 1024 * 1024;

export const login: Command = {
  usage: "[OPTIONS] [SERVER]",
  description: "Log in to a registry.\nWithout a server, Docker Hub is meant.",
  flags: [
    flag("p,password", string, "Password or access token"),
    toggle("password-stdin", "Read the password from standard input"),
    flag("u,username", string, "User name"),
  ],
  args: atMost(1),
  run: runLogin,
};

/** The key under which credentials are kept: a host name, or the old URL for Docker Hub. */
function serverKey(text: string | undefined): string {
  if (text === undefined || text === "") return hubServer;
  const host = text.replace(/^https?:\/\//, "").split("/")[0]!;
  return ["docker.io", "index.docker.io", "registry-1.docker.io"].includes(host) ? hubServer : host;
}

async function runLogin(context: CliContext, flags: Flags, [given]: readonly string[]): Promise<number> {
  const server = serverKey(given);
  const { username, password } = await credentials(context, flags);
  const auth = { username, password, serveraddress: server };
  const answer = await context.client.json<{ Status?: string; IdentityToken?: string }>("POST", "/auth", {
    json: auth,
  });
  const token = answer.IdentityToken ?? "";
  const config = structuredClone(context.config);
  const helper = helperFor(config, server);
  if (helper !== undefined) {
    const stored = {
      ServerURL: server,
      Username: token === "" ? username : "<token>",
      Secret: token === "" ? password : token,
    };
    await runHelper(helper, "store", JSON.stringify(stored));
    config.auths = { ...config.auths, [server]: {} };
  } else {
    const encoded = Buffer.from(`${username}:${token === "" ? password : ""}`).toString("base64");
    config.auths = {
      ...config.auths,
      [server]: { auth: encoded, ...(token === "" ? {} : { identitytoken: token }) },
    };
    const path = `${context.configDirectory}/config.json`;
    context.error(
      `\nWARNING! Your credentials are stored unencrypted in '${path}'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n`,
    );
  }
  context.saveConfig(config);
  if ((answer.Status ?? "") !== "") context.print(answer.Status!);
  return 0;
}

async function credentials(
  context: CliContext,
  flags: Flags,
): Promise<{ username: string; password: string }> {
  let username = flags.text("username");
  let password = flags.text("password");
  if (flags.changed("password")) {
    context.error("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    if (flags.bool("password-stdin"))
      throw new ExitError(1, "--password and --password-stdin are mutually exclusive");
  }
  if (flags.bool("password-stdin")) {
    if (username === "") throw new ExitError(1, "Must provide --username with --password-stdin");
    password = (await readAll()).replace(/[\r\n]+$/, "");
  }
  if (username !== "" && password !== "") return { username, password };
  if (process.stdin.isTTY !== true) {
    throw new ExitError(1, "Error: Cannot perform an interactive login from a non TTY device");
  }
  if (username === "") {
    context.write("Username: ");
    username = (await readLine()).trim();
    if (username === "") throw new ExitError(1, "Error: Non-null Username Required");
  }
  password = await readPassword(context);
  if (password === "") throw new ExitError(1, "Error: Password Required");
  return { username, password };
}

async function readAll(): Promise<string> {
  let text = "";
  for await (const chunk of process.stdin) {
    text += String(chunk);
    if (text.length > passwordBytesMax) throw new ExitError(1, "the password on standard input is too long");
  }
  return text;
}

/** Reads a line without showing it. */
async function readPassword(context: CliContext): Promise<string> {
  context.write("Password: ");
  const { spawnSync } = await import("node:child_process");
  const stty = (flag: string): void => {
    spawnSync("stty", [flag], { stdio: ["inherit", "ignore", "ignore"] });
  };
  stty("-echo");
  try {
    return await readLine();
  } finally {
    stty("echo");
    context.print("");
  }
}

export const logout: Command = {
  usage: "[SERVER]",
  description: "Log out of a registry.\nWithout a server, Docker Hub is meant.",
  flags: [],
  args: atMost(1),
  run: async (context, _flags, [given]) => {
    const server = serverKey(given);
    const config = structuredClone(context.config);
    const keys = Object.keys(config.auths ?? {}).filter((key) => serverKey(key) === server || key === given);
    const helper = helperFor(config, server);
    context.print(`Removing login credentials for ${server === hubServer ? hubServer : given}`);
    if (helper !== undefined) {
      try {
        await runHelper(helper, "erase", server);
      } catch (error) {
        context.error(
          `WARNING: could not erase credentials: ${error instanceof Error ? error.message : String(error)}`,
        );
      }
    }
    if (keys.length > 0) {
      config.auths = Object.fromEntries(Object.entries(config.auths!).filter(([key]) => !keys.includes(key)));
      context.saveConfig(config);
    }
    return 0;
  },
};
