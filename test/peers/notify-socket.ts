import { closeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { check, koffi, libc } from "#sys/libc.ts";

const cSocket = libc.func("int socket(int domain, int type, int protocol)");
const cBind = libc.func("int bind(int fd, const uint8_t *address, uint32_t length)");
const cRecv = libc.func("int64_t recv(int fd, _Out_ uint8_t *data, size_t length, int flags)");

const pollMs = 10;

/** What systemd is for a service: a datagram socket under an abstract name, and what came there. */
export interface NotifySocket extends Disposable {
  /** Value for NOTIFY_SOCKET. */
  readonly name: string;
  /** The next message in which `wanted` is a line of its own; others before it are passed over. Rejects after a while. */
  next(wanted: string): Promise<string>;
}

export function openNotifySocket(): NotifySocket {
  const text = `skiff-notify-${process.pid}-${Date.now().toString(36)}`;
  // AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC.
  const fd = check(cSocket(1, 2 | 0o2000000, 0), "socket");
  const address = Buffer.concat([Buffer.from([1, 0, 0]), Buffer.from(text)]);
  check(cBind(fd, address, address.length), "bind");
  const receive = (): string | undefined => {
    const data = Buffer.alloc(4096);
    const size = Number(cRecv(fd, data, data.length, 0x40));
    if (size >= 0) return data.toString("utf8", 0, size);
    koffi.errno(0);
    return undefined;
  };
  return {
    name: `@${text}`,
    next: async (wanted) => {
      const seen: string[] = [];
      for (const deadline = Date.now() + 30_000; Date.now() < deadline; ) {
        const message = receive();
        if (message === undefined) await sleep(pollMs);
        else if (message.split("\n").includes(wanted)) return message;
        else seen.push(message);
      }
      throw new Error(`no ${wanted} came, but ${JSON.stringify(seen)}`);
    },
    [Symbol.dispose]: () => closeSync(fd),
  };
}
