import assert from "node:assert/strict";
import { test } from "node:test";
import type { PortRequest } from "./network.ts";
import { PortAllocator } from "./port-allocator.ts";

const request = (more: Partial<PortRequest> = {}): PortRequest => ({
  containerPort: 80,
  protocol: "tcp",
  hostAddress: "",
  hostPort: 0,
  hostPortEnd: more.hostPort ?? 0,
  ...more,
});
const allocator = (): PortAllocator => new PortAllocator([40000, 40003]);

test("a fixed port is given once, per protocol and address", () => {
  const ports = allocator();
  assert.equal(ports.allocate(request({ hostPort: 8080 }))?.hostPort, 8080);
  assert.equal(ports.allocate(request({ hostPort: 8080 })), undefined);
  assert.equal(ports.allocate(request({ hostPort: 8080, hostAddress: "127.0.0.1" })), undefined);
  assert.equal(ports.allocate(request({ hostPort: 8080, protocol: "udp" }))?.hostPort, 8080);
  assert.equal(ports.allocate(request({ hostPort: 81, hostAddress: "127.0.0.1" }))?.hostPort, 81);
  assert.equal(ports.allocate(request({ hostPort: 81, hostAddress: "127.0.0.2" }))?.hostPort, 81);
  assert.equal(ports.allocate(request({ hostPort: 81, hostAddress: "0.0.0.0" })), undefined);
  ports.release("tcp", "", 8080);
  assert.equal(ports.allocate(request({ hostPort: 8080 }))?.hostPort, 8080);
});

test("a range gives its first free port", () => {
  const ports = allocator();
  const range = request({ hostPort: 9000, hostPortEnd: 9002 });
  assert.deepEqual(
    [1, 2, 3, 4].map(() => ports.allocate(range)?.hostPort),
    [9000, 9001, 9002, undefined],
  );
});

test("after a port of another program comes the next of the range", () => {
  const ports = allocator();
  const range = request({ hostPort: 9000, hostPortEnd: 9002 });
  assert.equal(ports.allocate(range)?.hostPort, 9000);
  assert.equal(ports.allocate(range, 9000)?.hostPort, 9001);
  assert.equal(ports.allocate(request({ hostPort: 7000 }), 7000), undefined);
});

test("any port: upward through the ephemeral range, and round", () => {
  const ports = allocator();
  const next = (): number | undefined => ports.allocate(request())?.hostPort;
  assert.deepEqual([next(), next()], [40000, 40001]);
  ports.release("tcp", "", 40000);
  assert.deepEqual([next(), next(), next(), next()], [40002, 40003, 40000, undefined]);
});
