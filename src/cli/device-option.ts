import { parseCsvLine } from "./flag-types.ts";
import { checkDevice } from "./option-checks.ts";

export interface DeviceMapping {
  readonly PathOnHost: string;
  readonly PathInContainer: string;
  readonly CgroupPermissions: string;
}

export interface DeviceRequest {
  readonly Driver?: string;
  readonly Count?: number;
  readonly DeviceIDs?: readonly string[];
  readonly Capabilities?: readonly (readonly string[])[];
  readonly Options?: Readonly<Record<string, string>>;
}

const isMode = (text: string): boolean => /^[rwm]+$/.test(text);

/** `--device` values: paths become mappings, CDI names (`vendor.com/class=name`) one request. */
export function deviceMapping(devices: readonly string[]): {
  mappings: DeviceMapping[];
  requests: DeviceRequest[];
} {
  const mappings: DeviceMapping[] = [];
  const cdi: string[] = [];
  for (const text of devices) {
    if (/^[a-z0-9.-]+\/[^/=]+=/i.test(text)) {
      cdi.push(text);
      continue;
    }
    checkDevice(text);
    const [host, second = "", third = ""] = text.split(":") as [string, string?, string?];
    let inside = second;
    let mode = third;
    if (third === "" && isMode(second)) {
      inside = "";
      mode = second;
    }
    mappings.push({ PathOnHost: host, PathInContainer: inside || host, CgroupPermissions: mode || "rwm" });
  }
  return { mappings, requests: cdi.length === 0 ? [] : [{ Driver: "cdi", DeviceIDs: cdi }] };
}

/** `--gpus`: `all`, a count, or `count=2,driver=x,"capabilities=a,b"`. */
export function gpuRequest(values: readonly string[]): DeviceRequest[] {
  return values.map((text) => {
    let driver = "";
    let count: number | undefined;
    let ids: string[] | undefined;
    const capabilities = ["gpu"];
    for (const field of parseCsvLine(text)) {
      const equals = field.indexOf("=");
      const [key, value] = equals < 0 ? ["count", field] : [field.slice(0, equals), field.slice(equals + 1)];
      if (key === "count") {
        if (value !== "all" && !/^-?\d+$/.test(value)) {
          throw new Error(`invalid count (${value}): value must be either "all" or an integer`);
        }
        count = value === "all" ? -1 : Number(value);
      } else if (key === "driver") driver = value;
      else if (key === "device") ids = value.split(",");
      else if (key === "capabilities") capabilities.push(...value.split(","));
      else if (key !== "options") throw new Error(`unexpected key '${key}' in '${field}'`);
    }
    return {
      Driver: driver,
      Count: count ?? (ids === undefined ? 1 : 0),
      ...(ids === undefined ? {} : { DeviceIDs: ids }),
      Capabilities: [capabilities],
      Options: {},
    };
  });
}
