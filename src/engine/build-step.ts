/** The container of one step of a build: made, run to its end, its output passed on, then removed or kept. */
import { setImmediate as turn } from "node:timers/promises";
import type { ImageId } from "#base/digest.ts";
import { EngineError, messageOf } from "#base/errors.ts";
import type { StepContainer, StepMount } from "#builder/step-executor.ts";
import type { StdioStream } from "#runtime/shim.ts";
import { containerConfigSchema, type HostConfig } from "#wire/container-schema.ts";
import { FrameDecoder, type StreamName } from "#wire/stdio-frames.ts";
import type { Container } from "./container.ts";
import type { ContainerContext } from "./container-context.ts";
import { createContainer } from "./container-create.ts";
import { removeContainer } from "./container-remove.ts";
import { startContainer } from "./container-start.ts";

export interface StepContainerRequest {
  readonly image: ImageId;
  readonly command: readonly string[];
  readonly env: readonly string[];
  /** Of secrets: in memory only. */
  readonly secretEnv: readonly string[];
  readonly hostConfig: HostConfig;
  readonly mounts: readonly StepMount[];
  readonly runs: boolean;
  /** Resolves when more output may be taken. */
  readonly room: () => Promise<void>;
}

/** Makes the container. Throws what `create` throws. */
export async function createStepContainer(
  ctx: ContainerContext,
  request: StepContainerRequest,
): Promise<StepContainer> {
  const { hostConfig } = request;
  const zero = containerConfigSchema.zero();
  const { id } = await createContainer(ctx, {
    name: "",
    platform: "",
    config: {
      ...zero,
      Image: request.image,
      AttachStdout: true,
      AttachStderr: true,
      // An entrypoint of one empty word clears the image's.
      Entrypoint: [""],
      Cmd: [...request.command],
      Env: [...request.env],
      Healthcheck: { Test: ["NONE"], Interval: 0, Timeout: 0, StartPeriod: 0, StartInterval: 0, Retries: 0 },
    },
    hostConfig: { ...hostConfig, Mounts: request.mounts.map(mountOf) },
    endpoints: {},
    buildStep: request.runs ? "runs" : "idle",
    secretEnv: request.secretEnv,
  });
  const container = ctx.table.resolve(id);
  let kept = false;
  return {
    id,
    upperDir: ctx.snapshotter.writableOf(container.id).upperDir,
    run: (output, signal) => runToEnd(ctx, container, request, output, signal),
    keep: async () => {
      kept = true;
      container.secretEnv = [];
      delete container.document.buildStep;
      await ctx.table.save(container);
    },
    [Symbol.asyncDispose]: async () => {
      if (!kept) await remove(ctx, container);
    },
  };
}

function mountOf({
  target,
  readOnly,
  source,
  sizeBytes,
}: StepMount): NonNullable<HostConfig["Mounts"]>[number] {
  const plain = {
    Target: target,
    ReadOnly: readOnly,
    Consistency: "",
    BindOptions: null,
    VolumeOptions: null,
    ImageOptions: null,
    ClusterOptions: null,
  };
  if (source !== undefined) return { ...plain, Type: "bind", Source: source, TmpfsOptions: null };
  return {
    ...plain,
    Type: "tmpfs",
    Source: "",
    TmpfsOptions: { SizeBytes: sizeBytes, Mode: 0, Options: null },
  };
}

async function remove(ctx: ContainerContext, container: Container): Promise<void> {
  if (container.removing) return;
  await removeContainer(ctx, container, { force: true, volumes: true });
}

async function runToEnd(
  ctx: ContainerContext,
  container: Container,
  { room }: StepContainerRequest,
  output: (chunk: Buffer, stream: StreamName) => void,
  signal: AbortSignal,
): Promise<number> {
  const cancelled = (): EngineError =>
    new EngineError("cancelled", "context canceled", { code: "aborted", cause: signal.reason });
  if (signal.aborted) throw cancelled();
  const stream = new Promise<StdioStream | undefined>((resolve) => {
    container.pendingAttaches.add({
      options: { stdin: false, stdout: true, stderr: true },
      resolve,
      close: () => resolve(undefined),
    });
  });
  const { exit } = container.wait("next-exit");
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(cancelled());
  aborted.promise.catch(() => {});
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    await startContainer(ctx, container);
    const copied = copyOutput(await stream, output, room);
    // What was not copied when the step is cancelled is nobody's any more.
    copied.catch((error: unknown) => ctx.log.debug("output of a build step", { error: messageOf(error) }));
    const code = await Promise.race([exit, aborted.promise]);
    await Promise.race([copied, aborted.promise]);
    await container.cleanup;
    return code;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

async function copyOutput(
  stream: StdioStream | undefined,
  output: (chunk: Buffer, stream: StreamName) => void,
  room: () => Promise<void>,
): Promise<void> {
  if (stream === undefined) return;
  const decoder = new FrameDecoder((name, part) => output(Buffer.from(part), name));
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    decoder.push(chunk);
    await room();
  }
  await turn();
}

/** After a crash: steps of builds that nobody waits for any more. */
export async function removeAbandonedSteps(ctx: ContainerContext): Promise<void> {
  for (const container of [...ctx.table.all()]) {
    if (container.document.buildStep === undefined) continue;
    await remove(ctx, container).catch((error: unknown) => {
      ctx.log.error("removing a step of an interrupted build", {
        container: container.id,
        error: messageOf(error),
      });
    });
  }
}
