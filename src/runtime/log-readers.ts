import { type FSWatcher, watch } from "node:fs";
import { limits } from "#base/limits.ts";
import { Semaphore } from "#base/lock.ts";

/**
 * What the readers of all logs share, so that a thousand of them cost little more than one.
 *
 * 1. A reader holds what it has read until its client takes it. Only those with a slot hold much.
 * 2. Few read at a time, so that what one turn of the event loop has to work through stays small.
 * 3. However many follow a file, the kernel tells of its changes once, and they hear of it once a turn of the event loop:
 *    a container that writes fast changes its log thousands of times a second.
 */
export class LogReaders {
  readonly largeReads = new Semaphore(limits.largeLogReadsMax);
  readonly reads = new Semaphore(limits.logReadsAtOnce);
  readonly #watched = new Map<string, WatchedFile>();

  /** Calls `onChange` after the file at `path`, known to be `inode`, may have changed or lost its name; until disposed. */
  watch(path: string, inode: number, onChange: () => void): Disposable {
    // After a rotation another file has the path: its readers watch that one.
    const key = `${inode} ${path}`;
    const file = this.#watched.get(key) ?? new WatchedFile(path);
    this.#watched.set(key, file);
    file.listeners.add(onChange);
    return {
      [Symbol.dispose]: () => {
        file.listeners.delete(onChange);
        if (file.listeners.size > 0 || this.#watched.get(key) !== file) return;
        this.#watched.delete(key);
        file.close();
      },
    };
  }
}

class WatchedFile {
  readonly listeners = new Set<() => void>();
  readonly #watcher: FSWatcher | undefined;
  #told = false;

  constructor(path: string) {
    try {
      this.#watcher = watch(path, { persistent: false }, () => this.#change());
      // The file system may not support it: the readers' poll remains.
      this.#watcher.on("error", () => this.#watcher?.close());
    } catch {
      this.#change();
    }
  }

  #change(): void {
    if (this.#told) return;
    this.#told = true;
    setImmediate(() => {
      this.#told = false;
      for (const listener of this.listeners) listener();
    });
  }

  close(): void {
    this.#watcher?.close();
  }
}
