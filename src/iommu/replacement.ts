/**
 * Which way of a set gives way to a new entry: true LRU, tree pseudo-LRU, first-in first-out, or
 * seeded random.
 *
 * No vendor publishes the policy of its IOTLB, so it is a declared parameter. Tree pseudo-LRU is the
 * binary tree of J. Handy, "The Cache Memory Book", 1998: each inner node points to the half that
 * was used less recently. Hot path of every cache hit: {@link Replacement.touch}.
 */
import { assert, unreachable } from "../errors.ts";
import { Random } from "../random.ts";
import { isPowerOfTwo } from "../units.ts";
import { RecencyList } from "./recency-list.ts";

/** Name of a policy. */
export type ReplacementPolicy = "lru" | "plru" | "fifo" | "random";

const LRU = 0;
const PLRU = 1;
const FIFO = 2;
const RANDOM = 3;

/** Tree pseudo-LRU keeps its bits of a set in one word. */
const PLRU_WAYS_MAX = 32;
/** With more ways, what is oldest is not searched for but kept in a list. */
export const SEARCHED_WAYS_MAX = 16;

function codeOf(policy: ReplacementPolicy): number {
  switch (policy) {
    case "lru":
      return LRU;
    case "plru":
      return PLRU;
    case "fifo":
      return FIFO;
    case "random":
      return RANDOM;
    default:
      return unreachable(policy);
  }
}

/** The replacement state of all sets of one cache. A slot is `set * ways + way`. */
export class Replacement {
  readonly #code: number;
  readonly #ways: number;
  /** LRU: time of the last use; FIFO: time of the fill. */
  readonly #stamps: Float64Array;
  /** The same order as a list, for many ways. */
  readonly #list: RecencyList | null;
  /** PLRU: bit n of a set's word is inner node n of its tree, 1 = the right half is older. */
  readonly #trees: Uint32Array;
  readonly #random: Random;
  #time = 0;

  /** @param seed - of the random policy */
  constructor(policy: ReplacementPolicy, sets: number, ways: number, seed: number) {
    this.#code = codeOf(policy);
    if (this.#code === PLRU) {
      assert(isPowerOfTwo(ways) && ways <= PLRU_WAYS_MAX, "plru takes 1, 2, 4, … 32 ways");
    }
    this.#ways = ways;
    const isByAge = this.#code === LRU || this.#code === FIFO;
    const hasList = isByAge && ways > SEARCHED_WAYS_MAX;
    this.#list = hasList ? new RecencyList(sets, ways) : null;
    this.#stamps = new Float64Array(isByAge && !hasList ? sets * ways : 0);
    this.#trees = new Uint32Array(this.#code === PLRU ? sets : 0);
    this.#random = new Random(seed);
  }

  /** Notes that a slot was used. */
  touch(slot: number): void {
    if (this.#code === LRU) {
      this.#note(slot);
    } else if (this.#code === PLRU) {
      this.#pointAway(slot);
    }
  }

  /** Notes that a slot received a new entry. */
  filled(slot: number): void {
    if (this.#code === FIFO) {
      this.#note(slot);
    } else {
      this.touch(slot);
    }
  }

  /** The slot of a full set that gives way. */
  victim(set: number): number {
    const first = set * this.#ways;
    if (this.#code === RANDOM) return first + this.#random.below(this.#ways);
    if (this.#code === PLRU) return first + this.#oldestHalf(set);
    if (this.#list !== null) return this.#list.oldest(set);
    const stamps = this.#stamps;
    let oldest = first;
    for (let slot = first + 1; slot < first + this.#ways; slot += 1) {
      if (stamps[slot]! < stamps[oldest]!) oldest = slot;
    }
    return oldest;
  }

  /** Keeps a slot from being a victim by age, until {@link release}. */
  hold(slot: number): void {
    if (this.#list !== null) this.#list.remove(slot);
    else if (this.#stamps.length > 0) this.#stamps[slot] = Number.POSITIVE_INFINITY;
  }

  /** Ends {@link hold}; the slot is empty. */
  release(slot: number): void {
    if (this.#list !== null) this.#list.add(slot);
    else if (this.#stamps.length > 0) this.#stamps[slot] = 0;
  }

  #note(slot: number): void {
    if (this.#list !== null) {
      this.#list.touch(slot);
      return;
    }
    this.#time += 1;
    this.#stamps[slot] = this.#time;
  }

  /** Makes every node on the path to a slot point to the other half. */
  #pointAway(slot: number): void {
    const ways = this.#ways;
    const set = (slot / ways) | 0;
    let tree = this.#trees[set]!;
    // Nodes count from 1 at the root, as in a heap: the leaf of way w is node ways + w.
    for (let node = ways + (slot - set * ways); node > 1; node >>>= 1) {
      const parent = 1 << ((node >>> 1) - 1);
      if ((node & 1) === 0) tree |= parent;
      else tree &= ~parent;
    }
    this.#trees[set] = tree;
  }

  #oldestHalf(set: number): number {
    const tree = this.#trees[set]!;
    let node = 1;
    while (node < this.#ways) node = 2 * node + ((tree >>> (node - 1)) & 1);
    return node - this.#ways;
  }
}
