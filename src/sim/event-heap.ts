/**
 * The pending events of a simulation: a 4-ary heap over typed arrays, ordered by time, ties by
 * insertion. Hot path of every simulated step; target 10 M events/s in and out, `bench/sim.ts`.
 *
 * The heap proper holds times and slot numbers side by side, so that sifting compares neighbours in
 * memory; what an event carries stays in its slot and never moves.
 */
import { assert } from "../errors.ts";

const ARITY = 4;
const CAPACITY_START = 1024;

/** Events that can be pending at once. */
export const PENDING_EVENTS_MAX = 2 ** 24;

/** The pending events. */
export class EventHeap {
  /** Of the event that {@link pop} took last. */
  time = 0;
  handler = 0;
  a = 0;
  b = 0;
  #times = new Float64Array(CAPACITY_START);
  #slots = new Int32Array(CAPACITY_START);
  #orders = new Float64Array(CAPACITY_START);
  #handlers = new Int32Array(CAPACITY_START);
  #first = new Float64Array(CAPACITY_START);
  #second = new Float64Array(CAPACITY_START);
  #count = 0;
  #pushed = 0;

  constructor() {
    this.#slots.forEach((_, index, slots) => {
      slots[index] = index;
    });
  }

  /** Events pending. */
  get count(): number {
    return this.#count;
  }

  /** Time of the next event; infinity when none is pending. */
  get nextTime(): number {
    return this.#count === 0 ? Number.POSITIVE_INFINITY : this.#times[0]!;
  }

  /** Adds an event. @throws AssertionError when {@link PENDING_EVENTS_MAX} are pending */
  push(time: number, handler: number, a: number, b: number): void {
    const index = this.#count;
    if (index === this.#times.length) this.#grow();
    this.#count = index + 1;
    // Slots that no event uses lie behind the heap's end.
    const slot = this.#slots[index]!;
    this.#orders[slot] = this.#pushed;
    this.#pushed += 1;
    this.#handlers[slot] = handler;
    this.#first[slot] = a;
    this.#second[slot] = b;
    this.#rise(index, time, slot);
  }

  /** Takes the next event into the fields. @returns false when none is pending */
  pop(): boolean {
    if (this.#count === 0) return false;
    const times = this.#times;
    const slots = this.#slots;
    const slot = slots[0]!;
    this.time = times[0]!;
    this.handler = this.#handlers[slot]!;
    this.a = this.#first[slot]!;
    this.b = this.#second[slot]!;
    const last = this.#count - 1;
    this.#count = last;
    const movedSlot = slots[last]!;
    slots[last] = slot;
    if (last > 0) this.#sink(times[last]!, movedSlot, last);
    return true;
  }

  /** Puts an event, which is younger than all others, where it belongs, from the end upwards. */
  #rise(start: number, time: number, slot: number): void {
    const times = this.#times;
    const slots = this.#slots;
    let index = start;
    while (index > 0) {
      const parent = (index - 1) >>> 2;
      // The parent is older, so a tie stays below it.
      if (times[parent]! <= time) break;
      times[index] = times[parent]!;
      slots[index] = slots[parent]!;
      index = parent;
    }
    times[index] = time;
    slots[index] = slot;
  }

  /** Puts an event where it belongs, from the top downwards. */
  #sink(time: number, slot: number, count: number): void {
    const times = this.#times;
    const slots = this.#slots;
    const orders = this.#orders;
    const order = orders[slot]!;
    let index = 0;
    for (;;) {
      const child = index * ARITY + 1;
      if (child >= count) break;
      const end = Math.min(child + ARITY, count);
      let best = child;
      let bestTime = times[child]!;
      for (let other = child + 1; other < end; other += 1) {
        const otherTime = times[other]!;
        if (otherTime > bestTime) continue;
        if (otherTime === bestTime && orders[slots[other]!]! > orders[slots[best]!]!) continue;
        best = other;
        bestTime = otherTime;
      }
      if (bestTime > time || (bestTime === time && orders[slots[best]!]! > order)) break;
      times[index] = bestTime;
      slots[index] = slots[best]!;
      index = best;
    }
    times[index] = time;
    slots[index] = slot;
  }

  #grow(): void {
    const before = this.#times.length;
    const capacity = before * 2;
    assert(capacity <= PENDING_EVENTS_MAX, "the number of pending events is bounded");
    const times = new Float64Array(capacity);
    times.set(this.#times);
    this.#times = times;
    const slots = new Int32Array(capacity);
    slots.set(this.#slots);
    for (let slot = before; slot < capacity; slot += 1) slots[slot] = slot;
    this.#slots = slots;
    this.#orders = grown(this.#orders, capacity);
    this.#first = grown(this.#first, capacity);
    this.#second = grown(this.#second, capacity);
    const handlers = new Int32Array(capacity);
    handlers.set(this.#handlers);
    this.#handlers = handlers;
  }
}

function grown(from: Float64Array, capacity: number): Float64Array<ArrayBuffer> {
  const to = new Float64Array(capacity);
  to.set(from);
  return to;
}
