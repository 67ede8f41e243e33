/**
 * Where the pages of a mapping lie in memory: the physically contiguous runs that were pinned, in
 * order of addresses, kept while they are few; and which of its pages are device memory.
 *
 * The kernel keeps nothing and asks the first domain's page table for every 4 KiB when it unpins
 * (drivers/vfio/vfio_iommu_type1.c:vfio_unmap_unpin). A few runs cost next to nothing and save that
 * walk for what is large and contiguous: device memory, huge pages. Scattered memory would take
 * more than its page table, so it is read from there, leaf by leaf.
 */
import { assert } from "../../errors.ts";

/** Runs kept before the page table is the better record. */
export const EXTENTS_MAX = 64;

/** The runs of one mapping. Pages are counted from its start. */
export class Extents {
  /** Page counts and first frames in turn; null once there were too many. */
  #runs: number[] | null = [];
  /** First pages and page counts of device memory in turn; null without any. */
  #reserved: number[] | null = null;
  #pages = 0;

  /** Whether every run is known. */
  get isComplete(): boolean {
    return this.#runs !== null;
  }

  /** Whether some of the pages are device memory. */
  get hasReserved(): boolean {
    return this.#reserved !== null;
  }

  /** Runs known. */
  get count(): number {
    return this.#runs === null ? 0 : this.#runs.length / 2;
  }

  /** Notes the next run. It joins the one before where that ends. */
  append(pfn: number, pages: number, isReserved: boolean): void {
    if (isReserved) this.#reserve(this.#pages, pages);
    this.#pages += pages;
    const runs = this.#runs;
    if (runs === null) return;
    const last = runs.length - 2;
    if (last >= 0 && runs[last + 1]! + runs[last]! === pfn) runs[last]! += pages;
    else if (runs.length >= 2 * EXTENTS_MAX) this.#runs = null;
    else runs.push(pages, pfn);
  }

  /** Pages of the run at an index, 0 … count − 1. */
  pagesAt(index: number): number {
    return this.#runs![2 * index]!;
  }

  /** First frame of the run at an index. */
  pfnAt(index: number): number {
    return this.#runs![2 * index + 1]!;
  }

  /** Every run known, in order. */
  runs(): { readonly pfn: number; readonly pages: number }[] {
    return Array.from({ length: this.count }, (_, index) => ({
      pfn: this.pfnAt(index),
      pages: this.pagesAt(index),
    }));
  }

  /** Whether a page is device memory, which is not pinned. */
  isReserved(page: number): boolean {
    const reserved = this.#reserved;
    if (reserved === null) return false;
    const index = this.#floor(reserved, page);
    return index >= 0 && page < reserved[index]! + reserved[index + 1]!;
  }

  /** The end, at most `limit`, of the pages from `page` on that are of its kind. */
  kindEnd(page: number, limit: number): number {
    const reserved = this.#reserved;
    if (reserved === null) return limit;
    const index = this.#floor(reserved, page);
    const end = index < 0 ? 0 : reserved[index]! + reserved[index + 1]!;
    return Math.min(limit, page < end ? end : (reserved[index + 2] ?? limit));
  }

  /** Forgets every run. */
  clear(): void {
    this.#runs = [];
    this.#reserved = null;
    this.#pages = 0;
  }

  #reserve(page: number, pages: number): void {
    this.#reserved ??= [];
    const reserved = this.#reserved;
    const last = reserved.length - 2;
    assert(last < 0 || page >= reserved[last]! + reserved[last + 1]!, "runs come in order");
    if (last >= 0 && reserved[last]! + reserved[last + 1]! === page) reserved[last + 1]! += pages;
    else reserved.push(page, pages);
  }

  /** Position of the last entry that starts at or below a page; −2 without one. */
  #floor(reserved: readonly number[], page: number): number {
    let low = -1;
    let high = reserved.length / 2;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (reserved[2 * middle]! <= page) low = middle;
      else high = middle;
    }
    return 2 * low;
  }
}
