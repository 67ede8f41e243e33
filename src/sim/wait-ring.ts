/** Events that wait for something in the order of their arrival: a ring that grows. */
import { assert } from "../errors.ts";

const CAPACITY_START = 16;

/** Events that can wait in one place. */
export const WAITING_MAX = 2 ** 22;

/** A queue of waiting events. */
export class WaitRing {
  /** Of the event that {@link take} took last; `time` is when it came. */
  time = 0;
  handler = 0;
  a = 0;
  b = 0;
  #columns = new Float64Array(CAPACITY_START * 4);
  #capacity = CAPACITY_START;
  #first = 0;
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** Adds an event. @throws AssertionError when {@link WAITING_MAX} are waiting */
  put(time: number, handler: number, a: number, b: number): void {
    if (this.#count === this.#capacity) this.#grow();
    const at = ((this.#first + this.#count) & (this.#capacity - 1)) * 4;
    const columns = this.#columns;
    columns[at] = time;
    columns[at + 1] = handler;
    columns[at + 2] = a;
    columns[at + 3] = b;
    this.#count += 1;
  }

  /** Takes the event that waits longest into the fields. @returns false when none waits */
  take(): boolean {
    if (this.#count === 0) return false;
    const at = this.#first * 4;
    const columns = this.#columns;
    this.time = columns[at]!;
    this.handler = columns[at + 1]!;
    this.a = columns[at + 2]!;
    this.b = columns[at + 3]!;
    this.#first = (this.#first + 1) & (this.#capacity - 1);
    this.#count -= 1;
    return true;
  }

  #grow(): void {
    const capacity = this.#capacity * 2;
    assert(capacity <= WAITING_MAX, "the number of waiting events is bounded");
    const columns = new Float64Array(capacity * 4);
    const split = this.#first * 4;
    columns.set(this.#columns.subarray(split));
    columns.set(this.#columns.subarray(0, split), this.#columns.length - split);
    this.#columns = columns;
    this.#capacity = capacity;
    this.#first = 0;
  }
}
