/**
 * An ordered set of disjoint page ranges that finds the highest free gap below a ceiling in
 * logarithmic time, whatever the size and alignment asked for.
 *
 * A B+ tree in typed arrays. Every range knows the gap below it, and every block the largest gap
 * under it: by length, and by room for size-aligned ranges (gap.ts). A sentinel range at
 * {@link ANCHOR_PFN} closes the top, so that every gap lies below some range. Ranges are told
 * apart by their last page, which never changes; the first may move down.
 *
 * Budget: search and insertion about 300 ns at a million ranges; bench/iova.bench.ts.
 */
import { assert } from "../errors.ts";
import { alignDown } from "../units.ts";
import { alignmentOf, roomOf } from "./gap.ts";

/** Page number of the sentinel, above every page of a 64-bit space. */
export const ANCHOR_PFN = Number.MAX_SAFE_INTEGER;

const FANOUT = 32;
const FILL_LOW = FANOUT >> 2;
const FILL_MERGED = FANOUT - FILL_LOW;
const LEVELS_MAX = 16;

/** Disjoint ranges [first, last] of pages 0 … 2^52 − 1, with a cursor on one of them. */
export class RangeTree {
  // Slot `s` of block `b` stands at b * FANOUT + s. In a leaf it is a range and the gap below it;
  // above, it is a child (its number in #first) with the last page and largest gaps under it.
  #last = new Float64Array(4 * FANOUT);
  #first = new Float64Array(4 * FANOUT);
  #gap = new Float64Array(4 * FANOUT);
  #room = new Float64Array(4 * FANOUT);
  #slots = new Int32Array(4);
  #ranges = new Int32Array(4);
  #blocks = 1;
  #unused: number[] = [];
  #root = 0;
  #leaf = 0;
  readonly #path = new Int32Array(LEVELS_MAX);
  readonly #slot = new Int32Array(LEVELS_MAX);

  /** Ranges that the last search passed or stopped at, as a linear scan would. */
  passed = 0;

  constructor() {
    this.#last[0] = ANCHOR_PFN;
    this.#first[0] = ANCHOR_PFN;
    this.#gap[0] = ANCHOR_PFN;
    this.#room[0] = roomOf(0, ANCHOR_PFN);
    this.#slots[0] = 1;
    this.#ranges[0] = 1;
  }

  /** Number of ranges, without the sentinel. */
  get size(): number {
    return this.#ranges[this.#root]! - 1;
  }

  /** First page of the range under the cursor. */
  get first(): number {
    return this.#first[this.#path[this.#leaf]! * FANOUT + this.#slot[this.#leaf]!]!;
  }

  /** Last page of the range under the cursor. */
  get last(): number {
    return this.#last[this.#path[this.#leaf]! * FANOUT + this.#slot[this.#leaf]!]!;
  }

  /** Puts the cursor on the lowest range that ends at or above `pfn`. */
  seek(pfn: number): void {
    const last = this.#last;
    let block = this.#root;
    for (let level = 0; ; level += 1) {
      let low = block * FANOUT;
      let high = low + this.#slots[block]! - 1;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (last[middle]! < pfn) low = middle + 1;
        else high = middle;
      }
      this.#path[level] = block;
      this.#slot[level] = low - block * FANOUT;
      if (level === this.#leaf) return;
      block = this.#first[low]!;
    }
  }

  /**
   * Finds the highest start of `pages` free pages that end below `ceiling`, and puts the cursor on
   * the range above that gap.
   *
   * @param ceiling - first page that may not be taken
   * @param pages - at least 1
   * @param aligned - whether the start must be a multiple of the size rounded up to a power of two
   * @returns the start, or −1 when nothing fits
   */
  findBelow(ceiling: number, pages: number, aligned: boolean): number {
    const alignment = aligned ? alignmentOf(pages) : 1;
    this.seek(ceiling);
    const at = this.#path[this.#leaf]! * FANOUT + this.#slot[this.#leaf]!;
    const end = Math.min(ceiling, this.#first[at]!);
    this.passed = 1;
    if (end >= pages) {
      const start = alignDown(end - pages, alignment);
      if (start >= this.#first[at]! - this.#gap[at]!) return start;
    }
    if (!this.#moveToLower(aligned ? this.#room : this.#gap, pages)) return -1;
    return alignDown(this.first - pages, alignment);
  }

  /** Moves the cursor to the highest range below it whose `measure` is at least `pages`. */
  #moveToLower(measure: Float64Array, pages: number): boolean {
    const leaf = this.#leaf;
    let level = leaf;
    for (;;) {
      const base = this.#path[level]! * FANOUT;
      let slot = this.#slot[level]! - 1;
      while (slot >= 0 && measure[base + slot]! < pages) {
        this.passed += level === leaf ? 1 : this.#ranges[this.#first[base + slot]!]!;
        slot -= 1;
      }
      if (slot < 0) {
        if (level === 0) return false;
        level -= 1;
        continue;
      }
      this.#slot[level] = slot;
      if (level === leaf) {
        this.passed += 1;
        return true;
      }
      const child = this.#first[base + slot]!;
      level += 1;
      this.#path[level] = child;
      this.#slot[level] = this.#slots[child]!;
    }
  }

  /** Inserts a range into the gap below the cursor, which stays in that neighbourhood. */
  insert(first: number, last: number): void {
    while (this.#slots[this.#path[this.#leaf]!]! === FANOUT) {
      this.#split();
      this.seek(last);
    }
    const block = this.#path[this.#leaf]!;
    const slot = this.#slot[this.#leaf]!;
    const at = block * FANOUT + slot;
    const bottom = this.#first[at]! - this.#gap[at]!;
    assert(
      first >= bottom && last < this.#first[at]!,
      "a range goes into the gap below the cursor",
    );
    this.#openSlot(block, slot);
    this.#last[at] = last;
    this.#first[at] = first;
    this.#setGap(at, bottom);
    this.#setGap(at + 1, last + 1);
    for (let level = 0; level <= this.#leaf; level += 1) this.#ranges[this.#path[level]!]! += 1;
    this.#refreshAbove(this.#leaf);
  }

  /** Removes the range under the cursor, which then stands on the next range up. */
  remove(): void {
    const block = this.#path[this.#leaf]!;
    const slot = this.#slot[this.#leaf]!;
    const at = block * FANOUT + slot;
    const last = this.#last[at]!;
    assert(last !== ANCHOR_PFN, "the sentinel stays");
    const bottom = this.#first[at]! - this.#gap[at]!;
    this.#closeSlot(block, slot);
    for (let level = 0; level <= this.#leaf; level += 1) this.#ranges[this.#path[level]!]! -= 1;
    const count = this.#slots[block]!;
    if (slot < count) this.#setGap(at, bottom);
    if (count >= FILL_LOW || this.#leaf === 0) {
      this.#refreshAbove(this.#leaf);
      if (slot < count) return;
    } else {
      this.#shrink();
    }
    this.seek(last);
    if (slot < count) return;
    this.#setGap(this.#path[this.#leaf]! * FANOUT + this.#slot[this.#leaf]!, bottom);
    this.#refreshAbove(this.#leaf);
  }

  /** Moves the first page of the range under the cursor down to `first`. */
  extendDown(first: number): void {
    const at = this.#path[this.#leaf]! * FANOUT + this.#slot[this.#leaf]!;
    const bottom = this.#first[at]! - this.#gap[at]!;
    assert(first >= bottom && first <= this.#first[at]!, "a range grows into the gap below it");
    this.#first[at] = first;
    this.#setGap(at, bottom);
    this.#refreshAbove(this.#leaf);
  }

  /** How many ranges end below `pfn`; leaves the cursor as {@link seek} does. */
  countEndingBelow(pfn: number): number {
    this.seek(pfn);
    let count = this.#slot[this.#leaf]!;
    for (let level = 0; level < this.#leaf; level += 1) {
      const base = this.#path[level]! * FANOUT;
      for (let slot = this.#slot[level]! - 1; slot >= 0; slot -= 1)
        count += this.#ranges[this.#first[base + slot]!]!;
    }
    return count;
  }

  /** How many ranges start below `pfn`. */
  countStartingBelow(pfn: number): number {
    const count = this.countEndingBelow(pfn);
    return this.first < pfn ? count + 1 : count;
  }

  /** Pages of the largest gap below `ceiling`. */
  largestGapBelow(ceiling: number): number {
    this.seek(ceiling);
    const cursor = this.#path[this.#leaf]! * FANOUT + this.#slot[this.#leaf]!;
    const bottom = this.#first[cursor]! - this.#gap[cursor]!;
    let largest = Math.max(0, Math.min(ceiling, this.#first[cursor]!) - bottom);
    for (let level = 0; level <= this.#leaf; level += 1) {
      const base = this.#path[level]! * FANOUT;
      for (let at = base + this.#slot[level]! - 1; at >= base; at -= 1)
        largest = Math.max(largest, this.#gap[at]!);
    }
    return largest;
  }

  /** Every range from the lowest up, without the sentinel. */
  *[Symbol.iterator](): Generator<{ first: number; last: number }> {
    let pfn = 0;
    for (;;) {
      this.seek(pfn);
      const { first, last } = this;
      if (last === ANCHOR_PFN) return;
      yield { first, last };
      pfn = last + 1;
    }
  }

  /** An independent copy. */
  clone(): RangeTree {
    const copy = new RangeTree();
    copy.#last = this.#last.slice();
    copy.#first = this.#first.slice();
    copy.#gap = this.#gap.slice();
    copy.#room = this.#room.slice();
    copy.#slots = this.#slots.slice();
    copy.#ranges = this.#ranges.slice();
    copy.#blocks = this.#blocks;
    copy.#unused = this.#unused.slice();
    copy.#root = this.#root;
    copy.#leaf = this.#leaf;
    return copy;
  }

  #setGap(at: number, bottom: number): void {
    const first = this.#first[at]!;
    this.#gap[at] = first - bottom;
    this.#room[at] = roomOf(bottom, first);
  }

  #openSlot(block: number, slot: number): void {
    const stop = block * FANOUT + slot;
    const end = block * FANOUT + this.#slots[block]!;
    for (let at = end - 1; at >= stop; at -= 1) this.#copySlot(at, at + 1);
    this.#slots[block]! += 1;
  }

  #closeSlot(block: number, slot: number): void {
    const end = block * FANOUT + this.#slots[block]!;
    for (let at = block * FANOUT + slot + 1; at < end; at += 1) this.#copySlot(at, at - 1);
    this.#slots[block]! -= 1;
  }

  #copySlot(from: number, to: number): void {
    this.#last[to] = this.#last[from]!;
    this.#first[to] = this.#first[from]!;
    this.#gap[to] = this.#gap[from]!;
    this.#room[to] = this.#room[from]!;
  }

  /** Brings the slots that stand for the path's blocks up to date, from `level` to the root. */
  #refreshAbove(level: number): void {
    for (let below = level; below > 0; below -= 1) {
      const at = this.#path[below - 1]! * FANOUT + this.#slot[below - 1]!;
      if (!this.#refresh(at, this.#path[below]!)) return;
    }
  }

  /** Brings the slot that stands for a block up to date. @returns whether it changed */
  #refresh(at: number, block: number): boolean {
    const base = block * FANOUT;
    const end = base + this.#slots[block]!;
    const last = this.#last[end - 1]!;
    let gap = 0;
    let room = 0;
    for (let slot = base; slot < end; slot += 1) {
      if (this.#gap[slot]! > gap) gap = this.#gap[slot]!;
      if (this.#room[slot]! > room) room = this.#room[slot]!;
    }
    const changed = this.#last[at] !== last || this.#gap[at] !== gap || this.#room[at] !== room;
    this.#last[at] = last;
    this.#first[at] = block;
    this.#gap[at] = gap;
    this.#room[at] = room;
    return changed;
  }

  /** Splits the topmost of the full blocks that end the path; the path is lost. */
  #split(): void {
    let level = this.#leaf;
    while (level > 0 && this.#slots[this.#path[level - 1]!]! === FANOUT) level -= 1;
    const block = this.#path[level]!;
    const slot = this.#slot[level]!;
    const isLeaf = level === this.#leaf;
    let parent: number;
    let parentSlot = 0;
    if (level > 0) {
      parent = this.#path[level - 1]!;
      parentSlot = this.#slot[level - 1]!;
    } else {
      assert(this.#leaf + 1 < LEVELS_MAX, "a tree of so many ranges fits in memory");
      parent = this.#take();
      this.#slots[parent] = 1;
      this.#ranges[parent] = this.#ranges[block]!;
      this.#root = parent;
      this.#leaf += 1;
    }
    // Allocation goes downwards: an insertion near the low end leaves the upper part full.
    const at = slot <= FILL_LOW ? Math.max(1, slot) : FANOUT >> 1;
    const upper = this.#take();
    for (let index = at; index < FANOUT; index += 1)
      this.#copySlot(block * FANOUT + index, upper * FANOUT + index - at);
    this.#slots[block] = at;
    this.#slots[upper] = FANOUT - at;
    this.#recount(block, isLeaf);
    this.#recount(upper, isLeaf);
    this.#openSlot(parent, parentSlot + 1);
    this.#refresh(parent * FANOUT + parentSlot, block);
    this.#refresh(parent * FANOUT + parentSlot + 1, upper);
  }

  /** Drops empty blocks and merges nearly empty ones along the path; the path is lost. */
  #shrink(): void {
    let level = this.#leaf;
    for (; level > 0; level -= 1) {
      const block = this.#path[level]!;
      const count = this.#slots[block]!;
      if (count >= FILL_LOW) break;
      const parent = this.#path[level - 1]!;
      const slot = this.#slot[level - 1]!;
      if (count === 0) {
        this.#unused.push(block);
        this.#closeSlot(parent, slot);
        continue;
      }
      const lower = slot + 1 < this.#slots[parent]! ? slot : slot - 1;
      if (lower < 0 || !this.#merge(parent, lower, level === this.#leaf)) break;
    }
    this.#refreshAbove(level);
    while (this.#leaf > 0 && this.#slots[this.#root] === 1) {
      this.#unused.push(this.#root);
      this.#root = this.#first[this.#root * FANOUT]!;
      this.#leaf -= 1;
    }
  }

  /** Merges the child in `slot` with the one above it, if both together leave some slots free. */
  #merge(parent: number, slot: number, isLeaf: boolean): boolean {
    const lower = this.#first[parent * FANOUT + slot]!;
    const upper = this.#first[parent * FANOUT + slot + 1]!;
    const lowerCount = this.#slots[lower]!;
    const upperCount = this.#slots[upper]!;
    if (lowerCount + upperCount > FILL_MERGED) return false;
    for (let index = 0; index < upperCount; index += 1)
      this.#copySlot(upper * FANOUT + index, lower * FANOUT + lowerCount + index);
    this.#slots[lower] = lowerCount + upperCount;
    this.#recount(lower, isLeaf);
    this.#unused.push(upper);
    this.#closeSlot(parent, slot + 1);
    this.#refresh(parent * FANOUT + slot, lower);
    return true;
  }

  #recount(block: number, isLeaf: boolean): void {
    const count = this.#slots[block]!;
    let ranges = isLeaf ? count : 0;
    if (!isLeaf) {
      for (let slot = 0; slot < count; slot += 1)
        ranges += this.#ranges[this.#first[block * FANOUT + slot]!]!;
    }
    this.#ranges[block] = ranges;
  }

  /** Takes an unused block, growing the arrays when there is none. */
  #take(): number {
    const unused = this.#unused.pop();
    if (unused !== undefined) return unused;
    const block = this.#blocks;
    this.#blocks += 1;
    if (block === this.#slots.length) {
      this.#last = grown(this.#last);
      this.#first = grown(this.#first);
      this.#gap = grown(this.#gap);
      this.#room = grown(this.#room);
      this.#slots = grownCounts(this.#slots);
      this.#ranges = grownCounts(this.#ranges);
    }
    return block;
  }
}

function grown(array: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(array.length * 2);
  larger.set(array);
  return larger;
}

function grownCounts(array: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(array.length * 2);
  larger.set(array);
  return larger;
}
