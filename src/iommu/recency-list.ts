/**
 * The slots of each set of a cache in the order of their use, as a ring of links: the oldest is found
 * at once, however many ways there are. Few ways are searched faster.
 */

/** The order of slots of all sets. */
export class RecencyList {
  readonly #ways: number;
  readonly #slots: number;
  /** Behind the slots, one link of each set closes its ring: the oldest follows it. */
  readonly #next: Int32Array;
  readonly #previous: Int32Array;

  constructor(sets: number, ways: number) {
    this.#ways = ways;
    this.#slots = sets * ways;
    this.#next = new Int32Array(this.#slots + sets);
    this.#previous = new Int32Array(this.#slots + sets);
    for (let set = 0; set < sets; set += 1) {
      const end = this.#slots + set;
      this.#next[end] = end;
      this.#previous[end] = end;
      for (let way = 0; way < ways; way += 1) this.add(set * ways + way);
    }
  }

  /** The slot used longest ago of those in the list; what is no slot when none is. */
  oldest(set: number): number {
    return this.#next[this.#slots + set]!;
  }

  /** Notes that a slot was used. */
  touch(slot: number): void {
    this.remove(slot);
    this.add(slot);
  }

  /** Takes a slot out of the list. */
  remove(slot: number): void {
    const next = this.#next[slot]!;
    const previous = this.#previous[slot]!;
    this.#next[previous] = next;
    this.#previous[next] = previous;
  }

  /** Puts a slot that is not in the list behind all others of its set. */
  add(slot: number): void {
    const end = this.#slots + ((slot / this.#ways) | 0);
    const last = this.#previous[end]!;
    this.#next[last] = slot;
    this.#previous[slot] = last;
    this.#next[slot] = end;
    this.#previous[end] = slot;
  }
}
