import { EngineError } from "#base/errors.ts";

/** A file name (NAME_MAX) with room for the trash's suffix. */
const nameLengthMax = 200;

function refuse(name: string, why: string): EngineError {
  return new EngineError("invalid", `create ${name}: ${why}`, { code: "bad-volume" });
}

/** Docker's rule for names; they become directory names. */
export function checkName(name: string): void {
  if (name.length < 2) {
    throw refuse(name, "volume name is too short, names should be at least two alphanumeric characters");
  }
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/.test(name)) {
    throw refuse(
      name,
      `${JSON.stringify(name)} includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`,
    );
  }
  if (name.length > nameLengthMax)
    throw refuse(name, `volume name is longer than ${nameLengthMax} characters`);
}

/** What each option needs beside it (Docker's local driver). */
const needed: Readonly<Record<string, readonly string[]>> = {
  device: ["type"],
  o: ["device", "type"],
  size: [],
  type: ["device"],
};

export function checkOptions(name: string, options: Readonly<Record<string, string>> | null): void {
  if (options === null) return;
  for (const option of Object.keys(options)) {
    if (!Object.hasOwn(needed, option)) throw refuse(name, `invalid option: ${JSON.stringify(option)}`);
  }
  for (const option of Object.keys(options)) {
    const missing = needed[option]!.find((other) => !Object.hasOwn(options, other));
    if (missing !== undefined) throw refuse(name, `missing required option: ${JSON.stringify(missing)}`);
  }
  if (Object.hasOwn(options, "size")) throw refuse(name, "quota size requested but no quota support");
  if (Object.values(options).some((value) => value.length > 4096 || /[\0\n]/.test(value))) {
    throw refuse(name, "invalid option value");
  }
}
