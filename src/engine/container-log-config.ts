/** `LogConfig`: what of Docker's json-file and none drivers is honoured; everything else is refused by name. Pure. */
import { EngineError } from "#base/errors.ts";
import { shortId } from "#base/ids.ts";
import type { ShimLogConfig } from "#runtime/shim.ts";
import { effectiveEnv } from "./container-config.ts";
import type { ContainerDocument } from "./container-document.ts";

const known: readonly string[] = ["max-size", "max-file", "labels", "env", "tag", "mode", "compress"];
const refused: readonly string[] = ["labels-regex", "env-regex", "max-buffer-size"];

function refuse(message: string): EngineError {
  return new EngineError("invalid", message, { code: "bad-log-config" });
}

/** Checks driver and options at create. Wording: moby's `daemon/logger`. */
export function checkLogConfig(driver: string, options: Readonly<Record<string, string>>): void {
  if (driver === "none") return;
  if (driver !== "json-file") throw refuse(`logger: no log driver named '${driver}' is registered`);
  for (const key of Object.keys(options)) {
    if (refused.includes(key)) throw refuse(`log opt '${key}' is not supported for json-file log driver`);
    if (!known.includes(key)) throw refuse(`unknown log opt '${key}' for json-file log driver`);
  }
  const size = maxBytesOf(options);
  const files = maxFilesOf(options);
  if (files > 1 && size === 0) throw refuse("max-file cannot be used without max-size");
  if (options["compress"] !== undefined && options["compress"] !== "false") {
    throw refuse("log opt 'compress' is not supported for json-file log driver");
  }
  const mode = options["mode"];
  if (mode === "non-blocking") throw refuse("log opt 'mode=non-blocking' is not supported");
  if (mode !== undefined && mode !== "" && mode !== "blocking") {
    throw refuse(`logger: logging mode not supported: ${mode}`);
  }
  if (options["tag"]) renderTag(options["tag"], undefined);
}

const sizeUnits: Readonly<Record<string, number>> = { "": 1, k: 1e3, m: 1e6, g: 1e9, t: 1e12, p: 1e15 };

function maxBytesOf(options: Readonly<Record<string, string>>): number {
  const text = options["max-size"];
  if (text === undefined || text === "-1") return 0;
  const match = /^(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?$/i.exec(text);
  if (match === null) throw refuse(`invalid size: '${text}'`);
  const bytes = Math.floor(Number(match[1]) * sizeUnits[match[2]!.toLowerCase()]!);
  if (bytes <= 0) throw refuse("max-size must be a positive number");
  return bytes;
}

function maxFilesOf(options: Readonly<Record<string, string>>): number {
  const text = options["max-file"];
  if (text === undefined) return 1;
  if (!/^-?\d{1,6}$/.test(text))
    throw refuse(`strconv.Atoi: parsing ${JSON.stringify(text)}: invalid syntax`);
  if (Number(text) < 1) throw refuse("max-file cannot be less than 1");
  return Number(text);
}

/** The shim's log settings for one container. */
export function shimLogConfig(document: ContainerDocument, path: string): ShimLogConfig {
  const { Type: driver, Config: options } = document.hostConfig.LogConfig;
  if (driver === "none") return { driver: "none", path, maxBytes: 0, maxFiles: 1, attrsJson: "" };
  return {
    driver: "json-file",
    path,
    maxBytes: maxBytesOf(options),
    maxFiles: maxFilesOf(options),
    attrsJson: attributesJson(document, options),
  };
}

function attributesJson(document: ContainerDocument, options: Readonly<Record<string, string>>): string {
  const attributes = new Map<string, string>();
  const labels = document.config.Labels ?? {};
  for (const key of listOf(options["labels"])) {
    if (Object.hasOwn(labels, key)) attributes.set(key, labels[key]!);
  }
  const wanted = new Set(listOf(options["env"]));
  for (const entry of wanted.size === 0 ? [] : effectiveEnv(document.config.Env)) {
    const equals = entry.indexOf("=");
    if (wanted.has(entry.slice(0, equals))) attributes.set(entry.slice(0, equals), entry.slice(equals + 1));
  }
  if (options["tag"]) attributes.set("tag", renderTag(options["tag"], document));
  if (attributes.size === 0) return "";
  return JSON.stringify(Object.fromEntries([...attributes].sort(([a], [b]) => (a < b ? -1 : 1))));
}

function listOf(text: string | undefined): string[] {
  return (text ?? "").split(",").filter((word) => word !== "");
}

/** `{{.Name}}/{{.ID}}` and the like: the fields of Docker's log tag, without template functions. */
function renderTag(template: string, document: ContainerDocument | undefined): string {
  return template.replace(/\{\{([^{}]*)\}\}/g, (_, inner: string) => {
    const field = inner.trim();
    switch (field) {
      case ".ID":
        return shortId(document?.id ?? "");
      case ".FullID":
        return document?.id ?? "";
      case ".Name":
        return document?.name ?? "";
      case ".ImageID":
        return shortId(document?.imageId ?? "");
      case ".ImageFullID":
        return document?.imageId ?? "";
      case ".ImageName":
        return document?.imageReference ?? "";
      case ".DaemonName":
        return "docker";
      default:
        throw refuse(`log opt 'tag': {{${inner}}} is not supported`);
    }
  });
}
