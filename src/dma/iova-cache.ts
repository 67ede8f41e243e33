/**
 * The caches in front of the IOVA tree: per size class two magazines for every CPU, and a depot of
 * full magazines that all CPUs share.
 *
 * Source: drivers/iommu/iova.c: __iova_rcache_insert, __iova_rcache_get, iova_magazine_pop,
 * iova_depot_push, iova_depot_pop, iova_depot_work_func, free_cpu_cached_iovas,
 * free_global_cached_iovas. The caches hold first page numbers only; the ranges stay allocated
 * in the tree. Budget: 15 ns for a get or a put.
 */
import { assert } from "../errors.ts";
import { CACHED_ORDERS, DEPOT_DELAY_MS, type IovaRules, LINUX_IOVA_RULES } from "./iova-rules.ts";

const NO_MAGAZINE = -1;

/** Receives the page numbers that leave the caches for the tree. */
export type ReleasePfn = (pfn: number, order: number) => void;

/** Settings of the caches. */
export interface IovaCacheOptions {
  readonly cpus: number;
  readonly rules?: Partial<IovaRules>;
  /** Asked before each allocation of a magazine: false when there is no memory. */
  readonly hasMemory?: () => boolean;
}

/** Magazines and depot of one IOVA domain. A size class is named by its order, log2 of pages. */
export class IovaCache {
  readonly cpus: number;
  readonly #options: IovaCacheOptions;
  readonly #magazineSize: number;
  readonly #fifo: boolean;
  readonly #shared: boolean;
  readonly #hasMemory: () => boolean;
  #pfns: Float64Array<ArrayBuffer>;
  #sizes: Int32Array<ArrayBuffer>;
  #magazines = 0;
  #unused: number[] = [];
  readonly #loaded: Int32Array<ArrayBuffer>;
  readonly #previous: Int32Array<ArrayBuffer>;
  #depots: number[][] = Array.from({ length: CACHED_ORDERS }, () => []);
  readonly #workDueMs = new Float64Array(CACHED_ORDERS).fill(Number.POSITIVE_INFINITY);

  /** Magazines that moved between a CPU and the depot. */
  depotMoves = 0;

  constructor(options: IovaCacheOptions) {
    const rules = { ...LINUX_IOVA_RULES, ...options.rules };
    assert(Number.isInteger(options.cpus) && options.cpus >= 1, "a machine has a CPU");
    assert(rules.magazineSize >= 1, "a magazine holds a page number");
    this.cpus = options.cpus;
    this.#options = options;
    this.#magazineSize = rules.magazineSize;
    this.#fifo = rules.fifo;
    this.#shared = rules.oneCacheForAllCpus;
    this.#hasMemory = options.hasMemory ?? (() => true);
    this.#pfns = new Float64Array(4 * this.#magazineSize);
    this.#sizes = new Int32Array(4);
    this.#loaded = new Int32Array(CACHED_ORDERS * options.cpus).fill(NO_MAGAZINE);
    this.#previous = this.#loaded.slice();
  }

  /**
   * Takes the newest page number that is low enough. Only one magazine is looked at: the loaded
   * one, or when it is empty the previous one, or else one from the depot.
   *
   * @param highestPfn - highest first page that will do
   * @returns 0 when there is none
   */
  get(order: number, highestPfn: number, cpu: number): number {
    const at = this.#indexOf(order, cpu);
    let magazine = this.#loaded[at]!;
    if (magazine === NO_MAGAZINE || this.#sizes[magazine] === 0) {
      const previous = this.#previous[at]!;
      if (previous !== NO_MAGAZINE && this.#sizes[previous] !== 0) {
        this.#previous[at] = magazine;
        magazine = previous;
      } else {
        const full = this.#depots[order]!.pop();
        if (full === undefined) return 0;
        this.depotMoves += 1;
        if (magazine !== NO_MAGAZINE) this.#discard(magazine);
        magazine = full;
      }
      this.#loaded[at] = magazine;
    }
    return this.#pop(magazine, highestPfn);
  }

  /** Keeps a page number for reuse. @returns false when it must go back to the tree instead */
  put(order: number, pfn: number, cpu: number, nowMs: number): boolean {
    const at = this.#indexOf(order, cpu);
    let magazine = this.#loaded[at]!;
    if (magazine === NO_MAGAZINE || this.#sizes[magazine] === this.#magazineSize) {
      magazine = this.#makeRoom(order, at, nowMs);
      if (magazine === NO_MAGAZINE) return false;
    }
    const size = this.#sizes[magazine]!;
    this.#pfns[magazine * this.#magazineSize + size] = pfn;
    this.#sizes[magazine] = size + 1;
    return true;
  }

  /** Loads a magazine with a free place. */
  #makeRoom(order: number, at: number, nowMs: number): number {
    const loaded = this.#loaded[at]!;
    if (loaded === NO_MAGAZINE) {
      this.#loaded[at] = this.#take();
      return this.#loaded[at]!;
    }
    let magazine = this.#previous[at]!;
    if (magazine === NO_MAGAZINE) magazine = this.#take();
    else if (this.#sizes[magazine] === this.#magazineSize) {
      const fresh = this.#take();
      if (fresh === NO_MAGAZINE) return NO_MAGAZINE;
      this.#depots[order]!.push(loaded);
      this.depotMoves += 1;
      if (this.#workDueMs[order] === Number.POSITIVE_INFINITY)
        this.#workDueMs[order] = nowMs + DEPOT_DELAY_MS;
      this.#loaded[at] = fresh;
      return fresh;
    }
    if (magazine === NO_MAGAZINE) return NO_MAGAZINE;
    this.#previous[at] = loaded;
    this.#loaded[at] = magazine;
    return magazine;
  }

  #pop(magazine: number, highestPfn: number): number {
    const pfns = this.#pfns;
    const first = magazine * this.#magazineSize;
    const last = first + this.#sizes[magazine]! - 1;
    let at = this.#fifo ? first : last;
    const step = this.#fifo ? 1 : -1;
    while (pfns[at]! > highestPfn) {
      at += step;
      if (at < first || at > last) return 0;
    }
    const pfn = pfns[at]!;
    if (this.#fifo) pfns.copyWithin(at, at + 1, last + 1);
    else pfns[at] = pfns[last]!;
    this.#sizes[magazine] = last - first;
    return pfn;
  }

  /** When the depot's work is due next; infinity while none is pending. */
  get depotWorkDueMs(): number {
    let due = Number.POSITIVE_INFINITY;
    for (const classDue of this.#workDueMs) due = Math.min(due, classDue);
    return due;
  }

  /**
   * Runs the depot work that is due: while a class holds more magazines than CPUs are online, one
   * of them goes back to the tree, and the work comes again.
   */
  runDepotWork(nowMs: number, onlineCpus: number, release: ReleasePfn): void {
    for (let order = 0; order < CACHED_ORDERS; order += 1) {
      if (this.#workDueMs[order]! > nowMs) continue;
      this.#workDueMs[order] = Number.POSITIVE_INFINITY;
      const depot = this.#depots[order]!;
      if (depot.length <= onlineCpus) continue;
      this.#empty(depot.pop()!, order, release);
      this.#workDueMs[order] = nowMs + DEPOT_DELAY_MS;
    }
  }

  /** Empties the magazines of one CPU. */
  drainCpu(cpu: number, release: ReleasePfn): void {
    for (let order = 0; order < CACHED_ORDERS; order += 1) {
      const at = this.#indexOf(order, cpu);
      if (this.#loaded[at] !== NO_MAGAZINE) this.#empty(this.#loaded[at]!, order, release);
      if (this.#previous[at] !== NO_MAGAZINE) this.#empty(this.#previous[at]!, order, release);
      this.#loaded[at] = NO_MAGAZINE;
      this.#previous[at] = NO_MAGAZINE;
    }
  }

  /** Empties the depot. */
  drainDepot(release: ReleasePfn): void {
    for (let order = 0; order < CACHED_ORDERS; order += 1) {
      const depot = this.#depots[order]!;
      while (depot.length > 0) this.#empty(depot.pop()!, order, release);
    }
  }

  /** Full magazines that the depot holds of a class. */
  depotSize(order: number): number {
    return this.#depots[order]!.length;
  }

  /** An independent copy. */
  clone(): IovaCache {
    const copy = new IovaCache(this.#options);
    copy.#pfns = this.#pfns.slice();
    copy.#sizes = this.#sizes.slice();
    copy.#magazines = this.#magazines;
    copy.#unused = this.#unused.slice();
    copy.#loaded.set(this.#loaded);
    copy.#previous.set(this.#previous);
    copy.#depots = this.#depots.map((depot) => depot.slice());
    copy.#workDueMs.set(this.#workDueMs);
    copy.depotMoves = this.depotMoves;
    return copy;
  }

  #indexOf(order: number, cpu: number): number {
    return order * this.cpus + (this.#shared ? 0 : cpu);
  }

  #empty(magazine: number, order: number, release: ReleasePfn): void {
    const first = magazine * this.#magazineSize;
    const end = first + this.#sizes[magazine]!;
    for (let at = first; at < end; at += 1) release(this.#pfns[at]!, order);
    this.#discard(magazine);
  }

  #take(): number {
    if (!this.#hasMemory()) return NO_MAGAZINE;
    const unused = this.#unused.pop();
    if (unused !== undefined) return unused;
    if (this.#magazines === this.#sizes.length) {
      const pfns = new Float64Array(this.#pfns.length * 2);
      pfns.set(this.#pfns);
      this.#pfns = pfns;
      const sizes = new Int32Array(this.#sizes.length * 2);
      sizes.set(this.#sizes);
      this.#sizes = sizes;
    }
    this.#magazines += 1;
    return this.#magazines - 1;
  }

  #discard(magazine: number): void {
    this.#sizes[magazine] = 0;
    this.#unused.push(magazine);
  }
}
