/**
 * One IOVA space: the tree with its caches in front, and what it counts about itself.
 *
 * Source: drivers/iommu/iova.c: init_iova_domain, alloc_iova_fast, free_iova_fast, iova_rcache_get,
 * iova_rcache_insert, free_cpu_cached_iovas. Page numbers count granules. The CPU and the time that
 * a call happens on come in as arguments; the time matters only for the depot's work.
 */
import { assert } from "../errors.ts";
import { type Meter, NULL_METER, Step } from "../meter.ts";
import { log2Ceil, PAGE_SHIFT } from "../units.ts";
import { alignmentOf } from "./gap.ts";
import { IovaCache } from "./iova-cache.ts";
import { CACHED_ORDERS, type IovaRules, LINUX_IOVA_RULES, ROUNDED_PAGES } from "./iova-rules.ts";
import { IovaTree, NO_IOVA } from "./iova-tree.ts";

/** Settings of an IOVA space. */
export interface IovaDomainOptions {
  /** CPUs that exist; all are online at first. */
  readonly cpus: number;
  /** log2 of the granule in bytes, the smallest page that can be mapped. 12 by default. */
  readonly granuleShift?: number;
  /** Lowest page that is handed out, at least 1. 1 by default. */
  readonly startPfn?: number;
  readonly rules?: Partial<IovaRules>;
  /** Asked before each allocation of a magazine: false when there is no memory. */
  readonly hasMemory?: () => boolean;
  readonly meter?: Meter;
}

/** What an IOVA space did so far, and how full it is. Pages count granules. */
export interface IovaCounts {
  allocations: number;
  failures: number;
  cacheHits: number;
  treeSearches: number;
  /** Nodes that Linux's walks of the tree visited. */
  treeVisits: number;
  cacheFrees: number;
  treeFrees: number;
  /** Times that all caches were emptied because a search had failed. */
  cacheFlushes: number;
  /** Pages handed out and not freed, as rounded up by the allocator. */
  livePages: number;
  peakLivePages: number;
  livePages32: number;
  peakLivePages32: number;
  /** Pages in magazines and depot. */
  cachedPages: number;
  cachedPages32: number;
  /** Pages of reservations below 4 GiB. */
  reservedPages32: number;
}

/** How an allocation of a size is rounded: below 32 pages to a power of two. */
export function roundedPages(pages: number): number {
  return pages < ROUNDED_PAGES ? alignmentOf(pages) : pages;
}

/** Allocates and frees ranges of one IOVA space. */
export class IovaDomain {
  readonly options: IovaDomainOptions;
  readonly granuleShift: number;
  readonly tree: IovaTree;
  readonly cache: IovaCache;
  readonly counts: IovaCounts = {
    allocations: 0,
    failures: 0,
    cacheHits: 0,
    treeSearches: 0,
    treeVisits: 0,
    cacheFrees: 0,
    treeFrees: 0,
    cacheFlushes: 0,
    livePages: 0,
    peakLivePages: 0,
    livePages32: 0,
    peakLivePages32: 0,
    cachedPages: 0,
    cachedPages32: 0,
    reservedPages32: 0,
  };
  readonly #rules: IovaRules;
  readonly #meter: Meter;
  readonly #online: Uint8Array;
  #onlineCpus: number;

  constructor(options: IovaDomainOptions, parts?: { tree: IovaTree; cache: IovaCache }) {
    const rules = { ...LINUX_IOVA_RULES, ...options.rules };
    this.options = options;
    this.granuleShift = options.granuleShift ?? PAGE_SHIFT;
    this.tree =
      parts?.tree ??
      new IovaTree({
        startPfn: options.startPfn ?? 1,
        limit32Pfn: 2 ** (32 - this.granuleShift),
        searchFromTop: rules.searchFromTop,
      });
    this.cache = parts?.cache ?? new IovaCache(options);
    this.#rules = rules;
    this.#meter = options.meter ?? NULL_METER;
    this.#online = new Uint8Array(options.cpus).fill(1);
    this.#onlineCpus = options.cpus;
  }

  /**
   * Takes `pages` pages, from the CPU's cache when it holds a fitting range.
   *
   * @param pages - at least 1; below 32 rounded up to a power of two
   * @param limitPfn - last page that may be taken
   * @param flushCaches - whether a failure empties all caches and tries once more
   * @returns the first page, or {@link NO_IOVA}
   */
  alloc(pages: number, limitPfn: number, flushCaches: boolean, cpu: number): number {
    const order = log2Ceil(pages);
    const taken = pages < ROUNDED_PAGES ? 1 << order : pages;
    if (order < CACHED_ORDERS && !this.#rules.noCache) {
      const cached = this.cache.get(order, limitPfn + 1 - taken, cpu);
      if (cached !== 0) {
        this.counts.cacheHits += 1;
        this.#uncached(cached, taken);
        this.#meter.step(Step.iovaCacheHit, 1, 0);
        return this.#handOut(cached, taken);
      }
    }
    let pfn = this.#search(taken, limitPfn);
    if (pfn === NO_IOVA && flushCaches) {
      this.flushCaches();
      pfn = this.#search(taken, limitPfn);
    }
    if (pfn === NO_IOVA) {
      this.counts.failures += 1;
      return NO_IOVA;
    }
    return this.#handOut(pfn, taken);
  }

  /**
   * Gives a range back, to the CPU's cache when its size is cached. As in Linux the cache believes
   * what it is told, and the tree ignores a page that is not allocated.
   */
  free(pfn: number, pages: number, cpu: number, nowMs: number): void {
    const order = log2Ceil(pages);
    const counts = this.counts;
    if (order < CACHED_ORDERS && !this.#rules.noCache && this.cache.put(order, pfn, cpu, nowMs)) {
      const taken = 1 << order;
      counts.cacheFrees += 1;
      counts.cachedPages += taken;
      if (pfn < this.tree.limit32Pfn) counts.cachedPages32 += taken;
      this.#takeBack(pfn, taken);
      this.#meter.step(Step.iovaCacheFree, 1, 0);
      return;
    }
    this.#takeBack(pfn, this.#freeToTree(pfn));
  }

  /** Takes [firstPfn, lastPfn] out of the space for good. */
  reserve(firstPfn: number, lastPfn: number): void {
    this.counts.reservedPages32 += this.tree.reserve(firstPfn, lastPfn);
  }

  /** Gives everything cached back to the tree. */
  flushCaches(): void {
    this.counts.cacheFlushes += 1;
    for (let cpu = 0; cpu < this.cache.cpus; cpu += 1) {
      if (this.#online[cpu] !== 0) this.cache.drainCpu(cpu, this.#release);
    }
    this.cache.drainDepot(this.#release);
  }

  /** Takes a CPU offline: what it had cached goes back to the tree. */
  offlineCpu(cpu: number): void {
    assert(this.#online[cpu] === 1, "the CPU is online");
    this.cache.drainCpu(cpu, this.#release);
    this.#online[cpu] = 0;
    this.#onlineCpus -= 1;
  }

  /** Takes a CPU back online. */
  onlineCpu(cpu: number): void {
    assert(this.#online[cpu] === 0, "the CPU is offline");
    this.#online[cpu] = 1;
    this.#onlineCpus += 1;
  }

  /** When {@link runDepotWork} has something to do; infinity while nothing is pending. */
  get depotWorkDueMs(): number {
    return this.cache.depotWorkDueMs;
  }

  /** Does the depot work that is due. */
  runDepotWork(nowMs: number): void {
    this.cache.runDepotWork(nowMs, this.#onlineCpus, this.#release);
  }

  /** Pages of the largest free range below 4 GiB, cached ranges not counted as free. */
  largestFreeGap32(): number {
    return this.tree.largestGapBelow(this.tree.limit32Pfn);
  }

  /** An independent copy; it reports to the same meter. */
  clone(): IovaDomain {
    const copy = new IovaDomain(this.options, {
      tree: this.tree.clone(),
      cache: this.cache.clone(),
    });
    Object.assign(copy.counts, this.counts);
    copy.#online.set(this.#online);
    copy.#onlineCpus = this.#onlineCpus;
    return copy;
  }

  readonly #release = (pfn: number, order: number): void => {
    this.#uncached(pfn, 2 ** order);
    this.#freeToTree(pfn);
  };

  #search(pages: number, limitPfn: number): number {
    const pfn = this.tree.alloc(pages, limitPfn, !this.#rules.noAlignment);
    this.counts.treeSearches += 1;
    this.counts.treeVisits += this.tree.visited;
    this.#meter.step(Step.iovaTreeSearch, this.tree.visited, 0);
    return pfn;
  }

  #freeToTree(pfn: number): number {
    this.counts.treeFrees += 1;
    this.#meter.step(Step.iovaTreeFree, 1, 0);
    return this.tree.free(pfn);
  }

  #handOut(pfn: number, pages: number): number {
    const counts = this.counts;
    counts.allocations += 1;
    counts.livePages += pages;
    if (counts.livePages > counts.peakLivePages) counts.peakLivePages = counts.livePages;
    if (pfn < this.tree.limit32Pfn) {
      counts.livePages32 += pages;
      if (counts.livePages32 > counts.peakLivePages32) counts.peakLivePages32 = counts.livePages32;
    }
    return pfn;
  }

  #takeBack(pfn: number, pages: number): void {
    this.counts.livePages -= pages;
    if (pfn < this.tree.limit32Pfn) this.counts.livePages32 -= pages;
  }

  #uncached(pfn: number, pages: number): void {
    this.counts.cachedPages -= pages;
    if (pfn < this.tree.limit32Pfn) this.counts.cachedPages32 -= pages;
  }
}
