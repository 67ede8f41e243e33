/**
 * The descriptors a loop waits for, as `struct pollfd` with a time limit. Source: ppoll(2).
 */
import { assert } from "../../errors.ts";
import type { CallMemory, Mapping } from "./mapping.ts";

/** What to wait for, and what came. */
export const Poll = { IN: 1, OUT: 4, ERR: 8, HUP: 16, NVAL: 32 } as const;
const ENTRY_BYTES = 8;
const TIMEOUT_BYTES = 16;

/** A fixed number of places; an empty one waits for nothing. */
export class PollSet {
  readonly capacity: number;
  readonly address: number;
  readonly timeoutAddress: number;
  readonly #system: CallMemory;
  readonly #memory: Mapping;
  readonly #fds: Int32Array;

  constructor(system: CallMemory, capacity: number, owner: string) {
    this.#system = system;
    this.capacity = capacity;
    this.#memory = system.allocate(TIMEOUT_BYTES + capacity * ENTRY_BYTES, owner);
    this.timeoutAddress = this.#memory.address;
    this.address = this.#memory.address + TIMEOUT_BYTES;
    this.#fds = new Int32Array(
      this.#memory.buffer,
      this.#memory.byteOffset + TIMEOUT_BYTES,
      capacity * 2,
    );
    for (let index = 0; index < capacity; index += 1) this.clear(index);
  }

  fd(index: number): number {
    return this.#fds[index * 2]!;
  }

  events(index: number): number {
    return this.#memory.view.u16[(TIMEOUT_BYTES + index * ENTRY_BYTES + 4) >> 1]!;
  }

  /** What came: bits of {@link Poll}. */
  ready(index: number): number {
    return this.#memory.view.u16[(TIMEOUT_BYTES + index * ENTRY_BYTES + 6) >> 1]!;
  }

  set(index: number, fd: number, events: number): void {
    assert(index < this.capacity, "a place of the set");
    this.#fds[index * 2] = fd;
    this.#memory.view.u16[(TIMEOUT_BYTES + index * ENTRY_BYTES + 4) >> 1] = events;
    this.setReady(index, 0);
  }

  clear(index: number): void {
    this.set(index, -1, 0);
  }

  /** For the implementations of the call. */
  setReady(index: number, events: number): void {
    this.#memory.view.u16[(TIMEOUT_BYTES + index * ENTRY_BYTES + 6) >> 1] = events;
  }

  /** For the implementations of the call: `struct timespec`. */
  setTimeout(microseconds: number): void {
    const { u32 } = this.#memory.view;
    u32[0] = Math.floor(microseconds / 1e6);
    u32[1] = 0;
    u32[2] = (microseconds % 1e6) * 1000;
    u32[3] = 0;
  }

  dispose(): void {
    this.#system.unmap(this.#memory);
  }
}
