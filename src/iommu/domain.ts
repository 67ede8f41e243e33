/**
 * The IOMMU core's view of a domain: map, unmap, sync and their rules, on top of a driver's domain.
 *
 * Source: drivers/iommu/iommu.c: iommu_map, iommu_map_nosync, iommu_sync_map, iommu_map_sg,
 * __iommu_unmap, iommu_iova_to_phys; include/linux/iommu.h: iommu_iotlb_sync, domain types.
 * Addresses and lengths are in 4 KiB frames.
 */
import { Errno } from "../errno.ts";
import { isAligned, PAGE_SHIFT } from "../units.ts";
import type { DriverDomain } from "./driver-domain.ts";
import { IotlbGather } from "./gather.ts";
import type { IopfHandler } from "./iopf/fault-group.ts";
import { choosePageRun, type PageRun } from "./page-size.ts";

/** Values of a domain's type. Source: include/linux/iommu.h, IOMMU_DOMAIN_*. */
export const DomainType = {
  BLOCKED: 0,
  UNMANAGED: 1,
  DMA: 3,
  IDENTITY: 4,
  DMA_FQ: 11,
  SVA: 16,
  PLATFORM: 32,
  NESTED: 64,
} as const;
export type DomainType = (typeof DomainType)[keyof typeof DomainType];

const PAGING = 1;

/** Hears of every map and unmap, in the order and with the sizes of the `iommu:*` trace events. */
export interface DomainTrace {
  map(iovaPfn: number, physPfn: number, mappedPages: number): void;
  unmap(iovaPfn: number, pages: number, unmappedPages: number): void;
}

/** What the DMA API hangs on a domain that it manages. */
export interface DmaCookie {
  /** Sets the flush queue up, if it is not there yet. @returns an errno, 0 on success */
  initFlushQueue(): number;
}

/** Hears of a DMA that a domain refused. @returns 0 when it took care of it, else an errno */
export type FaultHandler = (deviceName: string, iovaPfn: number, flags: number) => number;

/** What a domain is in use for beyond translation; one thing at a time. */
export type DomainCookie =
  | { readonly kind: "none" }
  | { readonly kind: "dma"; readonly dma: DmaCookie }
  | { readonly kind: "dma-msi"; readonly base: bigint }
  | { readonly kind: "fault-handler"; readonly handle: FaultHandler };

/** A stretch of physically contiguous memory, in frames. */
export interface PhysicalRun {
  readonly pfn: number;
  readonly pages: number;
}

/** A domain that the core maps into. BLOCKED and IDENTITY domains have no driver part. */
export class IommuDomain {
  type: DomainType;
  readonly driver: DriverDomain | null;
  /** The IOMMU driver that made the domain; null when nobody asks. */
  owner: object | null = null;
  /**
   * The driver's table of operations for this kind of domain, by name: VFIO shares a domain among
   * groups only where these are the same. Empty when nobody asks.
   */
  operations = "";
  cookie: DomainCookie = { kind: "none" };
  /** Who takes the page requests of devices attached by handle; null when the domain takes none. */
  iopfHandler: IopfHandler | null = null;
  readonly #trace: DomainTrace | null;
  readonly #gather = new IotlbGather();
  readonly #run: PageRun = { pageShift: 0, count: 0 };
  #mappedPages = 0;

  constructor(type: DomainType, driver: DriverDomain | null, trace: DomainTrace | null = null) {
    this.type = type;
    this.driver = driver;
    this.#trace = trace;
  }

  /** Whether the domain translates through mappings. */
  get isPaging(): boolean {
    return (this.type & PAGING) !== 0 && this.driver !== null;
  }

  /**
   * Maps and makes the mapping visible. A failure leaves nothing mapped.
   *
   * @returns an errno, 0 on success: EINVAL (no paging domain, misaligned, rights), EADDRINUSE or
   *   EEXIST (occupied), ERANGE, ENXIO, ENOMEM, or what the driver's sync gave
   */
  map(iovaPfn: number, physPfn: number, pages: number, prot: number): number {
    const errno = this.mapNoSync(iovaPfn, physPfn, pages, prot);
    return errno === Errno.OK ? this.#syncOrUnmap(iovaPfn, pages) : errno;
  }

  /**
   * Maps `count` frames side by side, each by a {@link map} of its own, up to one that fails;
   * {@link mappedPages} tells how many. Faster than that where nobody listens.
   */
  mapEach(iovaPfn: number, pfns: Float64Array, count: number, prot: number): number {
    const { driver } = this;
    const isQuiet = this.#trace === null && this.isPaging;
    if (isQuiet && driver?.mapEach !== undefined && driver.style === "range") {
      const errno = driver.mapEach(iovaPfn, pfns, count, prot);
      this.#mappedPages = driver.mappedPages;
      return errno;
    }
    let done = 0;
    let errno: number = Errno.OK;
    while (done < count && errno === Errno.OK) {
      errno = this.map(iovaPfn + done, pfns[done]!, 1, prot);
      if (errno === Errno.OK) done += 1;
    }
    this.#mappedPages = done;
    return errno;
  }

  /** After {@link mapEach}: frames that it mapped. */
  get mappedPages(): number {
    return this.#mappedPages;
  }

  /** Whether the kernel's DMA API manages the domain. */
  get isDma(): boolean {
    return this.type === DomainType.DMA || this.type === DomainType.DMA_FQ;
  }

  /** Maps without the sync, as dma_iova_link does. */
  mapNoSync(iovaPfn: number, physPfn: number, pages: number, prot: number): number {
    const driver = this.driver;
    if (driver === null || !this.isPaging) return Errno.EINVAL;
    const errno =
      driver.style === "range"
        ? this.#mapRange(driver, iovaPfn, physPfn, pages, prot)
        : this.#mapRuns(driver, iovaPfn, physPfn, pages, prot);
    this.#trace?.map(iovaPfn, physPfn, this.#mappedPages);
    if (errno !== Errno.OK) this.unmap(iovaPfn, this.#mappedPages);
    return errno;
  }

  /**
   * Makes what was mapped without sync visible, as dma_iova_sync does.
   *
   * @returns an errno; what was mapped stays mapped then, for the caller to unmap
   */
  syncMap(iovaPfn: number, pages: number): number {
    return this.driver!.iotlbSyncMap(iovaPfn, pages);
  }

  /**
   * Maps a list of physical runs side by side from `iovaPfn` on, adjacent ones as one, with a
   * single sync at the end. A failure leaves nothing mapped.
   */
  mapRuns(iovaPfn: number, runs: readonly PhysicalRun[], prot: number): number {
    let mapped = 0;
    let index = 0;
    while (index < runs.length) {
      const first = runs[index]!;
      let pages = first.pages;
      index += 1;
      while (index < runs.length && runs[index]!.pfn === first.pfn + pages) {
        pages += runs[index]!.pages;
        index += 1;
      }
      if (pages === 0) continue;
      const errno = this.mapNoSync(iovaPfn + mapped, first.pfn, pages, prot);
      if (errno !== Errno.OK) {
        // Also when nothing is mapped yet, which shows in the trace.
        this.unmap(iovaPfn, mapped);
        return errno;
      }
      mapped += pages;
    }
    return this.#syncOrUnmap(iovaPfn, mapped);
  }

  /** Unmaps and waits for the invalidation. @returns frames unmapped */
  unmap(iovaPfn: number, pages: number): number {
    const gather = this.#gather;
    const unmapped = this.unmapFast(iovaPfn, pages, gather);
    this.iotlbSync(gather);
    return unmapped;
  }

  /** Unmaps and leaves the invalidation to the caller. @returns frames unmapped */
  unmapFast(iovaPfn: number, pages: number, gather: IotlbGather): number {
    const driver = this.driver;
    if (driver === null || !this.isPaging) return 0;
    const unmapped =
      driver.style === "range"
        ? driver.unmap(iovaPfn, PAGE_SHIFT, pages, gather)
        : this.#unmapRuns(driver, iovaPfn, pages, gather);
    this.#trace?.unmap(iovaPfn, pages, unmapped);
    return unmapped;
  }

  /** Completes a gather, if it holds anything, and frees the tables it collected. */
  iotlbSync(gather: IotlbGather): void {
    const driver = this.driver;
    if (driver === null) return;
    if (!gather.isEmpty) driver.iotlbSync(gather);
    gather.reset();
    const tables = gather.takeTables();
    if (tables !== null) driver.freeTables(tables);
  }

  /** Invalidates everything cached for the domain. */
  flushIotlbAll(): void {
    this.driver?.flushIotlbAll();
  }

  /** The physical frame behind a frame; −1 when not mapped or blocked. */
  iovaToPhys(iovaPfn: number): number {
    if (this.type === DomainType.IDENTITY) return iovaPfn;
    if (this.driver === null) return -1;
    return this.driver.iovaToPhys(iovaPfn);
  }

  /** After {@link iovaToPhys} found a page: frames from there on that surely follow, at least 1. */
  get foundPages(): number {
    return this.driver?.foundPages ?? 1;
  }

  #syncOrUnmap(iovaPfn: number, pages: number): number {
    const errno = this.syncMap(iovaPfn, pages);
    if (errno !== Errno.OK) this.unmap(iovaPfn, pages);
    return errno;
  }

  #mapRange(
    driver: DriverDomain,
    iovaPfn: number,
    physPfn: number,
    pages: number,
    prot: number,
  ): number {
    const errno = driver.map(iovaPfn, physPfn, PAGE_SHIFT, pages, prot);
    this.#mappedPages = driver.mappedPages;
    return errno;
  }

  #mapRuns(
    driver: DriverDomain,
    iovaPfn: number,
    physPfn: number,
    pages: number,
    prot: number,
  ): number {
    const granule = 2 ** (driver.pageShifts[0]! - PAGE_SHIFT);
    this.#mappedPages = 0;
    if (!isAligned(iovaPfn, granule) || !isAligned(physPfn, granule) || !isAligned(pages, granule))
      return Errno.EINVAL;
    const run = this.#run;
    let done = 0;
    while (done < pages) {
      choosePageRun(driver.pageShifts, iovaPfn + done, physPfn + done, pages - done, run);
      const errno = driver.map(iovaPfn + done, physPfn + done, run.pageShift, run.count, prot);
      done += driver.mappedPages;
      this.#mappedPages = done;
      if (errno !== Errno.OK) return errno;
    }
    return Errno.OK;
  }

  #unmapRuns(driver: DriverDomain, iovaPfn: number, pages: number, gather: IotlbGather): number {
    const granule = 2 ** (driver.pageShifts[0]! - PAGE_SHIFT);
    if (!isAligned(iovaPfn, granule) || !isAligned(pages, granule)) return 0;
    const run = this.#run;
    let done = 0;
    while (done < pages) {
      // The physical address takes no part, so unmap runs can differ from map runs.
      choosePageRun(driver.pageShifts, iovaPfn + done, iovaPfn + done, pages - done, run);
      const unmapped = driver.unmap(iovaPfn + done, run.pageShift, run.count, gather);
      if (unmapped === 0) break;
      done += unmapped;
    }
    // A driver that gathers nothing itself still gets its sync.
    const isLeft = gather.isEmpty && driver.gathersLeaves !== true;
    if (done > 0 && isLeft && !gather.queued) gather.addRange(iovaPfn, done);
    return done;
  }
}
