import { parseCsvLine } from "./flag-types.ts";

/** One `--network`: a name or mode, or `name=…,alias=…,ip=…` in CSV. */
export interface NetworkOption {
  readonly target: string;
  readonly aliases: readonly string[];
  readonly driverOptions: Readonly<Record<string, string>>;
  readonly ipv4: string;
  readonly ipv6: string;
  readonly linkLocal: readonly string[];
  readonly macAddress: string;
  readonly gatewayPriority: number;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** Throws Docker's messages. */
export function parseNetworkOption(text: string): NetworkOption {
  const option: Mutable<NetworkOption> = {
    target: text,
    aliases: [],
    driverOptions: {},
    ipv4: "",
    ipv6: "",
    linkLocal: [],
    macAddress: "",
    gatewayPriority: 0,
  };
  // Long form only when there is a field: `container:x` and plain names have none.
  if (!text.includes("=")) return option;
  option.target = "";
  for (const field of parseCsvLine(text)) {
    const equals = field.indexOf("=");
    if (equals < 0) throw new Error(`invalid field ${field}`);
    const key = field.slice(0, equals).trim().toLowerCase();
    const value = field.slice(equals + 1).trim();
    setField(option, key, value, field);
  }
  if (option.target === "") throw new Error("network name/id is not specified");
  return option;
}

function setField(option: Mutable<NetworkOption>, key: string, value: string, field: string): void {
  switch (key) {
    case "name":
      option.target = value;
      break;
    case "alias":
      option.aliases = [...option.aliases, value];
      break;
    case "driver-opt": {
      const equals = value.indexOf("=");
      if (equals < 0) throw new Error("invalid key/value pair format in driver options");
      option.driverOptions = { ...option.driverOptions, [value.slice(0, equals)]: value.slice(equals + 1) };
      break;
    }
    case "ip":
      option.ipv4 = value;
      break;
    case "ip6":
      option.ipv6 = value;
      break;
    case "link-local-ip":
      option.linkLocal = [...option.linkLocal, value];
      break;
    case "mac-address":
      option.macAddress = value;
      break;
    case "gw-priority":
      if (!/^-?\d+$/.test(value))
        throw new Error(
          `invalid gw-priority (${value}): strconv.ParseInt: parsing ${JSON.stringify(value)}: invalid syntax`,
        );
      option.gatewayPriority = Number(value);
      break;
    default:
      throw new Error(`invalid field key ${field.split("=", 1)[0]}`);
  }
}
