import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { stat } from "node:fs/promises";
import { messageOf } from "#base/errors.ts";
import type { Log } from "#base/log.ts";
import { SettingsError, type TlsFiles } from "./settings.ts";
import { readBounded, unreadable } from "./settings-file.ts";

/** What `tls.createSecureContext` takes. TLS 1.1 and older have no safe ciphers left (RFC 8996). */
export interface TlsMaterial {
  readonly cert: string;
  readonly key: string;
  readonly minVersion: "TLSv1.2";
}

/**
 * Reads certificate and key and checks that they belong together and that the key is not for everybody to read. Throws
 * `SettingsError`, one line without the key's content.
 */
export async function readTls(files: TlsFiles, log: Log): Promise<TlsMaterial> {
  const [cert, key] = await Promise.all([readText(files.certificate), readText(files.key)]);
  const { mode } = await stat(files.key);
  if ((mode & 0o007) !== 0) {
    throw new SettingsError(
      `${files.key}: other users of this machine can read this private key (chmod 600)`,
    );
  }
  const certificate = parse(files.certificate, "certificate", () => new X509Certificate(cert));
  const privateKey = parse(files.key, "private key", (): KeyObject => createPrivateKey(key));
  if (!certificate.checkPrivateKey(privateKey)) {
    throw new SettingsError(`${files.key} is not the private key of the certificate ${files.certificate}`);
  }
  const now = Date.now();
  if (now > certificate.validToDate.getTime() || now < certificate.validFromDate.getTime()) {
    log.warn("the certificate is not valid now: clients will refuse it", {
      certificate: files.certificate,
      validFrom: certificate.validFromDate.toISOString(),
      validTo: certificate.validToDate.toISOString(),
    });
  }
  return { cert, key, minVersion: "TLSv1.2" };
}

async function readText(path: string): Promise<string> {
  try {
    return await readBounded(path);
  } catch (error) {
    throw unreadable(path, error);
  }
}

function parse<T>(path: string, what: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new SettingsError(`${path} is no ${what} in PEM: ${messageOf(error).replaceAll("\n", " ")}`);
  }
}
