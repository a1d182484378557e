/**
 * File names on Linux are bytes, not text. A `ByteString` holds one byte a character (0–255, "latin1"), so that names
 * that are not valid UTF-8, and NFC/NFD twins, pass through archives and directories unchanged.
 */
export type ByteString = string & { readonly __brand: "ByteString" };

const asciiOnly = /^[\x00-\x7f]*$/;

/** The UTF-8 bytes of a text. */
export function bytesOfText(text: string): ByteString {
  return (asciiOnly.test(text) ? text : Buffer.from(text, "utf8").toString("latin1")) as ByteString;
}

/** The text that bytes spell in UTF-8; bytes that are not UTF-8 become U+FFFD. For messages and JSON. */
export function textOfBytes(bytes: string): string {
  return asciiOnly.test(bytes) ? bytes : Buffer.from(bytes, "latin1").toString("utf8");
}
