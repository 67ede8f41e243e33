/**
 * The mapper: writes leaves and the tables above them, for every format.
 *
 * Budget: 3 ns an entry for contiguous 4 KiB pages, 50 ns for a single page
 * (bench/page-table.bench.ts).
 *
 * Source: drivers/iommu/generic_pt/iommu_pt.h: map_range, __map_range, __map_range_leaf,
 * clear_contig, increase_top; drivers/iommu/io-pgtable-arm.c: arm_lpae_map_pages,
 * arm_lpae_init_pte. A mapping that fails part-way leaves what it has mapped, tells how much in
 * {@link TableMapper.mappedPages}, and leaves new, empty tables in the tree.
 */
import { Errno } from "../errno.ts";
import { assert } from "../errors.ts";
import { createLocation, type FrameLocation } from "../memory/page-pool.ts";
import { Step } from "../meter.ts";
import {
  alignDown,
  isAligned,
  modulo,
  PAGE_BYTES,
  PAGE_SHIFT,
  PFN_LAST,
  powerOfTwo,
} from "../units.ts";
import {
  addressHighOf,
  addressLowOf,
  EntryKind,
  type EntryWords,
  entryIndex,
  entryPfn,
  highBits,
} from "./formats/format.ts";
import { IotlbGather } from "./gather.ts";
import { choosePageRun, type PageRun } from "./page-size.ts";
import { Prot } from "./prot.ts";
import type { TableTree } from "./table-tree.ts";

const FRAMES_4_GIB = 2 ** 20;

/** Maps into one tree. */
export class TableMapper {
  /** Frames that the last call really mapped, also when it failed. */
  mappedPages = 0;
  /**
   * Tables that gave way to a large leaf, and what they spanned. When there are any, the caller
   * invalidates this range before the map call returns, then frees them.
   */
  readonly replaced = new IotlbGather();
  readonly #tree: TableTree;
  readonly #at: FrameLocation = createLocation();
  readonly #leaf: EntryWords = { low: 0, high: 0 };
  readonly #run: PageRun = { pageShift: 0, count: 0 };
  #occupied: number = Errno.EADDRINUSE;

  constructor(tree: TableTree) {
    this.#tree = tree;
  }

  /** Maps a range with the rules of generic page tables. @returns an errno */
  map(iovaPfn: number, physPfn: number, pages: number, prot: number): number {
    const { format } = this.#tree;
    this.mappedPages = 0;
    assert(iovaPfn >= 0 && iovaPfn <= PFN_LAST, "a frame number lies in 0 … 2^52 - 1");
    if ((prot & (Prot.READ | Prot.WRITE)) === 0) return Errno.EINVAL;
    if (physPfn >= format.physEnd || pages > format.physEnd - physPfn) return Errno.ERANGE;
    const granuleLevelErrno = format.encodeLeaf(prot, 0, format.granuleShift, this.#leaf);
    if (granuleLevelErrno !== Errno.OK) return granuleLevelErrno;
    if (pages <= 0) return Errno.EINVAL;
    if (pages - 1 > PFN_LAST - iovaPfn) return Errno.EOVERFLOW;
    const run = this.#run;
    if (pages === 1 && format.pageShifts[0] === PAGE_SHIFT) {
      run.pageShift = PAGE_SHIFT;
      run.count = 1;
    } else if (!choosePageRun(format.pageShifts, iovaPfn, physPfn, pages, run)) {
      return Errno.ENXIO;
    }
    const rangeErrno = this.#growTop(iovaPfn, iovaPfn + pages - 1);
    if (rangeErrno !== Errno.OK) return rangeErrno;
    this.#occupied = Errno.EADDRINUSE;
    for (;;) {
      const done = this.mappedPages;
      const errno = this.#mapRun(iovaPfn + done, physPfn + done, prot);
      if (errno !== Errno.OK || this.mappedPages === pages) return errno;
      const now = this.mappedPages;
      choosePageRun(format.pageShifts, iovaPfn + now, physPfn + now, pages - now, run);
    }
  }

  /** Maps `count` pages of one size with the rules of Arm's LPAE tables. @returns an errno */
  mapPages(
    iovaPfn: number,
    physPfn: number,
    pageShift: number,
    count: number,
    prot: number,
  ): number {
    const { format } = this.#tree;
    this.mappedPages = 0;
    assert(iovaPfn >= 0 && iovaPfn <= PFN_LAST, "a frame number lies in 0 … 2^52 - 1");
    if ((format.levelOfShift[pageShift] ?? -1) < 0 || count <= 0) return Errno.EINVAL;
    const frames = powerOfTwo(pageShift - PAGE_SHIFT);
    if (!isAligned(iovaPfn, frames) || !isAligned(physPfn, frames)) return Errno.EINVAL;
    const pages = count * frames;
    if (pages - 1 > PFN_LAST - iovaPfn) return Errno.ERANGE;
    if (physPfn >= format.physEnd || pages > format.physEnd - physPfn) return Errno.ERANGE;
    if (!format.spans(iovaPfn, iovaPfn + pages - 1)) return Errno.ERANGE;
    if ((prot & (Prot.READ | Prot.WRITE)) === 0) return Errno.EINVAL;
    const rangeErrno = this.#growTop(iovaPfn, iovaPfn + pages - 1);
    if (rangeErrno !== Errno.OK) return rangeErrno;
    this.#occupied = Errno.EEXIST;
    this.#run.pageShift = pageShift;
    this.#run.count = count;
    return this.#mapRun(iovaPfn, physPfn, prot);
  }

  /** Maps `#run`, table by table. */
  #mapRun(iovaPfn: number, physPfn: number, prot: number): number {
    const tree = this.#tree;
    const { format } = tree;
    const { pageShift } = this.#run;
    const level = format.levelOfShift[pageShift]!;
    const errno = format.encodeLeaf(prot, level, pageShift, this.#leaf);
    if (errno !== Errno.OK) return errno;
    const slotOrder = pageShift - PAGE_SHIFT - format.shiftOf[level]!;
    const frames = powerOfTwo(pageShift - PAGE_SHIFT);
    let iova = iovaPfn;
    let phys = physPfn;
    for (let left = this.#run.count; left > 0; ) {
      const descendErrno = this.#descend(iova, level);
      if (descendErrno !== Errno.OK) return descendErrno;
      const mask = format.maskOf[level]!;
      const index = entryIndex(iova >>> 0, highBits(iova), format.shiftOf[level]!, mask);
      const batch = Math.min(left, (mask + 1 - index) >> slotOrder);
      const word = this.#at.index + 2 * index;
      if (this.#occupied === Errno.EEXIST && this.#holdsLeaf(word, batch << slotOrder, level)) {
        return Errno.EEXIST;
      }
      const done =
        slotOrder === 0
          ? this.#fillPages(word, batch, level, iova, phys)
          : this.#fillContiguous(word, batch, level, slotOrder, iova, phys);
      if (done > 0) tree.meter.step(Step.entryWrite, done << slotOrder, this.#at.node);
      this.mappedPages += done * frames;
      if (done < batch) return this.#occupied;
      iova += batch * frames;
      phys += batch * frames;
      left -= batch;
    }
    return Errno.OK;
  }

  /** Finds the table of a level above a frame, makes the missing ones; leaves it in `#at`. */
  #descend(iovaPfn: number, targetLevel: number): number {
    const tree = this.#tree;
    const { format } = tree;
    const at = this.#at;
    const low = iovaPfn >>> 0;
    const high = highBits(iovaPfn);
    let pfn = tree.rootPfn;
    for (let level = tree.topLevel; level > targetLevel; level -= 1) {
      tree.locate(pfn, at);
      const index = entryIndex(low, high, format.shiftOf[level]!, format.maskOf[level]!);
      const word = at.index + 2 * index;
      const entryLow = at.words[word]! | 0;
      const entryHigh = at.words[word + 1]! | 0;
      if ((entryLow | entryHigh) === 0) {
        pfn = tree.allocateTable(level - 1, format.tableOrder);
        if (pfn < 0) return Errno.ENOMEM;
        tree.linkTable(at, word, level, pfn);
      } else if (tree.kindOf(level, entryLow) === EntryKind.TABLE) {
        pfn = entryPfn(format, entryLow, entryHigh);
      } else {
        return this.#occupied;
      }
    }
    tree.locate(pfn, at);
    return Errno.OK;
  }

  /** Writes leaves of the level's own size. @returns how many, fewer than `count` at one in use */
  #fillPages(word: number, count: number, level: number, iovaPfn: number, physPfn: number): number {
    const { format } = this.#tree;
    const { words } = this.#at;
    const attributes = this.#leaf;
    const frames = format.entryFramesOf[level]!;
    const step = frames < FRAMES_4_GIB ? frames * PAGE_BYTES : 0;
    let done = 0;
    while (done < count) {
      const phys = physPfn + done * frames;
      // Within 4 GiB of physical memory only the low word changes from leaf to leaf.
      const toCarry =
        step === 0 ? 1 : Math.ceil((FRAMES_4_GIB - modulo(phys, FRAMES_4_GIB)) / frames);
      const high = addressHighOf(format, phys) | attributes.high;
      const stop = word + 2 * Math.min(count, done + toCarry);
      let low = addressLowOf(format, phys) | attributes.low;
      let at = word + 2 * done;
      for (; at < stop && (words[at]! | words[at + 1]!) === 0; at += 2) {
        words[at] = low;
        words[at + 1] = high;
        low = (low + step) | 0;
      }
      done = (at - word) / 2;
      if (at < stop && !this.#clearSlot(at, level, iovaPfn + done * frames)) break;
    }
    return done;
  }

  /** Writes leaves that fill 2^slotOrder entries each. @returns how many leaves */
  #fillContiguous(
    word: number,
    count: number,
    level: number,
    slotOrder: number,
    iovaPfn: number,
    physPfn: number,
  ): number {
    const { format } = this.#tree;
    const { words } = this.#at;
    const slotFrames = format.entryFramesOf[level]!;
    const slots = 1 << slotOrder;
    for (let done = 0; done < count; done += 1) {
      const first = word + 2 * slots * done;
      for (let slot = 0; slot < slots; slot += 1) {
        const at = first + 2 * slot;
        if ((words[at]! | words[at + 1]!) === 0) continue;
        const iova = iovaPfn + (done * slots + slot) * slotFrames;
        if (!this.#clearSlot(at, level, iova)) return done;
      }
      const phys = physPfn + done * slots * slotFrames;
      const low = addressLowOf(format, phys) | this.#leaf.low;
      const high = addressHighOf(format, phys) | this.#leaf.high;
      for (let at = first; at < first + 2 * slots; at += 2) {
        words[at] = low;
        words[at + 1] = high;
      }
    }
    return count;
  }

  /** Whether one of `slots` entries is a leaf, which Arm's mapper finds out before it writes. */
  #holdsLeaf(word: number, slots: number, level: number): boolean {
    const { words } = this.#at;
    for (let at = word; at < word + 2 * slots; at += 2) {
      if ((words[at]! | words[at + 1]!) === 0) continue;
      if (this.#tree.kindOf(level, words[at]! | 0) !== EntryKind.TABLE) return true;
    }
    return false;
  }

  /** Takes the table out of an entry in the way, if the rules allow. @returns whether they do */
  #clearSlot(word: number, level: number, iovaPfn: number): boolean {
    const tree = this.#tree;
    const { format } = tree;
    const { words, node } = this.#at;
    const low = words[word]! | 0;
    if (tree.kindOf(level, low) !== EntryKind.TABLE) return false;
    const pfn = entryPfn(format, low, words[word + 1]! | 0);
    // Arm's mapper drops a table with all it holds, the generic one only an empty one.
    const mayHoldLeaves = this.#occupied === Errno.EEXIST;
    if (!mayHoldLeaves && tree.holdsLeaf(level - 1, pfn)) return false;
    words[word] = 0;
    words[word + 1] = 0;
    tree.meter.step(Step.entryWrite, 1, node);
    tree.unlinkBelow(level - 1, pfn, this.replaced);
    const frames = format.entryFramesOf[level]!;
    this.replaced.addRange(alignDown(iovaPfn, frames), frames);
    return true;
  }

  /** Puts tables on top of a growing top until the range fits. @returns an errno */
  #growTop(firstPfn: number, lastPfn: number): number {
    const tree = this.#tree;
    const { format } = tree;
    if (tree.spans(firstPfn, lastPfn)) return Errno.OK;
    if (!format.spans(firstPfn, lastPfn)) return Errno.ERANGE;
    const tops: number[] = [];
    let level = tree.topLevel;
    while (level < format.topLevelMax && lastPfn >= format.tableFramesOf[level]!) {
      level += 1;
      const pfn = tree.allocateTable(level, format.tableOrder);
      if (pfn < 0) {
        for (const [index, top] of tops.entries())
          tree.freeUnlinked(tree.topLevel + 1 + index, top);
        return Errno.ENOMEM;
      }
      tops.push(pfn);
    }
    for (const pfn of tops) {
      tree.locate(pfn, this.#at);
      tree.linkTable(this.#at, this.#at.index, tree.topLevel + 1, tree.rootPfn);
      tree.rootPfn = pfn;
      tree.topLevel += 1;
    }
    return Errno.OK;
  }
}
