/** Syncs of simulated files: done at once, told through the event counter. */
import { Errno } from "../../errno.ts";
import type { SyncDone, SyncQueue } from "./sync-queue.ts";
import type { System } from "./system.ts";

const DEPTH = 64;

/** A queue of syncs. */
export class SimulatedSyncQueue implements SyncQueue {
  readonly fd: number;
  readonly #system: System;
  readonly #done: SyncDone[] = [];

  constructor(system: System, fd: number) {
    this.#system = system;
    this.fd = fd;
  }

  get pending(): number {
    return this.#done.length;
  }

  start(fd: number, id: number): number {
    if (this.#done.length >= DEPTH) return -Errno.EAGAIN;
    const synced = this.#system.sync(fd);
    if (synced === -Errno.EBADF) return synced;
    this.#done.push({ id, errno: 0 - synced });
    this.#system.signal(this.fd);
    return 0;
  }

  take(): readonly SyncDone[] {
    this.#system.drain(this.fd);
    return this.#done.splice(0);
  }

  dispose(): void {
    this.#system.close(this.fd);
  }
}
