import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type ContainerLab, call, openLab } from "./container-lab.ts";

/**
 * The bodies of inspect, list and exec inspect have the members that dockerd 20.10's have, of the same kinds: recorded in
 * test/golden/container-shapes.json from a container made by the same request. What differs is this closed table.
 */
type Shape = Record<string, string>;

const golden = JSON.parse(
  readFileSync(join(import.meta.dirname, "../golden/container-shapes.json"), "utf8"),
) as Record<"created" | "running" | "list" | "exec", Shape>;

/** Members that later versions of the API added, up to 1.51. */
const added = [/(^|\/)Networks\/bridge\/(GwPriority|DNSNames)$/, /^GraphDriver\/Data\/ID$/];
/** Members that were dropped since (1.42 and later). */
const dropped = [/^HostConfig\/KernelMemory(TCP)?$/];
/** The recording daemon published nothing (no iptables); lists of what is not there have no elements. */
const notComparable = [/^NetworkSettings\/Ports/, /^\[\]\/Ports/, /^HostConfig\/(MaskedPaths|ReadonlyPaths)/];

function shapeOf(value: unknown, path: string, into: Shape): Shape {
  if (Array.isArray(value)) {
    into[path] = "array";
    if (value.length > 0) shapeOf(value[0], `${path}[]`, into);
  } else if (typeof value === "object" && value !== null) {
    into[path || "."] = "object";
    for (const [key, entry] of Object.entries(value)) shapeOf(entry, path ? `${path}/${key}` : key, into);
  } else into[path] = value === null ? "null" : typeof value;
  return into;
}

function differences(ours: Shape, theirs: Shape): string[] {
  const matches = (list: readonly RegExp[], path: string): boolean => list.some((rule) => rule.test(path));
  const found: string[] = [];
  for (const path of new Set([...Object.keys(ours), ...Object.keys(theirs)])) {
    if (matches(notComparable, path)) continue;
    if (ours[path] === undefined && matches(dropped, path)) continue;
    if (theirs[path] === undefined && matches(added, path)) continue;
    if (ours[path] !== theirs[path]) found.push(`${path}: ours ${ours[path]}, Docker's ${theirs[path]}`);
  }
  return found;
}

let lab: ContainerLab;
let id: string;
before(async () => {
  lab = await openLab();
  const made = await call(lab, "POST", "/v1.41/containers/create?name=gold", {
    Image: "busybox",
    Cmd: ["sleep", "100"],
    Env: ["A=1"],
    Labels: { k: "v" },
    ExposedPorts: { "81/tcp": {} },
    HostConfig: {
      Binds: ["/tmp:/host:ro"],
      Mounts: [
        { Type: "volume", Source: "gold", Target: "/vol" },
        { Type: "tmpfs", Target: "/t" },
      ],
      PortBindings: { "80/tcp": [{ HostPort: "0" }] },
    },
  });
  id = made.json().Id;
});
after(async () => {
  await lab[Symbol.asyncDispose]();
});

test("inspect of a created container", async () => {
  const body = (await call(lab, "GET", `/v1.41/containers/${id}/json`)).json();
  assert.deepEqual(differences(shapeOf(body, "", {}), golden.created), []);
});

test("inspect, list and exec inspect of a running one", async () => {
  assert.equal((await call(lab, "POST", `/containers/${id}/start`)).status, 204);
  const running = (await call(lab, "GET", `/v1.41/containers/${id}/json`)).json();
  assert.deepEqual(differences(shapeOf(running, "", {}), golden.running), []);
  assert.match(running.NetworkSettings.Ports["80/tcp"][0].HostPort, /^\d+$/);
  assert.equal(running.NetworkSettings.Ports["81/tcp"], null);
  const list = (await call(lab, "GET", "/v1.41/containers/json?size=1")).json();
  assert.deepEqual(differences(shapeOf(list, "", {}), golden.list), []);
  assert.deepEqual(
    list[0].Ports.map((port: { PrivatePort: number; PublicPort?: number }) => [
      port.PrivatePort,
      port.PublicPort !== undefined,
    ]),
    [
      [80, true],
      [81, false],
    ],
  );
  const exec = (
    await call(lab, "POST", `/containers/${id}/exec`, { Cmd: ["true"], AttachStdout: true })
  ).json();
  const inspected = (await call(lab, "GET", `/exec/${exec.Id}/json`)).json();
  assert.deepEqual(differences(shapeOf(inspected, "", {}), golden.exec), []);
});

test("a difference would be seen", () => {
  const changed = { ...golden.running, "State/Pid": "string", Extra: "null" };
  assert.equal(differences(changed, golden.running).length, 2);
});
