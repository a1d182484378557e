import {
  checkExpansion,
  createDecompressor,
  type Decompressor,
  detectFormat,
  type Emit,
} from "#archive/compression.ts";
import { EngineError } from "#base/errors.ts";
import { createStreamDecoder } from "#sys/xz-bzip2.ts";

/**
 * A decompressor for archives, by their first bytes, whatever a media type claims: the formats of layers, and xz and bzip2. `head` is the beginning of the
 * data. Throws `unsupported-compression` by name, `archive-limit` for bombs.
 */
export function openArchive(head: Uint8Array, emit: Emit): Decompressor {
  const format = detectFormat(head);
  if (format === "lzip" || format === "zip") {
    throw new EngineError("invalid", `${format} archives are not supported`, {
      code: "unsupported-compression",
    });
  }
  return format === "xz" || format === "bzip2" ? bounded(format, emit) : createDecompressor(format, emit);
}

function bounded(format: "xz" | "bzip2", emit: Emit): Decompressor {
  let taken = 0;
  let given = 0;
  const decoder = createStreamDecoder(format, (chunk) => {
    given += chunk.length;
    checkExpansion(taken, given);
    emit(chunk);
  });
  return {
    push: (chunk) => {
      taken += chunk.length;
      decoder.push(chunk);
    },
    finish: () => decoder.finish(),
    close: () => decoder.close(),
  };
}
