/**
 * What an unmap leaves to do: the range to invalidate and the tables to free afterwards.
 *
 * Source: include/linux/iommu.h, struct iommu_iotlb_gather, iommu_iotlb_gather_add_page and
 * iommu_iotlb_gather_add_range.
 */
import { PFN_LAST } from "../units.ts";

/** Page-table tables that may be freed once no walker can hold them: their first frame numbers. */
export type TableList = number[];

/** Collects invalidations over one or several unmaps. Empty while `startPfn` exceeds `lastPfn`. */
export class IotlbGather {
  startPfn = PFN_LAST;
  /** Inclusive. */
  lastPfn = -1;
  /** log2 of the page size the gathered range was mapped with; 0 when none was noted. */
  pageShift = 0;
  /** Set in flush-queue mode: nothing is gathered or synced, only tables are collected. */
  queued = false;
  freelist: TableList | null = null;

  /** Whether there is nothing to invalidate. */
  get isEmpty(): boolean {
    return this.startPfn > this.lastPfn;
  }

  /** Widens the gathered range to take in `pages` frames from `startPfn` on. */
  addRange(startPfn: number, pages: number): void {
    const lastPfn = startPfn + pages - 1;
    if (startPfn < this.startPfn) this.startPfn = startPfn;
    if (lastPfn > this.lastPfn) this.lastPfn = lastPfn;
  }

  /** Whether `pages` frames from `startPfn` on neither overlap nor touch the gathered range. */
  isDisjoint(startPfn: number, pages: number): boolean {
    if (this.isEmpty) return false;
    return startPfn + pages < this.startPfn || startPfn > this.lastPfn + 1;
  }

  /** Notes a table to be freed after the invalidation. */
  addTable(pfn: number): void {
    if (this.freelist === null) this.freelist = [pfn];
    else this.freelist.push(pfn);
  }

  /** Takes the collected tables out. */
  takeTables(): TableList | null {
    const tables = this.freelist;
    this.freelist = null;
    return tables;
  }

  /** Empties the range, and keeps `queued`. Tables must have been taken out before. */
  reset(): void {
    this.startPfn = PFN_LAST;
    this.lastPfn = -1;
    this.pageShift = 0;
  }
}
