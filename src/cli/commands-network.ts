import { ApiError } from "#sdk/api-error.ts";
import { networkPart } from "#sdk/path-part.ts";
import type { NetworkDetails } from "#sdk/types.ts";
import { atLeast, type Command, ExitError, exactly, noArguments } from "./command.ts";
import { naturalCompare, splitPair } from "./commands-volume.ts";
import { errorText } from "./error-text.ts";
import { filtersParameter } from "./filters.ts";
import { filter, integer, list, string, strings } from "./flag-types.ts";
import { flag, toggle } from "./flags.ts";
import { formatHelp } from "./format-help.ts";
import { chooseFormat, formatListing, type Row } from "./formatter.ts";
import { joinLabels, truncateId } from "./short-text.ts";
import { goUtcString } from "./times.ts";

const headers = {
  ID: "NETWORK ID",
  Name: "NAME",
  Driver: "DRIVER",
  Scope: "SCOPE",
  IPv4: "IPV4",
  IPv6: "IPV6",
  Internal: "INTERNAL",
  Labels: "LABELS",
  CreatedAt: "CREATED AT",
} as const;

export const listNetworks: Command = {
  usage: "[OPTIONS]",
  flags: [
    flag("f,filter", filter, 'Show only networks that match ("driver=bridge")'),
    flag("format", string, formatHelp),
    toggle("no-trunc", "Show ids in full"),
    toggle("q,quiet", "Print ids only"),
  ],
  args: noArguments,
  run: async (context, flags) => {
    const quiet = flags.bool("quiet");
    let format = chooseFormat(flags.text("format"), context.config.networksFormat, quiet);
    if (format === "table") format = quiet ? "{{.ID}}" : "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}";
    else if (format === "raw") {
      format = quiet
        ? "network_id: {{.ID}}"
        : "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n";
    }
    const found = await context.client.json<NetworkDetails[]>("GET", "/networks", {
      query: { filters: filtersParameter(flags.list("filter")) },
    });
    const rows = found
      .toSorted((one, other) => naturalCompare(one.Name, other.Name))
      .map((network) => networkRow(network, flags.bool("no-trunc")));
    context.write(formatListing({ format, headers, typeName: "*network.networkContext", rows }));
    return 0;
  },
};

function networkRow(network: NetworkDetails, full: boolean): Row {
  return {
    ID: full ? network.Id : truncateId(network.Id),
    Name: network.Name,
    Driver: network.Driver,
    Scope: network.Scope,
    IPv4: String(network.EnableIPv4 ?? false),
    IPv6: String(network.EnableIPv6),
    Internal: String(network.Internal),
    Labels: joinLabels(network.Labels),
    Label: (name: string) => network.Labels?.[name] ?? "",
    CreatedAt: goUtcString(network.Created),
  };
}

export const removeNetworks: Command = {
  usage: "NETWORK [NETWORK...]",
  flags: [toggle("f,force", "Do not complain of networks that do not exist")],
  args: atLeast(1),
  run: async (context, flags, names) => {
    let code = 0;
    for (const name of names) {
      try {
        await context.client.run("DELETE", `/networks/${networkPart(name)}`);
        context.print(name);
      } catch (error) {
        if (flags.bool("force") && error instanceof ApiError && error.status === 404) continue;
        context.error(errorText(error));
        code = 1;
      }
    }
    // Docker's client prints its own exit status here.
    if (code !== 0) throw new ExitError(1, "exit status 1");
    return 0;
  },
};

export const connectNetwork: Command = {
  usage: "[OPTIONS] NETWORK CONTAINER",
  flags: [
    flag("alias", strings, "Further name of the container within the network"),
    flag("driver-opt", strings, "Option for the network's driver"),
    flag("gw-priority", integer, "Priority for the default gateway"),
    flag("ip", string, "IPv4 address (like 172.30.100.104)"),
    flag("ip6", string, "IPv6 address (like 2001:db8::33)"),
    flag("link", list, "Link to another container"),
    flag("link-local-ip", strings, "Link-local address of the container"),
  ],
  args: exactly(2),
  run: async (context, flags, [network, container]) => {
    const addresses = {
      ...(flags.text("ip") === "" ? {} : { IPv4Address: flags.text("ip") }),
      ...(flags.text("ip6") === "" ? {} : { IPv6Address: flags.text("ip6") }),
      ...(flags.list("link-local-ip").length === 0 ? {} : { LinkLocalIPs: flags.list("link-local-ip") }),
    };
    await context.client.run("POST", `/networks/${networkPart(network!)}/connect`, {
      json: {
        Container: container,
        EndpointConfig: {
          IPAMConfig: Object.keys(addresses).length === 0 ? null : addresses,
          Links: flags.list("link"),
          Aliases: flags.list("alias"),
          DriverOpts: Object.fromEntries(flags.list("driver-opt").map(splitPair)),
          GwPriority: flags.number("gw-priority"),
        },
      },
    });
    return 0;
  },
};

export const disconnectNetwork: Command = {
  usage: "[OPTIONS] NETWORK CONTAINER",
  flags: [toggle("f,force", "Disconnect by force")],
  args: exactly(2),
  run: async (context, flags, [network, container]) => {
    await context.client.run("POST", `/networks/${networkPart(network!)}/disconnect`, {
      json: { Container: container, Force: flags.bool("force") },
    });
    return 0;
  },
};
