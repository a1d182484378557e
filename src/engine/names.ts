import { randomInt } from "node:crypto";
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";
import { nameAdjectives, nameSurnames } from "./names-words.ts";

const namePattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

/**
 * A container's name without its slash, or `invalid` in Docker's words. `shown` is the spelling that the message quotes.
 */
export function checkContainerName(name: string, shown = name): string {
  const bare = name.startsWith("/") ? name.slice(1) : name;
  if (!namePattern.test(bare) || bare.length > limits.containerNameLengthMax) {
    throw new EngineError(
      "invalid",
      `Invalid container name (${shown.slice(0, limits.containerNameLengthMax)}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`,
      { code: "bad-name" },
    );
  }
  return bare;
}

/** `adjective_surname`, with a digit from the third attempt on as Docker does, until `isFree`. */
export function generateContainerName(isFree: (name: string) => boolean): string {
  for (let attempt = 0; ; attempt += 1) {
    const base = `${pick(nameAdjectives)}_${pick(nameSurnames)}`;
    const name = attempt < 2 ? base : `${base}${randomInt(10 ** Math.min(attempt - 1, 8))}`;
    if (isFree(name)) return name;
  }
}

function pick(words: readonly string[]): string {
  return words[randomInt(words.length)]!;
}
