/**
 * An ordered map of address ranges that do not overlap, at byte resolution over the whole 64-bit
 * space: what an I/O address space holds, whoever keeps it (virtio-iommu: specification 1.3,
 * "IOMMU device", MAP and UNMAP; VFIO type1: drivers/vfio/vfio_iommu_type1.c, the tree of vfio_dma).
 *
 * An address is a frame number and an offset (0 … 4095); `last` is inclusive, so a range may end at
 * 2^64 − 1. Each range carries the address that its first byte stands for and 28 bits of flags.
 * Removal takes whole ranges only: a span that would cut one removes nothing at all.
 *
 * Target: 10 M insertions or removals a second at 65 536 ranges; a span of n ranges in O(log + n)
 * with a few ns a range (bench/virtio-iommu.bench.ts). A position names a range until the next
 * change of the map.
 */
import { assert } from "../errors.ts";
import { addressOf, offsetOf, PFN_LAST, pfnOf } from "../units.ts";
import { checkTree } from "./range-map-check.ts";
import { LEAF_MAX, NONE, TAKEN, UNSURE } from "./range-map-leaves.ts";
import { removeOne, removeSpan } from "./range-map-removal.ts";
import { type AllowGrowth, RangeTree } from "./range-map-tree.ts";

export { NONE };

/** Outcome of {@link RangeMap.insert}. */
export const RangeInsert = {
  OK: 0,
  /** A byte of the range is taken. */
  OVERLAP: 1,
  /** The limit is reached, or growth was refused. */
  FULL: 2,
} as const;
export type RangeInsert = (typeof RangeInsert)[keyof typeof RangeInsert];

/** Outcome of {@link RangeMap.removeContained}: a range would be cut, nothing was removed. */
export const CUT = -1;

/** A range at the public edge. */
export interface RangeEntry {
  readonly start: bigint;
  readonly last: bigint;
  /** What the first byte stands for. */
  readonly value: bigint;
  readonly flags: number;
}

/** Most ranges that a map may be limited to: what positions and arrays reach. */
export const RANGES_LIMIT = 2 ** 26;

/** Bits of flags that a range carries. */
export const RANGE_FLAG_BITS = 28;

/** The map. */
export class RangeMap {
  readonly #tree: RangeTree;
  readonly #rangesMax: number;

  /**
   * @param options.rangesMax - how many ranges fit, 1 … {@link RANGES_LIMIT}
   * @param options.allow - asked before each growth of the memory, with its bytes
   */
  constructor(options: { readonly rangesMax: number; readonly allow?: AllowGrowth }) {
    assert(Number.isInteger(options.rangesMax), "the limit is a count");
    assert(options.rangesMax > 0 && options.rangesMax <= RANGES_LIMIT, "the limit is in reach");
    this.#rangesMax = options.rangesMax;
    this.#tree = new RangeTree(options.allow ?? null);
  }

  /** Ranges held. */
  get count(): number {
    return this.#tree.count;
  }

  /** Memory held, in bytes. */
  get bytes(): number {
    return this.#tree.bytes;
  }

  /**
   * Adds the range from `start` to `last`, unless a byte of it is taken.
   *
   * @param valuePfn - frame of the address that the first byte stands for
   * @param flags - 0 … 2^28 − 1
   */
  insert(
    startPfn: number,
    startOffset: number,
    lastPfn: number,
    lastOffset: number,
    valuePfn: number,
    valueOffset: number,
    flags: number,
  ): RangeInsert {
    const tree = this.#tree;
    if (startOffset !== 0 || lastOffset !== 0xfff || tree.splitsFrames !== 0 || tree.root === NONE)
      return this.#insertAnywhere(
        startPfn,
        startOffset,
        lastPfn,
        lastOffset,
        valuePfn,
        valueOffset,
        flags,
      );
    const leaf = tree.leafOf(startPfn, 0);
    const isFull = tree.count >= this.#rangesMax;
    const slot = isFull ? UNSURE : tree.leaves.takeFrames(leaf, startPfn, lastPfn);
    if (slot === TAKEN) return RangeInsert.OVERLAP;
    if (slot === UNSURE)
      return this.#insertAnywhere(startPfn, 0, lastPfn, 0xfff, valuePfn, valueOffset, flags);
    tree.count += 1;
    tree.leaves.fill(leaf, slot, startPfn, 0, lastPfn, 0xfff, valuePfn, valueOffset, flags);
    return RangeInsert.OK;
  }

  /** Position of the range that holds an address, or NONE. */
  find(pfn: number, offset: number): number {
    const below = this.#floor(pfn, offset);
    return below !== NONE && this.#lastReaches(below, pfn, offset) ? below : NONE;
  }

  /** Position of the first range that ends at or above an address, or NONE. */
  firstFrom(pfn: number, offset: number): number {
    const below = this.#floor(pfn, offset);
    if (below === NONE) return this.first();
    return this.#lastReaches(below, pfn, offset) ? below : this.next(below);
  }

  /** Whether a byte from `start` to `last` is taken. */
  overlaps(startPfn: number, startOffset: number, lastPfn: number, lastOffset: number): boolean {
    const position = this.firstFrom(startPfn, startOffset);
    return position !== NONE && this.#startsBy(position, lastPfn, lastOffset);
  }

  /** Position of the lowest range, or NONE. */
  first(): number {
    return this.#tree.root === NONE ? NONE : this.#positionAt(this.#tree.leafOf(0, 0), 0);
  }

  /** Position of the highest range, or NONE. */
  last(): number {
    return this.#floor(PFN_LAST, 0xfff);
  }

  /** Position of the range above another, or NONE. */
  next(position: number): number {
    return this.#positionAt(position >>> 3, (position & 7) + 1);
  }

  /** Position of the range below another, or NONE. */
  previous(position: number): number {
    return this.#positionAt(position >>> 3, (position & 7) - 1);
  }

  /** Frame of the first address of the range at a position. */
  startPfn(position: number): number {
    return this.#tree.leaves.startPfn(position >>> 3, position & 7);
  }

  /** Offset of the first address in its frame. */
  startOffset(position: number): number {
    return this.#tree.leaves.offsets(position >>> 3, position & 7) & 0xfff;
  }

  /** Frame of the last address. */
  lastPfn(position: number): number {
    return this.#tree.leaves.lastPfn(position >>> 3, position & 7);
  }

  /** Offset of the last address in its frame. */
  lastOffset(position: number): number {
    return (this.#tree.leaves.offsets(position >>> 3, position & 7) >>> 12) & 0xfff;
  }

  /** Frame of what the first address stands for. */
  valuePfn(position: number): number {
    return this.#tree.leaves.valuePfn(position >>> 3, position & 7);
  }

  /** Offset of what the first address stands for. */
  valueOffset(position: number): number {
    return this.#tree.leaves.valueOffset(position >>> 3, position & 7) & 0xfff;
  }

  /** Flags of the range. */
  flags(position: number): number {
    const leaves = this.#tree.leaves;
    const leaf = position >>> 3;
    const rank = position & 7;
    return (leaves.offsets(leaf, rank) >>> 24) | ((leaves.valueOffset(leaf, rank) >>> 12) << 8);
  }

  /**
   * Removes every range between `start` and `last`; gaps do not matter.
   *
   * @returns how many were removed; {@link CUT}, and nothing is removed, when one is only partly
   *   inside
   */
  removeContained(
    startPfn: number,
    startOffset: number,
    lastPfn: number,
    lastOffset: number,
  ): number {
    const tree = this.#tree;
    if (tree.root === NONE) return 0;
    const leaf = tree.leafOf(startPfn, startOffset);
    if (startOffset === 0 && lastOffset === 0xfff && tree.splitsFrames === 0) {
      const exact = tree.leaves.rankOfFrames(leaf, startPfn, lastPfn);
      if (exact >= 0) {
        removeOne(tree, leaf, exact);
        return 1;
      }
    }
    const rank = tree.rankIn(leaf, startPfn, startOffset);
    let from = this.#positionAt(leaf, rank);
    if (from === NONE || !this.#lastReaches(from, startPfn, startOffset)) {
      from = this.#positionAt(leaf, rank + 1);
      if (from === NONE || !this.#startsBy(from, lastPfn, lastOffset)) return 0;
    } else if (this.startPfn(from) !== startPfn || this.startOffset(from) !== startOffset) {
      return CUT;
    }
    // Whatever else is inside starts above `from`; the highest that starts inside must end inside.
    const end = this.#endOfSpan(from, lastPfn, lastOffset);
    if (this.#endsAfter(end, lastPfn, lastOffset)) return CUT;
    if (end === from) {
      this.removeAt(from);
      return 1;
    }
    return removeSpan(
      tree,
      this.startPfn(from),
      this.startOffset(from),
      this.startPfn(end),
      this.startOffset(end),
    );
  }

  /** Removes the range at a position; every position is void afterwards. */
  removeAt(position: number): void {
    removeOne(this.#tree, position >>> 3, position & 7);
  }

  /** Removes everything and gives the memory back. */
  clear(): void {
    this.#tree.clear();
  }

  /** {@link insert} at the public edge. */
  add(entry: RangeEntry): RangeInsert {
    assert(entry.start <= entry.last, "a range does not end before it starts");
    assert(entry.flags >= 0 && entry.flags < 2 ** RANGE_FLAG_BITS, "flags have 28 bits");
    return this.insert(
      pfnOf(entry.start),
      offsetOf(entry.start),
      pfnOf(entry.last),
      offsetOf(entry.last),
      pfnOf(entry.value),
      offsetOf(entry.value),
      entry.flags,
    );
  }

  /** Every range in ascending order, at the public edge; the map must not change meanwhile. */
  *entries(): Generator<RangeEntry> {
    for (let at = this.first(); at !== NONE; at = this.next(at)) {
      yield {
        start: addressOf(this.startPfn(at), this.startOffset(at)),
        last: addressOf(this.lastPfn(at), this.lastOffset(at)),
        value: addressOf(this.valuePfn(at), this.valueOffset(at)),
        flags: this.flags(at),
      };
    }
  }

  /** Asserts what must hold between any two changes; for tests, it visits everything. */
  check(): void {
    checkTree(this.#tree);
  }

  /** Position of the last range that starts at or below an address, or NONE. */
  #floor(pfn: number, offset: number): number {
    if (this.#tree.root === NONE) return NONE;
    const leaf = this.#tree.leafOf(pfn, offset);
    return this.#positionAt(leaf, this.#tree.rankIn(leaf, pfn, offset));
  }

  /** Position of the last range that starts at or below `last`; `from` does. */
  #endOfSpan(from: number, lastPfn: number, lastOffset: number): number {
    if (this.#endsAfter(from, lastPfn, lastOffset)) return from;
    const next = this.next(from);
    if (next === NONE || !this.#startsBy(next, lastPfn, lastOffset)) return from;
    return this.#floor(lastPfn, lastOffset);
  }

  /** Position of a rank in a leaf, where −1 is the last of the leaf before and so on, or NONE. */
  #positionAt(leaf: number, rank: number): number {
    const leaves = this.#tree.leaves;
    if (rank < 0) {
      const previous = leaves.before(leaf);
      return previous === NONE ? NONE : previous * LEAF_MAX + leaves.count(previous) - 1;
    }
    if (rank < leaves.count(leaf)) return leaf * LEAF_MAX + rank;
    const next = leaves.after(leaf);
    return next === NONE ? NONE : next * LEAF_MAX;
  }

  /** {@link insert} for every case: offsets, neighbouring leaves, splits. */
  #insertAnywhere(
    startPfn: number,
    startOffset: number,
    lastPfn: number,
    lastOffset: number,
    valuePfn: number,
    valueOffset: number,
    flags: number,
  ): RangeInsert {
    const tree = this.#tree;
    let leaf = tree.root;
    let rank = NONE;
    if (leaf !== NONE) {
      leaf = tree.leafOf(startPfn, startOffset);
      rank = tree.rankIn(leaf, startPfn, startOffset);
      const below = this.#positionAt(leaf, rank);
      if (below !== NONE && this.#lastReaches(below, startPfn, startOffset))
        return RangeInsert.OVERLAP;
      const above = this.#positionAt(leaf, rank + 1);
      if (above !== NONE && this.#startsBy(above, lastPfn, lastOffset)) return RangeInsert.OVERLAP;
    }
    if (tree.count >= this.#rangesMax || !tree.reserve()) return RangeInsert.FULL;
    if (startOffset !== 0 || lastOffset !== 0xfff) tree.splitsFrames = 1;
    const slot = tree.add(leaf, rank + 1, startPfn, startOffset);
    tree.leaves.fill(
      tree.leafAdded,
      slot,
      startPfn,
      startOffset,
      lastPfn,
      lastOffset,
      valuePfn,
      valueOffset,
      flags,
    );
    const next = tree.leaves.after(tree.leafAdded);
    if (next !== NONE && tree.splitsFrames === 0) tree.leaves.keepAbove(next, lastPfn);
    return RangeInsert.OK;
  }

  #lastReaches(position: number, pfn: number, offset: number): boolean {
    const last = this.lastPfn(position);
    return last > pfn || (last === pfn && this.lastOffset(position) >= offset);
  }

  #endsAfter(position: number, pfn: number, offset: number): boolean {
    const last = this.lastPfn(position);
    return last > pfn || (last === pfn && this.lastOffset(position) > offset);
  }

  #startsBy(position: number, pfn: number, offset: number): boolean {
    const start = this.startPfn(position);
    return start < pfn || (start === pfn && this.startOffset(position) <= offset);
  }
}
