/**
 * The blocks of a {@link RangeTree}: columns of slots in typed arrays, and what one slot must know
 * to stand for a whole block.
 *
 * Slot `s` of block `b` stands at b × FANOUT + s. In a leaf it is a range with the gap below it;
 * further up it is a child block with the last page under it and maxima over its gaps.
 */
import { roomOf } from "./gap.ts";

/** Slots of a block. */
export const FANOUT = 32;

/** Storage of blocks. */
export class GapBlocks {
  /** Last page of the range, or of all ranges under the child. */
  last: Float64Array<ArrayBuffer>;
  /** First page of the range, or the number of the child. */
  first: Float64Array<ArrayBuffer>;
  /** Pages of the gap below the range, or the largest such gap. */
  gap: Float64Array<ArrayBuffer>;
  /** Room for size-aligned ranges in that gap, or the largest room. */
  room: Float64Array<ArrayBuffer>;
  /** Ranges that the slot stands for. */
  weight: Int32Array<ArrayBuffer>;
  /** Slots in use, by block. */
  used: Int32Array<ArrayBuffer>;
  #blocks = 0;
  #unused: number[] = [];

  constructor(from: GapBlocks | null) {
    this.last = from?.last.slice() ?? new Float64Array(2 * FANOUT);
    this.first = from?.first.slice() ?? new Float64Array(2 * FANOUT);
    this.gap = from?.gap.slice() ?? new Float64Array(2 * FANOUT);
    this.room = from?.room.slice() ?? new Float64Array(2 * FANOUT);
    this.weight = from?.weight.slice() ?? new Int32Array(2 * FANOUT);
    this.used = from?.used.slice() ?? new Int32Array(2);
    if (from === null) return;
    this.#blocks = from.#blocks;
    this.#unused = from.#unused.slice();
  }

  /** Fills a slot with a range whose gap begins at `bottom`. */
  setRange(at: number, first: number, last: number, bottom: number): void {
    this.last[at] = last;
    this.first[at] = first;
    this.weight[at] = 1;
    this.setGap(at, bottom);
  }

  /** Sets where the gap below a range begins. */
  setGap(at: number, bottom: number): void {
    const first = this.first[at]!;
    this.gap[at] = first - bottom;
    this.room[at] = roomOf(bottom, first);
  }

  /** Where the gap below a range begins. */
  bottomOf(at: number): number {
    return this.first[at]! - this.gap[at]!;
  }

  /** Fills a slot with what it must know of a child. @returns whether its page or maxima changed */
  setChild(at: number, child: number): boolean {
    const base = child * FANOUT;
    const end = base + this.used[child]!;
    const last = this.last[end - 1]!;
    let gap = 0;
    let room = 0;
    let weight = 0;
    for (let slot = base; slot < end; slot += 1) {
      weight += this.weight[slot]!;
      if (this.gap[slot]! > gap) gap = this.gap[slot]!;
      if (this.room[slot]! > room) room = this.room[slot]!;
    }
    const changed = this.last[at] !== last || this.gap[at] !== gap || this.room[at] !== room;
    this.last[at] = last;
    this.first[at] = child;
    this.gap[at] = gap;
    this.room[at] = room;
    this.weight[at] = weight;
    return changed;
  }

  /** Makes room for a slot by moving those from it on up. */
  openSlot(block: number, slot: number): void {
    const stop = block * FANOUT + slot;
    const end = block * FANOUT + this.used[block]!;
    for (let at = end - 1; at >= stop; at -= 1) this.#copySlot(at, at + 1);
    this.used[block]! += 1;
  }

  /** Removes a slot by moving those above it down. */
  closeSlot(block: number, slot: number): void {
    const end = block * FANOUT + this.used[block]!;
    for (let at = block * FANOUT + slot + 1; at < end; at += 1) this.#copySlot(at, at - 1);
    this.used[block]! -= 1;
  }

  /** Moves the slots from `slot` on to the end of another block. */
  moveSlots(from: number, slot: number, to: number): void {
    let target = to * FANOUT + this.used[to]!;
    for (let index = slot; index < this.used[from]!; index += 1) {
      this.#copySlot(from * FANOUT + index, target);
      target += 1;
    }
    this.used[to] = target - to * FANOUT;
    this.used[from] = slot;
  }

  /** An empty block. */
  take(): number {
    const unused = this.#unused.pop();
    if (unused !== undefined) return unused;
    const block = this.#blocks;
    this.#blocks += 1;
    if (block === this.used.length) this.#grow();
    return block;
  }

  /** Gives a block back. */
  discard(block: number): void {
    this.used[block] = 0;
    this.#unused.push(block);
  }

  #copySlot(from: number, to: number): void {
    this.last[to] = this.last[from]!;
    this.first[to] = this.first[from]!;
    this.gap[to] = this.gap[from]!;
    this.room[to] = this.room[from]!;
    this.weight[to] = this.weight[from]!;
  }

  #grow(): void {
    this.last = doubled(this.last);
    this.first = doubled(this.first);
    this.gap = doubled(this.gap);
    this.room = doubled(this.room);
    this.weight = doubledCounts(this.weight);
    this.used = doubledCounts(this.used);
  }
}

function doubled(array: Float64Array): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(array.length * 2);
  larger.set(array);
  return larger;
}

function doubledCounts(array: Int32Array): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(array.length * 2);
  larger.set(array);
  return larger;
}
