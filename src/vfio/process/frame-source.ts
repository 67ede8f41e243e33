/**
 * Where a process's memory gets its frames from: which physical frames, in which order and order of
 * contiguity, is what decides how many runs a pinned range falls into.
 *
 * Source: mm/page_alloc.c:alloc_pages_mpol (what is asked for), mm/mempolicy.c (nodes). A source
 * stands for the state of a machine's free lists; it draws nothing at random but from its seed.
 */
import { assert } from "../../errors.ts";
import { Random } from "../../random.ts";
import { alignUp, log2Ceil, PFN_LAST, powerOfTwo } from "../../units.ts";

/** Gives frames to pages. */
export interface FrameSource {
  /** Frames that the last {@link take} gave. */
  readonly takenPages: number;

  /**
   * Takes frames side by side for pages side by side.
   *
   * @param pages - at most that many, at least 1
   * @param node - preferred NUMA node, or −1
   * @returns the first frame, or −1 when there is none left
   */
  take(pages: number, node: number): number;

  /** Takes 2^order frames aligned to their size. @returns the first frame, or −1 */
  takeBlock(order: number, node: number): number;

  /** Gives frames back that were taken. */
  give(pfn: number, pages: number): void;

  /** NUMA node of a frame; −1 when it is none of the machine's memory. */
  nodeOf(pfn: number): number;
}

/** A stretch of frames. */
export interface FrameRun {
  readonly pfn: number;
  readonly pages: number;
}

/** Stretches looked at for a block among those given back. */
const FREE_RUNS_SEARCHED = 32;

/** Stretches that were given back, first in first out: freed memory is not what is taken next. */
class FreeRuns {
  readonly #pfns: number[] = [];
  readonly #pages: number[] = [];
  #head = 0;

  add(pfn: number, pages: number): void {
    const last = this.#pfns.length - 1;
    if (last >= this.#head && this.#pfns[last]! + this.#pages[last]! === pfn) {
      this.#pages[last]! += pages;
      return;
    }
    this.#pfns.push(pfn);
    this.#pages.push(pages);
  }

  /** @returns the first frame or −1; how many goes to `taken.pages` */
  take(pages: number, taken: { pages: number }): number {
    if (this.#head === this.#pfns.length) return -1;
    const pfn = this.#pfns[this.#head]!;
    const count = Math.min(pages, this.#pages[this.#head]!);
    taken.pages = count;
    this.#pfns[this.#head] = pfn + count;
    this.#pages[this.#head]! -= count;
    if (this.#pages[this.#head] === 0) this.#head += 1;
    if (this.#head > 1024 && this.#head * 2 > this.#pfns.length) {
      this.#pfns.splice(0, this.#head);
      this.#pages.splice(0, this.#head);
      this.#head = 0;
    }
    return pfn;
  }

  /** Takes an aligned block out of the first stretches. @returns its first frame, or −1 */
  takeBlock(size: number): number {
    const end = Math.min(this.#pfns.length, this.#head + FREE_RUNS_SEARCHED);
    for (let index = this.#head; index < end; index += 1) {
      const pfn = this.#pfns[index]!;
      const runEnd = pfn + this.#pages[index]!;
      const block = alignUp(pfn, size);
      if (block + size > runEnd) continue;
      this.#pfns.splice(index, 1);
      this.#pages.splice(index, 1);
      if (block > pfn) this.add(pfn, block - pfn);
      if (block + size < runEnd) this.add(block + size, runEnd - block - size);
      return block;
    }
    return -1;
  }
}

/** The units of a source: stretches in the order in which they are taken. */
interface Units {
  readonly count: number;
  firstPfn(index: number): number;
  /** @param pfn - what {@link firstPfn} gave for it */
  pages(index: number, pfn: number): number;
  /** Whether frames may be left over for an aligned block; not where an order is replayed. */
  readonly canSkip: boolean;
  /** Frames of the largest unit. */
  readonly pagesMax: number;
}

class UnitFrames implements FrameSource {
  takenPages = 0;
  readonly #units: Units;
  readonly #first: number;
  readonly #last: number;
  readonly #node: number;
  readonly #free = new FreeRuns();
  readonly #taken = { pages: 0 };
  #nextUnit = 0;
  #cursor = 0;
  #unitEnd = 0;

  constructor(units: Units, first: number, last: number, node: number) {
    assert(first >= 1, "frame 0 is nobody's");
    assert(last <= PFN_LAST, "frames lie in a 64-bit space");
    this.#units = units;
    this.#first = first;
    this.#last = last;
    this.#node = node;
  }

  take(pages: number, _node: number): number {
    if (this.#cursor === this.#unitEnd && !this.#openUnit()) {
      const pfn = this.#free.take(pages, this.#taken);
      this.takenPages = pfn < 0 ? 0 : this.#taken.pages;
      return pfn;
    }
    const pfn = this.#cursor;
    this.takenPages = Math.min(pages, this.#unitEnd - pfn);
    this.#cursor = pfn + this.takenPages;
    return pfn;
  }

  takeBlock(order: number, _node: number): number {
    const size = powerOfTwo(order);
    const { canSkip, pagesMax } = this.#units;
    if (pagesMax < size) return -1;
    while (this.#cursor < this.#unitEnd || this.#openUnit()) {
      const block = alignUp(this.#cursor, size);
      const fits = block + size <= this.#unitEnd;
      if (!canSkip && (!fits || block !== this.#cursor)) return -1;
      const skipEnd = fits ? block : this.#unitEnd;
      if (skipEnd > this.#cursor) this.#free.add(this.#cursor, skipEnd - this.#cursor);
      this.#cursor = fits ? block + size : this.#unitEnd;
      if (fits) return block;
    }
    return this.#free.takeBlock(size);
  }

  give(pfn: number, pages: number): void {
    this.#free.add(pfn, pages);
  }

  nodeOf(pfn: number): number {
    return pfn >= this.#first && pfn <= this.#last ? this.#node : -1;
  }

  #openUnit(): boolean {
    if (this.#nextUnit >= this.#units.count) return false;
    this.#cursor = this.#units.firstPfn(this.#nextUnit);
    this.#unitEnd = this.#cursor + this.#units.pages(this.#nextUnit, this.#cursor);
    this.#nextUnit += 1;
    return true;
  }
}

/** What a source of one stretch of memory is made of. */
export interface MemoryStretch {
  readonly basePfn: number;
  readonly pages: number;
  /** NUMA node, 0 by default. */
  readonly node?: number;
}

/** Frames in ascending order: memory after boot. */
export function contiguousFrames(stretch: MemoryStretch): FrameSource {
  return scatteredFrames({ ...stretch, unitPages: stretch.pages, seed: 0 });
}

/**
 * Frames in units that are side by side inside and lie in seeded disorder: memory of a machine that
 * has run for a while. Units of 512 aligned frames leave room for transparent huge pages, smaller
 * ones do not.
 */
export function scatteredFrames(
  stretch: MemoryStretch & { readonly unitPages: number; readonly seed: number },
): FrameSource {
  const { basePfn, pages, unitPages } = stretch;
  assert(Number.isSafeInteger(pages) && pages >= 1, "a source has frames");
  assert(Number.isSafeInteger(unitPages) && unitPages >= 1, "a unit has frames");
  const count = Math.ceil(pages / unitPages);
  const order = disorder(count, stretch.seed);
  const end = basePfn + pages;
  const units: Units = {
    count,
    firstPfn: (index) => basePfn + order(index) * unitPages,
    // The last one may be cut short.
    pages: (_index, pfn) => Math.min(unitPages, end - pfn),
    canSkip: true,
    pagesMax: Math.min(unitPages, pages),
  };
  return new UnitFrames(units, basePfn, end - 1, stretch.node ?? 0);
}

/** Frames exactly as listed, in that order: a layout that was recorded. */
export function listedFrames(runs: readonly FrameRun[], node = 0): FrameSource {
  let first = PFN_LAST;
  let last = 1;
  let pagesMax = 0;
  for (const run of runs) {
    assert(run.pages >= 1, "a run has frames");
    first = Math.min(first, run.pfn);
    last = Math.max(last, run.pfn + run.pages - 1);
    pagesMax = Math.max(pagesMax, run.pages);
  }
  const units: Units = {
    count: runs.length,
    firstPfn: (index) => runs[index]!.pfn,
    pages: (index) => runs[index]!.pages,
    canSkip: false,
    pagesMax,
  };
  return new UnitFrames(units, Math.min(first, last), last, node);
}

/** Frames of several nodes: the preferred node first, then the others in the order given. */
export function numaFrames(sources: ReadonlyMap<number, FrameSource>): FrameSource {
  assert(sources.size >= 1, "a machine has memory");
  return new NumaFrames(sources);
}

class NumaFrames implements FrameSource {
  takenPages = 0;
  readonly #sources: ReadonlyMap<number, FrameSource>;

  constructor(sources: ReadonlyMap<number, FrameSource>) {
    this.#sources = sources;
  }

  take(pages: number, node: number): number {
    const preferred = this.#sources.get(node);
    const pfn = preferred === undefined ? -1 : this.#takeFrom(preferred, pages, node);
    if (pfn >= 0) return pfn;
    for (const source of this.#sources.values()) {
      const other = this.#takeFrom(source, pages, node);
      if (other >= 0) return other;
    }
    return -1;
  }

  takeBlock(order: number, node: number): number {
    // A huge page is taken on the node itself or not at all, as __GFP_THISNODE asks for.
    const preferred = this.#sources.get(node);
    if (preferred !== undefined) return preferred.takeBlock(order, node);
    for (const source of this.#sources.values()) {
      const pfn = source.takeBlock(order, node);
      if (pfn >= 0) return pfn;
    }
    return -1;
  }

  give(pfn: number, pages: number): void {
    for (const source of this.#sources.values()) {
      if (source.nodeOf(pfn) < 0) continue;
      source.give(pfn, pages);
      return;
    }
    assert(false, "a frame that is given back belongs to a node");
  }

  nodeOf(pfn: number): number {
    for (const source of this.#sources.values()) {
      const node = source.nodeOf(pfn);
      if (node >= 0) return node;
    }
    return -1;
  }

  #takeFrom(source: FrameSource, pages: number, node: number): number {
    const pfn = source.take(pages, node);
    this.takenPages = source.takenPages;
    return pfn;
  }
}

/** A seeded permutation of 0 … count − 1: a Feistel network, walked until it lands inside. */
function disorder(count: number, seed: number): (index: number) => number {
  if (count === 1) return () => 0;
  assert(count < 2 ** 30, "a source has fewer than 2^30 units");
  const half = Math.max(1, Math.ceil(log2Ceil(count) / 2));
  const mask = powerOfTwo(half) - 1;
  const random = new Random(seed);
  const keys = Uint32Array.from({ length: 4 }, () => random.bits32());
  return (index) => {
    let value = index;
    do {
      let left = value >>> half;
      let right = value & mask;
      for (let round = 0; round < keys.length; round += 1) {
        let mixed = Math.imul(right ^ keys[round]!, 0x9e37_79b1);
        mixed = Math.imul(mixed ^ (mixed >>> 15), 0x85eb_ca6b);
        const swapped = left ^ ((mixed >>> 13) & mask);
        left = right;
        right = swapped;
      }
      value = (left << half) | right;
    } while (value >= count);
    return value;
  };
}
