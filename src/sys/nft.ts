import { EngineError } from "#base/errors.ts";
import { koffi } from "./libc.ts";

/**
 * nftables by libnftables(3), in this process: a command takes a fraction of a millisecond where a spawned `nft` takes
 * seven. Each `run` is one transaction of the kernel: all of it or nothing.
 */
export interface Nft extends Disposable {
  /** Commands in nft's language. Throws `NftError` with nft's own words. */
  run(commands: string): void;
  /**
   * A `list …` command: the objects of nft's JSON answer (libnftables-json(5)), without the `metainfo` one. `terse`
   * leaves out the elements of sets and maps.
   */
  list(command: string, options?: { terse?: boolean }): NftObject[];
}

/** `{ "chain": {…} }`, `{ "map": {…} }`, … */
export type NftObject = Readonly<Record<string, Readonly<Record<string, unknown>>>>;

export class NftError extends EngineError {
  /** The kernel's or nft's reason, without the echo of the command. */
  readonly reason: string;

  constructor(text: string) {
    const reason = /^Error: (.*)$/m.exec(text)?.[1] ?? text.trim();
    super("system", `nftables: ${reason}`, { code: "nft" });
    this.name = "NftError";
    this.reason = reason;
  }

  /** A table, chain, set or element that is not there. */
  get missing(): boolean {
    return /No such file or directory/.test(this.reason);
  }
}

// nft_ctx_output_set_flags(3): handles, JSON, and numbers instead of the names of /etc/protocols.
const listFlags = (1 << 3) | (1 << 4) | (1 << 7) | (1 << 8) | (1 << 9);
const terseFlag = 1 << 11;

type Context = { readonly __brand: "nft_ctx" };

interface Library {
  contextNew(flags: number): Context | null;
  contextFree(context: Context): void;
  setFlags(context: Context, flags: number): void;
  bufferOutput(context: Context): number;
  bufferError(context: Context): number;
  getOutput(context: Context): string;
  getError(context: Context): string;
  runFromBuffer(context: Context, commands: string): number;
}

function loadLibrary(): Library {
  const library = koffi.load("libnftables.so.1");
  return {
    contextNew: library.func("void *nft_ctx_new(uint32_t flags)") as Library["contextNew"],
    contextFree: library.func("void nft_ctx_free(void *ctx)") as Library["contextFree"],
    setFlags: library.func(
      "void nft_ctx_output_set_flags(void *ctx, unsigned int flags)",
    ) as Library["setFlags"],
    bufferOutput: library.func("int nft_ctx_buffer_output(void *ctx)") as Library["bufferOutput"],
    bufferError: library.func("int nft_ctx_buffer_error(void *ctx)") as Library["bufferError"],
    getOutput: library.func("const char *nft_ctx_get_output_buffer(void *ctx)") as Library["getOutput"],
    getError: library.func("const char *nft_ctx_get_error_buffer(void *ctx)") as Library["getError"],
    runFromBuffer: library.func(
      "int nft_run_cmd_from_buffer(void *ctx, const char *buf)",
    ) as Library["runFromBuffer"],
  };
}

/** A context of libnftables. Throws when the library is not installed (Debian: `libnftables1`). */
export function openNft(): Nft {
  let library: Library;
  try {
    library = loadLibrary();
  } catch (cause) {
    throw new EngineError("system", "libnftables.so.1 is not installed (Debian package libnftables1)", {
      code: "nft-missing",
      cause,
    });
  }
  let context = library.contextNew(0);
  if (context === null) throw new EngineError("system", "nftables: no context", { code: "nft" });
  library.bufferOutput(context);
  library.bufferError(context);

  const execute = (commands: string, flags: number): string => {
    if (context === null) throw new EngineError("system", "nftables: context is closed", { code: "nft" });
    library.setFlags(context, flags);
    const result = library.runFromBuffer(context, commands);
    // Both buffers are emptied by reading them.
    const output = library.getOutput(context);
    const error = library.getError(context);
    if (result !== 0) throw new NftError(error);
    return output;
  };
  return {
    run: (commands) => {
      execute(commands, 0);
    },
    list: (command, options) => {
      const output = execute(command, options?.terse === true ? listFlags | terseFlag : listFlags);
      const answer = JSON.parse(output) as { readonly nftables?: readonly NftObject[] };
      return (answer.nftables ?? []).filter((entry) => !("metainfo" in entry));
    },
    [Symbol.dispose]: () => {
      if (context !== null) library.contextFree(context);
      context = null;
    },
  };
}
