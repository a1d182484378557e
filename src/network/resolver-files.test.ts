import assert from "node:assert/strict";
import { test } from "node:test";
import {
  parseExtraHost,
  parseResolvConf,
  renderHostname,
  renderHosts,
  renderResolvConf,
  resolvConfPath,
} from "./resolver-files.ts";

const loopback = `127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
`;

test("hosts: loopback, extra hosts, then the container", () => {
  assert.equal(renderHosts({ hostname: "h", ipAddresses: [] }), loopback);
  assert.equal(renderHosts({ hostname: "h", ipAddresses: [""] }), loopback, "no address: none network");
  assert.equal(
    renderHosts({
      hostname: "h",
      domainname: "dom.x",
      ipAddresses: ["172.17.0.2"],
      extraHosts: ["a:1.2.3.4", "gw:host-gateway", "six:[::1]", "seven:fe80::7"],
      hostGateway: "172.17.0.1",
    }),
    `${loopback}1.2.3.4\ta\n172.17.0.1\tgw\n::1\tsix\nfe80::7\tseven\n172.17.0.2\th.dom.x h\n`,
  );
});

test("hosts with the host's network: its own file unless there are extra hosts", () => {
  const file = { hostname: "h", ipAddresses: [], hostFileText: "127.0.0.1 me\n" };
  assert.equal(renderHosts(file), "127.0.0.1 me\n");
  assert.equal(renderHosts({ ...file, extraHosts: ["a:1.2.3.4"] }), `${loopback}1.2.3.4\ta\n`);
});

test("bad extra hosts, also such as would write lines of their own", () => {
  for (const entry of ["", "a", ":1.2.3.4", "a b:1.2.3.4", "a\nb:1.2.3.4", "#a:1.2.3.4"]) {
    assert.throws(() => parseExtraHost(entry), /bad format for add-host/, JSON.stringify(entry));
  }
  for (const entry of ["a:", "a:1.2.3", "a:1.2.3.4\n5.6.7.8 b", "a:[::1"]) {
    assert.throws(() => parseExtraHost(entry), /invalid IP address in add-host/, JSON.stringify(entry));
  }
  assert.throws(() => parseExtraHost("a:host-gateway"), /unable to derive/);
});

const resolve = (
  hostResolvConf: string,
  more: Partial<Parameters<typeof renderResolvConf>[0]> = {},
): string => renderResolvConf({ hostResolvConf, dns: [], dnsSearch: [], dnsOptions: [], ...more });

test("resolv.conf: servers on the host's loopback and IPv6 ones are left out", () => {
  assert.equal(
    resolve(
      "search a b\nnameserver 127.0.0.1\nnameserver 10.0.0.1 # x\nnameserver fe80::1%eth0\noptions ndots:2\n",
    ),
    "nameserver 10.0.0.1\nsearch a b\noptions ndots:2\n",
  );
});

test("resolv.conf: Docker's servers only when none remains", () => {
  const fallback = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";
  assert.equal(resolve(""), fallback);
  assert.equal(resolve("nameserver 127.0.0.53\n"), fallback);
  assert.equal(resolve("nameserver ::1\ndomain x\n"), `${fallback}search x\n`);
});

test("resolv.conf: what is asked for replaces the host's", () => {
  const host = "nameserver 10.0.0.1\nsearch a\noptions ndots:2\n";
  assert.equal(resolve(host, { dns: ["127.0.0.1"] }), "nameserver 127.0.0.1\nsearch a\noptions ndots:2\n");
  assert.equal(resolve(host, { dnsSearch: ["."] }), "nameserver 10.0.0.1\noptions ndots:2\n");
  assert.equal(
    resolve(host, { dnsSearch: ["x", "y"], dnsOptions: ["rotate"] }),
    "nameserver 10.0.0.1\nsearch x y\noptions rotate\n",
  );
  assert.throws(() => resolve(host, { dnsSearch: ["x\nnameserver 6.6.6.6"] }), /invalid DNS setting/);
});

test("resolv.conf with the host's network is the host's", () => {
  const host = "# mine\nnameserver 127.0.0.53\n";
  assert.equal(resolve(host, { hostNetwork: true }), host);
  assert.equal(
    resolve(host, { hostNetwork: true, dnsOptions: ["rotate"] }),
    "nameserver 127.0.0.53\noptions rotate\n",
  );
});

test("resolv.conf as resolv.conf(5) reads it", () => {
  assert.deepEqual(
    parseResolvConf("; c\nsearch a\ndomain b\nnameserver x\n\tnameserver 1.2.3.4\noptions a\noptions b c\n"),
    {
      nameservers: ["1.2.3.4"],
      search: ["b"],
      options: ["a", "b", "c"],
    },
  );
  assert.equal(resolvConfPath("nameserver 127.0.0.53\n"), "/run/systemd/resolve/resolv.conf");
  assert.equal(resolvConfPath("nameserver 127.0.0.53\nnameserver 1.1.1.1\n"), "/etc/resolv.conf");
});

test("hostname", () => assert.equal(renderHostname("web"), "web\n"));
