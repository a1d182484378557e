/** `skiff tls …`: certificates for mutual TLS, in files named as Docker's client and daemon look for them. */
import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { describeErrno, errnoOf, messageOf } from "#base/errors.ts";
import { type Issued, issueCertificate, makeAuthority } from "#wire/x509-make.ts";
import { type Command, ExitError, exactly, noArguments } from "./command.ts";
import type { CliContext } from "./context.ts";
import { integer, string, strings } from "./flag-types.ts";
import { type Flags, flag, toggle } from "./flags.ts";

const dayMs = 86_400_000;
/** Clocks of two machines may differ by as much: a certificate is valid from a little before it is made. */
const clockSkewMs = 3_600_000;
const defaultDays = 365;
/** The authority outlives what it issues, so that renewing reaches the server or one client only. */
const authorityDays = 3650;
const daysMax = 36_500;

const defaultDirectory = "skiff-tls";
const directoryFlag = flag("dir", string, "Directory of the authority", {
  shown: JSON.stringify(defaultDirectory),
  initial: defaultDirectory,
});
const outFlag = (what: string): ReturnType<typeof flag> => flag("out", string, `Directory for ${what}`);
const daysFlag = flag("days", integer, "Days that certificates are valid", {
  shown: String(defaultDays),
  initial: defaultDays,
});
const hostFlag = flag(
  "host",
  strings,
  "DNS name or IP address by which clients reach the daemon (this machine's name and loopback always are)",
);
const forceFlag = toggle("f,force", "Overwrite files that are there");

interface NewFile {
  readonly name: string;
  readonly text: string;
}

/** A secret is for its owner alone; a certificate is for everybody. */
const modeOf = (name: string): number => (name.endsWith("key.pem") ? 0o400 : 0o444);

/** Writes all or, when one of them is there and `force` is not given, none. */
function writeFiles(directory: string, files: readonly NewFile[], force: boolean): void {
  const there = files.filter(
    ({ name }) => statSync(join(directory, name), { throwIfNoEntry: false }) !== undefined,
  );
  if (there.length > 0 && !force) {
    const names = there.map(({ name }) => join(directory, name)).join(", ");
    throw new ExitError(1, `already there: ${names}\nNothing was written; use --force to overwrite`);
  }
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  for (const { name, text } of files) {
    const path = join(directory, name);
    const temporary = `${path}.${process.pid}`;
    writeFileSync(temporary, text, { mode: modeOf(name), flag: "wx" });
    try {
      // A rename would replace what another process made meanwhile; a link does not.
      if (force) renameSync(temporary, path);
      else linkSync(temporary, path);
    } finally {
      rmSync(temporary, { force: true });
    }
  }
}

/** Turns failures of the file system and of bad names into one line. */
async function plainly(act: () => Promise<number>): Promise<number> {
  try {
    return await act();
  } catch (error) {
    if (error instanceof ExitError) throw error;
    const errno = errnoOf(error);
    const path = (error as { path?: string }).path;
    throw new ExitError(
      1,
      errno === undefined || path === undefined ? messageOf(error) : `${path}: ${describeErrno(errno)}`,
    );
  }
}

function validityOf(days: number): { from: Date; until: Date } {
  if (days < 1 || days > daysMax) throw new ExitError(1, `--days must be between 1 and ${daysMax}: ${days}`);
  const now = Date.now();
  return { from: new Date(now - clockSkewMs), until: new Date(now + days * dayMs) };
}

function serverFiles(authority: Issued, flags: Flags): NewFile[] {
  const own = hostname();
  // A kernel takes any text for a host name; a certificate does not.
  const name = /^[\w-]+(\.[\w-]+)*$/.test(own) ? [own] : [];
  const hosts = [...new Set([...flags.list("host"), ...name, "localhost", "127.0.0.1", "::1"])];
  const validity = validityOf(flags.number("days"));
  const issued = issueCertificate(authority, {
    commonName: (flags.list("host")[0] ?? own).slice(0, 64),
    use: "server",
    hosts,
    ...validity,
  });
  return [
    { name: "server-cert.pem", text: issued.certificate },
    { name: "server-key.pem", text: issued.key },
  ];
}

function clientFiles(authority: Issued, name: string, days: number): NewFile[] {
  const issued = issueCertificate(authority, { commonName: name, use: "client", ...validityOf(days) });
  return [
    { name: "cert.pem", text: issued.certificate },
    { name: "key.pem", text: issued.key },
  ];
}

const until = (days: number): string => validityOf(days).until.toISOString().slice(0, 10);

export const initTls: Command = {
  usage: "[OPTIONS]",
  description: `Make an authority, and certificates for a daemon and a client that know each other by it.

Files are named as skiffd, skiff and Docker's client look for them.`,
  flags: [directoryFlag, hostFlag, daysFlag, forceFlag],
  args: noArguments,
  run: (context, flags) =>
    plainly(async () => {
      const days = flags.number("days");
      const authority = makeAuthority({
        commonName: `Skiff authority of ${hostname()}`.slice(0, 64),
        ...validityOf(Math.max(days, authorityDays)),
      });
      const files = [
        { name: "ca.pem", text: authority.certificate },
        { name: "ca-key.pem", text: authority.key },
        ...serverFiles(authority, flags),
        ...clientFiles(authority, "client", days),
      ];
      const directory = flags.text("dir");
      writeFiles(directory, files, flags.bool("force"));
      explain(context, directory, flags);
      return 0;
    }),
};

function explain(context: CliContext, directory: string, flags: Flags): void {
  const host = flags.list("host")[0] ?? hostname();
  const address = host.includes(":") ? `[${host}]` : host;
  const program = context.program;
  context.print(`Made in ${directory}, valid until ${until(flags.number("days"))}:

  to the daemon's machine, for example into /etc/skiff (root's, keys mode 0400)
    ca.pem server-cert.pem server-key.pem
  to each client's machine, into ~/.docker
    ca.pem cert.pem key.pem
  nowhere: it makes further certificates (${program} tls client, ${program} tls server)
    ca-key.pem

The daemon:
  skiffd -H tcp://0.0.0.0:2376 --tlsverify --tlscacert /etc/skiff/ca.pem \\
    --tlscert /etc/skiff/server-cert.pem --tlskey /etc/skiff/server-key.pem

A client, by a context or by variables:
  ${program} context create remote --docker "host=tcp://${address}:2376,ca=ca.pem,cert=cert.pem,key=key.pem"
  DOCKER_HOST=tcp://${address}:2376 DOCKER_TLS_VERIFY=1 ${program} info

Whoever holds a client's key is root on the daemon's machine.`);
}

/** Reads the authority that `init` made. */
function readAuthority(directory: string): Issued {
  const read = (name: string): string => readFileSync(join(directory, name), "utf8");
  return { certificate: read("ca.pem"), key: read("ca-key.pem") };
}

export const makeClient: Command = {
  usage: "[OPTIONS] NAME",
  description: "Make a certificate for another client, whose name is NAME, by the authority of tls init",
  flags: [directoryFlag, outFlag("the client's files (default <dir>/NAME)"), daysFlag, forceFlag],
  args: exactly(1),
  run: (context, flags, [name]) =>
    plainly(async () => {
      const directory = flags.text("dir");
      const authority = readAuthority(directory);
      if (flags.text("out") === "" && !/^[\w][\w.@-]*$/.test(name!))
        throw new ExitError(1, `${JSON.stringify(name)} is no name for a directory: use --out`);
      const out = flags.text("out") || join(directory, name!);
      const files = [
        { name: "ca.pem", text: authority.certificate },
        ...clientFiles(authority, name!, flags.number("days")),
      ];
      writeFiles(out, files, flags.bool("force"));
      context.print(`${out}: ca.pem cert.pem key.pem, valid until ${until(flags.number("days"))}`);
      return 0;
    }),
};

export const makeServer: Command = {
  usage: "[OPTIONS]",
  description:
    "Make a certificate for a daemon, by the authority of tls init: for another machine, or when the old one ends",
  flags: [directoryFlag, outFlag("the daemon's files (default <dir>)"), hostFlag, daysFlag, forceFlag],
  args: noArguments,
  run: (context, flags) =>
    plainly(async () => {
      const directory = flags.text("dir");
      const authority = readAuthority(directory);
      const out = flags.text("out") || directory;
      const files = serverFiles(authority, flags);
      if (out !== directory) files.unshift({ name: "ca.pem", text: authority.certificate });
      writeFiles(out, files, flags.bool("force"));
      const names = files.map(({ name }) => name).join(" ");
      context.print(`${out}: ${names}, valid until ${until(flags.number("days"))}`);
      return 0;
    }),
};
