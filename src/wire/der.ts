/** The little of ASN.1's DER (X.690) that certificates need: writing values, and walking over values that are there. */

/** One value: its tag's first byte and its content. */
export interface DerValue {
  readonly tag: number;
  readonly content: Buffer;
  /** Tag, length and content. */
  readonly whole: Buffer;
}

const tags = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utf8String: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

function lengthOf(bytes: number): Buffer {
  if (bytes < 0x80) return Buffer.of(bytes);
  const digits: number[] = [];
  for (let rest = bytes; rest > 0; rest = Math.floor(rest / 256)) digits.unshift(rest % 256);
  return Buffer.of(0x80 | digits.length, ...digits);
}

function tagged(tag: number, ...content: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(content);
  return Buffer.concat([Buffer.of(tag), lengthOf(body.length), body]);
}

export const sequence = (...items: readonly Uint8Array[]): Buffer => tagged(tags.sequence, ...items);
export const setOf = (item: Uint8Array): Buffer => tagged(tags.set, item);
export const octetString = (bytes: Uint8Array): Buffer => tagged(tags.octetString, bytes);
export const utf8String = (text: string): Buffer => tagged(tags.utf8String, Buffer.from(text));
export const trueValue: Buffer = tagged(tags.boolean, Buffer.of(0xff));

/** `[number]` around other values. */
export const explicit = (number: number, content: Uint8Array): Buffer => tagged(0xa0 | number, content);
/** `[number]` in place of a primitive value's own tag. */
export const implicit = (number: number, content: Uint8Array): Buffer => tagged(0x80 | number, content);

/** A number from its bytes, most significant first; never read as negative. */
export function integer(bytes: Uint8Array): Buffer {
  let start = 0;
  while (start < bytes.length - 1 && bytes[start] === 0) start += 1;
  const digits = bytes.subarray(start);
  const sign = (digits[0] ?? 0) >= 0x80 || digits.length === 0 ? Buffer.of(0) : Buffer.alloc(0);
  return tagged(tags.integer, sign, digits);
}

/** `unused`: bits of the last byte that do not count. */
export function bitString(bytes: Uint8Array, unused = 0): Buffer {
  return tagged(tags.bitString, Buffer.of(unused), bytes);
}

/** An object identifier from its dotted form. */
export function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  const bytes: number[] = [];
  for (const arc of [first * 40 + second, ...rest]) {
    const digits = [arc % 128];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128))
      digits.unshift(0x80 | (left % 128));
    bytes.push(...digits);
  }
  return tagged(tags.oid, Buffer.from(bytes));
}

/** A time in whole seconds: UTCTime to 2049, GeneralizedTime after (RFC 5280, 4.1.2.5). */
export function time(at: Date): Buffer {
  const text = `${at.toISOString().slice(0, 19).replaceAll(/[-:T]/g, "")}Z`;
  return at.getUTCFullYear() < 2050
    ? tagged(tags.utcTime, Buffer.from(text.slice(2)))
    : tagged(tags.generalizedTime, Buffer.from(text));
}

/** The values that stand one after the other in `bytes`. Throws when they do not fit; lengths beyond 4 bytes are refused. */
export function readValues(bytes: Buffer): DerValue[] {
  const values: DerValue[] = [];
  let at = 0;
  while (at < bytes.length) {
    const short = bytes[at + 1] ?? 0x80;
    const digits = short < 0x80 ? 0 : short & 0x7f;
    if ((bytes[at]! & 0x1f) === 0x1f || short === 0x80 || digits > 4 || at + 2 + digits > bytes.length)
      throw new Error("malformed DER");
    const length = digits === 0 ? short : bytes.readUIntBE(at + 2, digits);
    const start = at + 2 + digits;
    const end = start + length;
    if (end > bytes.length) throw new Error("malformed DER");
    values.push({ tag: bytes[at]!, content: bytes.subarray(start, end), whole: bytes.subarray(at, end) });
    at = end;
  }
  return values;
}
