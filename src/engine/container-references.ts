/** What one container says about another: `container:x` modes and links. */
import { EngineError } from "#base/errors.ts";
import type { HostConfig } from "#wire/container-schema.ts";
import type { Container } from "./container.ts";
import type { ContainerTable } from "./container-table.ts";

const prefix = "container:";

/** What a `container:x` mode names, or undefined for another mode. */
function referenceOf(mode: string): string | undefined {
  return mode.startsWith(prefix) ? mode.slice(prefix.length) : undefined;
}

/** The other container of a `container:x` mode, or undefined for another mode. `notFound` when it is not there. */
export function containerOfMode(table: ContainerTable, mode: string): Container | undefined {
  const reference = referenceOf(mode);
  return reference === undefined ? undefined : table.resolve(reference);
}

function checkedAtCreate(table: ContainerTable, mode: string): Container | undefined {
  const reference = referenceOf(mode);
  if (reference === undefined) return undefined;
  const found = table.lookup(reference);
  // Not 404: `docker run` takes a 404 of create for a missing image.
  if (found === undefined) {
    throw new EngineError("invalid", `No such container: ${reference}`, { code: "no-such-container" });
  }
  return found;
}

/**
 * Checks the modes of `host` and replaces names by ids in place, so that a rename breaks nothing. The container of a
 * network mode need not be there yet: Docker looks for it at the start.
 */
export function resolveModes(
  table: ContainerTable,
  host: HostConfig,
): { networkContainer: Container | undefined } {
  const network = referenceOf(host.NetworkMode);
  const networkContainer = network === undefined ? undefined : table.lookup(network);
  if (networkContainer !== undefined) host.NetworkMode = prefix + networkContainer.id;
  const ipc = checkedAtCreate(table, host.IpcMode);
  if (ipc !== undefined) host.IpcMode = prefix + ipc.id;
  const pid = checkedAtCreate(table, host.PidMode);
  if (pid !== undefined) host.PidMode = prefix + pid.id;
  return { networkContainer };
}

/** `Links` as `<id>:<alias>`; `name`, `name:alias`, `/name:/container/alias` are accepted. */
export function parseLinks(table: ContainerTable, host: HostConfig): string[] {
  return (host.Links ?? []).map((spec) => {
    const parts = spec.split(":");
    const reference = parts[0] ?? "";
    if (parts.length > 2 || reference === "" || parts[1] === "") {
      throw new EngineError("invalid", `bad format for links: ${spec}`, { code: "bad-link" });
    }
    const found = table.lookup(reference);
    if (found === undefined) {
      throw new EngineError(
        "invalid",
        `could not get container for ${reference}: No such container: ${reference}`,
        { code: "no-such-container" },
      );
    }
    const alias = (parts[1] ?? reference).split("/").at(-1)!;
    if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(alias)) {
      throw new EngineError("invalid", `bad format for links: ${spec}`, { code: "bad-link" });
    }
    return `${found.id}:${alias}`;
  });
}
