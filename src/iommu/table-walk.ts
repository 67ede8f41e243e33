/**
 * The page-table walker: what the translation hardware does, for every format and any memory.
 *
 * Budget: 30 ns for four levels, no allocation (bench/page-table.bench.ts). It reads the entries as
 * they stand in memory, so it also walks tables that somebody else wrote, and tables that were
 * freed too early.
 *
 * Source: the walks that the documents named in `formats/` describe.
 */

import { createLocation, type FrameLocation, type FrameMemory } from "../memory/page-pool.ts";
import { type Meter, Step } from "../meter.ts";
import { PAGE_SHIFT } from "../units.ts";
import {
  contiguousShift,
  EntryKind,
  entryIndex,
  entryPfn,
  highBits,
  LEVELS_MAX,
  leafPfn,
  type PageTableFormat,
} from "./formats/format.ts";

/** Why a walk found no page. */
export const WalkFault = {
  NONE: 0,
  /** The address lies outside what the table can translate. */
  OUT_OF_RANGE: 1,
  /** An entry is not present. */
  NOT_PRESENT: 2,
  /** An entry has a reserved encoding. */
  RESERVED: 3,
  /** An entry points to where no memory is. */
  NO_MEMORY: 4,
} as const;

const HALF_OF_40_BITS = 2 ** 20;

/** What a walk found; one record serves any number of walks. */
export class WalkResult {
  /** Frame that the address maps to; −1 after a fault. */
  physPfn = -1;
  /** log2 of the size of the page found; 0 after a fault. */
  pageShift = 0;
  /** Bits of `Prot`; 0 after a fault. */
  prot = 0;
  /** Level of the last entry read. */
  level = 0;
  /** Level that the walk started at. */
  startLevel = 0;
  /** One of {@link WalkFault}. */
  fault: number = WalkFault.NONE;
  /** The last entry read. */
  entryLow = 0;
  entryHigh = 0;
  /**
   * First frame of the table read at each level, from `startLevel` down to `level`; −1 at a level
   * that an entry skipped.
   */
  readonly tablePfns = new Float64Array(LEVELS_MAX);
  /** NUMA node of that table. */
  readonly nodes = new Int32Array(LEVELS_MAX);
}

/** Walks tables of one format in one memory. */
export class TableWalker {
  readonly #format: PageTableFormat;
  readonly #memory: FrameMemory;
  readonly #meter: Meter;
  readonly #at: FrameLocation = createLocation();

  constructor(format: PageTableFormat, memory: FrameMemory, meter: Meter) {
    this.#format = format;
    this.#memory = memory;
    this.#meter = meter;
  }

  /**
   * Walks from the top.
   *
   * @param topLevel - level of the table at `rootPfn`
   * @returns whether a page was found; `out` has it or the fault
   */
  walk(rootPfn: number, topLevel: number, iovaPfn: number, out: WalkResult): boolean {
    const format = this.#format;
    const isBelowTop = topLevel === format.topLevelMax || iovaPfn < format.framesBelow(topLevel);
    if (isBelowTop && format.spans(iovaPfn, iovaPfn)) {
      return this.walkFrom(topLevel, rootPfn, iovaPfn, out);
    }
    out.startLevel = topLevel;
    return fail(out, topLevel, WalkFault.OUT_OF_RANGE);
  }

  /**
   * Walks from a table part-way down, as a paging-structure cache makes possible. The rights of
   * the entries above it are not taken into account.
   */
  walkFrom(level: number, tablePfn: number, iovaPfn: number, out: WalkResult): boolean {
    const format = this.#format;
    const memory = this.#memory;
    const at = this.#at;
    const low = iovaPfn >>> 0;
    const high = highBits(iovaPfn);
    let andLow = -1;
    let andHigh = -1;
    let orHigh = 0;
    let pfn = tablePfn;
    let reads = 0;
    let readsNode = 0;
    let fault: number = WalkFault.NO_MEMORY;
    out.startLevel = level;
    while (level >= 0) {
      const index = entryIndex(low, high, format.shiftOf[level]!, format.maskOf[level]!);
      // A table may be larger than a frame, and not lie in one piece in a foreign memory.
      if (!memory.locate(pfn + (index >> 9), at)) break;
      const word = at.index + ((index & 511) << 1);
      const entryLow = at.words[word]! | 0;
      const entryHigh = at.words[word + 1]! | 0;
      out.tablePfns[level] = pfn;
      out.nodes[level] = at.node;
      if (at.node !== readsNode && reads > 0) {
        this.#meter.step(Step.entryRead, reads, readsNode);
        reads = 0;
      }
      readsNode = at.node;
      reads += 1;
      out.entryLow = entryLow;
      out.entryHigh = entryHigh;
      fault = WalkFault.NOT_PRESENT;
      if ((entryLow & format.presentLow) === 0) break;
      const type = (entryLow >>> format.typeShift) & format.typeMask;
      const kind = format.kinds[(level << 3) | type]!;
      if (kind === EntryKind.TABLE || kind === EntryKind.SKIP) {
        andLow &= entryLow;
        andHigh &= entryHigh;
        orHigh |= entryHigh;
        pfn = entryPfn(format, entryLow, entryHigh);
        if (kind === EntryKind.TABLE) {
          level -= 1;
        } else {
          // Address bits of a level that is skipped have to be zero.
          let skipped = 0;
          while (level > type) {
            level -= 1;
            out.tablePfns[level] = -1;
            skipped |= entryIndex(low, high, format.shiftOf[level]!, format.maskOf[level]!);
          }
          level -= 1;
          if (skipped !== 0) break;
        }
        fault = WalkFault.NO_MEMORY;
        continue;
      }
      fault = WalkFault.RESERVED;
      if (kind === EntryKind.RESERVED) break;
      this.#meter.step(Step.entryRead, reads, readsNode);
      out.prot = format.decodeProt(entryLow, entryHigh, andLow, andHigh, orHigh);
      return this.#leaf(level, kind, entryLow, entryHigh, iovaPfn, out);
    }
    if (reads > 0) this.#meter.step(Step.entryRead, reads, readsNode);
    return fail(out, level, fault);
  }

  #leaf(
    level: number,
    kind: number,
    entryLow: number,
    entryHigh: number,
    iovaPfn: number,
    out: WalkResult,
  ): boolean {
    const format = this.#format;
    let order = format.shiftOf[level]!;
    if (kind === EntryKind.CONTIGUOUS) {
      order = contiguousShift(entryLow, entryHigh) - PAGE_SHIFT;
      if (order < format.shiftOf[level]!) return fail(out, level, WalkFault.RESERVED);
      if (order > 51 - PAGE_SHIFT) return fail(out, level, WalkFault.RESERVED);
    }
    out.level = level;
    out.fault = WalkFault.NONE;
    out.pageShift = order + PAGE_SHIFT;
    if (order <= 20 && !format.addressFold) {
      const inPage = 2 ** order - 1;
      const lowPfn = (entryLow & format.addressLow) >>> PAGE_SHIFT;
      const lowPhys = (lowPfn & ~inPage) | (iovaPfn & inPage);
      out.physPfn = (entryHigh & format.addressHigh) * HALF_OF_40_BITS + lowPhys;
    } else {
      const base = leafPfn(format, entryLow, entryHigh, out.pageShift);
      out.physPfn = base + (iovaPfn % 2 ** order);
    }
    return true;
  }
}

function fail(out: WalkResult, level: number, fault: number): boolean {
  out.level = Math.max(level, 0);
  out.fault = fault;
  out.physPfn = -1;
  out.pageShift = 0;
  out.prot = 0;
  return false;
}
