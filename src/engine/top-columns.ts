/** Columns of procps `ps`. Pure. */
export interface ProcessFacts {
  readonly pid: number;
  readonly parent: number;
  readonly group: number;
  readonly session: number;
  readonly state: string;
  /** Device number of the terminal, 0: none. */
  readonly ttyNumber: number;
  readonly cpuS: number;
  readonly priority: number;
  readonly nice: number;
  readonly threads: number;
  /** Seconds since the epoch. */
  readonly startedS: number;
  readonly ageS: number;
  readonly virtualKb: number;
  readonly residentKb: number;
  readonly memoryKb: number;
  readonly user: string;
  readonly uid: number;
  readonly realUser: string;
  readonly name: string;
  readonly command: string;
}

export interface PsColumn {
  readonly title: string;
  readonly value: (process: ProcessFacts) => string;
}

const percent = (share: number): string => (share * 100).toFixed(1);

/** `00:00:07`, with days in front when there are any. */
function clockTime(seconds: number): string {
  const whole = Math.floor(seconds);
  const two = (value: number): string => String(value).padStart(2, "0");
  const days = Math.floor(whole / 86_400);
  const text = `${two(Math.floor((whole % 86_400) / 3600))}:${two(Math.floor((whole % 3600) / 60))}:${two(whole % 60)}`;
  return days > 0 ? `${days}-${text}` : text;
}

/** `0:07`: minutes and seconds of BSD's TIME. */
function bsdTime(seconds: number): string {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}

/** `14:15` within a day, `Nov24` else, the year when it is another. */
function startTime(startedS: number): string {
  const start = new Date(startedS * 1000);
  const now = new Date();
  if (now.getTime() - start.getTime() < 86_400_000) {
    return `${String(start.getHours()).padStart(2, "0")}:${String(start.getMinutes()).padStart(2, "0")}`;
  }
  if (start.getFullYear() !== now.getFullYear()) return String(start.getFullYear());
  const month = start.toLocaleString("en", { month: "short" });
  return `${month}${String(start.getDate()).padStart(2, "0")}`;
}

function elapsed(seconds: number): string {
  const text = clockTime(seconds);
  return text.startsWith("00:") ? text.slice(3) : text;
}

/** Major 136: a pseudo-terminal; 4: a console. */
function terminalName(device: number): string {
  if (device === 0) return "?";
  const major = (device >> 8) & 0xfff;
  const minor = (device & 0xff) | ((device >> 12) & 0xfff00);
  if (major >= 136 && major <= 143) return `pts/${(major - 136) * 256 + minor}`;
  return major === 4 ? `tty${minor}` : "?";
}

function column(title: string, value: (process: ProcessFacts) => string | number): PsColumn {
  return { title, value: (process) => String(value(process)) };
}

const tty = (process: ProcessFacts): string => terminalName(process.ttyNumber);

/** By the names that `ps -o` takes. */
export const psColumns: ReadonlyMap<string, PsColumn> = new Map([
  ["user", column("USER", (p) => p.user)],
  ["euser", column("EUSER", (p) => p.user)],
  ["ruser", column("RUSER", (p) => p.realUser)],
  ["uid", column("UID", (p) => p.uid)],
  ["uname", column("UID", (p) => p.user)],
  ["pid", column("PID", (p) => p.pid)],
  ["ppid", column("PPID", (p) => p.parent)],
  ["pgid", column("PGID", (p) => p.group)],
  ["pgrp", column("PGRP", (p) => p.group)],
  ["sid", column("SID", (p) => p.session)],
  ["sess", column("SESS", (p) => p.session)],
  ["c", column("C", (p) => Math.min(Math.floor((p.cpuS / p.ageS) * 100), 99))],
  ["%cpu", column("%CPU", (p) => percent(p.cpuS / p.ageS))],
  ["pcpu", column("%CPU", (p) => percent(p.cpuS / p.ageS))],
  ["%mem", column("%MEM", (p) => percent(p.residentKb / p.memoryKb))],
  ["pmem", column("%MEM", (p) => percent(p.residentKb / p.memoryKb))],
  ["vsz", column("VSZ", (p) => p.virtualKb)],
  ["rss", column("RSS", (p) => p.residentKb)],
  ["stime", column("STIME", (p) => startTime(p.startedS))],
  ["start", column("START", (p) => startTime(p.startedS))],
  ["tty", column("TTY", tty)],
  ["tt", column("TT", tty)],
  ["time", column("TIME", (p) => clockTime(p.cpuS))],
  ["bsdtime", column("TIME", (p) => bsdTime(p.cpuS))],
  ["etime", column("ELAPSED", (p) => elapsed(p.ageS))],
  ["etimes", column("ELAPSED", (p) => Math.floor(p.ageS))],
  ["stat", column("STAT", (p) => p.state)],
  ["state", column("S", (p) => p.state)],
  ["s", column("S", (p) => p.state)],
  ["ni", column("NI", (p) => p.nice)],
  ["pri", column("PRI", (p) => 39 - p.priority)],
  ["nlwp", column("NLWP", (p) => p.threads)],
  ["thcount", column("THCNT", (p) => p.threads)],
  ["comm", column("COMMAND", (p) => p.name)],
  ["ucmd", column("CMD", (p) => p.name)],
  ["cmd", column("CMD", (p) => p.command)],
  ["args", column("COMMAND", (p) => p.command)],
  ["command", column("COMMAND", (p) => p.command)],
]);
