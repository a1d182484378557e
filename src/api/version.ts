import { EngineError } from "#base/errors.ts";
import type { ApiVersion } from "./route.ts";

export const apiVersionMax: ApiVersion = { major: 1, minor: 51 };
export const apiVersionMin: ApiVersion = { major: 1, minor: 24 };

export function formatVersion({ major, minor }: ApiVersion): string {
  return `${major}.${minor}`;
}

/** True when the client speaks `major.minor` or later: how shapes of answers are chosen. */
export function atLeast(version: ApiVersion, major: number, minor: number): boolean {
  return version.major > major || (version.major === major && version.minor >= minor);
}

function compare(a: ApiVersion, b: ApiVersion): number {
  return a.major - b.major || a.minor - b.minor;
}

/** The `v1.51` of a path, or undefined when the part is no version (Docker routes `/v[0-9.]+/`). */
export function versionText(segment: string): string | undefined {
  return /^v[0-9.]+$/.test(segment) ? segment.slice(1) : undefined;
}

/**
 * The version a client asked for. Texts are matched by clients: docker-py and the docker CLI fall back on them.
 * Parts that are missing or too long count as zero, further parts are ignored, as in Docker's comparison.
 */
export function checkVersion(text: string): ApiVersion {
  const [major = "", minor = ""] = text.split(".");
  const version = { major: Number(major.slice(0, 9)), minor: Number(minor.slice(0, 9)) };
  if (compare(version, apiVersionMax) > 0) {
    throw new EngineError(
      "invalid",
      `client version ${text} is too new. Maximum supported API version is ${formatVersion(apiVersionMax)}`,
      { code: "version-too-new" },
    );
  }
  if (compare(version, apiVersionMin) < 0) {
    throw new EngineError(
      "invalid",
      `client version ${text} is too old. Minimum supported API version is ${formatVersion(apiVersionMin)}, please upgrade your client to a newer version`,
      { code: "version-too-old" },
    );
  }
  return version;
}
