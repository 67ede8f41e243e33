/**
 * A paging-structure cache: which table of a level spans an address, so that a walk can start
 * there instead of at the top. One array for each level.
 *
 * An entry is dropped when its range or domain is invalidated without the hint that only leaves
 * changed. Only rights that the tables of our own mapper carry are assumed: everything.
 *
 * Source: Intel VT-d specification, 6.2.4 "Caching of Paging Structures" and 6.5.2.3 (invalidation
 * hint). Levels count from the leaves; the top table is not cached, as the context entry names it.
 */
import { type Meter, NULL_METER, Step } from "../meter.ts";
import { PAGE_SHIFT } from "../units.ts";
import { LEVELS_MAX, type PageTableFormat } from "./formats/format.ts";
import type { WalkResult } from "./table-walk.ts";
import { type CacheGeometry, FRAMES_OF_SHIFT, TagArray } from "./tag-array.ts";

/** The caches of all levels of one IOMMU. */
export class PagingCache {
  /** One array for each level below the top. */
  readonly levels: readonly TagArray[];
  /** First frame of the table that the last {@link lookup} found. */
  tablePfn = -1;
  readonly #meter: Meter;
  readonly #node: number;

  /** @param geometry - of each level's array */
  constructor(geometry: CacheGeometry, meter: Meter = NULL_METER, node = 0) {
    this.levels = Array.from({ length: LEVELS_MAX - 1 }, () => new TagArray(geometry));
    this.#meter = meter;
    this.#node = node;
  }

  /**
   * Searches for the lowest table above a frame.
   *
   * @returns its level, with its frame in {@link tablePfn}; −1 when none is cached
   */
  lookup(
    format: PageTableFormat,
    topLevel: number,
    domainId: number,
    pasid: number,
    iovaPfn: number,
  ): number {
    for (let level = 0; level < topLevel; level += 1) {
      const entries = this.levels[level]!;
      if (entries.live === 0) continue;
      // What a table spans is what an entry of the level above spans.
      const shift = PAGE_SHIFT + format.shiftOf[level + 1]!;
      const block = Math.floor(iovaPfn / FRAMES_OF_SHIFT[shift]!);
      const slot = entries.find(domainId, pasid, shift, block);
      if (slot < 0) continue;
      this.tablePfn = entries.valueAt(slot);
      this.#meter.step(Step.pagingCacheHit, topLevel - level, this.#node);
      return level;
    }
    this.#meter.step(Step.pagingCacheMiss, 1, this.#node);
    return -1;
  }

  /** Caches the tables that a walk for a frame went through. */
  fill(
    format: PageTableFormat,
    domainId: number,
    pasid: number,
    iovaPfn: number,
    walk: WalkResult,
  ): void {
    for (let level = walk.level; level < walk.startLevel; level += 1) {
      const tablePfn = walk.tablePfns[level]!;
      if (tablePfn < 0) continue;
      const shift = PAGE_SHIFT + format.shiftOf[level + 1]!;
      const block = Math.floor(iovaPfn / FRAMES_OF_SHIFT[shift]!);
      this.levels[level]!.insert(domainId, pasid, shift, block, tablePfn, 0);
    }
  }

  /** Drops what spans a part of a range. @returns how many entries there were */
  invalidateRange(domainId: number, pasid: number, firstPfn: number, lastPfn: number): number {
    let removed = 0;
    for (const level of this.levels) {
      removed += level.removeRange(domainId, pasid, firstPfn, lastPfn);
    }
    return removed;
  }

  /** Drops what belongs to a domain. @returns how many entries there were */
  invalidateDomain(domainId: number, pasid: number): number {
    let removed = 0;
    for (const level of this.levels) removed += level.removeDomain(domainId, pasid);
    return removed;
  }

  /** Drops everything. @returns how many entries there were */
  invalidateAll(): number {
    let removed = 0;
    for (const level of this.levels) removed += level.clear();
    return removed;
  }
}
