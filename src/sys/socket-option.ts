import { check, libc } from "./libc.ts";

const cGetsockopt = libc.func(
  "int getsockopt(int fd, int level, int name, _Out_ uint8_t *value, _Inout_ uint32_t *length)",
);

/** <sys/socket.h> and <linux/tcp.h>, the same on the architectures that we run on. */
const level = { socket: 1, tcp: 6 } as const;
const option = { type: 3, acceptsConnections: 30, domain: 39, tcpInfo: 11 } as const;
const streamType = 1;
const domains: ReadonlyMap<number, "unix" | "tcp"> = new Map([
  [1, "unix"],
  [2, "tcp"],
  [10, "tcp"],
]);

function read(fd: number, at: number, name: number, size: number): Buffer {
  const value = Buffer.alloc(size);
  const length = [size];
  check(cGetsockopt(fd, at, name, value, length), "getsockopt");
  return value.subarray(0, length[0]);
}

/**
 * What a descriptor listens for, or undefined when it is no listening stream socket of these kinds (also when it is not
 * open).
 */
export function listenerKind(fd: number): "unix" | "tcp" | undefined {
  const number = (name: number): number => read(fd, level.socket, name, 4).readInt32LE();
  try {
    if (number(option.type) !== streamType || number(option.acceptsConnections) !== 1) return undefined;
    return domains.get(number(option.domain));
  } catch {
    return undefined;
  }
}

export interface TcpState {
  /** Retransmissions in a row that were not acknowledged. */
  readonly retransmits: number;
  /** Probes of a closed window, or of an idle peer, in a row that were not answered. */
  readonly probes: number;
  /** Since the peer acknowledged anything, in milliseconds. */
  readonly lastAckMs: number;
}

/** TCP_INFO (tcp(7)) of a connected socket; undefined for a descriptor that is none (any more). */
export function tcpState(fd: number): TcpState | undefined {
  try {
    const info = read(fd, level.tcp, option.tcpInfo, 104);
    // struct tcp_info: u8 state, ca_state, retransmits, probes, backoff, options, two of bit fields; then u32s.
    return { retransmits: info[2]!, probes: info[3]!, lastAckMs: info.readUInt32LE(56) };
  } catch {
    return undefined;
  }
}
