/**
 * The page-table walker: what the translation hardware does, for every format and any memory.
 *
 * Budget: 30 ns for four levels, no allocation (bench/page-table.bench.ts). It reads the entries as
 * they stand in memory, so it also walks tables that somebody else wrote, and tables that were
 * freed too early.
 *
 * Source: the walks that the documents named in `formats/` describe.
 */
import { createChunk, type FrameChunk, type FrameMemory } from "../memory/page-pool.ts";
import { type Meter, NULL_METER, Step } from "../meter.ts";
import { modulo, PAGE_SHIFT, powerOfTwo } from "../units.ts";
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

// Fields of module objects cost a handful of checks each, so the fast path has copies.
const { LEAF } = EntryKind;
const ENTRY_READ = Step.entryRead;

/** No page is larger: 2 PiB. */
const PAGE_SHIFT_MAX = 51;

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
  /**
   * First frame of the table at each level, from `startLevel` down to `level`; −1 at a level that
   * an entry skipped.
   */
  readonly tablePfns = new Float64Array(LEVELS_MAX);
}

/** Walks tables of one format in one memory. */
export class TableWalker {
  readonly #format: PageTableFormat;
  readonly #memory: FrameMemory;
  readonly #meter: Meter;
  /** Whether somebody listens: a call through an interface costs a fifth of a walk. */
  readonly #isMetered: boolean;
  /** The chunk that the last entry was read from. */
  readonly #chunk: FrameChunk = createChunk();
  /** The same for {@link walkPlain}, which every miss that a device recovers from goes through. */
  readonly #plainChunk: FrameChunk = createChunk();
  /** The attributes of the leaf found last, and the rights they give. */
  #attributesLow = 0;
  #attributesHigh = 0;
  #prot = 0;

  constructor(format: PageTableFormat, memory: FrameMemory, meter: Meter) {
    this.#format = format;
    this.#memory = memory;
    this.#meter = meter;
    this.#isMetered = meter !== NULL_METER;
  }

  /**
   * Walks from the top.
   *
   * @param topLevel - level of the table at `rootPfn`
   * @returns whether a page was found; `out` has it or the fault
   */
  walk(rootPfn: number, topLevel: number, iovaPfn: number, out: WalkResult): boolean {
    const format = this.#format;
    const isBelowTop = topLevel === format.topLevelMax || iovaPfn < format.tableFramesOf[topLevel]!;
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
  walkFrom(startLevel: number, tablePfn: number, iovaPfn: number, out: WalkResult): boolean {
    if (startLevel === this.#format.fourLevelTop) {
      const iovaTop = (iovaPfn / 0x400_0000) | 0;
      if (this.#walkFour(tablePfn, iovaPfn | 0, iovaTop, out)) return true;
    }
    return this.#walkLoop(startLevel, tablePfn, iovaPfn, out);
  }

  /**
   * The fast path of {@link TableWalker.#walkLoop} written out, for tables all in one chunk.
   *
   * @param iovaLow - bits 31 … 0 of the frame number
   * @param iovaTop - bits 51 … 26
   * @returns false, and `out` is of no use, when it met anything else
   */
  #walkFour(tablePfn: number, iovaLow: number, iovaTop: number, out: WalkResult): boolean {
    const format = this.#format;
    const { words } = this.#chunk;
    const frames = this.#chunk.frames >>> 0;
    const firstPfn = this.#chunk.firstPfn | 0;
    const { tablePfns } = out;
    const maskLow = format.plainMaskLow;
    const maskHigh = format.plainMaskHigh;
    const plainHigh = format.plainHigh;
    const plainStep = format.plainStep;
    let plainLow = format.plainLow + 3 * plainStep;
    let level = 3;
    let pfn = tablePfn | 0;
    if (pfn !== tablePfn) return false;
    let offset = (pfn - firstPfn) >>> 0;
    if (offset >= frames) return false;
    tablePfns[3] = pfn;
    let word = (offset << 10) | (iovaTop & 0x3fe);
    let low = words[word]! | 0;
    let high = words[word | 1]! | 0;
    if ((low & maskLow) === plainLow && (high & maskHigh) === plainHigh) {
      plainLow = (plainLow - plainStep) | 0;
      level = 2;
      pfn = ((high & 0x7ff) << 20) | (low >>> 12);
      offset = (pfn - firstPfn) >>> 0;
      if (offset >= frames) return false;
      tablePfns[2] = pfn;
      word = (offset << 10) | ((iovaLow >>> 17) & 0x3fe);
      low = words[word]! | 0;
      high = words[word | 1]! | 0;
      if ((low & maskLow) === plainLow && (high & maskHigh) === plainHigh) {
        plainLow = (plainLow - plainStep) | 0;
        level = 1;
        pfn = ((high & 0x7ff) << 20) | (low >>> 12);
        offset = (pfn - firstPfn) >>> 0;
        if (offset >= frames) return false;
        tablePfns[1] = pfn;
        word = (offset << 10) | ((iovaLow >>> 8) & 0x3fe);
        low = words[word]! | 0;
        high = words[word | 1]! | 0;
        if ((low & maskLow) === plainLow && (high & maskHigh) === plainHigh) {
          level = 0;
          pfn = ((high & 0x7ff) << 20) | (low >>> 12);
          offset = (pfn - firstPfn) >>> 0;
          if (offset >= frames) return false;
          tablePfns[0] = pfn;
          word = (offset << 10) | ((iovaLow << 1) & 0x3fe);
          low = words[word]! | 0;
          high = words[word | 1]! | 0;
        }
      }
    }
    if ((low & format.presentLow) === 0) return false;
    const isLeaf =
      level === 0
        ? (low & format.leafMaskLow) === format.leafLow
        : format.kindOf(level, low) === LEAF;
    if (!isLeaf) return false;
    if (this.#isMetered) this.#meter.step(ENTRY_READ, 4 - level, this.#chunk.node);
    out.startLevel = 3;
    out.prot = this.#protOf(low, high);
    if (level > 0) return this.#leaf(level, 9 * level, low, high, iovaLow, out);
    out.level = 0;
    out.fault = 0;
    out.pageShift = 12;
    out.physPfn = (high & format.addressHigh) * 0x10_0000 + (low >>> 12);
    return true;
  }

  /**
   * The fast path: plain entries down to a leaf, all in the memory of one node below 8 TiB.
   * Whatever it meets beside, {@link TableWalker.walkPlain} begins the walk anew.
   */
  #walkLoop(startLevel: number, tablePfn: number, iovaPfn: number, out: WalkResult): boolean {
    const format = this.#format;
    const chunk = this.#chunk;
    const { tablePfns } = out;
    // What the loop needs is brought into local integers: fields are checked at each use.
    const maskLow = format.plainMaskLow | 0;
    const maskHigh = format.plainMaskHigh | 0;
    const plainHigh = format.plainHigh | 0;
    const plainStep = format.plainStep | 0;
    const levelBits = format.levelBits | 0;
    const indexBelow = format.indexBelow | 0;
    const iovaLow = iovaPfn >>> 0;
    const iovaMiddle = (iovaPfn / 0x10_0000) >>> 0;
    let level = startLevel | 0;
    let plainLow = (format.plainLow + level * plainStep) | 0;
    let shift = (format.leafOrder + level * levelBits) | 0;
    let indexMask = level === format.topLevelMax ? format.indexTop | 0 : indexBelow;
    let words = chunk.words;
    let frames = chunk.frames | 0;
    let firstPfn = chunk.firstPfn | 0;
    let pfn = tablePfn | 0;
    let low = 0;
    let high = 0;
    if (tablePfn !== pfn) return this.walkPlain(startLevel, tablePfn, iovaPfn, out);
    for (;;) {
      const index = (shift >= 20 ? iovaMiddle >>> (shift - 20) : iovaLow >>> shift) & indexMask;
      tablePfns[level] = pfn;
      // A table may be larger than a frame, and need not lie in one piece in a foreign memory.
      let offset = (pfn - firstPfn + (index >> 9)) | 0;
      if (offset >>> 0 >= frames) {
        const { node } = chunk;
        const isFound = this.#memory.chunkAt(pfn + (index >> 9), chunk);
        if (!isFound || (level !== startLevel && node !== chunk.node)) {
          return this.walkPlain(startLevel, tablePfn, iovaPfn, out);
        }
        words = chunk.words;
        frames = chunk.frames | 0;
        firstPfn = chunk.firstPfn | 0;
        offset = (pfn - firstPfn + (index >> 9)) | 0;
      }
      const word = (offset << 10) | ((index & 511) << 1);
      low = words[word]! | 0;
      high = words[word | 1]! | 0;
      if (level === 0 || (low & maskLow) !== plainLow || (high & maskHigh) !== plainHigh) break;
      pfn = ((high & 0x7ff) << 20) | (low >>> 12);
      plainLow = (plainLow - plainStep) | 0;
      indexMask = indexBelow;
      shift = (shift - levelBits) | 0;
      level = (level - 1) | 0;
    }
    if ((low & format.presentLow) === 0 || format.kindOf(level, low) !== LEAF) {
      return this.walkPlain(startLevel, tablePfn, iovaPfn, out);
    }
    this.#meter.step(ENTRY_READ, (startLevel - level + 1) | 0, chunk.node);
    out.startLevel = startLevel;
    out.prot = this.#protOf(low, high);
    return this.#leaf(level, shift, low, high, iovaPfn, out);
  }

  /** Does what {@link TableWalker.walkFrom} does, for every table there can be. */
  walkPlain(startLevel: number, tablePfn: number, iovaPfn: number, out: WalkResult): boolean {
    const format = this.#format;
    const iovaLow = iovaPfn >>> 0;
    const iovaHigh = highBits(iovaPfn);
    const chunk = this.#plainChunk;
    let andLow = -1;
    let andHigh = -1;
    let orHigh = 0;
    let pfn = tablePfn;
    let level = startLevel;
    let fault: number = WalkFault.NO_MEMORY;
    out.startLevel = startLevel;
    while (level >= 0) {
      const index = entryIndex(iovaLow, iovaHigh, format.shiftOf[level]!, format.maskOf[level]!);
      out.tablePfns[level] = pfn;
      const framePfn = pfn + (index >> 9);
      if (!this.#memory.chunkAt(framePfn, chunk)) break;
      const word = (framePfn - chunk.firstPfn) * 1024 + (index & 511) * 2;
      const low = chunk.words[word]! | 0;
      const high = chunk.words[word + 1]! | 0;
      this.#meter.step(Step.entryRead, 1, chunk.node);
      fault = WalkFault.NOT_PRESENT;
      if ((low & format.presentLow) === 0) break;
      const kind = format.kindOf(level, low);
      if (kind === EntryKind.SKIP) {
        const childLevel = format.typeOf(low) - 1;
        if (!this.#skip(level, childLevel, iovaLow, iovaHigh, out)) break;
        level = childLevel;
      } else if (kind === EntryKind.TABLE) {
        level -= 1;
      } else {
        fault = WalkFault.RESERVED;
        const order = leafOrder(format, level, kind, low, high);
        if (order < 0) break;
        out.prot = format.decodeProt(low, high, andLow, andHigh, orHigh);
        return this.#leaf(level, order, low, high, iovaPfn, out);
      }
      andLow &= low;
      andHigh &= high;
      orHigh |= high;
      pfn = entryPfn(format, low, high);
      fault = WalkFault.NO_MEMORY;
    }
    return fail(out, level, fault);
  }

  /** The rights of a leaf below plain tables. Most leaves of a table have the same. */
  #protOf(low: number, high: number): number {
    const attributesLow = low & 0xfff;
    const attributesHigh = high & ~this.#format.addressHigh;
    if (attributesLow !== this.#attributesLow || attributesHigh !== this.#attributesHigh) {
      this.#attributesLow = attributesLow;
      this.#attributesHigh = attributesHigh;
      this.#prot = this.#format.decodeProt(low, high, -1, -1, 0);
    }
    return this.#prot;
  }

  /** Whether the address bits of the levels between two tables are zero, as they must be. */
  #skip(level: number, childLevel: number, low: number, high: number, out: WalkResult): boolean {
    const { shiftOf, maskOf } = this.#format;
    let bits = 0;
    for (let skipped = level - 1; skipped > childLevel; skipped -= 1) {
      out.tablePfns[skipped] = -1;
      bits |= entryIndex(low, high, shiftOf[skipped]!, maskOf[skipped]!);
    }
    return bits === 0;
  }

  /** Puts a leaf into `out`. Of the frame number the bits inside the page count. */
  #leaf(
    level: number,
    order: number,
    low: number,
    high: number,
    iovaPfn: number,
    out: WalkResult,
  ): boolean {
    const format = this.#format;
    out.level = level;
    out.fault = 0;
    out.pageShift = order + 12;
    if (order <= format.orderInLow) {
      const inPage = (1 << order) - 1;
      const lowPfn = (low & format.addressLow) >>> 12;
      const lowPhys = (lowPfn & ~inPage) | (iovaPfn & inPage);
      out.physPfn = (high & format.addressHigh) * 0x10_0000 + lowPhys;
    } else {
      const base = leafPfn(format, low, high, out.pageShift);
      out.physPfn = base + modulo(iovaPfn, powerOfTwo(order));
    }
    return true;
  }
}

/** log2 of the frames of a leaf; −1 for a reserved encoding. */
function leafOrder(
  format: PageTableFormat,
  level: number,
  kind: number,
  low: number,
  high: number,
): number {
  const natural = format.shiftOf[level]!;
  if (kind === EntryKind.LEAF) return natural;
  if (kind === EntryKind.RESERVED) return -1;
  const pageShift = contiguousShift(low, high);
  return pageShift > PAGE_SHIFT_MAX || pageShift - PAGE_SHIFT < natural
    ? -1
    : pageShift - PAGE_SHIFT;
}

function fail(out: WalkResult, level: number, fault: number): boolean {
  out.level = Math.max(level, 0);
  out.fault = fault;
  out.physPfn = -1;
  out.pageShift = 0;
  out.prot = 0;
  return false;
}
