/**
 * Certificates for TLS between a client and a daemon: an authority of one's own, and what it issues (RFC 5280). Keys are
 * EC P-256, signatures ECDSA with SHA-256: what every TLS 1.2 and 1.3 library has. node:crypto reads certificates and
 * makes keys and signatures, but writes no certificates: that is what this file adds.
 */
import {
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  X509Certificate,
} from "node:crypto";
import { isIP, isIPv4 } from "node:net";
import {
  bitString,
  explicit,
  implicit,
  integer,
  octetString,
  oid,
  readValues,
  sequence,
  setOf,
  time,
  trueValue,
  utf8String,
} from "./der.ts";

/** A certificate and its private key (PKCS#8), both PEM. */
export interface Issued {
  readonly certificate: string;
  readonly key: string;
}

export interface Validity {
  readonly from: Date;
  readonly until: Date;
}

export interface AuthorityOptions extends Validity {
  readonly commonName: string;
}

export interface CertificateOptions extends Validity {
  readonly commonName: string;
  /** What TLS may use it for. */
  readonly use: "server" | "client";
  /** DNS names (also `*.example.com`) and IP addresses that the holder answers to; a client needs none. */
  readonly hosts?: readonly string[];
}

const commonNameLengthMax = 64;
const dnsNameLengthMax = 253;

const ids = {
  commonName: "2.5.4.3",
  ecdsaSha256: "1.2.840.10045.4.3.2",
  subjectKeyId: "2.5.29.14",
  keyUsage: "2.5.29.15",
  subjectAltName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  authorityKeyId: "2.5.29.35",
  extendedKeyUsage: "2.5.29.37",
  serverAuth: "1.3.6.1.5.5.7.3.1",
  clientAuth: "1.3.6.1.5.5.7.3.2",
} as const;

/** Key usage bits from the left: digitalSignature is the first, keyCertSign and cRLSign the sixth and seventh. */
const usages = {
  sign: bitString(Buffer.of(0b1000_0000), 7),
  authority: bitString(Buffer.of(0b0000_0110), 1),
};

/** A self-signed authority that may issue certificates and nothing below it that may. Throws for a bad name or time. */
export function makeAuthority(options: AuthorityOptions): Issued {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
  const name = nameOf(options.commonName);
  const keyId = keyIdOf(publicKey);
  return write(privateKey, privateKey, publicKey, {
    issuer: name,
    subject: name,
    validity: options,
    extensions: [
      // cA, with a path length of 0.
      extension(ids.basicConstraints, sequence(trueValue, integer(Buffer.of(0))), true),
      extension(ids.keyUsage, usages.authority, true),
      extension(ids.subjectKeyId, octetString(keyId)),
    ],
  });
}

/** Issues a certificate. Throws when `authority` holds no authority, or for a bad name, host or time. */
export function issueCertificate(authority: Issued, options: CertificateOptions): Issued {
  const parent = new X509Certificate(authority.certificate);
  const parentKey = createPrivateKey(authority.key);
  if (!parent.ca) throw new Error("the certificate is not an authority's");
  if (!parent.checkPrivateKey(parentKey)) throw new Error("the key does not belong to the authority");
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
  const hosts = (options.hosts ?? []).map(generalName);
  return write(parentKey, privateKey, publicKey, {
    issuer: subjectOf(parent),
    subject: nameOf(options.commonName),
    validity: options,
    extensions: [
      extension(ids.basicConstraints, sequence(), true),
      extension(ids.keyUsage, usages.sign, true),
      extension(
        ids.extendedKeyUsage,
        sequence(oid(options.use === "server" ? ids.serverAuth : ids.clientAuth)),
      ),
      extension(ids.subjectKeyId, octetString(keyIdOf(publicKey))),
      extension(ids.authorityKeyId, sequence(implicit(0, keyIdOf(parent.publicKey)))),
      ...(hosts.length === 0 ? [] : [extension(ids.subjectAltName, sequence(...hosts))]),
    ],
  });
}

interface Content {
  readonly issuer: Buffer;
  readonly subject: Buffer;
  readonly validity: Validity;
  readonly extensions: readonly Buffer[];
}

function write(signer: KeyObject, key: KeyObject, publicKey: KeyObject, content: Content): Issued {
  const { from, until } = content.validity;
  if (!(from.getTime() < until.getTime())) throw new Error("a certificate must end after it begins");
  // Positive and never zero, from 126 random bits: unique within any authority.
  const serial = randomBytes(16);
  serial[0] = (serial[0]! & 0x3f) | 0x40;
  const algorithm = sequence(oid(ids.ecdsaSha256));
  const body = sequence(
    explicit(0, integer(Buffer.of(2))),
    integer(serial),
    algorithm,
    content.issuer,
    sequence(time(from), time(until)),
    content.subject,
    publicKey.export({ type: "spki", format: "der" }),
    explicit(3, sequence(...content.extensions)),
  );
  const whole = sequence(body, algorithm, bitString(sign("sha256", body, signer)));
  return {
    certificate: new X509Certificate(whole).toString(),
    key: key.export({ type: "pkcs8", format: "pem" }) as string,
  };
}

function extension(id: string, value: Buffer, critical = false): Buffer {
  return sequence(oid(id), ...(critical ? [trueValue] : []), octetString(value));
}

function nameOf(commonName: string): Buffer {
  if (commonName === "" || commonName.length > commonNameLengthMax)
    throw new Error(`a certificate's name has 1 to ${commonNameLengthMax} characters: ${commonName}`);
  return sequence(setOf(sequence(oid(ids.commonName), utf8String(commonName))));
}

/** The 160 leftmost bits of the SHA-256 of the public key (RFC 7093, method 1). */
function keyIdOf(publicKey: KeyObject): Buffer {
  const [info] = readValues(publicKey.export({ type: "spki", format: "der" }));
  const key = readValues(info!.content)[1]!.content.subarray(1);
  return createHash("sha256").update(key).digest().subarray(0, 20);
}

/** The subject as it stands in a certificate: an issuer's name must be equal to the byte. */
function subjectOf(certificate: X509Certificate): Buffer {
  const [whole] = readValues(certificate.raw);
  const [body] = readValues(whole!.content);
  // version, serial, algorithm, issuer, validity, subject.
  return readValues(body!.content)[5]!.whole;
}

function generalName(host: string): Buffer {
  if (isIP(host) !== 0) return implicit(7, isIPv4(host) ? ipv4Bytes(host) : ipv6Bytes(host));
  const label = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?";
  if (host.length > dnsNameLengthMax || !new RegExp(`^(?:\\*\\.)?${label}(?:\\.${label})*$`).test(host))
    throw new Error(`neither an IP address nor a DNS name: ${host}`);
  return implicit(2, Buffer.from(host));
}

const ipv4Bytes = (address: string): Buffer => Buffer.from(address.split(".").map(Number));

function ipv6Bytes(address: string): Buffer {
  if (address.includes("%")) throw new Error(`a certificate holds no address with a zone: ${address}`);
  // The URL parser writes any form as groups of hexadecimal digits, IPv4 tails too.
  const canonical = new URL(`http://[${address}]`).hostname.slice(1, -1);
  const [head = "", tail] = canonical.split("::");
  const groups = (text: string): string[] => (text === "" ? [] : text.split(":"));
  const left = groups(head);
  const right = groups(tail ?? "");
  const middle = Array<string>(8 - left.length - right.length).fill("0");
  const bytes = Buffer.alloc(16);
  for (const [index, group] of [...left, ...middle, ...right].entries())
    bytes.writeUInt16BE(Number.parseInt(group, 16), index * 2);
  return bytes;
}
