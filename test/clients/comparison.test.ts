import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type PeerDaemon, startDockerd } from "../peers/dockerd.ts";
import { busyboxLayout, pushLayout } from "../peers/images.ts";
import { olderDockerClient } from "../peers/peer-cache.ts";
import { type PeerRegistry, startRegistry } from "../peers/registry.ts";
import { startSkiffd, type TestDaemon } from "../peers/skiffd.ts";
import { compare, describeDifferences, type Result, runStep, type Side, type Step } from "./comparison.ts";
import { groups } from "./comparison-steps.ts";

const skiff = join(import.meta.dirname, "../../bin/skiff");

function prepare(side: Side, registry: string): void {
  for (const line of [
    `pull -q ${registry}/busybox:latest`,
    `tag ${registry}/busybox:latest busybox:latest`,
    `rmi ${registry}/busybox:latest`,
  ]) {
    const result = runStep(side, { args: line.split(" ") });
    assert.equal(result.exitCode, 0, `${side.name}: ${line}: ${result.stderr}`);
  }
}

const record = (side: Side, steps: readonly Step[]): Result[] => steps.map((step) => runStep(side, step));

describe("the same commands against Debian's dockerd and Skiff", () => {
  let dockerd: PeerDaemon;
  let peerRegistry: PeerRegistry;
  let registry: PeerRegistry;
  let skiffd: TestDaemon;
  let second: TestDaemon;
  let reference: Side;

  before(async () => {
    dockerd = await startDockerd();
    registry = await startRegistry();
    // The peer's network namespace has a loopback of its own: it gets a registry of its own, at the same address.
    peerRegistry = await startRegistry({ netnsOf: dockerd.pid, port: registry.port });
    skiffd = await startSkiffd();
    second = await startSkiffd();
    reference = { name: "docker on dockerd", program: "docker", host: dockerd.host };
    pushLayout(busyboxLayout(), `${registry.address}/busybox:latest`);
    pushLayout(busyboxLayout(), `${peerRegistry.address}/busybox:latest`, { netnsOf: dockerd.pid });
    prepare(reference, registry.address);
    prepare({ name: "docker on skiffd", program: "docker", host: skiffd.host }, registry.address);
    prepare({ name: "skiff on skiffd", program: skiff, host: second.host }, registry.address);
  });

  after(async () => {
    await skiffd?.[Symbol.asyncDispose]();
    await second?.[Symbol.asyncDispose]();
    await peerRegistry?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
    await dockerd?.[Symbol.asyncDispose]();
  });

  // Our own client's words are those of Docker's current one.
  const olderClient = olderDockerClient();
  for (const group of groups) {
    let left: { readonly side: Side; readonly results: readonly Result[] };
    const differ = (side: Side): string => {
      const differences = compare(group.steps, left, { side, results: record(side, group.steps) });
      return differences.length === 0
        ? ""
        : `${side.name}: ${differences.length} differences\n${describeDifferences(differences)}`;
    };
    test(group.name, () => {
      left = { side: reference, results: record(reference, group.steps) };
      const difference = differ({ name: "docker on skiffd", program: "docker", host: skiffd.host });
      assert.ok(difference === "", difference);
    });
    test(`${group.name}, by our own client`, { skip: olderClient }, () => {
      const difference = differ({ name: "skiff on skiffd", program: skiff, host: second.host });
      assert.ok(difference === "", difference);
    });
  }
});

describe("the comparison itself", () => {
  const side: Side = { name: "x", program: "docker", host: "unix:///x" };
  const steps: readonly Step[] = [{ args: ["ps"] }, { args: ["rm", "x"] }];
  const results: readonly Result[] = [
    {
      exitCode: 0,
      stdout:
        'CONTAINER ID   IMAGE     COMMAND   CREATED         STATUS         PORTS     NAMES\n0123456789ab   busybox   "sh"      2 seconds ago   Up 1 second              life\n',
      stderr: "",
    },
    { exitCode: 1, stdout: "", stderr: "Error response from daemon: No such container: x\n" },
  ];
  const altered = (change: (copy: Result[]) => void): number => {
    const copy = results.map((result) => ({ ...result }));
    change(copy);
    return compare(steps, { side, results }, { side, results: copy }).length;
  };

  test("finds nothing in two equal recordings", () => {
    assert.equal(
      altered(() => {}),
      0,
    );
  });
  test("another id and another age are no difference", () => {
    assert.equal(
      altered((copy) => {
        copy[0] = {
          ...copy[0]!,
          stdout: copy[0]!.stdout.replace("0123456789ab", "ba9876543210").replace("2 seconds", "3 minutes"),
        };
      }),
      0,
    );
  });
  test("an altered column fails", () => {
    assert.equal(
      altered((copy) => {
        copy[0] = { ...copy[0]!, stdout: copy[0]!.stdout.replace("Up", "Down") };
      }),
      1,
    );
    assert.equal(
      altered((copy) => {
        copy[0] = { ...copy[0]!, stdout: copy[0]!.stdout.replace("PORTS", "PORT") };
      }),
      1,
    );
    assert.equal(
      altered((copy) => {
        copy[0] = { ...copy[0]!, stdout: copy[0]!.stdout.replace("life", "lives") };
      }),
      1,
    );
  });
  test("an altered exit code fails", () => {
    assert.equal(
      altered((copy) => {
        copy[1] = { ...copy[1]!, exitCode: 125 };
      }),
      1,
    );
  });
  test("an altered message fails", () => {
    assert.equal(
      altered((copy) => {
        copy[1] = { ...copy[1]!, stderr: "Error response from daemon: no such container: x\n" };
      }),
      1,
    );
  });
});
