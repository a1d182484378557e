/**
 * A container's row: everything that outlives the daemon, as one JSON document. `config` and `hostConfig` are kept as
 * Docker shows them (image defaults merged, engine defaults filled in), so that `inspect` prints them as they are.
 */

import { zeroTime } from "#base/clock.ts";
import type { ImageId } from "#base/digest.ts";
import type { ContainerId } from "#base/ids.ts";
import type { AttachmentRecord } from "#network/network.ts";
import type { ContainerConfig, HostConfig } from "#wire/container-schema.ts";
import type { ContainerStatus } from "./transitions.ts";

/** A mount as the engine understands it: `inspect` shows it, the runtime request is made from it. */
export interface MountPoint {
  readonly kind: "bind" | "volume" | "tmpfs";
  /** Volume name. */
  readonly name: string;
  /** Host path of a bind; "" else: a volume's path is the volume store's to know. */
  readonly source: string;
  readonly destination: string;
  readonly driver: string;
  readonly mode: string;
  readonly readOnly: boolean;
  readonly propagation: string;
  readonly nonRecursive: boolean;
  /** Make a missing host path (Binds and CreateMountpoint). */
  readonly createSource: boolean;
  /** A volume to be filled from the image before the first start. */
  copyUp: boolean;
  readonly anonymous: boolean;
  readonly tmpfsOptions: string;
  /** `--tmpfs` mounts are not listed by inspect. */
  readonly hidden: boolean;
  /** The `Mounts` entry asked for it: inspect then shows it there. */
  readonly fromVolumesFrom: boolean;
}

export interface ContainerState {
  status: ContainerStatus;
  pid: number;
  exitCode: number;
  error: string;
  startedAt: string;
  finishedAt: string;
  oomKilled: boolean;
  /** Stopped by a user: `unless-stopped` does not start it again. */
  manuallyStopped: boolean;
  restartCount: number;
}

export interface ContainerDocument {
  readonly version: 1;
  readonly id: ContainerId;
  name: string;
  readonly created: string;
  readonly imageId: ImageId;
  /** As the user wrote it. */
  readonly imageReference: string;
  readonly platform: string;
  readonly path: string;
  readonly args: readonly string[];
  readonly config: ContainerConfig;
  hostConfig: HostConfig;
  readonly mounts: MountPoint[];
  /** Requested endpoint settings of the one network it joins. */
  readonly endpoint: {
    readonly aliases: readonly string[];
    readonly ipAddress: string;
    readonly macAddress: string;
    readonly links: readonly string[];
  };
  state: ContainerState;
  /** While running; its NetworkID is still shown after exit. */
  network: AttachmentRecord | null;
  networkId: string;
  /**
   * A step of a build that is under way: `idle` ones run nothing. Its files are thrown away after it, and a daemon that finds
   * one at its start removes it. Absent once the container is kept.
   */
  buildStep?: "runs" | "idle";
  /** The other container of NetworkMode container:X, by id; empty until a start where it was not there at create. */
  networkContainer: string;
}

export function freshState(): ContainerState {
  return {
    status: "created",
    pid: 0,
    exitCode: 0,
    error: "",
    startedAt: zeroTime,
    finishedAt: zeroTime,
    oomKilled: false,
    manuallyStopped: false,
    restartCount: 0,
  };
}
