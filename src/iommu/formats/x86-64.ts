/**
 * Page tables of the x86-64 CPU as IOMMUs walk them: first stage of Intel VT-d and AMD's v2 table,
 * 4 or 5 levels, pages of 4 KiB, 2 MiB and 1 GiB.
 *
 * Source: Intel VT-d Architecture Specification, 3.6 "First-Stage Translation" and 9.7
 * "First-Stage Paging Entries"; AMD I/O Virtualization Technology (IOMMU) Specification, 2.2.6
 * "I/O Page Tables for Guest Translations"; drivers/iommu/generic_pt/fmt/x86_64.h. Names there →
 * here: P → present; RW → WRITE; U → not PRIV; PS → leaf above level 0; D → dirty. Reading cannot
 * be denied, and XD is never set.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { Prot } from "../prot.ts";
import { type EntryWords, nineBitLevels, PageTableFormat } from "./format.ts";
import { pageSizeBitKinds } from "./page-size-bit.ts";

const PRESENT = 1 << 0;
const WRITABLE = 1 << 1;
const USER = 1 << 2;
const ACCESSED = 1 << 5;
const DIRTY = 1 << 6;
const PAGE_SIZE = 1 << 7;
const FLUSH_DONE = 1 << 9;

/** What differs from unit to unit. */
export interface X86Options {
  readonly levels: 4 | 5;
  /** Page sizes, log2 of bytes; without it 4 KiB, 2 MiB and 1 GiB. */
  readonly pageShifts?: readonly number[];
  /** Width of a physical address in bits, 52 without it. */
  readonly outputBits?: number;
  /** Bit of the physical address, 32 … 51, that marks memory as encrypted (AMD's C-bit). */
  readonly encryptionBit?: number;
  /** Whether the walk does not snoop the CPU's caches; table entries then carry bit 9. */
  readonly incoherent?: boolean;
}

/** The first stage of VT-d: addresses are sign-extended. */
export function vtdFirstStage(options: X86Options): PageTableFormat {
  return x86Format(`vtd-first-stage-${options.levels}`, 12 + 9 * options.levels, true, options);
}

/** AMD's v2 table: 47 or 56 bits of address, no sign extension. */
export function amdV2(options: X86Options): PageTableFormat {
  return x86Format(`amd-v2-${options.levels}`, 11 + 9 * options.levels, false, options);
}

function x86Format(
  name: string,
  inputBits: number,
  signExtend: boolean,
  options: X86Options,
): PageTableFormat {
  const { levels, encryptionBit } = options;
  assert(levels === 4 || levels === 5, "x86-64 tables have 4 or 5 levels");
  const pageShifts = options.pageShifts ?? [12, 21, 30];
  const encrypted = encryptionBitHigh(encryptionBit);
  const table = PRESENT | WRITABLE | USER | ACCESSED;
  return new PageTableFormat({
    name,
    style: "range",
    granuleShift: 12,
    indexBits: nineBitLevels(levels),
    topLevel: levels - 1,
    tableOrder: 0,
    rootOrder: 0,
    inputBits,
    signExtend,
    outputBits: Math.min(options.outputBits ?? 52, encryptionBit ?? 52),
    pageShifts,
    presentLow: PRESENT,
    typeShift: 7,
    typeMask: 1,
    kinds: pageSizeBitKinds(levels, pageShifts),
    addressLow: 0xffff_f000,
    addressHigh: 0x000f_ffff & ~encrypted,
    addressFold: false,
    tableLow: new Array<number>(levels).fill(options.incoherent ? table | FLUSH_DONE : table),
    tableHigh: encrypted,
    grantsLow: WRITABLE | USER,
    grantsHigh: 0,
    deniesHigh: 0,
    dirty: { lowMask: DIRTY, highMask: 0, lowDirty: DIRTY, highDirty: 0, lowFlip: DIRTY },
    encodeLeaf(prot: number, level: number, _pageShift: number, out: EntryWords): number {
      if ((prot & (Prot.READ | Prot.WRITE)) === 0) return Errno.EINVAL;
      const writable = prot & Prot.WRITE ? WRITABLE | DIRTY : 0;
      out.low = PRESENT | USER | ACCESSED | writable | (level > 0 ? PAGE_SIZE : 0);
      out.high = prot & Prot.MMIO ? 0 : encrypted;
      return Errno.OK;
    },
    decodeProt(low: number, _high: number, tablesAndLow: number): number {
      // RW is the bit of Prot.WRITE; without U, bit 2, it is Prot.PRIV, bit 5.
      const rights = low & tablesAndLow;
      return 0b1 | (rights & 0b10) | ((~rights & 0b100) << 3);
    },
  });
}

/** The high word of an encryption mark; 0 without one. */
export function encryptionBitHigh(bit: number | undefined): number {
  if (bit === undefined) return 0;
  assert(bit >= 32 && bit <= 51, "the encryption bit is one of address bits 32 to 51");
  return 2 ** (bit - 32);
}
