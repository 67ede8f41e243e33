/**
 * A queue of numbers with a bound: who puts into a full one waits for room, who takes from an empty
 * one waits for something. Both sides are served in the order of their arrival.
 */
import { assert } from "../errors.ts";
import type { Engine } from "./engine.ts";
import { WaitRing } from "./wait-ring.ts";

/** What went through a queue so far; times in picoseconds. */
export interface QueueUse {
  readonly taken: number;
  /** Sum of the times that values stood in the queue. */
  readonly standTime: number;
  /** Sum of the times that writers waited for room. */
  readonly blockTime: number;
  readonly lengthMax: number;
}

/** A bounded queue. */
export class BoundedQueue {
  readonly capacity: number;
  readonly #engine: Engine;
  readonly #values = new WaitRing();
  readonly #writers = new WaitRing();
  readonly #writerValues = new WaitRing();
  readonly #readers = new WaitRing();
  #taken = 0;
  #standTime = 0;
  #blockTime = 0;
  #lengthMax = 0;

  /** @param capacity - values that it holds, at least 1 */
  constructor(engine: Engine, capacity: number) {
    assert(Number.isInteger(capacity) && capacity >= 1, "a queue holds at least one value");
    this.#engine = engine;
    this.capacity = capacity;
  }

  /** Values in the queue. */
  get length(): number {
    return this.#values.count;
  }

  /** Writers that wait for room. */
  get writersWaiting(): number {
    return this.#writers.count;
  }

  /** Puts a value if there is room. @returns whether there was */
  tryPut(value: number): boolean {
    if (this.#values.count >= this.capacity) return false;
    this.#put(value, this.#engine.now);
    return true;
  }

  /** Puts a value; the event comes once it is in the queue. */
  put(value: number, handler: number, a = 0, b = 0): void {
    if (this.tryPut(value)) {
      this.#engine.after(0, handler, a, b);
      return;
    }
    this.#writers.put(this.#engine.now, handler, a, b);
    this.#writerValues.put(0, 0, value, 0);
  }

  /** Takes the oldest value; the event comes with the value as `a` and the given `b`. */
  take(handler: number, b = 0): void {
    if (this.#values.take()) this.#hand(handler, b);
    else this.#readers.put(this.#engine.now, handler, 0, b);
  }

  /** What went through it. */
  use(): QueueUse {
    return {
      taken: this.#taken,
      standTime: this.#standTime,
      blockTime: this.#blockTime,
      lengthMax: this.#lengthMax,
    };
  }

  #put(value: number, time: number): void {
    this.#values.put(time, 0, value, 0);
    if (this.#values.count > this.#lengthMax) this.#lengthMax = this.#values.count;
    const readers = this.#readers;
    if (readers.take()) {
      this.#values.take();
      this.#hand(readers.handler, readers.b);
    }
  }

  /** Hands over the value just taken, and lets the longest waiting writer in. */
  #hand(handler: number, b: number): void {
    const { now } = this.#engine;
    this.#taken += 1;
    this.#standTime += now - this.#values.time;
    this.#engine.after(0, handler, this.#values.a, b);
    const writers = this.#writers;
    if (!writers.take()) return;
    this.#blockTime += now - writers.time;
    this.#writerValues.take();
    this.#engine.after(0, writers.handler, writers.a, writers.b);
    this.#put(this.#writerValues.a, now);
  }
}
