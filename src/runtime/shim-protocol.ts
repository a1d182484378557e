/**
 * Frames of the shim protocol (docs/internals/shim-protocol.md, native/frame.h): a little-endian u32 length, a type byte,
 * fields of tag byte, u32 length and bytes. Numbers are eight bytes. Pure: no sockets here.
 */
import { EngineError } from "#base/errors.ts";
import { limits } from "#base/limits.ts";

export const protocolVersion = 1;

export const frameTypes = {
  launch: 1,
  quit: 2,
  openControl: 3,
  openAttach: 4,
  openExec: 5,
  announce: 6,
  start: 10,
  signal: 11,
  resize: 12,
  execResize: 13,
  abandon: 14,
  ackExit: 15,
  ackExec: 16,
  ready: 64,
  failed: 65,
  ok: 66,
  started: 67,
  startFailed: 68,
  exited: 69,
  status: 70,
  execStarted: 71,
  execFailed: 72,
  execExited: 73,
} as const;

export const tags = {
  version: 1,
  sequence: 2,
  id: 3,
  runDir: 4,
  stateDir: 5,
  lowerDir: 6,
  upperDir: 7,
  workDir: 8,
  flags: 9,
  runtimePath: 10,
  runtimeRoot: 11,
  runtimeArgument: 12,
  logPath: 13,
  logBytesMax: 14,
  logFilesMax: 15,
  logAttrs: 16,
  port: 17,
  cgroupPath: 18,
  oomScore: 19,
  pid: 20,
  startedNs: 21,
  finishedNs: 22,
  exitCode: 23,
  oomKilled: 24,
  droppedLines: 25,
  errno: 26,
  stage: 27,
  text: 28,
  rootfs: 29,
  state: 30,
  signal: 31,
  rows: 32,
  columns: 33,
  argument: 34,
  environment: 35,
  cwd: 36,
  uid: 37,
  gid: 38,
  extraGid: 39,
  capBounding: 40,
  capEffective: 41,
  capPermitted: 42,
  capInheritable: 43,
  capAmbient: 44,
  seccompPath: 45,
  apparmor: 46,
  shimPid: 47,
  bindSource: 48,
  bindTarget: 49,
} as const;

export const launchFlags = {
  volatile: 1,
  terminal: 2,
  openStdin: 4,
  stdinOnce: 8,
  logJson: 16,
  hideUnified: 32,
  filesOnly: 64,
  readonlyRoot: 128,
  systemdCgroup: 256,
} as const;
export const streamFlags = {
  stdin: 1,
  stdout: 2,
  stderr: 4,
  terminal: 16,
  openStdin: 32,
  noNewPrivileges: 64,
} as const;

/** Values of the `state` field. */
export const shimStates = { created: 1, starting: 2, running: 3, exited: 4 } as const;

/** Builds one frame. */
export class FrameWriter {
  readonly #type: number;
  readonly #parts: Buffer[] = [];
  #length = 1;

  constructor(type: number) {
    this.#type = type;
  }

  bytes(tag: number, bytes: Uint8Array): this {
    const head = Buffer.allocUnsafe(5);
    head.writeUInt8(tag, 0);
    head.writeUInt32LE(bytes.length, 1);
    this.#parts.push(head, Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
    this.#length += 5 + bytes.length;
    return this;
  }

  /** UTF-8 without NUL bytes: on the other side it is a C string. */
  text(tag: number, text: string): this {
    if (text.includes("\0"))
      throw new EngineError("invalid", "a NUL byte is not allowed here", { code: "nul-byte" });
    return this.bytes(tag, Buffer.from(text, "utf8"));
  }

  texts(tag: number, texts: readonly string[]): this {
    for (const text of texts) this.text(tag, text);
    return this;
  }

  /** 64 bits; a negative number in two's complement. */
  number(tag: number, value: number | bigint): this {
    const bytes = Buffer.allocUnsafe(8);
    bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), 0);
    return this.bytes(tag, bytes);
  }

  finish(): Buffer {
    if (this.#length > limits.shimFrameBytesMax) {
      throw new EngineError("invalid", "argument list too long", { code: "frame-too-long" });
    }
    const head = Buffer.allocUnsafe(5);
    head.writeUInt32LE(this.#length, 0);
    head.writeUInt8(this.#type, 4);
    return Buffer.concat([head, ...this.#parts]);
  }
}

/** One frame as it came; the last field of a tag counts. */
export class Frame {
  readonly type: number;
  readonly #fields = new Map<number, Buffer>();

  constructor(body: Buffer) {
    this.type = body.readUInt8(0);
    for (let at = 1; at < body.length; ) {
      if (at + 5 > body.length) throw malformed();
      const length = body.readUInt32LE(at + 1);
      const end = at + 5 + length;
      if (end > body.length) throw malformed();
      this.#fields.set(body.readUInt8(at), body.subarray(at + 5, end));
      at = end;
    }
  }

  text(tag: number): string {
    return this.#fields.get(tag)?.toString("utf8") ?? "";
  }

  bigint(tag: number): bigint {
    const bytes = this.#fields.get(tag);
    return bytes?.length === 8 ? bytes.readBigUInt64LE(0) : 0n;
  }

  number(tag: number): number {
    return Number(this.bigint(tag));
  }

  has(tag: number): boolean {
    return this.#fields.has(tag);
  }
}

function malformed(): EngineError {
  return new EngineError("system", "malformed frame from a shim", { code: "shim-protocol" });
}

export const frameHeaderBytes = 4;

/** The length that a frame's header announces; throws `system` when it cannot be one. */
export function frameLength(header: Buffer): number {
  const length = header.readUInt32LE(0);
  if (length === 0 || length > limits.shimFrameBytesMax) throw malformed();
  return length;
}

/** Cuts a byte stream into frames. */
export class FrameReader {
  #buffer: Buffer = Buffer.alloc(0);

  push(chunk: Buffer): void {
    this.#buffer = this.#buffer.length === 0 ? chunk : Buffer.concat([this.#buffer, chunk]);
  }

  /** The next whole frame, or undefined; throws `system` when the bytes are no frame. */
  next(): Frame | undefined {
    if (this.#buffer.length < frameHeaderBytes) return undefined;
    const end = frameHeaderBytes + frameLength(this.#buffer);
    if (this.#buffer.length < end) return undefined;
    const body = this.#buffer.subarray(frameHeaderBytes, end);
    this.#buffer = this.#buffer.subarray(end);
    return new Frame(body);
  }
}
