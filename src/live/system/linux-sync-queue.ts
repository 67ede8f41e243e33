/**
 * Syncs in the background by the kernel's asynchronous I/O: a worker of the kernel waits for the
 * disk, and an event counter tells when it is done, so that no thread of ours has to block.
 *
 * Where the kernel has none, a sync is done at once, and blocks. Source: io_submit(2),
 * include/uapi/linux/aio_abi.h, fs/aio.c:aio_fsync.
 */
import { Errno } from "../../errno.ts";
import type { LinuxCalls } from "./linux-calls.ts";
import type { Mapping } from "./mapping.ts";
import type { SyncDone, SyncQueue } from "./sync-queue.ts";
import type { System } from "./system.ts";

/** Syncs that wait at a time; there is one to a request queue. */
const DEPTH = 64;
const IOCB_BYTES = 64;
const EVENT_BYTES = 32;
/** Places in the queue's memory. */
const At = { CONTEXT: 0, POINTER: 8, EVENTS: 64, IOCBS: 64 + DEPTH * EVENT_BYTES } as const;
const IOCB_CMD_FDSYNC = 3;
const IOCB_FLAG_RESFD = 1;
const TWO_32 = 2 ** 32;

/** Numbers of the system calls. */
export interface AioNumbers {
  readonly ioSetup: number;
  readonly ioDestroy: number;
  readonly ioGetevents: number;
  readonly ioSubmit: number;
}

/** A queue of syncs. */
export class LinuxSyncQueue implements SyncQueue {
  readonly fd: number;
  readonly #system: System;
  readonly #calls: LinuxCalls;
  readonly #numbers: AioNumbers;
  readonly #memory: Mapping;
  /** The kernel's handle; 0 when it has no asynchronous I/O for us. */
  readonly #context: number;
  readonly #done: SyncDone[] = [];
  #submitted = 0;

  /** @param fd - an event counter that belongs to the queue */
  constructor(system: System, calls: LinuxCalls, numbers: AioNumbers, fd: number, owner: string) {
    this.#system = system;
    this.#calls = calls;
    this.#numbers = numbers;
    this.fd = fd;
    this.#memory = system.allocate(At.IOCBS + DEPTH * IOCB_BYTES, owner);
    const { address, view } = this.#memory;
    const made = calls.syscall(numbers.ioSetup, DEPTH, address + At.CONTEXT, 0, 0, 0);
    this.#context = made === 0 ? view.u32[0]! + view.u32[1]! * TWO_32 : 0;
  }

  get pending(): number {
    return this.#submitted + this.#done.length;
  }

  start(fd: number, id: number): number {
    if (this.#submitted >= DEPTH) return -Errno.EAGAIN;
    if (this.#context === 0) return this.#syncNow(fd, id);
    const { address, view } = this.#memory;
    const { u32 } = view;
    const word = At.IOCBS >> 2;
    // The kernel copies the request within the call, so one place serves all.
    u32.fill(0, word, word + (IOCB_BYTES >> 2));
    u32[word] = id;
    u32[word + 4] = IOCB_CMD_FDSYNC;
    u32[word + 5] = fd;
    u32[word + 14] = IOCB_FLAG_RESFD;
    u32[word + 15] = this.fd;
    const request = address + At.IOCBS;
    u32[At.POINTER >> 2] = request >>> 0;
    u32[(At.POINTER >> 2) + 1] = Math.floor(request / TWO_32);
    const { ioSubmit } = this.#numbers;
    const done = this.#calls.syscall(ioSubmit, this.#context, 1, address + At.POINTER, 0, 0);
    if (done === 1) {
      this.#submitted += 1;
      return 0;
    }
    const error = -this.#calls.errno();
    return error === -Errno.EINVAL || error === -Errno.EOPNOTSUPP ? this.#syncNow(fd, id) : error;
  }

  take(): readonly SyncDone[] {
    this.#system.drain(this.fd);
    this.#collect(0);
    return this.#done.splice(0);
  }

  dispose(): void {
    while (this.#submitted > 0) this.#collect(1);
    if (this.#context !== 0)
      this.#calls.syscall(this.#numbers.ioDestroy, this.#context, 0, 0, 0, 0);
    this.#system.unmap(this.#memory);
    this.#system.close(this.fd);
  }

  #collect(atLeast: number): void {
    if (this.#context === 0 || this.#submitted === 0) return;
    const events = this.#memory.address + At.EVENTS;
    const { ioGetevents } = this.#numbers;
    const count = this.#calls.syscall(ioGetevents, this.#context, atLeast, DEPTH, events, 0);
    const words = new Int32Array(this.#memory.buffer, this.#memory.byteOffset);
    for (let index = 0; index < count; index += 1) {
      const word = (At.EVENTS + index * EVENT_BYTES) >> 2;
      this.#done.push({ id: words[word]! >>> 0, errno: Math.max(0, 0 - words[word + 4]!) });
      this.#submitted -= 1;
    }
  }

  #syncNow(fd: number, id: number): number {
    this.#done.push({ id, errno: 0 - this.#system.sync(fd) });
    this.#system.signal(this.fd);
    return 0;
  }
}
