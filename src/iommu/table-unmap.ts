/**
 * The unmapper: clears leaves and cuts off tables, for every format.
 *
 * A table is cut off when one call covers all that it spans and finds no hole in it. It goes on
 * the gather's list and keeps its memory until the invalidation is complete.
 *
 * Source: drivers/iommu/generic_pt/iommu_pt.h:__unmap_range;
 * drivers/iommu/io-pgtable-arm.c:__arm_lpae_unmap.
 */
import { assert } from "../errors.ts";
import { createLocation, type FrameLocation } from "../memory/page-pool.ts";
import { Step } from "../meter.ts";
import { isAligned, modulo, PAGE_SHIFT, PFN_LAST, powerOfTwo } from "../units.ts";
import {
  contiguousShift,
  EntryKind,
  entryIndex,
  entryPfn,
  highBits,
  LEVELS_MAX,
} from "./formats/format.ts";
import type { IotlbGather } from "./gather.ts";
import type { TableTree } from "./table-tree.ts";

/** Unmaps from one tree. */
export class TableUnmapper {
  readonly #tree: TableTree;
  /** One place for each level, as an unmap holds one table of each. */
  readonly #at: readonly FrameLocation[] = Array.from({ length: LEVELS_MAX }, createLocation);
  #unmapped = 0;
  #gather: IotlbGather | null = null;

  constructor(tree: TableTree) {
    this.#tree = tree;
  }

  /**
   * Unmaps a range with the rules of generic page tables.
   *
   * @returns frames unmapped: 0 when the start lies inside a larger page, fewer than asked at a
   *   hole, more when the last page reaches beyond the end
   */
  unmap(iovaPfn: number, pages: number, gather: IotlbGather): number {
    const tree = this.#tree;
    assert(iovaPfn >= 0 && iovaPfn <= PFN_LAST, "a frame number lies in 0 … 2^52 - 1");
    if (pages <= 0 || pages - 1 > PFN_LAST - iovaPfn) return 0;
    const lastPfn = iovaPfn + pages - 1;
    if (!tree.spans(iovaPfn, lastPfn)) return 0;
    this.#unmapped = 0;
    this.#gather = gather;
    this.#unmapIn(tree.topLevel, tree.rootPfn, iovaPfn, lastPfn);
    this.#gather = null;
    return this.#unmapped;
  }

  /** Unmaps inside one table. @returns false when it came to something that stops the unmap */
  #unmapIn(level: number, tablePfn: number, firstPfn: number, lastPfn: number): boolean {
    const tree = this.#tree;
    const { format } = tree;
    const at = this.#at[level]!;
    const shift = format.shiftOf[level]!;
    const mask = format.maskOf[level]!;
    tree.locate(tablePfn, at);
    const { words } = at;
    const lastIndex = entryIndex(lastPfn >>> 0, highBits(lastPfn), shift, mask);
    let index = entryIndex(firstPfn >>> 0, highBits(firstPfn), shift, mask);
    let first = firstPfn;
    let cleared = 0;
    let isWhole = true;
    while (index <= lastIndex) {
      const word = at.index + 2 * index;
      const low = words[word]! | 0;
      const high = words[word + 1]! | 0;
      isWhole = false;
      if ((low | high) === 0) break;
      const kind = tree.kindOf(level, low);
      if (kind === EntryKind.TABLE) {
        const frames = format.entryFramesOf[level]!;
        const spanLast = first - modulo(first, frames) + frames - 1;
        const childPfn = entryPfn(format, low, high);
        const childLast = Math.min(lastPfn, spanLast);
        if (!this.#unmapIn(level - 1, childPfn, first, childLast)) break;
        if (spanLast <= lastPfn && isAligned(first, frames)) {
          words[word] = 0;
          words[word + 1] = 0;
          cleared += 1;
          tree.unlinkTable(level - 1);
          this.#gather!.addTable(childPfn);
        }
        first = spanLast + 1;
        index += 1;
      } else {
        const order =
          kind === EntryKind.CONTIGUOUS ? contiguousShift(low, high) - PAGE_SHIFT : shift;
        const frames = powerOfTwo(order);
        if (!isAligned(first, frames)) break;
        const slots = 1 << (order - shift);
        words.fill(0, word, word + 2 * slots);
        cleared += slots;
        this.#unmapped += frames;
        first += frames;
        index += slots;
      }
      isWhole = true;
    }
    if (cleared > 0) tree.meter.step(Step.entryWrite, cleared, at.node);
    return isWhole;
  }

  /**
   * Unmaps `count` pages of one size with the rules of Arm's LPAE tables.
   *
   * @returns frames unmapped: 0 when the start lies inside a larger page; stops at a hole
   */
  unmapPages(iovaPfn: number, pageShift: number, count: number, gather: IotlbGather): number {
    const tree = this.#tree;
    const { format } = tree;
    assert(iovaPfn >= 0 && iovaPfn <= PFN_LAST, "a frame number lies in 0 … 2^52 - 1");
    const level = format.levelOfShift[pageShift] ?? -1;
    if (level < 0 || count <= 0) return 0;
    const frames = powerOfTwo(pageShift - PAGE_SHIFT);
    if (!isAligned(iovaPfn, frames) || count * frames - 1 > PFN_LAST - iovaPfn) return 0;
    if (!tree.spans(iovaPfn, iovaPfn + count * frames - 1)) return 0;
    const slots = 1 << (pageShift - PAGE_SHIFT - format.shiftOf[level]!);
    const mask = format.maskOf[level]!;
    let done = 0;
    while (done < count) {
      const iova = iovaPfn + done * frames;
      const at = this.#locate(iova, level);
      if (at === null) break;
      const index = entryIndex(iova >>> 0, highBits(iova), format.shiftOf[level]!, mask);
      const batch = Math.min(count - done, Math.floor((mask + 1 - index) / slots));
      const cleared = this.#clearPages(at, index, batch, slots, level, gather);
      if (cleared > 0) tree.meter.step(Step.entryWrite, cleared * slots, at.node);
      done += cleared;
      if (cleared < batch) break;
    }
    return done * frames;
  }

  /** Finds the table of a level above a frame; null when there is none. */
  #locate(iovaPfn: number, targetLevel: number): FrameLocation | null {
    const tree = this.#tree;
    const { format } = tree;
    const at = this.#at[targetLevel]!;
    let pfn = tree.rootPfn;
    for (let level = tree.topLevel; level > targetLevel; level -= 1) {
      tree.locate(pfn, at);
      const mask = format.maskOf[level]!;
      const index = entryIndex(iovaPfn >>> 0, highBits(iovaPfn), format.shiftOf[level]!, mask);
      const low = at.words[at.index + 2 * index]! | 0;
      const high = at.words[at.index + 2 * index + 1]! | 0;
      if ((low | high) === 0 || tree.kindOf(level, low) !== EntryKind.TABLE) return null;
      pfn = entryPfn(format, low, high);
    }
    tree.locate(pfn, at);
    return at;
  }

  #clearPages(
    at: FrameLocation,
    index: number,
    count: number,
    slots: number,
    level: number,
    gather: IotlbGather,
  ): number {
    const tree = this.#tree;
    const { format } = tree;
    const pageOrder = format.shiftOf[level]! + (31 - Math.clz32(slots));
    for (let done = 0; done < count; done += 1) {
      const word = at.index + 2 * (index + done * slots);
      const low = at.words[word]! | 0;
      const high = at.words[word + 1]! | 0;
      if ((low | high) === 0) return done;
      const kind = tree.kindOf(level, low);
      if (kind === EntryKind.TABLE) {
        if (slots !== 1) return done;
        tree.unlinkBelow(level - 1, entryPfn(format, low, high), gather);
      } else {
        const order =
          kind === EntryKind.CONTIGUOUS
            ? contiguousShift(low, high) - PAGE_SHIFT
            : format.shiftOf[level]!;
        if (order !== pageOrder) return done;
      }
      at.words.fill(0, word, word + 2 * slots);
    }
    return count;
  }
}
