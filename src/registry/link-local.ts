import { lookup } from "node:dns";
import { BlockList, isIP, type LookupFunction } from "node:net";

/**
 * Link-local addresses carry cloud metadata services. A registry's redirect or token realm must not make the daemon
 * talk to one, neither by literal address nor through a name that resolves there.
 */
const linkLocal = new BlockList();
linkLocal.addSubnet("169.254.0.0", 16, "ipv4");
linkLocal.addSubnet("fe80::", 10, "ipv6");
linkLocal.addSubnet("::ffff:169.254.0.0", 112, "ipv6");

export function isLinkLocal(address: string): boolean {
  const plain = address.replace(/^\[|\]$/g, "").replace(/%.*$/, "");
  const family = isIP(plain);
  return family !== 0 && linkLocal.check(plain, family === 4 ? "ipv4" : "ipv6");
}

/** For `net.connect`: a look-up that fails when any answer is link-local. */
export const guardedLookup: LookupFunction = (hostname, options, done) => {
  lookup(hostname, { ...options, all: true }, (error, addresses) => {
    if (error !== null) {
      done(error, []);
      return;
    }
    if (addresses.some(({ address }) => isLinkLocal(address))) {
      done(new Error(`refusing to connect to ${hostname}: it resolves to a link-local address`), []);
      return;
    }
    if (options.all === true) done(null, addresses);
    else done(null, addresses[0]!.address, addresses[0]!.family);
  });
};
