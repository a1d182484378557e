import type { RunMount } from "./instructions.ts";

const types: readonly string[] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const sharings: readonly string[] = ["shared", "private", "locked"];
const keysOf: Readonly<Record<RunMount["type"], readonly string[]>> = {
  bind: ["source", "from", "readonly"],
  cache: ["source", "from", "readonly", "id", "sharing", "mode", "uid", "gid"],
  tmpfs: ["size"],
  secret: ["id", "required", "mode", "uid", "gid", "env", "source"],
  ssh: ["id", "required", "mode", "uid", "gid"],
};
const aliases: Readonly<Record<string, string>> = {
  src: "source",
  dst: "target",
  destination: "target",
  ro: "readonly",
  rw: "readwrite",
};

/** One `--mount=…` of RUN. Throws plain `Error`s; the parser adds the place. */
export function parseRunMount(text: string): RunMount {
  const fields = text.split(",").map((field) => {
    const equals = field.indexOf("=");
    const key = (equals < 0 ? field : field.slice(0, equals)).trim().toLowerCase();
    return [aliases[key] ?? key, equals < 0 ? undefined : field.slice(equals + 1)] as const;
  });
  const type = fields.find(([key]) => key === "type")?.[1] ?? "bind";
  if (!types.includes(type)) throw new Error(`unsupported mount type ${JSON.stringify(type)}`);
  const kind = type as RunMount["type"];
  const values = new Map<string, string>();
  for (const [key, value] of fields) {
    if (key === "type") continue;
    if (key === "readwrite") {
      values.set("readonly", isTrue(key, value) ? "false" : "true");
      continue;
    }
    if (key !== "target" && !keysOf[kind].includes(key)) {
      throw new Error(`unexpected key '${key}' in '${key}${value === undefined ? "" : `=${value}`}'`);
    }
    if (key === "readonly" || key === "required") values.set(key, isTrue(key, value) ? "true" : "false");
    else if (value === undefined) throw new Error(`invalid field '${key}' must be a key=value pair`);
    else values.set(key, value);
  }
  return mountOf(kind, values);
}

function isTrue(key: string, value: string | undefined): boolean {
  if (value === undefined || value === "true" || value === "1") return true;
  if (value === "false" || value === "0") return false;
  throw new Error(`invalid value for ${key}: ${value}`);
}

function numberOf(
  values: ReadonlyMap<string, string>,
  key: string,
  pattern: RegExp,
  radix: number,
): number | undefined {
  const text = values.get(key);
  if (text === undefined) return undefined;
  if (!pattern.test(text)) throw new Error(`invalid value ${text} for ${key}`);
  return Number.parseInt(text, radix);
}

function mountOf(type: RunMount["type"], values: ReadonlyMap<string, string>): RunMount {
  let target = values.get("target") ?? "";
  const id = values.get("id") ?? "";
  if (type === "secret" && target === "" && values.get("env") === undefined) {
    const name = (id === "" ? (values.get("source") ?? "") : id).split("/").at(-1) ?? "";
    if (name === "") throw new Error("invalid mount: a secret needs an id or a target");
    target = `/run/secrets/${name}`;
  }
  if (type === "ssh" && target === "") target = `/run/buildkit/ssh_agent.${id === "" ? "0" : id}`;
  if (target === "" && type !== "secret") throw new Error("invalid mount: target is required");
  const sharing = values.get("sharing") ?? "shared";
  if (!sharings.includes(sharing)) throw new Error(`unsupported sharing value ${JSON.stringify(sharing)}`);
  return {
    type,
    target,
    source: values.get("source") ?? "",
    from: values.get("from") ?? "",
    readOnly: values.get("readonly") === "true" || (type === "bind" && values.get("readonly") === undefined),
    id: id === "" ? defaultId(type, target, values) : id,
    sharing: sharing as RunMount["sharing"],
    mode: numberOf(values, "mode", /^0?[0-7]{1,4}$/, 8),
    uid: numberOf(values, "uid", /^\d{1,9}$/, 10) ?? 0,
    gid: numberOf(values, "gid", /^\d{1,9}$/, 10) ?? 0,
    sizeBytes: sizeOf(values.get("size")),
    required: values.get("required") === "true",
    env: values.get("env") ?? "",
  };
}

function defaultId(type: RunMount["type"], target: string, values: ReadonlyMap<string, string>): string {
  if (type === "cache") return target;
  return type === "secret" ? (values.get("source") ?? "") : "";
}

const units: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  k: 1024,
  m: 1024 ** 2,
  g: 1024 ** 3,
  t: 1024 ** 4,
};

function sizeOf(text: string | undefined): number {
  if (text === undefined) return 0;
  const match = /^(\d{1,12})(b|[kmgt]?)(?:i?b)?$/i.exec(text);
  if (match === null) throw new Error(`invalid value for size: ${text}`);
  return Number(match[1]) * (units[(match[2] ?? "").toLowerCase()] ?? 1);
}
