/**
 * An ordered map of address ranges that do not overlap, at byte resolution over the whole 64-bit
 * space: what an I/O address space holds, whoever keeps it (virtio-iommu: specification 1.3,
 * "IOMMU device", MAP and UNMAP; VFIO type1: drivers/vfio/vfio_iommu_type1.c, the tree of vfio_dma).
 *
 * An address is a frame number and an offset (0 … 4095); `last` is inclusive, so a range may end at
 * 2^64 − 1. Each range carries the address that its first byte stands for and 32 bits of flags.
 * Removal takes whole ranges only: a span that would cut one removes nothing at all.
 *
 * Target: 10 M insertions or removals a second at 65 536 ranges; a span of n ranges in O(log + n)
 * with about 2 ns a range (bench/virtio-iommu.bench.ts). A position names a range until the next
 * change of the map.
 */
import { assert } from "../errors.ts";
import { addressOf, offsetOf, PFN_LAST, pfnOf } from "../units.ts";
import { type AllowGrowth, NODE_MAX, NODE_MIN, NONE, RangeStore } from "./range-map-store.ts";
import { RangeTree } from "./range-map-tree.ts";

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

/** Most ranges that a map may be limited to: what its record numbers reach. */
export const RANGES_LIMIT = 2 ** 26;

/** The map. */
export class RangeMap {
  readonly #store: RangeStore;
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
    this.#store = new RangeStore(options.rangesMax, options.allow ?? null);
    this.#tree = new RangeTree(this.#store);
  }

  /** Ranges held. */
  get count(): number {
    return this.#tree.count;
  }

  /** Memory held, in bytes. */
  get bytes(): number {
    return this.#store.bytes;
  }

  /**
   * Adds the range from `start` to `last`, unless a byte of it is taken.
   *
   * @param valuePfn - frame of the address that the first byte stands for
   * @param flags - any 32 bits
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
    const store = this.#store;
    const tree = this.#tree;
    let leaf = tree.root;
    let index = NONE;
    if (leaf !== NONE) {
      leaf = tree.leafOf(startPfn, startOffset);
      index = tree.indexIn(leaf, startPfn, startOffset);
      const below = this.#positionAt(leaf, index);
      if (below !== NONE && this.#lastReaches(below, startPfn, startOffset))
        return RangeInsert.OVERLAP;
      const above = this.#positionAt(leaf, index + 1);
      if (above !== NONE && this.#startsBy(above, lastPfn, lastOffset)) return RangeInsert.OVERLAP;
    }
    if (tree.count >= this.#rangesMax || !store.reserve()) return RangeInsert.FULL;
    if (leaf === NONE) {
      leaf = store.takeNode();
      tree.root = leaf;
    }
    const record = store.takeRecord();
    store.recordFloats[record * 4] = lastPfn;
    store.recordFloats[record * 4 + 1] = valuePfn;
    store.recordWords[record * 8 + 4] = lastOffset;
    store.recordWords[record * 8 + 5] = valueOffset;
    store.recordWords[record * 8 + 6] = flags;
    tree.add(leaf, index + 1, startPfn, startOffset, record);
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
    return this.#tree.root === NONE ? NONE : this.#tree.leafOf(-1, 0) * NODE_MAX;
  }

  /** Position of the highest range, or NONE. */
  last(): number {
    return this.#floor(Number.POSITIVE_INFINITY, 0);
  }

  /** Position of the range above another, or NONE. */
  next(position: number): number {
    const leaf = Math.floor(position / NODE_MAX);
    return this.#positionAt(leaf, position - leaf * NODE_MAX + 1);
  }

  /** Position of the range below another, or NONE. */
  previous(position: number): number {
    const leaf = Math.floor(position / NODE_MAX);
    return this.#positionAt(leaf, position - leaf * NODE_MAX - 1);
  }

  /** Frame of the first address of the range at a position. */
  startPfn(position: number): number {
    return this.#store.keyPfns[position]!;
  }

  /** Offset of the first address in its frame. */
  startOffset(position: number): number {
    return this.#store.keyOffsets[position]!;
  }

  /** Frame of the last address. */
  lastPfn(position: number): number {
    return this.#store.recordFloats[this.#store.references[position]! * 4]!;
  }

  /** Offset of the last address in its frame. */
  lastOffset(position: number): number {
    return this.#store.recordWords[this.#store.references[position]! * 8 + 4]!;
  }

  /** Frame of what the first address stands for. */
  valuePfn(position: number): number {
    return this.#store.recordFloats[this.#store.references[position]! * 4 + 1]!;
  }

  /** Offset of what the first address stands for. */
  valueOffset(position: number): number {
    return this.#store.recordWords[this.#store.references[position]! * 8 + 5]!;
  }

  /** Flags of the range. */
  flags(position: number): number {
    return this.#store.recordWords[this.#store.references[position]! * 8 + 6]!;
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
    const index = tree.indexIn(leaf, startPfn, startOffset);
    let from = this.#positionAt(leaf, index);
    if (from === NONE || !this.#lastReaches(from, startPfn, startOffset)) {
      from = this.#positionAt(leaf, index + 1);
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
    return tree.removeSpan(
      this.startPfn(from),
      this.startOffset(from),
      this.startPfn(end),
      this.startOffset(end),
    );
  }

  /** Removes the range at a position; every position is void afterwards. */
  removeAt(position: number): void {
    const leaf = Math.floor(position / NODE_MAX);
    this.#tree.removeOne(leaf, position - leaf * NODE_MAX);
  }

  /** Removes everything and gives the memory back. */
  clear(): void {
    this.#tree.clear();
  }

  /** {@link insert} at the public edge. */
  add(entry: RangeEntry): RangeInsert {
    assert(entry.start <= entry.last, "a range does not end before it starts");
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
    const { root, height, count } = this.#tree;
    const seen = root === NONE ? 0 : this.#checkNode(root, height, -1, 0, Infinity, 0);
    assert(seen === count, "the count is the number of ranges in the leaves");
    let walked = 0;
    let before = NONE;
    for (let at = this.first(); at !== NONE; at = this.next(at)) {
      const pfn = this.startPfn(at);
      const offset = this.startOffset(at);
      assert(!this.#endsBefore(at, pfn, offset), "a range does not end before it starts");
      assert(this.lastPfn(at) <= PFN_LAST, "a range ends inside the space");
      assert(this.previous(at) === before, "the chain of leaves runs both ways");
      assert(before === NONE || this.#endsBefore(before, pfn, offset), "ranges do not overlap");
      before = at;
      walked += 1;
    }
    assert(walked === count, "the chain of leaves holds every range");
  }

  #checkNode(
    node: number,
    level: number,
    lowPfn: number,
    lowOffset: number,
    highPfn: number,
    highOffset: number,
  ): number {
    const { counts, keyPfns, keyOffsets, references } = this.#store;
    const count = counts[node]!;
    assert(count > 0 && count <= NODE_MAX, "a node is neither empty nor over-full");
    assert(node === this.#tree.root || count >= NODE_MIN - 2, "no node but the root is thin");
    let seen = 0;
    let pfn = lowPfn;
    let offset = lowOffset;
    for (let index = 0; index < count; index += 1) {
      const at = node * NODE_MAX + index;
      if (level === 0 || index > 0) {
        const key = keyPfns[at]!;
        const isAbove = key > pfn || (key === pfn && keyOffsets[at]! >= offset);
        assert(isAbove, "keys ascend and stay above their separator");
        const isBelow = key < highPfn || (key === highPfn && keyOffsets[at]! < highOffset);
        assert(isBelow, "keys stay below the next separator");
        pfn = key;
        offset = keyOffsets[at]!;
      }
      if (level === 0) seen += 1;
      else {
        const isLast = index + 1 === count;
        seen += this.#checkNode(
          references[at]!,
          level - 1,
          pfn,
          offset,
          isLast ? highPfn : keyPfns[at + 1]!,
          isLast ? highOffset : keyOffsets[at + 1]!,
        );
      }
    }
    return seen;
  }

  /** Position of the last range that starts at or below an address, or NONE. */
  #floor(pfn: number, offset: number): number {
    if (this.#tree.root === NONE) return NONE;
    const leaf = this.#tree.leafOf(pfn, offset);
    return this.#positionAt(leaf, this.#tree.indexIn(leaf, pfn, offset));
  }

  /** Position of the last range that starts at or below `last`; `from` does. */
  #endOfSpan(from: number, lastPfn: number, lastOffset: number): number {
    if (this.#endsAfter(from, lastPfn, lastOffset)) return from;
    const next = this.next(from);
    if (next === NONE || !this.#startsBy(next, lastPfn, lastOffset)) return from;
    return this.#floor(lastPfn, lastOffset);
  }

  /** Position `index` of a leaf, where −1 is the last of the leaf before and so on, or NONE. */
  #positionAt(leaf: number, index: number): number {
    const { counts, before, after } = this.#store;
    if (index < 0) {
      const previous = before[leaf]!;
      return previous === NONE ? NONE : previous * NODE_MAX + counts[previous]! - 1;
    }
    if (index < counts[leaf]!) return leaf * NODE_MAX + index;
    const next = after[leaf]!;
    return next === NONE ? NONE : next * NODE_MAX;
  }

  #lastReaches(position: number, pfn: number, offset: number): boolean {
    const last = this.lastPfn(position);
    return last > pfn || (last === pfn && this.lastOffset(position) >= offset);
  }

  #endsBefore(position: number, pfn: number, offset: number): boolean {
    return !this.#lastReaches(position, pfn, offset);
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
