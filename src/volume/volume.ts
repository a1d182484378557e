/**
 * Volumes: named directories that outlive containers.
 *
 * 1. A volume that a container's row names is never removed.
 * 2. Creating a volume that is there with the same driver gives the same volume back.
 * 3. Copy-up fills an empty volume from the image once, before the first process of the first container starts.
 * 4. A volume that is being made for a container, or is to go with one, belongs to it: when the daemon dies, and the
 *    container's row is not there afterwards, neither is the volume. Every other volume belongs to nobody.
 */
import type { ContainerId } from "#base/ids.ts";
import type { Statement } from "#state/database.ts";

export interface Volume {
  readonly name: string;
  readonly driver: string;
  readonly mountpoint: string;
  readonly labels: Readonly<Record<string, string>> | null;
  readonly options: Readonly<Record<string, string>> | null;
  readonly createdAt: string;
  readonly anonymous: boolean;
}

export interface VolumeCreate {
  /** "" : a random 64-hex name, anonymous. */
  readonly name: string;
  readonly driver: string;
  readonly labels: Readonly<Record<string, string>> | null;
  readonly options: Readonly<Record<string, string>> | null;
  readonly anonymous?: boolean;
  /** Belongs to this container (rule 4). */
  readonly owner?: ContainerId;
}

export interface VolumeStore {
  list(): Volume[];
  /** `no such volume` 404 as Docker: `get x: no such volume`. */
  get(name: string): Volume;
  find(name: string): Volume | undefined;
  create(request: VolumeCreate): Promise<Volume>;
  /** To be committed together with a container's row: whom the volume belongs to from then on (rule 4). */
  belongsTo(name: string, owner: ContainerId | undefined): Statement;
  /** Volumes that belonged to containers for which `isThere` is false, when the daemon started. */
  ownerless(isThere: (owner: ContainerId) => boolean): string[];
  /** Throws when `usedBy` is not empty (409 `remove x: volume is in use - [ids]`) unless it does not exist and force. */
  remove(name: string, options: { force: boolean; usedBy: readonly string[] }): Promise<void>;
  /** A volume with driver options (`type=tmpfs`, `o=bind`, …) is mounted by the runtime as these say. */
  mountSource(
    name: string,
  ):
    | { readonly kind: "directory"; readonly path: string }
    | { readonly kind: "mount"; readonly type: string; readonly device: string; readonly options: string };
  /** Fills the volume from `sourcePath` beneath `rootPath` when the volume is empty: contents, owner and mode. In a worker. */
  copyUp(name: string, rootPath: string, sourcePath: string): Promise<void>;
  usageBytes(name: string): Promise<number>;
}
