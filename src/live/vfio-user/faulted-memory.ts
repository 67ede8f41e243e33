/**
 * Guest memory that a device gets page by page: a miss becomes a page request, and what that mapped
 * becomes memory.
 *
 * Stretches that touch each other are joined, so that a ring, once faulted in, lies in one piece.
 */
import { assert } from "../../errors.ts";
import { Prot } from "../../iommu/prot.ts";
import { NONE, RangeMap } from "../../iommu/range-map.ts";
import type { GuestMemory } from "../../memory/guest-memory.ts";
import { PAGE_BYTES } from "../../units.ts";
import type { FaultingHost } from "../../vfio/iopf/faulting-host.ts";
import type { Type1Faulting } from "../../vfio/iopf/type1-faulting.ts";
import type { Type1 } from "../../vfio/type1/type1.ts";
import type { SavedRegion } from "./dma-table.ts";
import { DmaMapFlag } from "./messages.ts";
import type { FileHold } from "./ports.ts";

const REGIONS_MAX = 2 ** 20;

/** What faults a device's pages in. */
export interface FaultEngine {
  readonly faults: FaultingHost;
  readonly faulting: Type1Faulting;
  readonly address: string;
}

interface Stretch {
  readonly region: SavedRegion;
  /** A piece of a file: seams of its windows are borders. */
  readonly firstPage: number;
  readonly pages: number;
  readonly buffer: ArrayBufferLike;
  readonly byteOffset: number;
  /** Present runs, by first page: last page. */
  readonly present: RangeMap;
}

/** The memory. */
export class FaultedMemory {
  presentBytes = 0;
  faultUs = 0;
  readonly #type1: Type1;
  readonly #engine: FaultEngine;
  readonly #memory: GuestMemory;
  readonly #now: () => number;
  readonly #index = new RangeMap({ rangesMax: REGIONS_MAX });
  readonly #stretches: (Stretch | undefined)[] = [];
  readonly #free: number[] = [];

  constructor(type1: Type1, engine: FaultEngine, memory: GuestMemory, now: () => number) {
    this.#type1 = type1;
    this.#engine = engine;
    this.#memory = memory;
    this.#now = now;
    memory.onMiss = (address) => this.#miss(Math.floor(address / PAGE_BYTES));
  }

  /** A region can be faulted in from now on. */
  add(region: SavedRegion, hold: FileHold): void {
    let firstPage = region.pfn;
    for (const { buffer, byteOffset, bytes } of hold.pieces) {
      const pages = bytes / PAGE_BYTES;
      const slot = this.#free.pop() ?? this.#stretches.length;
      const present = new RangeMap({ rangesMax: REGIONS_MAX });
      this.#stretches[slot] = { region, firstPage, pages, buffer, byteOffset, present };
      this.#index.insert(firstPage, 0, firstPage + pages - 1, 0xfff, slot, 0, 0);
      firstPage += pages;
    }
  }

  /** A region goes: nothing of it is memory any more. */
  remove({ pfn, pages }: SavedRegion): void {
    const index = this.#index;
    for (let page = pfn; page < pfn + pages; ) {
      const slot = index.valuePfn(index.find(page, 0));
      const stretch = this.#stretches[slot]!;
      const { present } = stretch;
      for (let at = present.first(); at !== NONE; at = present.next(at)) {
        const start = present.startPfn(at);
        this.presentBytes -= (present.lastPfn(at) - start + 1) * PAGE_BYTES;
        assert(this.#memory.removeRegion(start * PAGE_BYTES), "what is present is memory");
      }
      this.#stretches[slot] = undefined;
      this.#free.push(slot);
      page = stretch.firstPage + stretch.pages;
    }
    index.removeContained(pfn, 0, pfn + pages - 1, 0xfff);
  }

  /** Has the device ask for a page. @returns whether it is memory now */
  #miss(page: number): boolean {
    const at = this.#index.find(page, 0);
    if (at === NONE) return false;
    const stretch = this.#stretches[this.#index.valuePfn(at)]!;
    if (stretch.present.find(page, 0) !== NONE) return false;
    const start = this.#now();
    const { faults, faulting, address } = this.#engine;
    const isWritable = (stretch.region.flags & DmaMapFlag.WRITE) !== 0;
    const access = Prot.READ | (isWritable ? Prot.WRITE : 0);
    faults.start(address, [{ iovaPfn: page, pages: 1, access }]);
    faults.settle();
    const mapping = this.#type1.mappings.find(page)!;
    const mapped = faulting.stateOf(mapping)?.mapped;
    const isMapped = mapped?.has(page - mapping.iovaPfn) === true;
    if (isMapped) this.#show(stretch, page, mapping.iovaPfn, mapped!);
    this.faultUs += this.#now() - start;
    return isMapped;
  }

  /** Makes memory of what is mapped around a page. */
  #show(
    stretch: Stretch,
    page: number,
    base: number,
    mapped: { has(page: number): boolean; runEnd(page: number, end: number): number },
  ): void {
    const { present, firstPage } = stretch;
    const below = this.#neighbourBelow(present, page);
    const from = Math.max(firstPage, below);
    let first = page;
    while (first > from && mapped.has(first - 1 - base)) first -= 1;
    const end = mapped.runEnd(page - base, firstPage + stretch.pages - base) + base;
    let start = first;
    let last = end - 1;
    // What touches is taken away and comes back as one.
    for (let at = present.firstFrom(Math.max(first - 1, 0), 0); at !== NONE; ) {
      const lower = present.startPfn(at);
      const upper = present.lastPfn(at);
      if (lower > last + 1) break;
      start = Math.min(start, lower);
      last = Math.max(last, upper);
      present.removeContained(lower, 0, upper, 0xfff);
      this.#memory.removeRegion(lower * PAGE_BYTES);
      this.presentBytes -= (upper - lower + 1) * PAGE_BYTES;
      at = present.firstFrom(Math.max(start - 1, 0), 0);
    }
    present.insert(start, 0, last, 0xfff, 0, 0, 0);
    const bytes = (last - start + 1) * PAGE_BYTES;
    const byteOffset = stretch.byteOffset + (start - firstPage) * PAGE_BYTES;
    const backing = { buffer: stretch.buffer, byteOffset };
    const isReadOnly = (stretch.region.flags & DmaMapFlag.WRITE) === 0;
    const region = { start: start * PAGE_BYTES, bytes, backing, isReadOnly };
    const result = this.#memory.addRegion(region);
    assert(result === "added", "a page that was missed is not memory");
    this.presentBytes += bytes;
  }

  /** First page that could be mapped below a page without being present: after the run below. */
  #neighbourBelow(present: RangeMap, page: number): number {
    const at = present.firstFrom(page, 0);
    const below = at === NONE ? present.last() : present.previous(at);
    return below === NONE ? 0 : present.lastPfn(below) + 1;
  }
}
