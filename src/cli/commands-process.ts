import { containerPart } from "#sdk/path-part.ts";
import type { ContainerDetails } from "#sdk/types.ts";
import { atLeast, between, type Command, ExitError, exactly } from "./command.ts";
import { errorText } from "./error-text.ts";
import { sanitizeCell } from "./sanitize.ts";
import { alignColumns } from "./tabwriter.ts";

export const top: Command = {
  usage: "CONTAINER [ps OPTIONS]",
  flags: [],
  args: atLeast(1),
  interspersed: false,
  run: async (context, _flags, [name, ...options]) => {
    const result = await context.client.json<{ Titles: string[]; Processes: string[][] | null }>(
      "GET",
      `/containers/${containerPart(name!)}/top`,
      { query: { ps_args: options.length === 0 ? undefined : options.join(" ") } },
    );
    const lines = [result.Titles, ...(result.Processes ?? [])].map((cells) =>
      cells.map(sanitizeCell).join("\t"),
    );
    context.write(`${alignColumns(lines.join("\n"), { minWidth: 20, padding: 3 })}\n`);
    return 0;
  },
};

const changeKinds = ["C", "A", "D"] as const;

export const diff: Command = {
  usage: "CONTAINER",
  flags: [],
  args: exactly(1),
  run: async (context, _flags, [name]) => {
    if (name === "") throw new ExitError(1, "Container name cannot be empty");
    const changes = await context.client.json<{ Path: string; Kind: 0 | 1 | 2 }[] | null>(
      "GET",
      `/containers/${containerPart(name!)}/changes`,
    );
    for (const change of changes ?? [])
      context.print(`${changeKinds[change.Kind]} ${sanitizeCell(change.Path)}`);
    return 0;
  },
};

export const rename: Command = {
  usage: "CONTAINER NEW_NAME",
  flags: [],
  args: exactly(2),
  run: async (context, _flags, names) => {
    const [before, after] = names.map((name) => name.trim()) as [string, string];
    if (before === "" || after === "")
      throw new ExitError(1, "Error: Neither old nor new names may be empty");
    try {
      await context.client.run("POST", `/containers/${containerPart(before)}/rename`, {
        query: { name: after },
      });
    } catch (error) {
      context.error(errorText(error));
      throw new ExitError(1, `Error: failed to rename container named ${before}`);
    }
    return 0;
  },
};

export const port: Command = {
  usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
  flags: [],
  args: between(1, 2),
  run: async (context, _flags, [name, wanted]) => {
    const details = await context.client.json<ContainerDetails>(
      "GET",
      `/containers/${containerPart(name!)}/json`,
    );
    const ports = details.NetworkSettings.Ports ?? {};
    if (wanted !== undefined) {
      const [number, protocol = "tcp"] = wanted.split("/") as [string, string?];
      if (!/^\d+$/.test(number)) {
        throw new ExitError(
          1,
          `Error: invalid port (${number}): strconv.ParseUint: parsing ${JSON.stringify(number)}: invalid syntax`,
        );
      }
      const bindings = ports[`${number}/${protocol}`];
      if (bindings === undefined || bindings === null) {
        throw new ExitError(1, `Error: No public port '${wanted}' published for ${name}`);
      }
      for (const line of bindings.map(hostAddress)) context.print(line);
      return 0;
    }
    const keys = Object.keys(ports).sort(
      (one, other) => Number.parseInt(one, 10) - Number.parseInt(other, 10) || (one < other ? -1 : 1),
    );
    for (const key of keys)
      for (const binding of ports[key] ?? []) context.print(`${key} -> ${hostAddress(binding)}`);
    return 0;
  },
};

function hostAddress({ HostIp: ip, HostPort: hostPort }: { HostIp: string; HostPort: string }): string {
  return ip.includes(":") ? `[${ip}]:${hostPort}` : `${ip}:${hostPort}`;
}
