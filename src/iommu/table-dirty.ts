/**
 * Dirty tracking in the page table: which pages a device has written since they were made clean.
 *
 * Source: drivers/iommu/generic_pt/iommu_pt.h:read_and_clear_dirty;
 * drivers/iommu/io-pgtable-arm.c:arm_lpae_read_and_clear_dirty. Where the bits are is in
 * `formats/`. A page that several entries make is dirty when one of them is, and becomes clean in
 * all of them.
 */
import { Errno } from "../errno.ts";
import { assert } from "../errors.ts";
import { createLocation, type FrameLocation } from "../memory/page-pool.ts";
import { NULL_METER, Step } from "../meter.ts";
import { alignDown, PAGE_SHIFT, PFN_LAST, powerOfTwo } from "../units.ts";
import { contiguousShift, type DirtyLayout, EntryKind, entryPfn } from "./formats/format.ts";
import { Prot } from "./prot.ts";
import type { TableTree } from "./table-tree.ts";
import { TableWalker, WalkResult } from "./table-walk.ts";

/** Hears of `pages` dirty frames from `iovaPfn` on. */
export type DirtyReport = (iovaPfn: number, pages: number) => void;

/** Reads, clears and sets dirty state of one tree. */
export class TableDirty {
  readonly #tree: TableTree;
  readonly #walker: TableWalker;
  readonly #result = new WalkResult();
  readonly #at: FrameLocation = createLocation();

  constructor(tree: TableTree) {
    this.#tree = tree;
    this.#walker = new TableWalker(tree.format, tree.pool, NULL_METER);
  }

  /**
   * Reports every dirty page in a range, cut to the range, and makes it clean if asked to. The
   * caller invalidates what was made clean before it relies on it.
   *
   * @returns an errno: EINVAL when the format keeps no dirty state, ERANGE, EOVERFLOW, 0
   */
  read(iovaPfn: number, pages: number, isCleaning: boolean, report: DirtyReport): number {
    const tree = this.#tree;
    assert(iovaPfn >= 0 && iovaPfn <= PFN_LAST, "a frame number lies in 0 … 2^52 - 1");
    const { dirty } = tree.format;
    if (dirty === null || pages <= 0) return Errno.EINVAL;
    if (pages - 1 > PFN_LAST - iovaPfn) return Errno.EOVERFLOW;
    const lastPfn = iovaPfn + pages - 1;
    if (!tree.spans(iovaPfn, lastPfn)) return Errno.ERANGE;
    this.#readIn(dirty, tree.topLevel, tree.rootPfn, iovaPfn, lastPfn, isCleaning, report);
    return Errno.OK;
  }

  /** Does what hardware does on a write: sets the dirty state. @returns whether it could */
  mark(iovaPfn: number): boolean {
    const tree = this.#tree;
    const { format } = tree;
    const { dirty } = format;
    const result = this.#result;
    if (dirty === null) return false;
    if (!this.#walker.walk(tree.rootPfn, tree.topLevel, iovaPfn, result)) return false;
    if ((result.prot & Prot.WRITE) === 0) return false;
    const { level } = result;
    const at = this.#at;
    tree.locate(result.tablePfns[level]!, at);
    const word = at.index + 2 * tree.indexOf(level, iovaPfn);
    const low = at.words[word]! | 0;
    const high = at.words[word + 1]! | 0;
    if (isDirty(dirty, low, high)) return true;
    // A page that cannot become dirty, as one without Arm's modifier bit, has no state to set.
    if (!isDirty(dirty, low ^ dirty.lowFlip, high)) return false;
    at.words[word] = low ^ dirty.lowFlip;
    tree.meter.step(Step.entryWrite, 1, at.node);
    return true;
  }

  #readIn(
    dirty: DirtyLayout,
    level: number,
    tablePfn: number,
    firstPfn: number,
    lastPfn: number,
    isCleaning: boolean,
    report: DirtyReport,
  ): void {
    const tree = this.#tree;
    const { format } = tree;
    const at = createLocation();
    tree.locate(tablePfn, at);
    const shift = format.shiftOf[level]!;
    let first = firstPfn;
    while (first <= lastPfn) {
      const index = tree.indexOf(level, first);
      const word = at.index + 2 * index;
      const low = at.words[word]! | 0;
      const high = at.words[word + 1]! | 0;
      const isEmpty = (low | high) === 0;
      const kind = isEmpty ? EntryKind.RESERVED : tree.kindOf(level, low);
      const order = kind === EntryKind.CONTIGUOUS ? contiguousShift(low, high) - PAGE_SHIFT : shift;
      const last = Math.min(lastPfn, alignDown(first, powerOfTwo(order)) + powerOfTwo(order) - 1);
      if (kind === EntryKind.TABLE) {
        const childPfn = entryPfn(format, low, high);
        this.#readIn(dirty, level - 1, childPfn, first, last, isCleaning, report);
      } else if (!isEmpty) {
        const slots = 1 << (order - shift);
        const firstWord = at.index + 2 * alignDown(index, slots);
        if (this.#readLeaf(dirty, at, firstWord, slots, isCleaning)) {
          report(first, last - first + 1);
        }
      }
      first = last + 1;
    }
  }

  /** Whether one of a leaf's entries is dirty; makes them clean if asked to. */
  #readLeaf(
    dirty: DirtyLayout,
    at: FrameLocation,
    firstWord: number,
    slots: number,
    isCleaning: boolean,
  ): boolean {
    let written = 0;
    let found = false;
    for (let word = firstWord; word < firstWord + 2 * slots; word += 2) {
      if (!isDirty(dirty, at.words[word]! | 0, at.words[word + 1]! | 0)) continue;
      found = true;
      if (!isCleaning) return true;
      at.words[word]! ^= dirty.lowFlip;
      written += 1;
    }
    if (written > 0) this.#tree.meter.step(Step.entryWrite, written, at.node);
    return found;
  }
}

function isDirty(dirty: DirtyLayout, low: number, high: number): boolean {
  return (low & dirty.lowMask) === dirty.lowDirty && (high & dirty.highMask) === dirty.highDirty;
}
