/**
 * Second-stage page tables of Intel VT-d: 3, 4 or 5 levels, pages of 4 KiB, 2 MiB and 1 GiB.
 *
 * Source: Intel Virtualization Technology for Directed I/O, Architecture Specification, 3.7
 * "Second-Stage Translation" and 9.8 "Second-Stage Paging Entries";
 * drivers/iommu/generic_pt/fmt/vtdss.h. Names there → here: R, W → READ, WRITE; PS → leaf above
 * level 0; SNP → `forceSnoop`; D → dirty. There is no present bit: an entry without R and W is not.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { Prot } from "../prot.ts";
import { type EntryWords, nineBitLevels, PageTableFormat } from "./format.ts";
import { pageSizeBitKinds } from "./page-size-bit.ts";

const READ = 1 << 0;
const WRITE = 1 << 1;
const PAGE_SIZE = 1 << 7;
const DIRTY = 1 << 9;
const FLUSH_DONE = 1 << 10;
const SNOOP = 1 << 11;

/** What differs from unit to unit. */
export interface VtdSecondStageOptions {
  /** 3 → 39-bit, 4 → 48-bit, 5 → 57-bit addresses. */
  readonly levels: 3 | 4 | 5;
  /** Page sizes, log2 of bytes; without it 4 KiB, 2 MiB and 1 GiB. */
  readonly pageShifts?: readonly number[];
  /** Width of a physical address in bits, 52 without it. */
  readonly outputBits?: number;
  /** Whether leaves force snooping (SNP). */
  readonly forceSnoop?: boolean;
  /** Whether the unit sets dirty bits. */
  readonly dirty?: boolean;
  /** Whether read-only mappings are refused, as on nest parents of affected hardware. */
  readonly forceWritable?: boolean;
  /** Whether the walk does not snoop the CPU's caches; table entries then carry bit 10. */
  readonly incoherent?: boolean;
}

/** The second-stage format with these options. */
export function vtdSecondStage(options: VtdSecondStageOptions): PageTableFormat {
  const { levels } = options;
  assert(levels >= 3 && levels <= 5, "second-stage tables have 3 to 5 levels");
  const pageShifts = options.pageShifts ?? [12, 21, 30];
  const snoop = options.forceSnoop === true ? SNOOP : 0;
  const table = READ | WRITE | (options.incoherent === true ? FLUSH_DONE : 0);
  return new PageTableFormat({
    name: `vtd-second-stage-${levels}`,
    style: "range",
    granuleShift: 12,
    indexBits: nineBitLevels(levels),
    topLevel: levels - 1,
    tableOrder: 0,
    rootOrder: 0,
    inputBits: 12 + 9 * levels,
    signExtend: false,
    outputBits: options.outputBits ?? 52,
    pageShifts,
    presentLow: READ | WRITE,
    typeShift: 7,
    typeMask: 1,
    kinds: pageSizeBitKinds(levels, pageShifts),
    addressLow: 0xffff_f000,
    addressHigh: 0x000f_ffff,
    addressFold: false,
    tableLow: new Array<number>(levels).fill(table),
    tableHigh: 0,
    grantsLow: READ | WRITE,
    grantsHigh: 0,
    deniesHigh: 0,
    dirty:
      options.dirty === true
        ? { lowMask: DIRTY, highMask: 0, lowDirty: DIRTY, highDirty: 0, lowFlip: DIRTY }
        : null,
    encodeLeaf(prot: number, level: number, _pageShift: number, out: EntryWords): number {
      const rights = (prot & Prot.READ ? READ : 0) | (prot & Prot.WRITE ? WRITE : 0);
      if (rights === 0) return Errno.EINVAL;
      if (options.forceWritable === true && (rights & WRITE) === 0) return Errno.EINVAL;
      out.low = rights | snoop | (level > 0 ? PAGE_SIZE : 0);
      out.high = 0;
      return Errno.OK;
    },
    decodeProt(low: number, _high: number, tablesAndLow: number): number {
      // R and W are the bits of Prot.READ and Prot.WRITE. This is on the path of every walk.
      return low & tablesAndLow & 0b11;
    },
  });
}
