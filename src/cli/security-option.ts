import { readFileSync } from "node:fs";
import { describeErrno, errnoOf, messageOf } from "#base/errors.ts";
import type { Flags } from "./flags.ts";

export interface SecurityOptions {
  readonly options: readonly string[];
  /** Empty for `systempaths=unconfined`: nothing is masked. */
  readonly maskedPaths: readonly string[] | undefined;
}

/** Checks `--security-opt`s and puts the text of a seccomp profile in place of its file's name. */
export function securityOptions(given: readonly string[]): SecurityOptions {
  const options: string[] = [];
  let maskedPaths: readonly string[] | undefined;
  for (const text of given) {
    if (text === "systempaths=unconfined") {
      maskedPaths = [];
      continue;
    }
    options.push(oneOption(text));
  }
  return { options, maskedPaths };
}

function oneOption(text: string): string {
  // `name:value` is the old spelling of `name=value`.
  const separator = text.includes("=") ? "=" : ":";
  const at = text.indexOf(separator);
  const name = at < 0 ? text : text.slice(0, at);
  const value = at < 0 ? "" : text.slice(at + 1);
  if (name === "no-new-privileges") return text;
  if (value === "") throw new Error(`Invalid --security-opt: ${JSON.stringify(text)}`);
  if (name !== "seccomp" || value === "unconfined" || value === "builtin") return text;
  let profile: string;
  try {
    profile = readFileSync(value, "utf8");
  } catch (error) {
    const errno = errnoOf(error);
    const reason = errno === undefined ? messageOf(error) : `open ${value}: ${describeErrno(errno)}`;
    throw new Error(`opening seccomp profile (${value}) failed: ${reason}`);
  }
  try {
    return `seccomp=${JSON.stringify(JSON.parse(profile))}`;
  } catch (error) {
    throw new Error(`compacting json for seccomp profile (${value}) failed: ${messageOf(error)}`);
  }
}

/** Capability names in full, sorted; `ALL` covers the rest of its list. */
export function effectiveCapabilities(
  added: readonly string[],
  dropped: readonly string[],
): { add: readonly string[]; drop: readonly string[] } {
  const full = (name: string): string => {
    const upper = name.trim().toUpperCase();
    return upper === "ALL" || upper === "RESET" || upper.startsWith("CAP_") ? upper : `CAP_${upper}`;
  };
  const normal = (names: readonly string[]): string[] => {
    const set = new Set(names.map(full));
    return set.has("ALL") ? ["ALL"] : [...set].sort();
  };
  return { add: normal(added), drop: normal(dropped) };
}

/** Checks the modes that the client knows; `--ipc` and `--network` are the daemon's to judge. */
export function checkNamespaceModes(flags: Flags): void {
  const pid = flags.text("pid");
  if (pid !== "" && pid !== "host" && !/^container:./.test(pid)) throw new Error("--pid: invalid PID mode");
  const plain = (name: string, allowed: readonly string[], what: string): void => {
    if (!allowed.includes(flags.text(name))) throw new Error(`--${name}: invalid ${what} mode`);
  };
  plain("uts", ["", "host"], "UTS");
  plain("userns", ["", "host"], "USER");
  plain("cgroupns", ["", "host", "private"], "CGROUP");
}

export interface RestartPolicy {
  readonly Name: string;
  readonly MaximumRetryCount: number;
}

/** `no`, `always`, `unless-stopped`, `on-failure[:count]`; which names exist is for the daemon to say. */
export function restartPolicy(text: string): RestartPolicy {
  if (text === "") return { Name: "", MaximumRetryCount: 0 };
  const colon = text.indexOf(":");
  const name = colon < 0 ? text : text.slice(0, colon);
  const count = colon < 0 ? "" : text.slice(colon + 1);
  if (colon >= 0 && name === "")
    throw new Error("invalid restart policy format: no policy provided before colon");
  if (count !== "" && !/^[+-]?\d+$/.test(count)) {
    throw new Error("invalid restart policy format: maximum retry count must be an integer");
  }
  return { Name: name, MaximumRetryCount: Number(count) };
}
