import type { Flags } from "./flags.ts";
import type { NetworkOption } from "./network-option.ts";

const notUserDefined = (target: string): boolean =>
  ["default", "bridge", "host", "none"].includes(target) || target.startsWith("container:");

const plainNetwork: NetworkOption = {
  target: "default",
  aliases: [],
  driverOptions: {},
  ipv4: "",
  ipv6: "",
  linkLocal: [],
  macAddress: "",
  gatewayPriority: 0,
};

/** `NetworkingConfig`: endpoint settings by network; the flags without a network belong to the first one. */
export function networkConfig(flags: Flags): { EndpointsConfig: Record<string, unknown> } {
  const given = flags.values<NetworkOption>("network");
  const endpoints: Record<string, unknown> = {};
  let userDefined = false;
  let predefined = false;
  for (const [index, option] of (given.length === 0 ? [plainNetwork] : given).entries()) {
    const merged = index === 0 ? mergeFlags(option, flags) : option;
    if (notUserDefined(option.target)) predefined = true;
    else userDefined = true;
    if (option.target === "") throw new Error("no name set for network");
    if (Object.hasOwn(endpoints, option.target)) {
      throw new Error(`network ${JSON.stringify(option.target)} is specified multiple times`);
    }
    endpoints[option.target] = endpointSettings(merged, index === 0 ? flags.list("link") : []);
  }
  if (userDefined && predefined) {
    throw new Error(
      "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
    );
  }
  return { EndpointsConfig: endpoints };
}

function mergeFlags(option: NetworkOption, flags: Flags): NetworkOption {
  const clash = (given: boolean, own: boolean, name: string, field: string): void => {
    if (given && own) {
      throw new Error(`conflicting options: cannot specify both --${name} and per-network ${field}`);
    }
  };
  const aliases = flags.list("network-alias");
  clash(aliases.length > 0, option.aliases.length > 0, "network-alias", "alias");
  clash(flags.text("ip") !== "", option.ipv4 !== "", "ip", "IPv4 address");
  clash(flags.text("ip6") !== "", option.ipv6 !== "", "ip6", "IPv6 address");
  clash(flags.text("mac-address") !== "", option.macAddress !== "", "mac-address", "MAC address");
  const locals = flags.list("link-local-ip");
  clash(locals.length > 0, option.linkLocal.length > 0, "link-local-ip", "link-local IP addresses");
  return {
    ...option,
    aliases: aliases.length > 0 ? aliases : option.aliases,
    ipv4: flags.text("ip") || option.ipv4,
    ipv6: flags.text("ip6") || option.ipv6,
    macAddress: flags.text("mac-address") || option.macAddress,
    linkLocal: locals.length > 0 ? locals : option.linkLocal,
  };
}

function endpointSettings(option: NetworkOption, links: readonly string[]): Record<string, unknown> {
  const addresses = option.ipv4 !== "" || option.ipv6 !== "" || option.linkLocal.length > 0;
  return {
    ...(addresses
      ? {
          IPAMConfig: {
            ...(option.ipv4 === "" ? {} : { IPv4Address: option.ipv4 }),
            ...(option.ipv6 === "" ? {} : { IPv6Address: option.ipv6 }),
            ...(option.linkLocal.length === 0 ? {} : { LinkLocalIPs: option.linkLocal }),
          },
        }
      : {}),
    ...(links.length > 0 && !notUserDefined(option.target) ? { Links: links } : {}),
    ...(option.aliases.length === 0 ? {} : { Aliases: option.aliases }),
    ...(option.macAddress === "" ? {} : { MacAddress: option.macAddress }),
    ...(Object.keys(option.driverOptions).length === 0 ? {} : { DriverOpts: option.driverOptions }),
    ...(option.gatewayPriority === 0 ? {} : { GwPriority: option.gatewayPriority }),
  };
}
