import assert from "node:assert/strict";
import { test } from "node:test";
import { containerConfigSchema, hostConfigSchema } from "#wire/container-schema.ts";
import { exposedPorts, parseContainerPorts, portMap, portRequests } from "./container-ports.ts";

test("container ports", () => {
  assert.deepEqual(parseContainerPorts("80"), { first: 80, last: 80, protocol: "tcp" });
  assert.deepEqual(parseContainerPorts("53-55/UDP"), { first: 53, last: 55, protocol: "udp" });
  for (const bad of ["", "0", "70000", "2-1", "a/tcp", "80/foo", "80/sctp"]) {
    assert.throws(() => parseContainerPorts(bad), { kind: "invalid" }, bad);
  }
});

test("requests: fixed, ranges, ephemeral, and all exposed ports", () => {
  const config = containerConfigSchema.zero();
  config.ExposedPorts = { "80/tcp": {}, "90-91/udp": {}, nonsense: {} };
  const host = hostConfigSchema.zero();
  host.PublishAllPorts = true;
  host.PortBindings = {
    "80/tcp": [
      { HostIp: "127.0.0.1", HostPort: "8000-8010" },
      { HostIp: "", HostPort: "" },
    ],
    "81/tcp": null,
  };
  assert.deepEqual(
    portRequests(config, host).map((port) => [
      port.containerPort,
      port.protocol,
      port.hostAddress,
      port.hostPort,
      port.hostPortEnd,
    ]),
    [
      [80, "tcp", "127.0.0.1", 8000, 8010],
      [80, "tcp", "", 0, 0],
      [90, "udp", "", 0, 0],
      [91, "udp", "", 0, 0],
    ],
  );
  host.PortBindings = { "80/tcp": [{ HostIp: "::1", HostPort: "1" }] };
  assert.throws(() => portRequests(config, host), { message: /IPv6/ });
});

test("the port map names bound and merely exposed ports", () => {
  const config = containerConfigSchema.zero();
  config.ExposedPorts = { "443/tcp": {}, "80/tcp": {} };
  assert.deepEqual(exposedPorts(config).length, 2);
  const bindings = [{ containerPort: 80, protocol: "tcp", hostAddress: "", hostPort: 8080 }] as const;
  assert.deepEqual(portMap(config, bindings), {
    "443/tcp": null,
    "80/tcp": [{ HostIp: "0.0.0.0", HostPort: "8080" }],
  });
});
