/** A container's place on the network: attached before the sandbox, given back after it. */
import { EngineError, errnoOf } from "#base/errors.ts";
import type { Attachment, EndpointSettings } from "#network/network.ts";
import { portInUse } from "#network/port-in-use.ts";
import type { Sandbox } from "#runtime/runtime.ts";
import type { PortReservation } from "#runtime/shim.ts";
import type { Container } from "./container.ts";
import type { ContainerContext } from "./container-context.ts";
import { portRequests } from "./container-ports.ts";
import { sandboxRequest } from "./container-request.ts";

/** Whether a mode needs a namespace of the container's own. */
export function hasOwnNetwork(mode: string): boolean {
  return mode !== "host" && !mode.startsWith("container:");
}

export async function attachNetwork(ctx: ContainerContext, container: Container): Promise<void> {
  const { document } = container;
  const { hostConfig: host, endpoint } = document;
  if (host.NetworkMode === "host") document.networkId = ctx.networks.resolve("host").id;
  if (!hasOwnNetwork(host.NetworkMode)) return;
  const attachment = await ctx.networks.attach({
    containerId: document.id,
    containerName: document.name,
    hostname: document.config.Hostname,
    networkName: host.NetworkMode,
    ...(endpoint.ipAddress !== "" && { ipAddress: endpoint.ipAddress }),
    ...(endpoint.macAddress !== "" && { macAddress: endpoint.macAddress }),
    ...(endpoint.aliases.length > 0 && { aliases: endpoint.aliases }),
    ports: portRequests(document.config, host),
    sysctls: new Map(Object.entries(host.Sysctls ?? {})),
  });
  hold(container, attachment);
  networkEvents(ctx, container, attachment.endpoints, "connect");
}

function hold(container: Container, attachment: Attachment): void {
  container.attachment = attachment;
  container.document.network = attachment.record;
  container.document.networkId = attachment.endpoints[0]?.networkId ?? "";
  container.changed();
}

/** Gives everything back. Idempotent; the caller decides whether it waits. */
export async function releaseNetwork(ctx: ContainerContext, container: Container): Promise<void> {
  const { attachment } = container;
  container.attachment = undefined;
  container.document.network = null;
  container.changed();
  if (attachment === undefined) return;
  networkEvents(ctx, container, attachment.endpoints, "disconnect");
  await attachment.release();
}

function networkEvents(
  ctx: ContainerContext,
  container: Container,
  endpoints: readonly EndpointSettings[],
  action: "connect" | "disconnect",
): void {
  for (const endpoint of endpoints) {
    const driver = ctx.networks.resolve(endpoint.networkId).driver;
    ctx.events.publish("network", action, endpoint.networkId, {
      container: container.id,
      name: endpoint.networkName,
      type: driver,
    });
  }
}

/** The reservation that an error of the shim is about, when it says that a port is taken. */
function busyPort(error: unknown, reservations: readonly PortReservation[]): PortReservation | undefined {
  if (errnoOf(error) !== "EADDRINUSE" && !(error instanceof EngineError && error.code === "port-in-use")) {
    return undefined;
  }
  const named = (error as { reservation?: PortReservation }).reservation;
  if (named !== undefined) return named;
  const text = error instanceof Error ? error.message : "";
  return (
    reservations.find((port) => text.includes(`${port.address}:${port.port}`)) ??
    reservations.find((port) => new RegExp(`\\b${port.port}\\b`).test(text)) ??
    reservations[0]
  );
}

const rebindsMax = 64;

/**
 * Prepares the sandbox; where another program holds a port, the next free one of a range (or any, for an ephemeral
 * publication) is taken, and a fixed one fails in Docker's words.
 */
export async function prepareWithPorts(ctx: ContainerContext, container: Container): Promise<Sandbox> {
  for (let attempt = 0; ; attempt += 1) {
    const { attachment } = container;
    try {
      return await ctx.runtime.prepare(sandboxRequest(ctx, container, attachment));
    } catch (error) {
      const failed = busyPort(error, attachment?.reservations ?? []);
      if (failed === undefined || attachment === undefined) throw error;
      const other = attempt < rebindsMax ? await ctx.networks.rebind(attachment, failed) : undefined;
      if (other === undefined) throw portInUse(container.name, failed.address, failed.port);
      hold(container, other);
    }
  }
}
