import { EngineError } from "#base/errors.ts";
import { ipcSysctls } from "#wire/process-options.ts";
import type { NamespaceMode } from "./runtime.ts";

function invalid(message: string): EngineError {
  return new EngineError("invalid", message, { code: "sysctl" });
}

function checkShape(name: string, value: string): void {
  // Each part becomes a path component below /proc/sys.
  if (name.length > 255 || !/^[A-Za-z0-9_-]+(?:[./][A-Za-z0-9_@-]+)+$/.test(name)) {
    throw invalid(`invalid sysctl name: ${JSON.stringify(name)}`);
  }
  // No sysctl needs `+` or `=`; both have been used to smuggle a second setting through a helper's argument.
  if (value.length > 4096 || !/^[\t\x20-\x7e]*$/.test(value) || /[+=]/.test(value)) {
    throw invalid(`invalid value for sysctl ${name}: ${JSON.stringify(value)}`);
  }
}

/** Throws `invalid` for any sysctl that is not held by a namespace of the container's own. */
export function checkSysctls(
  sysctls: ReadonlyMap<string, string>,
  namespaces: { readonly network: NamespaceMode; readonly ipc: NamespaceMode },
): void {
  for (const [name, value] of sysctls) {
    checkShape(name, value);
    const dotted = name.replaceAll("/", ".");
    if (ipcSysctls.has(dotted) || dotted.startsWith("fs.mqueue.")) {
      if (namespaces.ipc.kind === "host") {
        throw invalid(`sysctl ${JSON.stringify(name)} not allowed in host ipc namespace`);
      }
    } else if (dotted.startsWith("net.")) {
      if (namespaces.network.kind === "host") {
        throw invalid(`sysctl ${JSON.stringify(name)} not allowed in host network namespace`);
      }
    } else throw invalid(`sysctl ${JSON.stringify(name)} is not in a separate kernel namespace`);
  }
}

/** Docker's own settings for a container with its own network: any user may bind low ports and ping. */
const networkDefaults = {
  "net.ipv4.ip_unprivileged_port_start": "0",
  "net.ipv4.ping_group_range": "0 2147483647",
} as const;

/** The spec's `linux.sysctl`. */
export function ociSysctls(
  sysctls: ReadonlyMap<string, string>,
  settings: { readonly network: NamespaceMode; readonly uts: NamespaceMode; readonly domainname: string },
): Record<string, string> {
  const result = new Map<string, string>();
  if (settings.network.kind !== "host") {
    for (const [name, value] of Object.entries(networkDefaults)) result.set(name, value);
  }
  // The spec's `domainname` is newer than the runtimes of Debian 12.
  if (settings.domainname !== "" && settings.uts.kind === "private") {
    result.set("kernel.domainname", settings.domainname);
  }
  for (const [name, value] of sysctls) result.set(name, value);
  return Object.fromEntries(result);
}
