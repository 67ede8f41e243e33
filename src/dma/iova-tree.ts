/**
 * The tree of allocated IOVA ranges: which range an allocation gets, exactly as Linux 7.2 finds it.
 *
 * Source: drivers/iommu/iova.c: init_iova_domain, __alloc_and_insert_iova_range, iova_find_limit,
 * __cached_rbnode_insert_update, __cached_rbnode_delete_update, free_iova, reserve_iova.
 * Linux walks a red-black tree down from a cached node, range by range. The first gap that fits
 * below that node is what {@link RangeTree.findBelow} finds in logarithmic time, so the cached
 * nodes are kept as the two ends of their ranges. Page numbers count granules.
 */
import { assert } from "../errors.ts";
import { alignUp, PFN_LAST } from "../units.ts";
import { alignmentOf } from "./gap.ts";
import { ANCHOR_PFN, RangeTree } from "./range-tree.ts";

/** Returned where no IOVA can be had. Page 0 is never handed out. */
export const NO_IOVA = 0;

/** The range that a search starts from. */
interface CachedNode {
  first: number;
  last: number;
}

const anchor: CachedNode = { first: ANCHOR_PFN, last: ANCHOR_PFN };

/** Settings of a tree. */
export interface IovaTreeOptions {
  /** Lowest page that is handed out, at least 1. */
  readonly startPfn: number;
  /** First page above 4 GiB. */
  readonly limit32Pfn: number;
  /** Start every search at the top: not what Linux does. */
  readonly searchFromTop?: boolean;
}

/** Allocated and reserved ranges of one IOVA space. */
export class IovaTree {
  readonly startPfn: number;
  readonly limit32Pfn: number;
  readonly #searchFromTop: boolean;
  #ranges = new RangeTree();
  readonly #cached: CachedNode = { ...anchor };
  readonly #cached32: CachedNode = { ...anchor };
  #failed32Pages: number;

  /** Nodes that Linux's walk visited in the last {@link alloc}; 0 when it failed unsearched. */
  visited = 0;

  constructor(options: IovaTreeOptions) {
    assert(options.startPfn >= 1, "page 0 is never handed out");
    this.startPfn = options.startPfn;
    this.limit32Pfn = options.limit32Pfn;
    this.#searchFromTop = options.searchFromTop ?? false;
    this.#failed32Pages = options.limit32Pfn;
  }

  /** Number of ranges, allocated and reserved. */
  get size(): number {
    return this.#ranges.size;
  }

  /** Size of the last failed search: a request below 4 GiB of this size or more fails at once. */
  get failed32Pages(): number {
    return this.#failed32Pages;
  }

  /**
   * Takes the highest fitting range from the cached node down, else from the limit down to it.
   *
   * @param pages - at least 1
   * @param limitPfn - last page that may be taken
   * @param aligned - whether the start is aligned to the size rounded up to a power of two
   * @returns the first page, or {@link NO_IOVA}
   */
  alloc(pages: number, limitPfn: number, aligned: boolean): number {
    assert(pages >= 1 && limitPfn <= PFN_LAST, "a request has pages and a limit in the space");
    const ceiling = limitPfn + 1;
    const below4G = ceiling <= this.limit32Pfn;
    this.visited = 0;
    if (below4G && pages >= this.#failed32Pages) return NO_IOVA;

    const from = this.#searchFromTop ? anchor : below4G ? this.#cached32 : this.#cached;
    const { first, last: fromLast } = from;
    let start =
      first <= ceiling
        ? this.#search(first, 0, this.startPfn, pages, aligned)
        : this.#search(ceiling, fromLast, this.startPfn, pages, aligned);
    if (start === NO_IOVA && fromLast < ceiling) {
      // Once more, over the part above the cached node only.
      start = this.#search(ceiling, below4G ? 0 : ANCHOR_PFN, fromLast + 1, pages, aligned);
    }
    if (start === NO_IOVA) {
      this.#failed32Pages = pages;
      return NO_IOVA;
    }
    const last = start + pages - 1;
    this.#ranges.insert(start, last);
    const moved = last < this.limit32Pfn ? this.#cached32 : this.#cached;
    moved.first = start;
    moved.last = last;
    return start;
  }

  /**
   * Searches down from `ceiling`, and adds to `visited` what Linux's walk would have visited: it
   * begins at the range that ends at `fromLast` (0: at the first one that reaches `ceiling`) and
   * gives up at the first range too low for a start at `floor`.
   *
   * @returns the highest start that fits, or {@link NO_IOVA} when it lies below `floor`
   */
  #search(
    ceiling: number,
    fromLast: number,
    floor: number,
    pages: number,
    aligned: boolean,
  ): number {
    const ranges = this.#ranges;
    const skipped =
      fromLast === 0 ? 0 : ranges.countEndingBelow(fromLast) - ranges.countEndingBelow(ceiling);
    const start = ranges.findBelow(ceiling, pages, aligned);
    if (start >= floor) {
      this.visited += skipped + ranges.passed;
      return start;
    }
    const tooLow = alignUp(floor, aligned ? alignmentOf(pages) : 1) + pages;
    const begin = ranges.countEndingBelow(ceiling) + skipped;
    const end = ceiling < tooLow ? begin : Math.min(begin, ranges.countStartingBelow(tooLow) - 1);
    this.visited += begin - end + 1;
    return NO_IOVA;
  }

  /**
   * Gives the range that holds `pfn` back.
   *
   * @returns how many pages it had; 0 when `pfn` is not allocated
   */
  free(pfn: number): number {
    const ranges = this.#ranges;
    ranges.seek(pfn);
    const { first, last } = ranges;
    if (first > pfn) return 0;
    ranges.remove();
    const cached32 = this.#cached32;
    const below4G = last < this.limit32Pfn && first >= cached32.first;
    if (last === cached32.last || below4G) {
      cached32.first = ranges.first;
      cached32.last = ranges.last;
    }
    if (first < this.limit32Pfn) this.#failed32Pages = this.limit32Pfn;
    if (first >= this.#cached.first) {
      this.#cached.first = ranges.first;
      this.#cached.last = ranges.last;
    }
    return last - first + 1;
  }

  /** Pages of the range that holds `pfn`; 0 when it is free. */
  pagesAt(pfn: number): number {
    this.#ranges.seek(pfn);
    const { first, last } = this.#ranges;
    return first > pfn ? 0 : last - first + 1;
  }

  /**
   * Takes [firstPfn, lastPfn] out of the space for good: ranges that it touches grow down to it,
   * and what lies above the last of them becomes a range of its own.
   *
   * @returns how many pages below 4 GiB were free before
   */
  reserve(firstPfn: number, lastPfn: number): number {
    assert(firstPfn >= 0 && lastPfn <= PFN_LAST, "a reservation lies in the space");
    assert(firstPfn <= lastPfn, "a reservation has pages");
    const ranges = this.#ranges;
    const end32 = this.limit32Pfn;
    let from = firstPfn;
    let taken32 = 0;
    ranges.seek(from);
    while (ranges.first <= lastPfn) {
      const { last } = ranges;
      if (from < ranges.first) {
        taken32 += Math.max(0, Math.min(end32, ranges.first) - from);
        ranges.extendDown(from);
        if (last === this.#cached32.last) this.#cached32.first = from;
        if (last === this.#cached.last) this.#cached.first = from;
      }
      if (lastPfn <= last) return taken32;
      from = last + 1;
      ranges.seek(from);
    }
    ranges.insert(from, lastPfn);
    return taken32 + Math.max(0, Math.min(end32, lastPfn + 1) - from);
  }

  /** Pages of the largest gap below `ceiling`, page 0 included where it is free. */
  largestGapBelow(ceiling: number): number {
    return this.#ranges.largestGapBelow(ceiling);
  }

  /** Every range from the lowest up. */
  [Symbol.iterator](): Iterator<{ first: number; last: number }> {
    return this.#ranges[Symbol.iterator]();
  }

  /** An independent copy. */
  clone(): IovaTree {
    const copy = new IovaTree({
      startPfn: this.startPfn,
      limit32Pfn: this.limit32Pfn,
      searchFromTop: this.#searchFromTop,
    });
    copy.#ranges = this.#ranges.clone();
    Object.assign(copy.#cached, this.#cached);
    Object.assign(copy.#cached32, this.#cached32);
    copy.#failed32Pages = this.#failed32Pages;
    return copy;
  }
}
