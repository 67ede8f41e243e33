/**
 * Where the pages of a mapping lie in memory: the physically contiguous runs that were pinned, in
 * order of addresses, kept while they are few.
 *
 * The kernel keeps nothing and asks the first domain's page table for every 4 KiB when it unpins
 * (drivers/vfio/vfio_iommu_type1.c:vfio_unmap_unpin). A few runs cost next to nothing and save that
 * walk for what is large and contiguous: device memory, huge pages. Scattered memory would take
 * more than its page table, so it is read from there, leaf by leaf.
 */

/** Runs kept before the page table is the better record. */
export const EXTENTS_MAX = 64;

/** The runs of one mapping. Pages and frames are numbers of 4 KiB units. */
export class Extents {
  /** Page counts and first frames in turn; null once there were too many. */
  #runs: number[] | null = [];
  #pages = 0;

  /** Whether every run is known. */
  get isComplete(): boolean {
    return this.#runs !== null;
  }

  /** Runs known. */
  get count(): number {
    return this.#runs === null ? 0 : this.#runs.length / 2;
  }

  /** Pages of all runs noted. */
  get pages(): number {
    return this.#pages;
  }

  /** Notes the next run. It joins the one before where that ends. */
  append(pfn: number, pages: number): void {
    const runs = this.#runs;
    this.#pages += pages;
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

  /** Forgets every run. */
  clear(): void {
    this.#runs = [];
    this.#pages = 0;
  }
}
