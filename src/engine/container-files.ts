/** The three files of `/etc` that the engine writes for a container, in its state directory. */
import { readFile, writeFile } from "node:fs/promises";
import { EngineError, errnoOf } from "#base/errors.ts";
import { shortId } from "#base/ids.ts";
import type { Attachment } from "#network/network.ts";
import { renderHosts, renderResolvConf } from "#network/resolver-files.ts";
import type { Container } from "./container.ts";
import { type ContainerContext, stateDirOf } from "./container-context.ts";
import type { ContainerDocument } from "./container-document.ts";

// 0644: the container's users read them through the bind mount.
const fileMode = 0o644;

/** At create, beside the commit: the files that need no address, so that start writes only what changed. */
export async function writeEarlyFiles(ctx: ContainerContext, container: Container): Promise<void> {
  const { document } = container;
  if (document.networkContainer !== "") return;
  const resolver = await resolverFor(ctx, document);
  await Promise.all([
    write(ctx, container, "hostname", `${document.config.Hostname}\n`),
    write(ctx, container, "hosts", ""),
    write(ctx, container, "resolv.conf", resolver),
  ]);
}

/** Before the first process: hosts with the address it got; the others where they differ from what is there. */
export async function writeStartFiles(ctx: ContainerContext, container: Container): Promise<void> {
  const { document } = container;
  if (document.networkContainer !== "") return;
  const isFirstStart =
    container.writtenFiles.has("resolv.conf") && document.state.startedAt.startsWith("0001");
  const work = [write(ctx, container, "hosts", await hostsFor(ctx, container))];
  if (!isFirstStart) {
    work.push(
      write(ctx, container, "hostname", `${document.config.Hostname}\n`),
      write(ctx, container, "resolv.conf", await resolverFor(ctx, document)),
    );
  }
  await Promise.all(work);
}

async function write(
  ctx: ContainerContext,
  container: Container,
  name: "hostname" | "hosts" | "resolv.conf",
  text: string,
): Promise<void> {
  if (name !== "hosts" && container.writtenFiles.get(name) === text) return;
  await writeFile(`${stateDirOf(ctx, container.id)}/${name}`, text, { mode: fileMode });
  container.writtenFiles.set(name, text);
}

async function hostsFor(ctx: ContainerContext, container: Container): Promise<string> {
  const { attachment, document } = container;
  const { hostConfig: host, config } = document;
  const text = renderHosts({
    hostname: config.Hostname,
    domainname: config.Domainname,
    ipAddresses: (attachment?.endpoints ?? []).map((endpoint) => endpoint.ipAddress),
    extraHosts: host.ExtraHosts ?? [],
    hostGateway: hostGateway(ctx, attachment),
    ...(host.NetworkMode === "host" && { hostFileText: await readHostFile("/etc/hosts") }),
  });
  const links = linkEntries(ctx, document).map(({ address, names }) => `${address}\t${names.join(" ")}\n`);
  return links.length === 0 ? text : text + links.join("");
}

/** The daemon's setting, else the container's own gateway, else the default bridge's address. */
function hostGateway(ctx: ContainerContext, attachment: Attachment | undefined): string {
  if (ctx.defaults.hostGateway !== "") return ctx.defaults.hostGateway;
  const own = attachment?.endpoints.find((endpoint) => endpoint.gateway !== "")?.gateway;
  return own ?? ctx.networks.list().find((network) => network.name === "bridge")?.gateway ?? "";
}

/** Legacy links: the other container's address under its alias, short id and name. */
function linkEntries(
  ctx: ContainerContext,
  document: ContainerDocument,
): { address: string; names: string[] }[] {
  return document.endpoint.links.flatMap((link) => {
    const colon = link.indexOf(":");
    const other = ctx.table.find(link.slice(0, colon));
    const address = other?.document.network?.endpoints[0]?.ipAddress;
    if (other === undefined || !other.isUp || !address) {
      throw new EngineError(
        "conflict",
        `Cannot link to a non running container: /${other?.name ?? link.slice(0, colon)} AS /${document.name}/${link.slice(colon + 1)}`,
        { code: "not-running" },
      );
    }
    const names = [...new Set([link.slice(colon + 1), shortId(other.id), other.name])];
    return [{ address, names }];
  });
}

async function resolverFor(ctx: ContainerContext, document: ContainerDocument): Promise<string> {
  const host = document.hostConfig;
  const pick = (own: readonly string[] | null, fallback: readonly string[]): readonly string[] =>
    own?.length ? own : fallback;
  return renderResolvConf({
    hostResolvConf: await readHostFile("/etc/resolv.conf"),
    dns: pick(host.Dns, ctx.defaults.dns),
    dnsSearch: pick(host.DnsSearch, ctx.defaults.dnsSearch),
    dnsOptions: pick(host.DnsOptions, ctx.defaults.dnsOptions),
    hostNetwork: host.NetworkMode === "host",
  });
}

/** A host file that may be missing; bounded, since an administrator's mistake must not fill the daemon. */
async function readHostFile(path: string): Promise<string> {
  try {
    return (await readFile(path, "utf8")).slice(0, 1024 * 1024);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return "";
    throw error;
  }
}
