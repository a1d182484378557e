/** Use case: update of limits and restart policy. */
import { EngineError, messageOf } from "#base/errors.ts";
import type { ContainerUpdateBody, HostConfig } from "#wire/container-schema.ts";
import type { Container } from "./container.ts";
import { type ContainerContext, containerEvent } from "./container-context.ts";
import { dropEarly } from "./container-early.ts";
import { resourcesOf } from "./container-request.ts";
import { checkResources, checkUnsupportedResources } from "./container-validate.ts";
import { checkRestartPolicy } from "./restart-policy.ts";

/** Numbers of the host configuration that an update replaces when they are not zero (moby `UpdateContainer`). */
const replacedNumbers = [
  "CpuShares",
  "Memory",
  "NanoCpus",
  "BlkioWeight",
  "CpuPeriod",
  "CpuQuota",
  "MemoryReservation",
  "MemorySwap",
] as const;

/** Changes limits, at once for a running container. Returns warnings. */
export async function updateContainer(
  ctx: ContainerContext,
  container: Container,
  body: ContainerUpdateBody,
): Promise<string[]> {
  using _lock = await ctx.locks.acquire(container.id);
  const { document } = container;
  if (container.removing) {
    throw new EngineError("conflict", "container is marked for removal and cannot be updated");
  }
  checkUnsupportedResources(body);
  const before = document.hostConfig;
  if (body.RestartPolicy.Name !== "") {
    if (before.AutoRemove) {
      throw new EngineError(
        "invalid",
        "Restart policy cannot be updated because AutoRemove is enabled for the container",
      );
    }
    checkRestartPolicy(body.RestartPolicy, false);
  }
  const after = updatedHost(before, body);
  const warnings = checkResources(after);
  await dropEarly(ctx, container);
  document.hostConfig = after;
  try {
    if (container.sandbox !== undefined && container.isUp) await container.sandbox.update(resourcesOf(after));
    await ctx.table.save(container);
  } catch (error) {
    document.hostConfig = before;
    throw new EngineError("system", `Cannot update container ${container.id}: ${messageOf(error)}`, {
      cause: error,
    });
  }
  container.changed();
  containerEvent(ctx, container, "update");
  return warnings;
}

function updatedHost(before: HostConfig, body: ContainerUpdateBody): HostConfig {
  const host: HostConfig = { ...before };
  for (const name of replacedNumbers) {
    if (body[name] !== 0) host[name] = body[name];
  }
  if (body.CpusetCpus !== "") host.CpusetCpus = body.CpusetCpus;
  if (body.CpusetMems !== "") host.CpusetMems = body.CpusetMems;
  if (body.MemorySwappiness !== null) host.MemorySwappiness = body.MemorySwappiness;
  if (body.OomKillDisable !== null) host.OomKillDisable = body.OomKillDisable;
  if (body.PidsLimit !== null) host.PidsLimit = body.PidsLimit > 0 ? body.PidsLimit : null;
  if (body.NanoCpus > 0 && body.CpuPeriod === 0 && body.CpuQuota === 0) {
    host.CpuPeriod = 0;
    host.CpuQuota = 0;
  }
  if (body.RestartPolicy.Name !== "") host.RestartPolicy = body.RestartPolicy;
  return host;
}
