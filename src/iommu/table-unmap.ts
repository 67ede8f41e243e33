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
  entryPfn,
  LEVELS_MAX,
  type PageTableFormat,
} from "./formats/format.ts";
import type { IotlbGather } from "./gather.ts";
import type { TableCursor } from "./table-cursor.ts";
import type { TableTree } from "./table-tree.ts";

const { CONTIGUOUS, LEAF, TABLE } = EntryKind;
const ENTRY_WRITE = Step.entryWrite;

/** Unmaps from one tree. */
export class TableUnmapper {
  /** Of what the last `unmapPages` took out, how many were tables instead of leaves. */
  cutBlocks = 0;
  readonly #tree: TableTree;
  /** One place for each level, as an unmap holds one table of each. */
  readonly #at: readonly FrameLocation[] = Array.from({ length: LEVELS_MAX }, createLocation);
  readonly #cursor: TableCursor;
  #unmapped = 0;
  #gather: IotlbGather | null = null;

  constructor(tree: TableTree, cursor: TableCursor) {
    this.#tree = tree;
    this.#cursor = cursor;
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
    if (pages === 1) return this.#unmapSingle(iovaPfn);
    this.#unmapped = 0;
    this.#gather = gather;
    this.#unmapIn(tree.topLevel, tree.rootPfn, iovaPfn, lastPfn);
    this.#gather = null;
    return this.#unmapped;
  }

  /** Unmaps the page that begins at a frame: a range of one frame covers no table. */
  #unmapSingle(iovaPfn: number): number {
    const { format, meter } = this.#tree;
    const cursor = this.#cursor;
    cursor.descend(iovaPfn, 0);
    const { words, word, level } = cursor;
    const low = words[word]! | 0;
    const high = words[word + 1]! | 0;
    if ((low | high) === 0) return 0;
    const slotOrder = leafOrder(format, level, low, high) - format.shiftOf[level]!;
    const frames = powerOfTwo(format.shiftOf[level]! + slotOrder);
    if (!isAligned(iovaPfn, frames)) return 0;
    const slots = 1 << slotOrder;
    for (let at = word; at < word + 2 * slots; at += 1) words[at] = 0;
    meter.step(ENTRY_WRITE, slots, cursor.node);
    return frames;
  }

  /** Unmaps inside one table. @returns false when it came to something that stops the unmap */
  #unmapIn(level: number, tablePfn: number, firstPfn: number, lastPfn: number): boolean {
    const tree = this.#tree;
    const { format } = tree;
    const at = this.#at[level]!;
    const shift = format.shiftOf[level]!;
    const entryFrames = format.entryFramesOf[level]!;
    tree.locate(tablePfn, at);
    const { words } = at;
    const lastIndex = tree.indexOf(level, lastPfn);
    let index = tree.indexOf(level, firstPfn);
    let first = firstPfn;
    let cleared = 0;
    let isWhole = true;
    while (index <= lastIndex) {
      const word = at.index + 2 * index;
      const low = words[word]! | 0;
      const high = words[word + 1]! | 0;
      isWhole = false;
      if ((low | high) === 0) break;
      if (format.kindOf(level, low) === TABLE) {
        const entryLast = first - modulo(first, entryFrames) + entryFrames - 1;
        const childPfn = entryPfn(format, low, high);
        const childLast = Math.min(lastPfn, entryLast);
        if (!this.#unmapIn(level - 1, childPfn, first, childLast)) break;
        if (entryLast <= lastPfn && isAligned(first, entryFrames)) {
          words[word] = 0;
          words[word + 1] = 0;
          cleared += 1;
          tree.unlinkTable(level - 1);
          this.#gather!.addTable(childPfn);
        }
        first = entryLast + 1;
        index += 1;
      } else {
        const order = leafOrder(format, level, low, high);
        if (!isAligned(first, powerOfTwo(order))) break;
        // Leaves of the level's own size come in runs.
        const slots =
          order === shift
            ? clearRun(format, level, words, word, at.index + 2 * lastIndex)
            : clearSlots(words, word, 1 << (order - shift));
        cleared += slots;
        this.#unmapped += slots * entryFrames;
        first += slots * entryFrames;
        index += slots;
      }
      isWhole = true;
    }
    if (cleared > 0) tree.meter.step(ENTRY_WRITE, cleared, at.node);
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
    this.cutBlocks = 0;
    while (done < count) {
      const iova = iovaPfn + done * frames;
      const cursor = this.#cursor;
      cursor.descend(iova, level);
      if (cursor.level !== level) break;
      const batch = Math.min(count - done, Math.floor((mask + 1 - cursor.index) / slots));
      const cleared = this.#clearPages(batch, slots, gather);
      if (cleared > 0) tree.meter.step(ENTRY_WRITE, cleared * slots, cursor.node);
      done += cleared;
      if (cleared < batch) break;
    }
    return done * frames;
  }

  /** Clears pages of `slots` entries each from the cursor on. @returns how many */
  #clearPages(count: number, slots: number, gather: IotlbGather): number {
    const tree = this.#tree;
    const { format } = tree;
    const { words, word, level } = this.#cursor;
    const pageOrder = format.shiftOf[level]! + (31 - Math.clz32(slots));
    for (let done = 0; done < count; done += 1) {
      const at = word + 2 * slots * done;
      const low = words[at]! | 0;
      const high = words[at + 1]! | 0;
      if ((low | high) === 0) return done;
      if (format.kindOf(level, low) === TABLE) {
        if (slots !== 1) return done;
        tree.unlinkBelow(level - 1, entryPfn(format, low, high), gather);
        this.cutBlocks += 1;
      } else if (leafOrder(format, level, low, high) !== pageOrder) {
        return done;
      }
      clearSlots(words, at, slots);
    }
    return count;
  }
}

/** log2 of the frames of a leaf that the mapper wrote. */
function leafOrder(format: PageTableFormat, level: number, low: number, high: number): number {
  if (format.kindOf(level, low) !== CONTIGUOUS) return format.shiftOf[level]!;
  return contiguousShift(low, high) - PAGE_SHIFT;
}

/** Clears entries. @returns how many */
function clearSlots(words: Uint32Array, word: number, slots: number): number {
  for (let at = word; at < word + 2 * slots; at += 1) words[at] = 0;
  return slots;
}

/**
 * Clears leaves of the level's own size, from `first` to `last` inclusive, up to something else.
 *
 * @returns how many, at least one
 */
function clearRun(
  format: PageTableFormat,
  level: number,
  words: Uint32Array,
  first: number,
  last: number,
): number {
  const isLeafOnly = level === 0 && !format.hasContiguous;
  let at = first;
  for (; at <= last; at += 2) {
    const low = words[at]! | 0;
    if ((low | words[at + 1]!) === 0) break;
    if (!isLeafOnly && format.kindOf(level, low) !== LEAF) break;
    words[at] = 0;
    words[at + 1] = 0;
  }
  return (at - first) >> 1;
}
