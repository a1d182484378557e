import { execFileSync, spawn } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { createHttpFront } from "#api/listen.ts";
import { containerRoutes } from "#api/routes-container.ts";
import { execRoutes } from "#api/routes-exec.ts";
import { imageRoutes } from "#api/routes-image.ts";
import { systemClock } from "#base/clock.ts";
import { createLog, type Log } from "#base/log.ts";
import { createDiskStore } from "#content/disk-store.ts";
import { type ContainerEngine, createContainerEngine } from "#engine/container-engine.ts";
import { openContainerTable } from "#engine/container-table.ts";
import { EventBus } from "#engine/events.ts";
import { createImageService, type ImageService } from "#engine/images.ts";
import { createNetworkManager } from "#network/manager.ts";
import { createOciRuntime } from "#runtime/oci-runtime.ts";
import { createShimHost } from "#runtime/shim-host.ts";
import { LayerWorkers } from "#snapshot/layer-workers.ts";
import { createOverlaySnapshotter } from "#snapshot/overlay.ts";
import { openDatabase } from "#state/sqlite-database.ts";
import { createVolumeStore } from "#volume/local.ts";

/** The container half of a daemon on the real parts, with its API on a socket. */
export interface ContainerLab extends AsyncDisposable {
  readonly root: string;
  readonly socket: string;
  readonly engine: ContainerEngine;
  readonly images: ImageService;
  readonly events: EventBus;
  /** Errors that the engine logged: a test that expects none checks it. */
  readonly errors: string[];
}

const nativeBinary = join(import.meta.dirname, "../../native/build/skiff-native");

/** The root filesystem of `busybox:latest`: the static program and a link for each applet. */
function busyboxTar(root: string): Buffer {
  const tree = join(root, "busybox");
  for (const folder of ["bin", "tmp", "etc", "data"]) mkdirSync(join(tree, folder), { recursive: true });
  copyFileSync("/bin/busybox", join(tree, "bin/busybox"));
  for (const applet of execFileSync("/bin/busybox", ["--list"], { encoding: "utf8" }).trim().split("\n")) {
    if (applet !== "busybox") symlinkSync("busybox", join(tree, "bin", applet));
  }
  return execFileSync("tar", ["-C", tree, "--owner=0", "--group=0", "-cf", "-", "."], {
    maxBuffer: 1 << 27,
  });
}

export function labRoot(): string {
  return mkdtempSync(join(tmpdir(), "skiff-containers-"));
}

async function* one(bytes: Buffer): AsyncGenerator<Uint8Array> {
  yield bytes;
}

export async function openLab(root: string): Promise<ContainerLab> {
  const parts = new AsyncDisposableStack();
  const errors: string[] = [];
  const log: Log = createLog("warn", (line) => errors.push(line));
  const dataRoot = join(root, "data");
  const execRoot = join(root, "run");
  for (const folder of [dataRoot, execRoot]) mkdirSync(folder, { recursive: true, mode: 0o711 });
  const events = new EventBus(systemClock);
  const database = parts.use(await openDatabase(join(dataRoot, "state.db"), { log }));
  const table = await openContainerTable(database, log);
  const workers = parts.use(new LayerWorkers());
  const content = await createDiskStore({ root: join(dataRoot, "content"), log });
  const snapshotter = await createOverlaySnapshotter({
    root: join(dataRoot, "overlay2"),
    database,
    log,
    workers,
  });
  const volumes = parts.use(
    await createVolumeStore({ root: join(dataRoot, "volumes"), database, clock: systemClock, log }),
  );
  const images = parts.use(
    await createImageService({
      database,
      content,
      snapshotter,
      events,
      clock: systemClock,
      log,
      temporaryDir: join(dataRoot, "tmp"),
      config: { mirrors: [], insecureRegistries: [] },
      containersUsing: (id) => table.usersOfImage(id),
    }),
  );
  if (images.store.list().length === 0) {
    const body = one(busyboxTar(root));
    const request = {
      source: "-",
      body,
      repository: "busybox",
      tag: "latest",
      message: "",
      changes: ['CMD ["sh"]'],
      platform: "",
    };
    await images.import(request, () => {}, new AbortController().signal);
  }
  const shimHost = parts.use(
    await createShimHost({
      binaryPath: nativeBinary,
      execRoot,
      launcherCgroup: `/skiff-lab-${process.pid}`,
      log,
    }),
  );
  const runtime = await createOciRuntime({
    shimHost,
    execRoot,
    cgroupParent: `/skiff-lab-${process.pid}`,
    runtimes: [],
    defaultUlimits: [],
    noNewPrivileges: false,
    log,
    nativeBinary,
  });
  const networks = parts.use(
    await createNetworkManager({ dataRoot, binaryPath: nativeBinary, poolSize: 4, log }),
  );
  const engine = parts.use(
    await createContainerEngine({
      dataRoot,
      execRoot,
      database,
      images: images.store,
      snapshotter,
      volumes,
      networks,
      runtime,
      events,
      clock: systemClock,
      log,
      table,
      defaults: { hostname: hostname() },
      onRemoved: (id) => images.containerRemoved(id),
    }),
  );
  const front = createHttpFront({
    routes: [...containerRoutes(engine), ...execRoutes(engine), ...imageRoutes(images)],
    log,
  });
  const socket = join(root, "skiff.sock");
  rmSync(socket, { force: true });
  const server = front.createServer();
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  parts.defer(async () => {
    server.close();
    await front.close(500);
  });
  return {
    root,
    socket,
    engine,
    images,
    events,
    errors,
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The real docker CLI against the lab. */
export async function docker(lab: ContainerLab, args: readonly string[], input?: string): Promise<Ran> {
  const child = spawn("docker", ["-H", `unix://${lab.socket}`, ...args], { stdio: "pipe" });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => stderr.push(chunk));
  child.stdin.on("error", () => {});
  child.stdin.end(input ?? "");
  const code = await new Promise<number>((resolve) => child.once("close", (status) => resolve(status ?? -1)));
  return {
    code,
    stdout: Buffer.concat(stdout).toString("utf8"),
    stderr: Buffer.concat(stderr).toString("utf8"),
  };
}
