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
  entryPfn,
} from "./formats/format.ts";
import { IotlbGather } from "./gather.ts";
import { choosePageRun, type PageRun } from "./page-size.ts";
import { PROT_RW } from "./prot.ts";
import type { TableCursor } from "./table-cursor.ts";
import type { TableTree } from "./table-tree.ts";

const FRAMES_4_GIB = 2 ** 20;
const ENTRY_WRITE = Step.entryWrite;

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
  readonly #cursor: TableCursor;
  readonly #leaf: EntryWords = { low: 0, high: 0 };
  readonly #run: PageRun = { pageShift: 0, count: 0 };
  /** What `#leaf` was encoded for; −1 for nothing. */
  #leafKey = -1;
  /** Whether the rules of Arm's mapper hold for this call. */
  #isArm = false;
  /** Whether the table under the cursor has just been made and is empty. */
  #isFresh = false;

  constructor(tree: TableTree, cursor: TableCursor) {
    this.#tree = tree;
    this.#cursor = cursor;
  }

  /** Maps a range with the rules of generic page tables. @returns an errno */
  map(iovaPfn: number, physPfn: number, pages: number, prot: number): number {
    const tree = this.#tree;
    const { format } = tree;
    this.mappedPages = 0;
    assert(iovaPfn >= 0 && iovaPfn <= PFN_LAST, "a frame number lies in 0 … 2^52 - 1");
    if ((prot & PROT_RW) === 0) return Errno.EINVAL;
    if (physPfn >= format.physEnd || pages > format.physEnd - physPfn) return Errno.ERANGE;
    const protErrno = this.#encodeLeaf(prot, 0, format.granuleShift);
    if (protErrno !== 0) return protErrno;
    if (pages <= 0) return Errno.EINVAL;
    if (pages - 1 > PFN_LAST - iovaPfn) return Errno.EOVERFLOW;
    const smallest = format.pageShifts[0]!;
    const isSingle = pages === 1 && smallest === PAGE_SHIFT;
    const run = this.#run;
    if (!isSingle) {
      // A rest that no page fits is found here, and not after all before it was mapped.
      if (!isAligned(pages, powerOfTwo(smallest - PAGE_SHIFT))) return Errno.ENXIO;
      if (!choosePageRun(format.pageShifts, iovaPfn, physPfn, pages, run)) return Errno.ENXIO;
    }
    const rangeErrno = this.#growTop(iovaPfn, iovaPfn + pages - 1);
    if (rangeErrno !== 0) return rangeErrno;
    this.#isArm = false;
    if (isSingle) return this.#mapSingle(iovaPfn, physPfn);
    for (;;) {
      const done = this.mappedPages;
      const errno = this.#mapRun(iovaPfn + done, physPfn + done, prot);
      if (errno !== 0 || this.mappedPages === pages) return errno;
      const now = this.mappedPages;
      choosePageRun(format.pageShifts, iovaPfn + now, physPfn + now, pages - now, run);
    }
  }

  /**
   * Maps pages of 4 KiB side by side, each to a frame of its own, as one call of `map` for each
   * does. `mappedPages` tells how many, also when one failed.
   *
   * @param pfns - the frames, `count` of them
   */
  mapEach(iovaPfn: number, pfns: Float64Array, count: number, prot: number): number {
    let done = 0;
    let errno = 0;
    while (done < count && errno === 0) {
      errno = this.map(iovaPfn + done, pfns[done]!, 1, prot);
      if (errno === 0) done += 1 + this.#fillBehind(pfns, done + 1, count);
    }
    this.mappedPages = done;
    return errno;
  }

  /** Fills empty entries of the table that the cursor is in. @returns how many, up to one that fails */
  #fillBehind(pfns: Float64Array, from: number, end: number): number {
    const { format, meter } = this.#tree;
    const { words, index, node } = this.#cursor;
    const { low, high } = this.#leaf;
    const last = Math.min(end, from + format.maskOf[0]! - index);
    let word = this.#cursor.word;
    let at = from;
    for (; at < last; at += 1) {
      const pfn = pfns[at]!;
      word += 2;
      if (pfn >= format.physEnd || (words[word]! | words[word + 1]!) !== 0) break;
      words[word] = addressLowOf(format, pfn) | low;
      words[word + 1] = addressHighOf(format, pfn) | high;
    }
    if (at > from) meter.step(ENTRY_WRITE, at - from, node);
    return at - from;
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
    if ((prot & PROT_RW) === 0) return Errno.EINVAL;
    const rangeErrno = this.#growTop(iovaPfn, iovaPfn + pages - 1);
    if (rangeErrno !== 0) return rangeErrno;
    this.#isArm = true;
    this.#run.pageShift = pageShift;
    this.#run.count = count;
    return this.#mapRun(iovaPfn, physPfn, prot);
  }

  /** Maps one page of 4 KiB with the attributes in `#leaf`. */
  #mapSingle(iovaPfn: number, physPfn: number): number {
    const { format, meter } = this.#tree;
    const cursor = this.#cursor;
    const errno = this.#descend(iovaPfn, 0);
    if (errno !== 0) return errno;
    const { words, word } = cursor;
    if ((words[word]! | words[word + 1]!) !== 0) return Errno.EADDRINUSE;
    words[word] = addressLowOf(format, physPfn) | this.#leaf.low;
    words[word + 1] = addressHighOf(format, physPfn) | this.#leaf.high;
    meter.step(ENTRY_WRITE, 1, cursor.node);
    this.mappedPages = 1;
    return 0;
  }

  /** Maps `#run`, table by table. */
  #mapRun(iovaPfn: number, physPfn: number, prot: number): number {
    const { format, meter } = this.#tree;
    const cursor = this.#cursor;
    const { pageShift } = this.#run;
    const level = format.levelOfShift[pageShift]!;
    const errno = this.#encodeLeaf(prot, level, pageShift);
    if (errno !== 0) return errno;
    const slotOrder = pageShift - PAGE_SHIFT - format.shiftOf[level]!;
    const entries = format.maskOf[level]! + 1;
    const frames = powerOfTwo(pageShift - PAGE_SHIFT);
    const mappedBefore = this.mappedPages;
    let left = this.#run.count;
    let done = 0;
    while (left > 0) {
      const iova = iovaPfn + done;
      const phys = physPfn + done;
      const descendErrno = this.#descend(iova, level);
      if (descendErrno !== 0) return descendErrno;
      const batch = Math.min(left, (entries - cursor.index) >> slotOrder);
      if (this.#isArm && this.#holdsLeaf(batch << slotOrder)) return Errno.EEXIST;
      const filled =
        slotOrder === 0
          ? this.#fillPages(batch, iova, phys)
          : this.#fillContiguous(batch, slotOrder, iova, phys);
      if (filled > 0) meter.step(ENTRY_WRITE, filled << slotOrder, cursor.node);
      done += filled * frames;
      this.mappedPages = mappedBefore + done;
      if (filled < batch) return this.#occupied();
      left -= batch;
    }
    return 0;
  }

  /** Goes to the entry of a level above a frame and makes the missing tables. @returns an errno */
  #descend(iovaPfn: number, level: number): number {
    const tree = this.#tree;
    const cursor = this.#cursor;
    cursor.descend(iovaPfn, level);
    this.#isFresh = false;
    while (cursor.level > level) {
      if (!cursor.isEmpty) return this.#occupied();
      const childLevel = cursor.level - 1;
      const pfn = tree.allocateTable(childLevel, tree.format.tableOrder);
      if (pfn < 0) return Errno.ENOMEM;
      tree.linkTable(cursor, pfn);
      cursor.enter(pfn, childLevel, tree.indexOf(childLevel, iovaPfn));
      this.#isFresh = true;
    }
    return 0;
  }

  /** Puts the words of a leaf at physical address 0 into `#leaf`. @returns an errno */
  #encodeLeaf(prot: number, level: number, pageShift: number): number {
    const key = (prot << 9) | (level << 6) | pageShift;
    if (key === this.#leafKey) return 0;
    const errno = this.#tree.format.encodeLeaf(prot, level, pageShift, this.#leaf);
    this.#leafKey = errno === 0 ? key : -1;
    return errno;
  }

  /** The error for an entry that is in use. */
  #occupied(): number {
    return this.#isArm ? Errno.EEXIST : Errno.EADDRINUSE;
  }

  /** Writes leaves of the level's own size. @returns how many, fewer than `count` at one in use */
  #fillPages(count: number, iovaPfn: number, physPfn: number): number {
    const { format } = this.#tree;
    const { words, word, level } = this.#cursor;
    const attributes = this.#leaf;
    const order = format.shiftOf[level]!;
    const frames = powerOfTwo(order);
    const step = order < 20 ? PAGE_BYTES << order : 0;
    let done = 0;
    while (done < count) {
      const phys = physPfn + done * frames;
      // Within 4 GiB of physical memory only the low word changes from leaf to leaf.
      const toCarry =
        step === 0 ? 1 : Math.ceil((FRAMES_4_GIB - modulo(phys, FRAMES_4_GIB)) / frames);
      const high = addressHighOf(format, phys) | attributes.high;
      const low = addressLowOf(format, phys) | attributes.low;
      const start = word + 2 * done;
      const stop = word + 2 * Math.min(count, done + toCarry);
      const end = this.#isFresh
        ? fillFresh(words, start, stop, low, high, step)
        : fillEmpty(words, start, stop, low, high, step);
      done = (end - word) >> 1;
      if (end < stop && !this.#clearSlot(end, iovaPfn + done * frames)) break;
    }
    return done;
  }

  /** Writes leaves that fill 2^slotOrder entries each. @returns how many leaves */
  #fillContiguous(count: number, slotOrder: number, iovaPfn: number, physPfn: number): number {
    const { format } = this.#tree;
    const { words, word, level } = this.#cursor;
    const slotFrames = format.entryFramesOf[level]!;
    const slots = 1 << slotOrder;
    for (let done = 0; done < count; done += 1) {
      const first = word + 2 * slots * done;
      const stop = first + 2 * slots;
      for (let at = first; at < stop && !this.#isFresh; at += 2) {
        if ((words[at]! | words[at + 1]!) === 0) continue;
        const iova = iovaPfn + ((at - word) >> 1) * slotFrames;
        if (!this.#clearSlot(at, iova)) return done;
      }
      const phys = physPfn + done * slots * slotFrames;
      const low = addressLowOf(format, phys) | this.#leaf.low;
      const high = addressHighOf(format, phys) | this.#leaf.high;
      fillFresh(words, first, stop, low, high, 0);
    }
    return count;
  }

  /** Whether one of `slots` entries is a leaf, which Arm's mapper finds out before it writes. */
  #holdsLeaf(slots: number): boolean {
    const { words, word, level } = this.#cursor;
    if (this.#isFresh) return false;
    for (let at = word; at < word + 2 * slots; at += 2) {
      if ((words[at]! | words[at + 1]!) === 0) continue;
      if (level === 0 || this.#tree.format.kindOf(level, words[at]! | 0) !== EntryKind.TABLE) {
        return true;
      }
    }
    return false;
  }

  /** Takes the table out of an entry in the way, if the rules allow. @returns whether they do */
  #clearSlot(word: number, iovaPfn: number): boolean {
    const tree = this.#tree;
    const { format } = tree;
    const { words, node, level } = this.#cursor;
    const low = words[word]! | 0;
    if (level === 0 || format.kindOf(level, low) !== EntryKind.TABLE) return false;
    const pfn = entryPfn(format, low, words[word + 1]! | 0);
    // Arm's mapper drops a table with all it holds, the generic one only an empty one.
    if (!this.#isArm && tree.holdsLeaf(level - 1, pfn)) return false;
    words[word] = 0;
    words[word + 1] = 0;
    tree.meter.step(ENTRY_WRITE, 1, node);
    tree.unlinkBelow(level - 1, pfn, this.replaced);
    const frames = format.entryFramesOf[level]!;
    this.replaced.addRange(alignDown(iovaPfn, frames), frames);
    return true;
  }

  /** Puts tables on top of a growing top until the range fits. @returns an errno */
  #growTop(firstPfn: number, lastPfn: number): number {
    const tree = this.#tree;
    const { format } = tree;
    if (tree.spans(firstPfn, lastPfn)) return 0;
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
    const cursor = this.#cursor;
    for (const pfn of tops) {
      cursor.enter(pfn, tree.topLevel + 1, 0);
      tree.linkTable(cursor, tree.rootPfn);
      tree.setTop(pfn, tree.topLevel + 1);
    }
    return 0;
  }
}

/** Writes leaves one after another. @returns `stop` */
function fillFresh(
  words: Uint32Array,
  start: number,
  stop: number,
  firstLow: number,
  high: number,
  step: number,
): number {
  let low = firstLow | 0;
  for (let at = start; at < stop; at += 2) {
    words[at] = low;
    words[at + 1] = high;
    low = (low + step) | 0;
  }
  return stop;
}

/** Writes leaves one after another as long as the entries are empty. @returns where it stopped */
function fillEmpty(
  words: Uint32Array,
  start: number,
  stop: number,
  firstLow: number,
  high: number,
  step: number,
): number {
  let low = firstLow | 0;
  let at = start;
  for (; at < stop; at += 2) {
    if ((words[at]! | 0 | (words[at + 1]! | 0)) !== 0) break;
    words[at] = low;
    words[at + 1] = high;
    low = (low + step) | 0;
  }
  return at;
}
