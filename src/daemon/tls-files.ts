import { X509Certificate } from "node:crypto";
import { createSecureContext, type SecureContextOptions } from "node:tls";
import { messageOf } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import { readTls } from "#registry-server/serve-tls.ts";
import { SettingsError } from "#registry-server/settings.ts";
import { readBounded, unreadable } from "#registry-server/settings-file.ts";
import type { TlsSettings } from "./config-hosts.ts";
import { StartupError } from "./roots.ts";

/** What TLS listeners need. */
export interface TlsMaterial {
  readonly context: SecureContextOptions;
  /** Clients must have a certificate of the authority. */
  readonly mutual: boolean;
  /** DNS names of the certificate, in lower case: what clients may call this daemon. */
  readonly names: readonly string[];
}

/**
 * Reads the certificates and checks all that can be checked without a client: the key belongs to the certificate and is not
 * for others to read, the authority is one. Throws `StartupError`, one line that names the file. A certificate that is
 * not valid now is a warning: the clock may be what is wrong.
 */
export async function readTlsMaterial(settings: TlsSettings, log: Log): Promise<TlsMaterial | undefined> {
  const { mode, authority, certificate, key } = settings;
  if (mode === "off") return undefined;
  try {
    const own = await readTls({ certificate, key }, log);
    const context = mode === "mutual" ? { ...own, ca: await readAuthorities(authority, log) } : own;
    // Keys that are too short, and whatever else OpenSSL takes exception to.
    tryContext(certificate, context);
    return { context, mutual: mode === "mutual", names: dnsNames(new X509Certificate(own.cert)) };
  } catch (error) {
    if (error instanceof SettingsError) throw new StartupError(`TLS: ${messageOf(error)}`);
    throw error;
  }
}

function tryContext(path: string, context: SecureContextOptions): void {
  try {
    createSecureContext(context);
  } catch (error) {
    const { reason } = error as { reason?: string };
    throw new SettingsError(`${path} cannot be used: ${reason ?? messageOf(error)}`);
  }
}

/** The certificates whose holders' certificates are believed. */
async function readAuthorities(path: string, log: Log): Promise<string[]> {
  let text: string;
  try {
    text = await readBounded(path);
  } catch (error) {
    throw unreadable(path, error);
  }
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) throw new SettingsError(`${path} has no certificate in PEM`);
  for (const block of blocks) {
    const parsed = parseCertificate(path, block);
    if (!parsed.ca) {
      throw new SettingsError(`${path}: the certificate of ${oneLine(parsed.subject)} is no authority's`);
    }
    if (Date.now() > parsed.validToDate.getTime() || Date.now() < parsed.validFromDate.getTime()) {
      log.warn("the authority's certificate is not valid now: no client will be believed", {
        certificate: path,
        validFrom: parsed.validFromDate.toISOString(),
        validTo: parsed.validToDate.toISOString(),
      });
    }
  }
  return blocks;
}

function parseCertificate(path: string, text: string): X509Certificate {
  try {
    return new X509Certificate(text);
  } catch (error) {
    throw new SettingsError(`${path} is no certificate in PEM: ${oneLine(messageOf(error))}`);
  }
}

function oneLine(text: string): string {
  return text.replaceAll("\n", ", ");
}

function dnsNames(certificate: X509Certificate): string[] {
  return [...(certificate.subjectAltName ?? "").matchAll(/(?:^|, )DNS:([\w.*-]+)/g)].map((match) =>
    match[1]!.toLowerCase(),
  );
}
