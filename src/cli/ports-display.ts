import type { Port } from "#sdk/types.ts";

interface Run {
  readonly ip: string;
  readonly type: string;
  start: number;
  last: number;
}

/**
 * The PORTS column: `0.0.0.0:80->80/tcp, 443/tcp`; consecutive ports that map to themselves or are not published are
 * joined to ranges (`8000-8002/tcp`).
 */
export function displayPorts(ports: readonly Port[]): string {
  const sorted = ports.toSorted(comparePorts);
  const runs = new Map<string, Run>();
  const texts: string[] = [];
  const mapped: string[] = [];
  for (const port of sorted) {
    const published = port.PublicPort ?? 0;
    const ip = port.IP ?? "";
    if (ip !== "" && published !== port.PrivatePort) {
      mapped.push(`${joinHostPort(ip, published)}->${port.PrivatePort}/${port.Type}`);
      continue;
    }
    const key = ip === "" ? port.Type : `${ip}/${port.Type}`;
    const run = runs.get(key);
    if (run !== undefined && port.PrivatePort === run.last + 1) {
      run.last = port.PrivatePort;
      continue;
    }
    if (run !== undefined) texts.push(formRun(run));
    // A later run of the same kind keeps the place of the first: that is the order Docker prints in.
    runs.set(key, { ip, type: port.Type, start: port.PrivatePort, last: port.PrivatePort });
  }
  for (const run of runs.values()) texts.push(formRun(run));
  return [...texts, ...mapped].join(", ");
}

function joinHostPort(ip: string, port: number | string): string {
  return ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`;
}

function formRun({ ip, type, start, last }: Run): string {
  const span = start === last ? String(start) : `${start}-${last}`;
  return ip === "" ? `${span}/${type}` : `${joinHostPort(ip, span)}->${span}/${type}`;
}

function comparePorts(one: Port, other: Port): number {
  return (
    one.PrivatePort - other.PrivatePort ||
    compareText(one.IP ?? "", other.IP ?? "") ||
    (one.PublicPort ?? 0) - (other.PublicPort ?? 0) ||
    compareText(one.Type, other.Type)
  );
}

function compareText(one: string, other: string): number {
  return one === other ? 0 : one < other ? -1 : 1;
}
