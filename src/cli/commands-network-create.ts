import { type Command, ExitError, exactly } from "./command.ts";
import { splitPair } from "./commands-volume.ts";
import type { CliContext } from "./context.ts";
import { collectLabels } from "./env-file.ts";
import { boolean, listOf, map, string, strings } from "./flag-types.ts";
import { type Flags, flag, toggle } from "./flags.ts";
import { checkLabel } from "./option-checks.ts";

export const createNetwork: Command = {
  usage: "[OPTIONS] NETWORK",
  flags: [
    toggle("attachable", "Let containers be attached by hand"),
    flag("aux-address", map, "Further addresses that the driver uses"),
    flag("config-from", string, "Network to copy the configuration from"),
    toggle("config-only", "Make a network that only holds a configuration"),
    flag("d,driver", string, "Driver of the network", { shown: '"bridge"', initial: "bridge" }),
    flag("gateway", strings, "Gateway of the subnet"),
    toggle("ingress", "Make the swarm's ingress network"),
    toggle("internal", "Keep the network from the outside"),
    flag("ip-range", strings, "Range to take addresses from"),
    flag("ipam-driver", string, "Driver that hands out addresses", {
      shown: '"default"',
      initial: "default",
    }),
    flag("ipam-opt", map, "Option for that driver"),
    flag("ipv4", boolean, "Hand out IPv4 addresses"),
    flag("ipv6", boolean, "Hand out IPv6 addresses"),
    flag("label", listOf(checkLabel), "Attach a label to the network"),
    flag("o,opt", map, "Option for the driver"),
    flag("scope", string, "Scope of the network"),
    flag("subnet", strings, "Subnet in CIDR form"),
  ],
  args: exactly(1),
  run: runCreate,
};

async function runCreate(context: CliContext, flags: Flags, [name]: readonly string[]): Promise<number> {
  const configFrom = flags.text("config-from");
  const result = await context.client.json<{ Id: string; Warning?: string }>("POST", "/networks/create", {
    json: {
      Name: name,
      CheckDuplicate: true,
      Driver: flags.text("driver"),
      Scope: flags.text("scope"),
      ...(flags.changed("ipv4") ? { EnableIPv4: flags.bool("ipv4") } : {}),
      ...(flags.changed("ipv6") ? { EnableIPv6: flags.bool("ipv6") } : {}),
      IPAM: {
        Driver: flags.text("ipam-driver"),
        Options: Object.fromEntries(flags.list("ipam-opt").map(splitPair)),
        Config: ipamConfigs(flags),
      },
      Internal: flags.bool("internal"),
      Attachable: flags.bool("attachable"),
      Ingress: flags.bool("ingress"),
      ConfigOnly: flags.bool("config-only"),
      ConfigFrom: configFrom === "" ? null : { Network: configFrom },
      Options: Object.fromEntries(flags.list("opt").map(splitPair)),
      Labels: collectLabels([], flags.list("label")),
    },
  });
  context.print(result.Id);
  return 0;
}

interface IpamConfig {
  Subnet: string;
  IPRange?: string;
  Gateway?: string;
  AuxiliaryAddresses?: Record<string, string>;
}

/** Pairs ranges, gateways and further addresses with the subnet that holds them. */
function ipamConfigs(flags: Flags): IpamConfig[] {
  const subnets = flags.list("subnet");
  const configs: IpamConfig[] = subnets.map((subnet) => ({ Subnet: subnet }));
  const ranges = flags.list("ip-range");
  const gateways = flags.list("gateway");
  if (subnets.length < ranges.length || subnets.length < gateways.length) {
    throw new ExitError(1, "every ip-range or gateway must have a corresponding subnet");
  }
  const owner = (address: string, what: string): IpamConfig => {
    const found = configs.find((config) => holds(config.Subnet, address));
    if (found === undefined) throw new ExitError(1, `no matching subnet for ${what} ${address}`);
    return found;
  };
  for (const range of ranges) {
    const config = owner(range.split("/")[0]!, "range");
    if (config.IPRange !== undefined)
      throw new ExitError(
        1,
        `cannot configure multiple ranges (${range}, ${config.IPRange}) on the same subnet (${config.Subnet})`,
      );
    config.IPRange = range;
  }
  for (const gateway of gateways) {
    const config = owner(gateway, "gateway");
    if (config.Gateway !== undefined)
      throw new ExitError(
        1,
        `cannot configure multiple gateways (${gateway}, ${config.Gateway}) for the same subnet (${config.Subnet})`,
      );
    config.Gateway = gateway;
  }
  for (const [host, address] of flags.list("aux-address").map(splitPair)) {
    const config = owner(address, "aux-address");
    config.AuxiliaryAddresses = { ...config.AuxiliaryAddresses, [host]: address };
  }
  return configs;
}

/** Whether a subnet in CIDR form holds an address; IPv6 is left to the daemon when both are IPv6. */
function holds(subnet: string, address: string): boolean {
  const [base, bits] = subnet.split("/") as [string, string?];
  if (base.includes(":") || address.includes(":")) return base.includes(":") && address.includes(":");
  const number = (text: string): number => text.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
  const size = 2 ** (32 - Number(bits ?? 32));
  return Math.floor(number(base) / size) === Math.floor(number(address) / size);
}
