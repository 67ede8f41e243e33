/**
 * Finds the entries of a cache with large sets: a hash table from block and tags to slots, with open
 * addressing, and a bit for each way that is free. A set of a few ways is searched faster.
 *
 * Hot path of every search in a fully associative IOTLB (bench/iotlb.bench.ts).
 */
import { assert } from "../errors.ts";

/** The columns of the array that is indexed; they are read, never written. */
export interface TagColumns {
  readonly blocks: Float64Array;
  readonly domains: Int32Array;
  readonly kinds: Int32Array;
}

const NONE = -1;
/** Slots of the table for each entry: chains stay short while at most half are taken. */
const ROOM = 2;

/** The index. */
export class TagIndex {
  readonly #columns: TagColumns;
  readonly #table: Int32Array;
  readonly #mask: number;

  constructor(columns: TagColumns) {
    const size = 2 ** Math.ceil(Math.log2(columns.blocks.length * ROOM));
    this.#columns = columns;
    this.#table = new Int32Array(size).fill(NONE);
    this.#mask = size - 1;
  }

  /** The slot of an entry, −1 when there is none. */
  find(domain: number, kind: number, block: number): number {
    const { blocks, domains, kinds } = this.#columns;
    const table = this.#table;
    const mask = this.#mask;
    for (let at = hashOf(domain, kind, block) & mask; ; at = (at + 1) & mask) {
      const slot = table[at]!;
      if (slot === NONE) return NONE;
      if (blocks[slot] === block && domains[slot] === domain && kinds[slot] === kind) return slot;
    }
  }

  /** Adds the entry that the columns hold in a slot. */
  add(slot: number): void {
    const table = this.#table;
    const mask = this.#mask;
    let at = this.#homeOf(slot);
    while (table[at] !== NONE) at = (at + 1) & mask;
    table[at] = slot;
  }

  /** Removes the entry that the columns still hold in a slot. */
  remove(slot: number): void {
    const table = this.#table;
    const mask = this.#mask;
    let hole = this.#homeOf(slot);
    while (table[hole] !== slot) {
      assert(table[hole] !== NONE, "an entry that is removed is in the index");
      hole = (hole + 1) & mask;
    }
    // Those behind it in the chain move up, so that no search ends too early.
    for (let at = (hole + 1) & mask; table[at] !== NONE; at = (at + 1) & mask) {
      const home = this.#homeOf(table[at]!);
      if (((at - home) & mask) < ((at - hole) & mask)) continue;
      table[hole] = table[at]!;
      hole = at;
    }
    table[hole] = NONE;
  }

  clear(): void {
    this.#table.fill(NONE);
  }

  #homeOf(slot: number): number {
    const { blocks, domains, kinds } = this.#columns;
    return hashOf(domains[slot]!, kinds[slot]!, blocks[slot]!) & this.#mask;
  }
}

/** A block number has up to 52 bits; both halves count. */
function hashOf(domain: number, kind: number, block: number): number {
  const tags = Math.imul(domain, 0x85eb_ca6b) ^ Math.imul(kind, 0xc2b2_ae35);
  const high = Math.imul(block / 2 ** 32, 0x27d4_eb2f);
  const mixed = Math.imul(block ^ tags ^ high, 0x9e37_79b1);
  return mixed ^ (mixed >>> 15);
}

const WORD_BITS = 32;

/** Which ways of each set are free. */
export class FreeWays {
  readonly #ways: number;
  readonly #words: number;
  readonly #bits: Uint32Array;
  readonly #counts: Int32Array;

  constructor(sets: number, ways: number) {
    this.#ways = ways;
    this.#words = Math.ceil(ways / WORD_BITS);
    this.#bits = new Uint32Array(sets * this.#words);
    this.#counts = new Int32Array(sets);
    for (let slot = 0; slot < sets * ways; slot += 1) this.free(slot);
  }

  /** The lowest free slot of a set, −1 when all are taken. */
  lowest(set: number): number {
    if (this.#counts[set] === 0) return NONE;
    let word = set * this.#words;
    while (this.#bits[word] === 0) word += 1;
    const bits = this.#bits[word]!;
    const bit = WORD_BITS - 1 - Math.clz32(bits & -bits);
    return set * this.#ways + (word - set * this.#words) * WORD_BITS + bit;
  }

  /** Notes that a slot is free; it was taken. */
  free(slot: number): void {
    const set = (slot / this.#ways) | 0;
    const way = slot - set * this.#ways;
    this.#bits[set * this.#words + (way >>> 5)]! |= 1 << (way & 31);
    this.#counts[set]! += 1;
  }

  /** Notes that a slot is taken; it was free. */
  take(slot: number): void {
    const set = (slot / this.#ways) | 0;
    const way = slot - set * this.#ways;
    this.#bits[set * this.#words + (way >>> 5)]! &= ~(1 << (way & 31));
    this.#counts[set]! -= 1;
  }
}
