/**
 * An IOTLB: the cache of finished translations, in an IOMMU or in a device that speaks ATS.
 *
 * It holds pages of the sizes it declares; a page of another size is cached as the piece of the
 * next smaller declared size that the access fell into. Addresses are 4 KiB frames. A hit reports
 * no rights check: that is the caller's.
 *
 * Source: Intel VT-d specification, 6.2.5 "IOTLB". Budget: 25 ns a hit (bench/iotlb.bench.ts).
 */
import { assert } from "../errors.ts";
import { type Meter, NULL_METER, Step } from "../meter.ts";
import { PAGE_SHIFT } from "../units.ts";
import { type CacheGeometry, FRAMES_OF_SHIFT, TagArray } from "./tag-array.ts";

/** Size, policy and page sizes of an IOTLB. */
export interface IotlbGeometry extends CacheGeometry {
  /** Page sizes that entries can have, log2 of bytes, ascending; the first is 12. */
  readonly pageShifts: readonly number[];
}

/** The steps that a translation cache reports. */
export interface CacheSteps {
  readonly hit: number;
  readonly miss: number;
  readonly evict: number;
}

const IOTLB_STEPS: CacheSteps = {
  hit: Step.iotlbHit,
  miss: Step.iotlbMiss,
  evict: Step.iotlbEvict,
};

/** A cache of translations. */
export class Iotlb {
  /** The entries, by slot. */
  readonly entries: TagArray;
  readonly #meter: Meter;
  readonly #node: number;
  readonly #steps: CacheSteps;
  readonly #pageShifts: Int32Array;
  /** By log2 of a page size: the largest declared size that is not larger. */
  readonly #fitting = new Int8Array(64);

  constructor(
    geometry: IotlbGeometry,
    meter: Meter = NULL_METER,
    node = 0,
    steps: CacheSteps = IOTLB_STEPS,
  ) {
    const { pageShifts } = geometry;
    assert(pageShifts[0] === PAGE_SHIFT, "an IOTLB can hold 4 KiB pages");
    for (let index = 1; index < pageShifts.length; index += 1) {
      assert(pageShifts[index]! > pageShifts[index - 1]!, "page sizes ascend");
    }
    assert(pageShifts.at(-1)! <= 63, "a page is smaller than the address space");
    this.entries = new TagArray(geometry);
    this.#meter = meter;
    this.#node = node;
    this.#steps = steps;
    this.#pageShifts = Int32Array.from(pageShifts);
    for (const pageShift of pageShifts) this.#fitting.fill(pageShift, pageShift);
  }

  /**
   * Searches for the translation of a frame and reports hit or miss.
   *
   * @param pasid - PASID tag, or `NO_PASID`
   * @returns the entry's slot, or −1
   */
  lookup(domainId: number, pasid: number, iovaPfn: number): number {
    const entries = this.entries;
    const pageShifts = this.#pageShifts;
    for (let index = 0; index < pageShifts.length; index += 1) {
      const pageShift = pageShifts[index]!;
      if (entries.liveOf(pageShift) === 0) continue;
      const page = index === 0 ? iovaPfn : Math.floor(iovaPfn / FRAMES_OF_SHIFT[pageShift]!);
      const slot = entries.find(domainId, pasid, pageShift, page);
      if (slot < 0) continue;
      this.#meter.step(this.#steps.hit, 1, this.#node);
      return slot;
    }
    this.#meter.step(this.#steps.miss, 1, this.#node);
    return -1;
  }

  /**
   * Caches what a walk found for a frame.
   *
   * @param physPfn - the frame that this frame maps to
   * @param pageShift - log2 of the size of the page it lies in
   * @param prot - bits of `Prot`; 0 caches that the frame is not mapped
   * @returns the entry's slot
   */
  fill(
    domainId: number,
    pasid: number,
    iovaPfn: number,
    physPfn: number,
    pageShift: number,
    prot: number,
  ): number {
    const shift = this.#fitting[pageShift]!;
    const frames = FRAMES_OF_SHIFT[shift]!;
    const page = Math.floor(iovaPfn / frames);
    const base = physPfn - (iovaPfn - page * frames);
    const slot = this.entries.insert(domainId, pasid, shift, page, base, prot);
    if (this.entries.evicted) this.#meter.step(this.#steps.evict, 1, this.#node);
    return slot;
  }

  /** The frame that the entry in a slot, found for `iovaPfn`, translates it to. */
  physPfnAt(slot: number, iovaPfn: number): number {
    const entries = this.entries;
    return entries.valueAt(slot) + (iovaPfn - entries.firstPfnAt(slot));
  }

  /** Removes the entries of a domain that overlap a range. @returns how many there were */
  invalidateRange(domainId: number, pasid: number, firstPfn: number, lastPfn: number): number {
    return this.entries.removeRange(domainId, pasid, firstPfn, lastPfn);
  }

  /** Removes the entries of a domain. @returns how many there were */
  invalidateDomain(domainId: number, pasid: number): number {
    return this.entries.removeDomain(domainId, pasid);
  }

  /** Removes every entry. @returns how many there were */
  invalidateAll(): number {
    return this.entries.clear();
  }
}
