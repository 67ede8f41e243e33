/**
 * What a page-table format is: geometry and bit positions as data, and the few pure functions that
 * data cannot express. One mapper and one walker serve every format.
 *
 * Levels count from the leaves: level 0 holds the smallest pages. An entry is 64 bits, kept as two
 * 32-bit words, low word first. All formats are objects of one class, so that the code that reads
 * their fields sees one shape.
 *
 *     frame number of an I/O virtual address
 *      … | index at level 2 | index at level 1 | index at level 0 | (below the granule)
 *          maskOf[2]<<shiftOf[2]                 maskOf[0]<<shiftOf[0]
 *
 * Source of the abstraction: drivers/iommu/generic_pt/pt_common.h.
 */
import { assert } from "../../errors.ts";
import { alignDown, highHalfOf, lowHalfOf, PAGE_SHIFT, PFN_LAST, powerOfTwo } from "../../units.ts";

/** No format has more levels. */
export const LEVELS_MAX = 6;

const TWO_20 = 2 ** 20;
const TWO_32 = 2 ** 32;
const TWO_36 = 2 ** 36;

/** What an entry that is present stands for. */
export const EntryKind = {
  /** An encoding that the specification reserves: the hardware faults. */
  RESERVED: 0,
  /** A page of the level's own size. */
  LEAF: 1,
  /** A pointer to a table of the next level below. */
  TABLE: 2,
  /** One of several equal entries that make one larger page; its size is in its address. */
  CONTIGUOUS: 3,
  /** A pointer to a table further below; the type field holds that table's level plus one. */
  SKIP: 4,
} as const;

/** The two words of an entry, signed or unsigned. */
export interface EntryWords {
  low: number;
  high: number;
}

/** Where a format keeps the dirty state of a leaf. */
export interface DirtyLayout {
  readonly lowMask: number;
  readonly highMask: number;
  /** A leaf is dirty when its masked words equal these. */
  readonly lowDirty: number;
  readonly highDirty: number;
  /** Bits of the low word to invert to make a dirty leaf clean, or a clean writable one dirty. */
  readonly lowFlip: number;
}

/** What a format file declares. */
export interface FormatSpec {
  readonly name: string;
  /** Whose rules the kernel's driver follows: generic page tables take ranges, io-pgtable pages. */
  readonly style: "range" | "pages";
  /** log2 of the smallest page in bytes. */
  readonly granuleShift: number;
  /** Index bits of each level, leaf first; its length is the number of levels. */
  readonly indexBits: readonly number[];
  /** The level that a new table starts at; below the last one for a top that grows. */
  readonly topLevel: number;
  readonly tableOrder: number;
  readonly rootOrder: number;
  /** Width of an I/O virtual address in bits. */
  readonly inputBits: number;
  /** Whether addresses are sign-extended, so that half of them lie at the top of 64 bits. */
  readonly signExtend: boolean;
  /** Width of a physical address in bits. */
  readonly outputBits: number;
  /** Sizes a leaf may have, log2 of bytes, ascending. */
  readonly pageShifts: readonly number[];
  /** An entry is present when one of these bits of the low word is set. */
  readonly presentLow: number;
  readonly typeShift: number;
  readonly typeMask: number;
  /** For each level, the {@link EntryKind} of each value of the type field. */
  readonly kinds: readonly (readonly number[])[];
  readonly addressLow: number;
  readonly addressHigh: number;
  /** Whether physical address bits 51:48 are kept in bits 15:12. */
  readonly addressFold: boolean;
  /** Attributes of a table entry, for each level. */
  readonly tableLow: readonly number[];
  readonly tableHigh: number;
  /** Bits of a table entry without which it takes rights away. */
  readonly grantsLow: number;
  readonly grantsHigh: number;
  /** Bits of a table entry that take rights away. */
  readonly deniesHigh: number;
  readonly dirty: DirtyLayout | null;
  /**
   * The words of a leaf at physical address 0.
   *
   * @param prot - bits of `Prot`
   * @returns an errno, 0 on success
   */
  encodeLeaf(prot: number, level: number, pageShift: number, out: EntryWords): number;
  /**
   * The rights of a leaf, also limited by the tables above it.
   *
   * @param tablesAnd - table entries of the walk combined by AND; all ones when there was none
   * @param tablesOrHigh - high words of the table entries combined by OR
   */
  decodeProt(
    low: number,
    high: number,
    tablesAndLow: number,
    tablesAndHigh: number,
    tablesOrHigh: number,
  ): number;
}

/**
 * A page-table format, ready for use. Its fields are declared only, so that each has the one
 * representation it is given in the constructor: the walker reads a dozen of them each time.
 */
export class PageTableFormat {
  declare readonly name: string;
  declare readonly style: "range" | "pages";
  declare readonly granuleShift: number;
  declare readonly levels: number;
  declare readonly topLevel: number;
  declare readonly topLevelMax: number;
  declare readonly tableOrder: number;
  declare readonly rootOrder: number;
  declare readonly inputBits: number;
  declare readonly signExtend: boolean;
  declare readonly outputBits: number;
  declare readonly pageShifts: readonly number[];
  declare readonly presentLow: number;
  declare readonly typeShift: number;
  declare readonly typeMask: number;
  declare readonly addressLow: number;
  declare readonly addressHigh: number;
  declare readonly addressFold: boolean;
  declare readonly tableLow: readonly number[];
  declare readonly tableHigh: number;
  declare readonly dirty: DirtyLayout | null;
  declare readonly encodeLeaf: FormatSpec["encodeLeaf"];
  declare readonly decodeProt: FormatSpec["decodeProt"];
  /** log2 of the frames that one entry of a level spans. */
  declare readonly shiftOf: Int32Array;
  /** Highest index of a level. */
  declare readonly maskOf: Int32Array;
  /** Frames that one entry of a level spans. */
  declare readonly entryFramesOf: Float64Array;
  /** Frames that a table of a level spans. */
  declare readonly tableFramesOf: Float64Array;
  /** Last frame of the address space; with sign extension, of its lower half. */
  declare readonly lastPfn: number;
  /** Level that a page size is a leaf of, by log2 of bytes; −1 for no leaf size. */
  declare readonly levelOfShift: Int8Array;
  /** Kinds by `level * 8 + type`. */
  declare readonly kinds: Uint8Array;
  /** Index bits of every level but the top. */
  declare readonly levelBits: number;
  /** Highest index of every level but the top, and of the top. */
  declare readonly indexBelow: number;
  declare readonly indexTop: number;
  /** 3 when tables are single frames of 512 entries, or fewer at the top; else −1. */
  declare readonly fourLevelTop: number;
  /** Whether pages of several entries exist. */
  declare readonly hasContiguous: boolean;
  /** log2 of the frames of the smallest page. */
  declare readonly leafOrder: number;
  /** Pages up to 2^orderInLow frames have no bits of their offset in an entry's high word. */
  declare readonly orderInLow: number;
  /**
   * An entry of level n is plain, a table entry as the mapper writes it that takes no rights away
   * and points below 8 TiB, when its low word masked is `plainLow + n * plainStep` and its high
   * word masked is `plainHigh`.
   */
  declare readonly plainMaskLow: number;
  declare readonly plainMaskHigh: number;
  declare readonly plainLow: number;
  declare readonly plainStep: number;
  declare readonly plainHigh: number;
  /** An entry of level 0 that is present is a leaf when its low word masked is `leafLow`. */
  declare readonly leafMaskLow: number;
  declare readonly leafLow: number;
  /** First frame number that a physical address cannot have. */
  declare readonly physEnd: number;

  constructor(spec: FormatSpec) {
    assert(spec.indexBits.length <= LEVELS_MAX, "a format has at most six levels");
    assert(spec.topLevel < spec.indexBits.length, "the top is one of the levels");
    assert(spec.pageShifts.length >= 1, "a format has a page size");
    this.levelOfShift = new Int8Array(64).fill(-1);
    this.kinds = new Uint8Array(LEVELS_MAX * 8);
    this.name = spec.name;
    this.style = spec.style;
    this.granuleShift = spec.granuleShift;
    this.levels = spec.indexBits.length;
    this.topLevel = spec.topLevel;
    this.topLevelMax = spec.indexBits.length - 1;
    this.tableOrder = spec.tableOrder;
    this.rootOrder = spec.rootOrder;
    this.inputBits = spec.inputBits;
    this.signExtend = spec.signExtend;
    this.outputBits = spec.outputBits;
    this.pageShifts = spec.pageShifts;
    this.presentLow = spec.presentLow;
    this.typeShift = spec.typeShift;
    this.typeMask = spec.typeMask;
    this.addressLow = spec.addressLow | 0;
    this.addressHigh = spec.addressHigh;
    this.addressFold = spec.addressFold;
    this.tableLow = spec.tableLow;
    this.tableHigh = spec.tableHigh;
    this.dirty = spec.dirty;
    this.encodeLeaf = spec.encodeLeaf;
    this.decodeProt = spec.decodeProt;
    this.physEnd = 2 ** (spec.outputBits - PAGE_SHIFT);
    this.lastPfn = 2 ** (spec.inputBits - PAGE_SHIFT - (spec.signExtend ? 1 : 0)) - 1;
    this.entryFramesOf = new Float64Array(this.levels);
    this.tableFramesOf = new Float64Array(this.levels);
    this.shiftOf = new Int32Array(this.levels);
    this.maskOf = new Int32Array(this.levels);
    let shift = spec.granuleShift - PAGE_SHIFT;
    for (let level = 0; level < this.levels; level += 1) {
      this.shiftOf[level] = shift;
      this.maskOf[level] = 2 ** spec.indexBits[level]! - 1;
      this.entryFramesOf[level] = 2 ** shift;
      // The walker takes an index out of bits 31 … 0 below this shift, else out of 51 … 20.
      assert(shift >= 20 || shift + spec.indexBits[level]! <= 32, "an index fits 32 bits");
      shift += spec.indexBits[level]!;
      this.tableFramesOf[level] = 2 ** shift;
      for (let type = 0; type <= spec.typeMask; type += 1) {
        this.kinds[level * 8 + type] = spec.kinds[level]![type]!;
      }
    }
    this.levelBits = spec.indexBits[0]!;
    this.indexBelow = this.maskOf[0]!;
    this.indexTop = this.maskOf[this.topLevelMax]!;
    this.fourLevelTop = spec.granuleShift === 12 && this.indexTop < 512 ? 3 : -1;
    this.hasContiguous = spec.kinds.some((kinds) => kinds.includes(EntryKind.CONTIGUOUS));
    this.leafOrder = this.shiftOf[0]!;
    this.orderInLow = spec.addressFold ? -1 : 20;
    const typeBits = spec.typeMask << spec.typeShift;
    // Address bits that a plain entry has not: those below the granule, and from 8 TiB on.
    const granuleBits = (2 ** spec.granuleShift - 1) & ~0xfff;
    this.plainMaskLow = spec.presentLow | typeBits | spec.grantsLow | granuleBits;
    this.plainMaskHigh = spec.grantsHigh | spec.deniesHigh | (spec.addressHigh & ~0x7ff);
    this.plainHigh = spec.grantsHigh;
    const leafTypes = spec.kinds[0]!.flatMap((kind, type) => (kind === EntryKind.LEAF ? type : []));
    this.leafMaskLow = leafTypes.length > spec.typeMask ? 0 : typeBits;
    this.leafLow = (leafTypes[0]! << spec.typeShift) & this.leafMaskLow;
    const [first = 0, second = first] = spec.tableLow.slice(1);
    this.plainStep = (second & this.plainMaskLow) - (first & this.plainMaskLow);
    this.plainLow = (first & this.plainMaskLow) - this.plainStep;
    for (const pageShift of spec.pageShifts) this.#addPageShift(pageShift);
  }

  /** The type field of a low word. */
  typeOf(low: number): number {
    return (low >>> this.typeShift) & this.typeMask;
  }

  /** What an entry that is present is at a level: one of {@link EntryKind}. */
  kindOf(level: number, low: number): number {
    return this.kinds[(level << 3) | ((low >>> this.typeShift) & this.typeMask)]!;
  }

  /** Whether frames `first` … `last` can be mapped, a growing top being grown as far as it goes. */
  spans(firstPfn: number, lastPfn: number): boolean {
    if (lastPfn <= this.lastPfn) return true;
    return this.signExtend && firstPfn >= PFN_LAST - this.lastPfn;
  }

  #addPageShift(pageShift: number): void {
    const order = pageShift - PAGE_SHIFT;
    let level = this.levels - 1;
    while (level > 0 && this.shiftOf[level]! > order) level -= 1;
    assert(order >= this.shiftOf[0]!, "a page is not smaller than the granule");
    this.levelOfShift[pageShift] = level;
  }
}

/**
 * Index of the entry of a level that spans a frame.
 *
 * @param low - bits 31 … 0 of the frame number
 * @param high - its bits 51 … 32
 * @param shift - `shiftOf` the level
 * @param mask - `maskOf` the level
 */
export function entryIndex(low: number, high: number, shift: number, mask: number): number {
  if (shift >= 32) return (high >>> (shift - 32)) & mask;
  return ((low >>> shift) | ((high << 1) << (31 - shift))) & mask;
}

/** Bits 51 … 32 of a frame number. */
export function highBits(pfn: number): number {
  return (pfn / TWO_32) >>> 0;
}

/** The address bits of an entry that points at frame `pfn`: its low word. */
export function addressLowOf(format: PageTableFormat, pfn: number): number {
  const low = lowHalfOf(pfn) | 0;
  if (!format.addressFold) return low;
  return low | ((Math.floor(pfn / TWO_36) & 0xf) << 12);
}

/** The address bits of an entry that points at frame `pfn`: its high word. */
export function addressHighOf(format: PageTableFormat, pfn: number): number {
  return highHalfOf(pfn) & format.addressHigh;
}

/** The frame number in an entry's address bits, low bits of a large page included. */
export function entryPfn(format: PageTableFormat, low: number, high: number): number {
  const pfn = ((low & format.addressLow) >>> PAGE_SHIFT) + (high & format.addressHigh) * TWO_20;
  return format.addressFold ? pfn + ((low >>> PAGE_SHIFT) & 0xf) * TWO_36 : pfn;
}

/**
 * Size of a page that several equal entries make: twice the size that the ones from address bit 12
 * upwards cover.
 *
 * @returns log2 of bytes, 13 … 52; 64 when no bit of the address is zero
 */
export function contiguousShift(low: number, high: number): number {
  const zerosLow = ~low & 0xffff_f000;
  if (zerosLow !== 0) return 32 - Math.clz32(zerosLow & -zerosLow);
  const zerosHigh = ~high & 0x000f_ffff;
  if (zerosHigh !== 0) return 64 - Math.clz32(zerosHigh & -zerosHigh);
  return 64;
}

/** The first frame of the page of 2^pageShift bytes that the address bits of a leaf name. */
export function leafPfn(
  format: PageTableFormat,
  low: number,
  high: number,
  pageShift: number,
): number {
  return alignDown(entryPfn(format, low, high), powerOfTwo(pageShift - PAGE_SHIFT));
}

/** Index bits for a format with tables of 512 entries. */
export function nineBitLevels(levels: number): number[] {
  return Array.from({ length: levels }, () => 9);
}
