/**
 * What the DMA API keeps for one domain: its IOVA space and, in lazy mode, its flush queue; and the
 * order in which a range is unmapped, invalidated and freed.
 *
 * Source: drivers/iommu/dma-iommu.c: struct iommu_dma_cookie, iommu_dma_init_domain,
 * iommu_dma_init_fq, iommu_dma_init_options, iommu_dma_free_iova, __iommu_dma_unmap,
 * __iommu_dma_iova_unlink.
 *
 *   strict  unmap → sync → free tables → free IOVA
 *   lazy    unmap → queue; later flush of everything → free tables → free IOVA
 *
 * Frames count 4 KiB, pages count granules.
 */
import { Errno } from "../errno.ts";
import { assert } from "../errors.ts";
import { settleFlushQueue } from "../iommu/default-domain.ts";
import { type DmaCookie, DomainType, type IommuDomain } from "../iommu/domain.ts";
import type { DriverDomain } from "../iommu/driver-domain.ts";
import { IotlbGather, type TableList } from "../iommu/gather.ts";
import type { Meter } from "../meter.ts";
import { PAGE_SHIFT } from "../units.ts";
import {
  FlushQueue,
  type FlushQueueKind,
  type FlushQueueObserver,
  type FlushTimer,
} from "./flush-queue.ts";
import { IovaDomain, roundedPages } from "./iova-domain.ts";
import type { IovaRules } from "./iova-rules.ts";
import { type Reservations, reserveIovas } from "./reservations.ts";

/** Settings of a domain's DMA side. */
export interface DmaDomainOptions {
  readonly cpus: number;
  /** Expires on some CPU and calls {@link DmaDomain.onTimer} there. */
  readonly timer: FlushTimer;
  /** What differs from Linux's choice of queue: `kind` is the driver's, sizes are Linux's. */
  readonly flushQueue?: {
    readonly kind?: FlushQueueKind;
    readonly entries?: number;
    readonly timeoutMs?: number;
    readonly observer?: FlushQueueObserver;
  };
  readonly rules?: Partial<IovaRules>;
  readonly meter?: Meter;
  /** Asked before each allocation of a magazine or queue: false when there is no memory. */
  readonly hasMemory?: () => boolean;
}

/** Pages below 4 GiB by what holds them; what is in none of them is free. */
export interface SpaceUse32 {
  readonly totalPages: number;
  readonly livePages: number;
  readonly queuedPages: number;
  readonly cachedPages: number;
  readonly reservedPages: number;
  readonly largestGapPages: number;
}

/** A domain as the DMA API uses it; all devices of a group share it. */
export class DmaDomain implements DmaCookie {
  readonly domain: IommuDomain;
  readonly iova: IovaDomain;
  /** 4 KiB frames of a granule. */
  readonly granuleFrames: number;
  readonly #driver: DriverDomain;
  readonly #options: DmaDomainOptions;
  readonly #gather = new IotlbGather();
  #initialised = false;
  #queue: FlushQueue | null = null;
  #queuedPages32 = 0;

  /** Unmaps that took out more or less than they were asked to: a warning in Linux. */
  mismatchedUnmaps = 0;

  /** @param domain - a paging domain; it gets its cookie here */
  constructor(domain: IommuDomain, options: DmaDomainOptions) {
    const { driver } = domain;
    assert(driver !== null && domain.isPaging, "the DMA API maps into a paging domain");
    const granuleShift = driver.pageShifts[0]!;
    this.domain = domain;
    this.#driver = driver;
    this.#options = options;
    this.granuleFrames = 2 ** (granuleShift - PAGE_SHIFT);
    this.iova = new IovaDomain({
      ...options,
      granuleShift,
      startPfn: Math.max(1, Math.floor(driver.apertureStartPfn / this.granuleFrames)),
    });
    domain.cookie = { kind: "dma", dma: this };
  }

  /**
   * Prepares the domain for a device; only the first one counts. Lazy mode becomes strict where the
   * driver cannot defer invalidation or the queue cannot be had.
   *
   * @returns an errno, 0 on success: EFAULT when the driver's geometry has changed since
   */
  init(reservations: Reservations): number {
    const granule = 2 ** (this.#driver.pageShifts[0]! - PAGE_SHIFT);
    const start = Math.max(1, Math.floor(this.#driver.apertureStartPfn / granule));
    if (granule !== this.granuleFrames || start !== this.iova.tree.startPfn) return Errno.EFAULT;
    if (this.#initialised) return Errno.OK;
    this.#initialised = true;
    settleFlushQueue(this.domain);
    return reserveIovas(this.iova, reservations);
  }

  /** Sets the flush queue up, also while the domain is in use. @returns an errno: ENOMEM */
  initFlushQueue(): number {
    if (this.#queue !== null) return Errno.OK;
    const { flushQueue, hasMemory, meter, timer, cpus } = this.#options;
    if (hasMemory !== undefined && !hasMemory()) return Errno.ENOMEM;
    const { kind, ...sizes } = flushQueue ?? {};
    this.#queue = new FlushQueue({
      ...sizes,
      kind: kind ?? (this.#driver.shadowOnFlush ? "single" : "per-cpu"),
      cpus,
      timer,
      sink: {
        flushIotlbAll: () => this.domain.flushIotlbAll(),
        release: (pfn, pages, tables, cpu, nowMs) => this.#release(pfn, pages, tables, cpu, nowMs),
      },
      ...(meter === undefined ? {} : { meter }),
    });
    return Errno.OK;
  }

  /** Switches a domain in use from strict to lazy. @returns an errno: EINVAL, ENOMEM */
  switchToLazy(): number {
    if (this.domain.type !== DomainType.DMA) return Errno.EINVAL;
    const errno = this.initFlushQueue();
    if (errno === Errno.OK) this.domain.type = DomainType.DMA_FQ;
    return errno;
  }

  /** The flush queue; null in strict mode. */
  get flushQueue(): FlushQueue | null {
    return this.#queue;
  }

  /** The flush queue's timer expired on `cpu`. */
  onTimer(cpu: number, nowMs: number): void {
    this.#queue?.onTimer(cpu, nowMs);
  }

  /** Unmaps a range and frees its IOVA: at once in strict mode, through the queue in lazy mode. */
  unmapAndFree(startFrame: number, frames: number, cpu: number, nowMs: number): void {
    const gather = this.#gather;
    const queue = this.#queue;
    gather.queued = queue !== null;
    this.#unmap(startFrame, frames);
    if (queue === null) {
      this.domain.iotlbSync(gather);
      this.freeIova(startFrame, frames, cpu, nowMs);
      return;
    }
    gather.reset();
    const pfn = startFrame / this.granuleFrames;
    const pages = frames / this.granuleFrames;
    if (pfn < this.iova.tree.limit32Pfn) this.#queuedPages32 += roundedPages(pages);
    queue.queue(cpu, pfn, pages, gather.takeTables(), nowMs);
  }

  /** Unmaps part of a range and completes the invalidation, in either mode; the IOVA stays taken. */
  unmapOnly(startFrame: number, frames: number): void {
    this.#gather.queued = false;
    this.#unmap(startFrame, frames);
    this.domain.iotlbSync(this.#gather);
  }

  /** Gives an IOVA back that nothing is mapped at. */
  freeIova(startFrame: number, frames: number, cpu: number, nowMs: number): void {
    this.iova.free(startFrame / this.granuleFrames, frames / this.granuleFrames, cpu, nowMs);
  }

  /** How full the space below 4 GiB is. */
  spaceUse32(): SpaceUse32 {
    const { counts, tree } = this.iova;
    return {
      totalPages: tree.limit32Pfn,
      livePages: counts.livePages32 - this.#queuedPages32,
      queuedPages: this.#queuedPages32,
      cachedPages: counts.cachedPages32,
      reservedPages: counts.reservedPages32,
      largestGapPages: this.iova.largestFreeGap32(),
    };
  }

  /** Ends the DMA side of a domain: frees the tables that wait for a flush. */
  dispose(): void {
    this.#queue?.dispose((tables) => this.#driver.freeTables(tables));
    this.#queue = null;
    this.domain.cookie = { kind: "none" };
  }

  #unmap(startFrame: number, frames: number): void {
    const unmapped = this.domain.unmapFast(startFrame, frames, this.#gather);
    if (unmapped !== frames) this.mismatchedUnmaps += 1;
  }

  #release(pfn: number, pages: number, tables: TableList | null, cpu: number, nowMs: number): void {
    if (tables !== null) this.#driver.freeTables(tables);
    if (pfn < this.iova.tree.limit32Pfn) this.#queuedPages32 -= roundedPages(pages);
    this.iova.free(pfn, pages, cpu, nowMs);
  }
}
