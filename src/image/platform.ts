import { EngineError } from "#base/errors.ts";
import type { Descriptor, Platform } from "#wire/oci-image.ts";

/** Go's names for the machine this runs on. */
export function hostPlatform(arch: string = process.arch): Platform {
  if (arch === "arm64") return { os: "linux", architecture: "arm64" };
  if (arch === "arm") return { os: "linux", architecture: "arm", variant: "v7" };
  return { os: "linux", architecture: arch === "x64" ? "amd64" : arch };
}

const architectureNames: Readonly<Record<string, string>> = {
  x86_64: "amd64",
  "x86-64": "amd64",
  aarch64: "arm64",
  i386: "386",
  i686: "386",
  armhf: "arm",
  armel: "arm",
};

/** containerd's normal form: aliases resolved, variants that say nothing left out. */
export function normalizePlatform(platform: Platform): Platform {
  const os = platform.os.toLowerCase() === "macos" ? "darwin" : platform.os.toLowerCase();
  const given = platform.architecture.toLowerCase();
  const architecture = architectureNames[given] ?? given;
  let variant = platform.variant?.toLowerCase() ?? "";
  if (given === "armhf") variant = "v7";
  if (given === "armel") variant = "v6";
  if (architecture === "arm64" && (variant === "8" || variant === "v8")) variant = "";
  if (architecture === "arm" && variant === "") variant = "v7";
  if (architecture === "arm" && /^[5-8]$/.test(variant)) variant = `v${variant}`;
  if (architecture === "amd64" && variant === "v1") variant = "";
  return { os, architecture, ...(variant === "" ? {} : { variant }) };
}

/** `linux/arm64`, `linux/arm/v6`, `arm64` alone. Throws `invalid` with Docker's text. */
export function parsePlatformText(text: string): Platform {
  const parts = text.split("/");
  const valid = parts.length <= 3 && parts.every((part) => /^[A-Za-z0-9_.-]+$/.test(part));
  if (!valid) {
    throw new EngineError(
      "invalid",
      `${JSON.stringify(text)}: platform specifier component must match "^[A-Za-z0-9_.-]+$": invalid argument`,
      { code: "bad-platform" },
    );
  }
  const [first = "", second, third] = parts;
  if (second === undefined) {
    return /^(linux|windows|darwin|freebsd)$/i.test(first)
      ? normalizePlatform({ ...hostPlatform(), os: first })
      : normalizePlatform({ os: "linux", architecture: first });
  }
  return normalizePlatform({
    os: first,
    architecture: second,
    ...(third === undefined ? {} : { variant: third }),
  });
}

export function formatPlatform(platform: Platform): string {
  const { os, architecture, variant } = platform;
  return [os, architecture, ...(variant === undefined ? [] : [variant])].join("/");
}

/** What can run where `wanted` runs, best first. */
function acceptable(wanted: Platform): Platform[] {
  const { os, architecture, variant } = normalizePlatform(wanted);
  const of = (arch: string, kind?: string): Platform =>
    kind === undefined ? { os, architecture: arch } : { os, architecture: arch, variant: kind };
  const lowerArm = (from: number): Platform[] =>
    Array.from({ length: Math.max(0, from - 4) }, (_, index) => of("arm", `v${from - index}`));
  if (architecture === "amd64") {
    const level = variant === undefined ? 1 : Number(variant.slice(1)) || 1;
    const levels = Array.from({ length: level - 1 }, (_, index) => of("amd64", `v${level - index}`));
    // Every x86-64 machine that a kernel of today is built for runs v2; it is taken when there is nothing plainer.
    return [...levels, of("amd64"), ...(level === 1 ? [of("amd64", "v2")] : []), of("386")];
  }
  if (architecture === "arm") return lowerArm(Number(variant?.slice(1)) || 7);
  if (architecture === "arm64") {
    return [...(variant === undefined ? [] : [of("arm64", variant)]), of("arm64"), ...lowerArm(8)];
  }
  return variant === undefined ? [of(architecture)] : [of(architecture, variant), of(architecture)];
}

function same(left: Platform, right: Platform): boolean {
  return left.os === right.os && left.architecture === right.architecture && left.variant === right.variant;
}

/** Whether an image of platform `actual` satisfies a request for `wanted`. */
export function platformSatisfies(actual: Platform, wanted: Platform): boolean {
  const normal = normalizePlatform(actual);
  return acceptable(wanted).some((candidate) => same(candidate, normal));
}

/**
 * The best entry of an index for a platform. Entries without a platform are images for the host's; attestations
 * (platform unknown/unknown) never match. Throws `notFound` with Docker's text.
 */
export function choosePlatform(entries: readonly Descriptor[], wanted: Platform): Descriptor {
  for (const candidate of acceptable(wanted)) {
    const found = entries.find(
      (entry) => entry.platform !== undefined && same(normalizePlatform(entry.platform), candidate),
    );
    if (found !== undefined) return found;
  }
  const only = entries.length === 1 ? entries[0] : undefined;
  if (only !== undefined && only.platform === undefined) return only;
  throw new EngineError(
    "notFound",
    `no matching manifest for ${formatPlatform(wanted)} in the manifest list entries`,
    { code: "no-platform" },
  );
}
