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
  /** The first run; most mappings have no other. */
  #firstPfn = 0;
  #firstPages = 0;
  /** Page counts and first frames of further runs in turn. */
  #runs: number[] | null = null;
  #count = 0;
  /** First pages and page counts of device memory in turn; null without any. */
  #reserved: number[] | null = null;
  #pages = 0;

  /** Whether every run is known. */
  get isComplete(): boolean {
    return this.#count <= EXTENTS_MAX;
  }

  /** Whether some of the pages are device memory. */
  get hasReserved(): boolean {
    return this.#reserved !== null;
  }

  /** Runs known. */
  get count(): number {
    return this.isComplete ? this.#count : 0;
  }

  /** Notes the next run. It joins the one before where that ends. */
  append(pfn: number, pages: number, isReserved: boolean): void {
    if (isReserved) this.#reserve(this.#pages, pages);
    this.#pages += pages;
    if (this.#count > EXTENTS_MAX) return;
    if (this.#count === 0) {
      this.#firstPfn = pfn;
      this.#firstPages = pages;
      this.#count = 1;
    } else if (!this.#extendLast(pfn, pages)) {
      this.#count += 1;
      this.#runs ??= [];
      if (this.isComplete) this.#runs.push(pages, pfn);
      else this.#runs = null;
    }
  }

  /** Pages of the run at an index, 0 … count − 1. */
  pagesAt(index: number): number {
    return index === 0 ? this.#firstPages : this.#runs![2 * index - 2]!;
  }

  /** First frame of the run at an index. */
  pfnAt(index: number): number {
    return index === 0 ? this.#firstPfn : this.#runs![2 * index - 1]!;
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
    this.#runs = null;
    this.#count = 0;
    this.#reserved = null;
    this.#pages = 0;
  }

  /** Adds pages to the last run. @returns false when they do not follow it */
  #extendLast(pfn: number, pages: number): boolean {
    const last = this.#count - 1;
    if (this.pfnAt(last) + this.pagesAt(last) !== pfn) return false;
    if (last === 0) this.#firstPages += pages;
    else this.#runs![2 * last - 2]! += pages;
    return true;
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
