/**
 * The contract between the IOMMU core and a driver's paging domain. Two styles, as in Linux: a
 * driver on generic page tables takes a whole range in one call ("range"), any other gets runs of
 * one page size ("pages").
 *
 * Source: include/linux/iommu.h, struct iommu_domain_ops; drivers/iommu/generic_pt.
 */
import type { IotlbGather, TableList } from "./gather.ts";

/** A paging domain as its driver implements it. All calls are synchronous. */
export interface DriverDomain {
  readonly style: "range" | "pages";
  /** Whether unmaps gather what is left to invalidate: an empty gather then needs no sync. */
  readonly gathersLeaves?: boolean;
  /** Page sizes that can be mapped, log2 of bytes, ascending, at least one. */
  readonly pageShifts: readonly number[];
  /** First frame that can be mapped. */
  readonly apertureStartPfn: number;
  /** Last frame that can be mapped, inclusive. */
  readonly apertureLastPfn: number;
  /** Whether DMA outside the aperture is impossible. */
  readonly forceAperture: boolean;
  /** Whether invalidation may be put off by a flush queue (IOMMU_CAP_DEFERRED_FLUSH). */
  readonly deferredFlush: boolean;
  /** Whether one large flush queue serves better than one per CPU (dev_iommu.shadow_on_flush). */
  readonly shadowOnFlush: boolean;
  /**
   * NUMA node of the unit attached last, as the by-node RFC adds it to a domain; a driver that does
   * not keep it leaves it at 0.
   */
  readonly nid?: number;
  /** After {@link map}: 4 KiB frames really mapped, also when it failed part-way. */
  readonly mappedPages: number;

  /**
   * Maps `count` pages of `2^pageShift` bytes; a "range" driver is called once with frames.
   *
   * @param prot - bits of `Prot`
   * @returns an errno, 0 on success; `mappedPages` tells how far it came
   */
  map(iovaPfn: number, physPfn: number, pageShift: number, count: number, prot: number): number;

  /**
   * Maps `count` frames side by side and makes them visible, as a map and a sync for each frame do;
   * `mappedPages` tells how many. Only a "range" driver may have a faster way for that.
   */
  mapEach?(iovaPfn: number, pfns: Float64Array, count: number, prot: number): number;

  /**
   * Unmaps `count` pages of `2^pageShift` bytes; a "range" driver is called once with frames.
   *
   * @returns 4 KiB frames unmapped: fewer than asked at a hole, more when the last entry was larger
   */
  unmap(iovaPfn: number, pageShift: number, count: number, gather: IotlbGather): number;

  /** The physical frame a frame maps to, or −1. */
  iovaToPhys(iovaPfn: number): number;

  /**
   * After {@link iovaToPhys} found a page: frames from there to the end of the same page, which lie
   * side by side. A driver that does not tell is asked frame by frame.
   */
  readonly foundPages?: number;

  /** Completes the invalidation of what was gathered. */
  iotlbSync(gather: IotlbGather): void;

  /** Makes new mappings visible to devices. @returns an errno, 0 on success */
  iotlbSyncMap(iovaPfn: number, pages: number): number;

  /** Invalidates everything cached for the domain and completes it. */
  flushIotlbAll(): void;

  /**
   * Forces all DMA through the domain to be cache coherent from now on. Drivers whose hardware
   * cannot do that lack it.
   *
   * @returns whether all units attached can do it
   */
  enforceCacheCoherency?(): boolean;

  /**
   * Reports the frames of a range that devices wrote to, and makes them clean if asked to; the
   * caller invalidates those then. Drivers whose tables note no writes lack it.
   *
   * @returns an errno: EINVAL when the table's format keeps no dirty state
   */
  readDirty?(
    iovaPfn: number,
    pages: number,
    isCleaning: boolean,
    report: (iovaPfn: number, pages: number) => void,
  ): number;

  /** Gives tables back that no walker can hold any more. */
  freeTables(tables: TableList): void;
}
