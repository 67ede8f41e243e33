/**
 * AMD's v1 host page table: up to 6 levels, a top that grows on demand, pages of every power of two
 * from 4 KiB to 2 PiB except 512 GiB, which hardware gets wrong.
 *
 * Source: AMD I/O Virtualization Technology (IOMMU) Specification, 2.2.3 "I/O Page Tables for Host
 * Translations", tables 14 "Example Page Size Encodings", 15 and 16;
 * drivers/iommu/generic_pt/fmt/amdv1.h. Names there → here: PR → present; IR, IW → READ, WRITE,
 * combined along the walk by AND; FC → `forceCoherence`; NextLevel → the type field: 0 a page of
 * the level's size, 1 … 6 a table of that level counted from 1, 7 a page whose size is in its
 * address and which fills several entries.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { Prot } from "../prot.ts";
import { EntryKind, type EntryWords, nineBitLevels, PageTableFormat } from "./format.ts";
import { encryptionBitHigh } from "./x86-64.ts";

const PRESENT = 1 << 0;
const DIRTY = 1 << 6;
const NEXT_LEVEL_SHIFT = 9;
const NEXT_LEVEL_SIZED = 7;
const FORCE_COHERENT_HIGH = 1 << 28;
const READ_HIGH = 1 << 29;
const WRITE_HIGH = 1 << 30;
const PAGE_SHIFT_MAX = 51;
const PAGE_SHIFT_BROKEN = 39;

/** What differs from unit to unit. */
export interface AmdV1Options {
  /** Most levels that the unit walks; 6 without it. 6 → 64-bit, 5 → 57, 4 → 48, 3 → 39. */
  readonly levelsMax?: 3 | 4 | 5 | 6;
  /** Levels of a new table; 3 without it. */
  readonly levels?: 3 | 4 | 5 | 6;
  /** Width of a physical address in bits, 52 without it. */
  readonly outputBits?: number;
  /** Whether leaves force coherence (FC). */
  readonly forceCoherence?: boolean;
  /** Bit of the physical address, 32 … 51, that marks memory as encrypted (C-bit). */
  readonly encryptionBit?: number;
  /** Whether the unit sets dirty bits. */
  readonly dirty?: boolean;
}

/** The v1 format with these options. */
export function amdV1(options: AmdV1Options = {}): PageTableFormat {
  const levels = options.levelsMax ?? 6;
  const start = options.levels ?? 3;
  assert(start <= levels, "a new table has no more levels than the unit walks");
  const inputBits = Math.min(64, 12 + 9 * levels);
  const indexBits = nineBitLevels(levels);
  if (levels === 6) indexBits[5] = 7;
  const coherent = options.forceCoherence === true ? FORCE_COHERENT_HIGH : 0;
  const encrypted = encryptionBitHigh(options.encryptionBit);
  return new PageTableFormat({
    name: levels === 6 ? "amd-v1" : `amd-v1-${levels}`,
    style: "range",
    granuleShift: 12,
    indexBits,
    topLevel: start - 1,
    tableOrder: 0,
    rootOrder: 0,
    inputBits,
    signExtend: false,
    outputBits: Math.min(options.outputBits ?? 52, options.encryptionBit ?? 52),
    pageShifts: amdV1PageShifts(inputBits),
    presentLow: PRESENT,
    typeShift: NEXT_LEVEL_SHIFT,
    typeMask: 7,
    kinds: Array.from({ length: levels }, (_, level) => kindsOf(level)),
    addressLow: 0xffff_f000,
    addressHigh: 0x000f_ffff & ~encrypted,
    addressFold: false,
    tableLow: Array.from({ length: levels }, (_, level) => PRESENT | (level << NEXT_LEVEL_SHIFT)),
    tableHigh: READ_HIGH | WRITE_HIGH | encrypted,
    grantsLow: 0,
    grantsHigh: READ_HIGH | WRITE_HIGH,
    deniesHigh: 0,
    dirty:
      options.dirty === true
        ? { lowMask: DIRTY, highMask: 0, lowDirty: DIRTY, highDirty: 0, lowFlip: DIRTY }
        : null,
    encodeLeaf(prot: number, level: number, pageShift: number, out: EntryWords): number {
      if ((prot & (Prot.READ | Prot.WRITE)) === 0) return Errno.EINVAL;
      const rights = (prot & Prot.READ ? READ_HIGH : 0) | (prot & Prot.WRITE ? WRITE_HIGH : 0);
      out.low = PRESENT;
      out.high = rights | coherent | (prot & Prot.MMIO ? 0 : encrypted);
      if (pageShift !== 12 + 9 * level) encodeSize(pageShift, out);
      return Errno.OK;
    },
    decodeProt(_low: number, high: number, _tablesAndLow: number, tablesAndHigh: number): number {
      // IR and IW, bits 61 and 62, lie side by side as Prot.READ and Prot.WRITE do.
      return ((high & tablesAndHigh) >>> 29) & 0b11;
    },
  });
}

/** Page sizes of a table with addresses of this width, log2 of bytes. */
function amdV1PageShifts(inputBits: number): number[] {
  const last = Math.min(PAGE_SHIFT_MAX, inputBits - 2);
  return Array.from({ length: last - 11 }, (_, index) => 12 + index).filter(
    (shift) => shift !== PAGE_SHIFT_BROKEN,
  );
}

/** The kinds of a level by NextLevel. The sixth level has no pages. */
function kindsOf(level: number): number[] {
  const canHaveLeaf = level < 5;
  return Array.from({ length: 8 }, (_, nextLevel) => {
    if (nextLevel === 0) return canHaveLeaf ? EntryKind.LEAF : EntryKind.RESERVED;
    if (nextLevel === NEXT_LEVEL_SIZED)
      return canHaveLeaf ? EntryKind.CONTIGUOUS : EntryKind.RESERVED;
    if (nextLevel === level) return EntryKind.TABLE;
    return nextLevel < level ? EntryKind.SKIP : EntryKind.RESERVED;
  });
}

/** Marks a leaf as 2^pageShift bytes large: address bits pageShift−2 … 12 are ones. */
function encodeSize(pageShift: number, out: EntryWords): void {
  const top = pageShift - 1;
  const low = top >= 32 ? 0xffff_f000 : 2 ** top - 2 ** 12;
  out.low |= low | (NEXT_LEVEL_SIZED << NEXT_LEVEL_SHIFT);
  if (top > 32) out.high |= 2 ** (top - 32) - 1;
}
