/** A container's place on the network: attached before the sandbox, given back after it. */
import type { Attachment, EndpointSettings } from "#network/network.ts";
import { portInUse } from "#network/port-in-use.ts";
import type { Sandbox } from "#runtime/runtime.ts";
import { PortReservationError } from "#runtime/shim-errors.ts";
import type { Container } from "./container.ts";
import type { ContainerContext } from "./container-context.ts";
import { portRequests } from "./container-ports.ts";
import { sandboxRequest } from "./container-request.ts";

/** Whether a mode needs a namespace of the container's own. */
export function hasOwnNetwork(mode: string): boolean {
  return mode !== "host" && !mode.startsWith("container:");
}

/** A namespace with the endpoint that the container asks for; undefined where it has none of its own. */
export async function requestAttachment(
  ctx: ContainerContext,
  container: Container,
): Promise<Attachment | undefined> {
  const { document } = container;
  const { hostConfig: host, endpoint } = document;
  if (!hasOwnNetwork(host.NetworkMode)) return undefined;
  return ctx.networks.attach({
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
}

export async function attachNetwork(ctx: ContainerContext, container: Container): Promise<void> {
  connectAttachment(ctx, container, await requestAttachment(ctx, container));
}

/** From now on the attachment is the container's: its row names it, and the network's event is told. */
export function connectAttachment(
  ctx: ContainerContext,
  container: Container,
  attachment: Attachment | undefined,
): void {
  const { document } = container;
  if (document.hostConfig.NetworkMode === "host") document.networkId = ctx.networks.resolve("host").id;
  if (attachment === undefined) return;
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
      if (!(error instanceof PortReservationError) || attachment === undefined) throw error;
      const failed = error.reservation;
      const other = attempt < rebindsMax ? await ctx.networks.rebind(attachment, failed) : undefined;
      if (other === undefined) {
        const endpointId = attachment.endpoints[0]?.endpointId;
        throw portInUse(container.name, failed.address, failed.port, endpointId);
      }
      hold(container, other);
    }
  }
}
