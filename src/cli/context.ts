import { ApiClient } from "#sdk/client.ts";
import { ExitError } from "./command.ts";
import { type ConfigFile, type LoadedConfig, loadConfigFile, saveConfigFile } from "./config-file.ts";
import type { Flags } from "./flags.ts";
import { currentContext, type Environment, resolveEndpoint } from "./global-options.ts";
import { sanitizeLine } from "./sanitize.ts";
import { version } from "./version.ts";

/** What a command has at hand: the environment, the configuration, the daemon and the terminal. */
export class CliContext {
  /** The name we were called by, in messages: `skiff`, or `docker` when linked under that name. */
  readonly program: string;
  readonly env: Environment;
  readonly globals: Flags;
  readonly configDirectory: string;
  #config: LoadedConfig | undefined;
  #client: ApiClient | undefined;

  constructor(program: string, env: Environment, globals: Flags) {
    this.program = program;
    this.env = env;
    this.globals = globals;
    this.configDirectory = globals.text("config");
  }

  get config(): ConfigFile {
    if (this.#config === undefined) {
      this.#config = loadConfigFile(this.configDirectory);
      if (this.#config.warning !== undefined) this.error(this.#config.warning);
    }
    return this.#config.file;
  }

  saveConfig(file: ConfigFile): void {
    saveConfigFile(this.configDirectory, file);
    this.#config = { file };
  }

  get contextName(): string {
    return currentContext(this.globals, this.env, this.config.currentContext);
  }

  /** The daemon; made when first asked for. Throws `ExitError` when its address makes no sense. */
  get client(): ApiClient {
    if (this.#client === undefined) {
      try {
        this.#client = new ApiClient({
          endpoint: resolveEndpoint({
            flags: this.globals,
            env: this.env,
            program: this.program,
            configDirectory: this.configDirectory,
            contextName: this.contextName,
          }),
          apiVersion: this.env["DOCKER_API_VERSION"] || undefined,
          userAgent: `Skiff-Client/${version} (linux)`,
          headers: Object.fromEntries(
            Object.entries(this.config.HttpHeaders ?? {}).filter(
              ([name]) => name.toLowerCase() !== "user-agent",
            ),
          ),
        });
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        throw new ExitError(1, `Failed to initialize: ${reason}`);
      }
    }
    return this.#client;
  }

  /** The platform for pulls and creates: the flag, else DOCKER_DEFAULT_PLATFORM. */
  platform(fromFlag: string): string {
    return fromFlag || this.env["DOCKER_DEFAULT_PLATFORM"] || "";
  }

  /** One line on stdout. */
  print(line: string): void {
    process.stdout.write(`${line}\n`);
  }

  /** Text on stdout as it is. */
  write(text: string): void {
    process.stdout.write(text);
  }

  /** One line on stderr. What a daemon or an image says must not move the user's cursor. */
  error(line: string): void {
    process.stderr.write(`${sanitizeLine(line)}\n`);
  }

  /** Frees what would keep the process alive. */
  close(): void {
    this.#client?.close();
  }
}
