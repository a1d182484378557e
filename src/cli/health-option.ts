import type { HealthConfig } from "#wire/oci-image.ts";
import type { Flags } from "./flags.ts";

/** The health check that the flags describe; undefined leaves the image's. Throws Docker's messages. */
export function healthConfig(flags: Flags): HealthConfig | undefined {
  const command = flags.text("health-cmd");
  const spans = {
    Interval: "health-interval",
    Timeout: "health-timeout",
    StartPeriod: "health-start-period",
    StartInterval: "health-start-interval",
  } as const;
  const retries = flags.number("health-retries");
  const given =
    Object.values(spans).some((name) => flags.number(name) !== 0) || command !== "" || retries !== 0;
  if (flags.bool("no-healthcheck")) {
    if (given) throw new Error("--no-healthcheck conflicts with --health-* options");
    return { Test: ["NONE"] };
  }
  if (!given) return undefined;
  for (const name of [
    "health-interval",
    "health-timeout",
    "health-retries",
    "health-start-period",
    "health-start-interval",
  ]) {
    if (flags.number(name) < 0) throw new Error(`--${name} cannot be negative`);
  }
  const config: Record<string, unknown> = {};
  if (command !== "") config["Test"] = ["CMD-SHELL", command];
  for (const [field, name] of Object.entries(spans)) {
    if (flags.number(name) !== 0) config[field] = flags.number(name);
  }
  if (retries !== 0) config["Retries"] = retries;
  return config;
}
