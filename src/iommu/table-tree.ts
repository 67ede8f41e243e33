/**
 * The tables of one domain: where the root is, how many tables there are, where new ones come from.
 *
 * Source: drivers/iommu/generic_pt/iommu_pt.h:_table_alloc (every table of a domain's life comes
 * from one preferred node, the top included; VT-d up to 6.6 changed it as units came). Mapper and unmapper work on this state.
 */

import { createLocation, type FrameLocation, type PagePool } from "../memory/page-pool.ts";
import { type Meter, Step } from "../meter.ts";
import { PAGE_BYTES } from "../units.ts";
import {
  addressHighOf,
  addressLowOf,
  EntryKind,
  entryIndex,
  entryPfn,
  highBits,
  LEVELS_MAX,
  type PageTableFormat,
} from "./formats/format.ts";
import type { IotlbGather } from "./gather.ts";

/** Where an entry is: its low word at `words[word]`, in a table of `level` on `node`. */
export interface EntryPlace {
  readonly words: Uint32Array;
  readonly word: number;
  readonly level: number;
  readonly node: number;
}

/** Tables of one domain. Fields are declared only, for one representation each. */
export class TableTree {
  declare readonly format: PageTableFormat;
  declare readonly pool: PagePool;
  /** Preferred node of the tables to come. */
  declare node: number;
  declare readonly meter: Meter;
  /** First frame of the top table; −1 when there is none. */
  rootPfn = -1;
  declare topLevel: number;
  /** Last frame below the present top; with sign extension, of the lower half. */
  declare lastPfn: number;
  /** Tables that are part of the tree, by level. */
  readonly tableCounts = new Int32Array(LEVELS_MAX);
  /** Changes whenever a table leaves the tree. */
  shape = 0;
  /** Tables that left the tree and wait for an invalidation before they are freed. */
  pendingTables = 0;
  /** Frames held, pending tables included. */
  frames = 0;
  framesPeak = 0;

  constructor(format: PageTableFormat, pool: PagePool, node: number, meter: Meter) {
    this.format = format;
    this.pool = pool;
    this.node = node;
    this.meter = meter;
    this.topLevel = format.topLevel;
    this.lastPfn = this.#lastBelow(format.topLevel);
  }

  /** Makes a table that points to the root the new root. */
  setTop(pfn: number, level: number): void {
    this.rootPfn = pfn;
    this.topLevel = level;
    this.lastPfn = this.#lastBelow(level);
  }

  /** Whether frames `first` … `last` lie below the present top. */
  spans(firstPfn: number, lastPfn: number): boolean {
    if (lastPfn <= this.lastPfn) return true;
    return this.format.signExtend && this.format.spans(firstPfn, lastPfn);
  }

  /** Takes a zeroed table. @returns its first frame, or −1 when no memory is left */
  allocateTable(level: number, order: number): number {
    const pfn = this.pool.allocate(this.node, order);
    if (pfn < 0) return -1;
    this.tableCounts[level]! += 1;
    this.frames += 1 << order;
    if (this.frames > this.framesPeak) this.framesPeak = this.frames;
    this.meter.step(Step.tableAlloc, 1 << order, this.pool.nodeOf(pfn));
    return pfn;
  }

  /** Makes an entry point to the table at `pfn`. */
  linkTable(at: EntryPlace, pfn: number): void {
    const format = this.format;
    at.words[at.word] = addressLowOf(format, pfn) | format.tableLow[at.level]!;
    at.words[at.word + 1] = addressHighOf(format, pfn) | format.tableHigh;
    this.meter.step(Step.entryWrite, 1, at.node);
  }

  /** Index of the entry of a level that spans a frame. */
  indexOf(level: number, pfn: number): number {
    const { shiftOf, maskOf } = this.format;
    return entryIndex(pfn >>> 0, highBits(pfn), shiftOf[level]!, maskOf[level]!);
  }

  /** Notes that a table of `level` was cut off from the tree. */
  unlinkTable(level: number): void {
    this.tableCounts[level]! -= 1;
    this.pendingTables += 1;
    this.shape += 1;
  }

  /** Gives a table back that was cut off before. */
  freePending(pfn: number): void {
    this.pendingTables -= 1;
    this.#free(pfn);
  }

  /** Gives back a table that was never linked. */
  freeUnlinked(level: number, pfn: number): void {
    this.tableCounts[level]! -= 1;
    this.#free(pfn);
  }

  /** Finds the words of a table of this tree. */
  locate(pfn: number, at: FrameLocation): void {
    this.pool.locate(pfn, at);
  }

  /** What the entry with this low word, which is not empty, is at a level. */
  kindOf(level: number, low: number): number {
    return this.format.kindOf(level, low);
  }

  /** Whether a table or one below it holds a leaf. */
  holdsLeaf(level: number, pfn: number): boolean {
    const at = createLocation();
    this.locate(pfn, at);
    const end = at.index + 2 * (this.format.maskOf[level]! + 1);
    for (let word = at.index; word < end; word += 2) {
      const low = at.words[word]! | 0;
      const high = at.words[word + 1]! | 0;
      if ((low | high) === 0) continue;
      if (this.kindOf(level, low) !== EntryKind.TABLE) return true;
      if (this.holdsLeaf(level - 1, entryPfn(this.format, low, high))) return true;
    }
    return false;
  }

  /** Puts a table that was cut off, and all tables below it, on a gather's list. */
  unlinkBelow(level: number, pfn: number, gather: IotlbGather): void {
    if (level > 0)
      this.#eachChild(level, pfn, (child) => this.unlinkBelow(level - 1, child, gather));
    this.unlinkTable(level);
    gather.addTable(pfn);
  }

  /** Gives every table of the tree back. Pending ones stay with whoever collected them. */
  destroy(): void {
    if (this.rootPfn < 0) return;
    this.shape += 1;
    this.#destroyBelow(this.topLevel, this.rootPfn);
    this.rootPfn = -1;
  }

  /** Bytes held at most at any time. */
  get bytesPeak(): number {
    return this.framesPeak * PAGE_BYTES;
  }

  #lastBelow(level: number): number {
    return Math.min(this.format.lastPfn, this.format.tableFramesOf[level]! - 1);
  }

  #destroyBelow(level: number, pfn: number): void {
    if (level > 0) this.#eachChild(level, pfn, (child) => this.#destroyBelow(level - 1, child));
    this.freeUnlinked(level, pfn);
  }

  #eachChild(level: number, pfn: number, visit: (pfn: number) => void): void {
    const at = createLocation();
    this.locate(pfn, at);
    const end = at.index + 2 * (this.format.maskOf[level]! + 1);
    for (let word = at.index; word < end; word += 2) {
      const low = at.words[word]! | 0;
      const high = at.words[word + 1]! | 0;
      if ((low | high) === 0 || this.kindOf(level, low) !== EntryKind.TABLE) continue;
      visit(entryPfn(this.format, low, high));
    }
  }

  #free(pfn: number): void {
    const node = this.pool.nodeOf(pfn);
    const frames = this.pool.free(pfn);
    this.frames -= frames;
    this.meter.step(Step.tableFree, frames, node);
  }
}
