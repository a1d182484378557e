import { closeSync } from "node:fs";
import { SyscallError } from "#base/errors.ts";
import { check, errnoName, koffi, libc } from "./libc.ts";

const cSocket = libc.func("int socket(int domain, int type, int protocol)");
const cSendto = libc.func(
  "int64_t sendto(int fd, const uint8_t *data, size_t length, int flags, const uint8_t *address, uint32_t addressLength)",
);

/** <sys/socket.h>, <asm-generic/fcntl.h>. */
const unixDomain = 1;
const datagram = 2;
const closeOnExec = 0o2000000;
const doNotWait = 0x40;
const noSignal = 0x4000;
const addressBytesMax = 108;

/**
 * Sends one datagram to a unix socket: a path, or an abstract name behind `@`. Never waits. Throws `SyscallError`: EAGAIN
 * where the receiver's queue is full.
 */
export function sendToUnixSocket(name: string, text: string): void {
  const path = Buffer.from(name.startsWith("@") ? `\0${name.slice(1)}` : `${name}\0`);
  if (path.length > addressBytesMax) throw new SyscallError("sendto", "ENAMETOOLONG", name);
  const address = Buffer.alloc(2 + path.length);
  address.writeUInt16LE(unixDomain);
  path.copy(address, 2);
  const data = Buffer.from(text);
  const fd = check(cSocket(unixDomain, datagram | closeOnExec, 0), "socket");
  try {
    const sent = Number(cSendto(fd, data, data.length, doNotWait | noSignal, address, address.length));
    if (sent < 0) throw new SyscallError("sendto", errnoName(koffi.errno()), name);
  } finally {
    closeSync(fd);
  }
}
