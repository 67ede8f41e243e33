/**
 * Pages of a mapping that drivers of mediated devices hold, each with how often.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c: struct vfio_pfn, vfio_add_to_pfn_list,
 * vfio_iova_get_vfio_pfn, vfio_iova_put_vfio_pfn, vpfn_pages.
 */
import { assert } from "../../errors.ts";
import type { ProcessMemory } from "../process/process-memory.ts";

/** A page held. */
export interface PinnedPage {
  readonly pfn: number;
  /** Where it was pinned, and is to be unpinned whoever has the mapping then. */
  readonly memory: ProcessMemory;
  users: number;
}

/** Pages by I/O virtual frame. */
export class PinnedPages {
  readonly #pages = new Map<number, PinnedPage>();

  /** Pages held. */
  get count(): number {
    return this.#pages.size;
  }

  /** Notes a page with one user. */
  add(iovaPfn: number, pfn: number, memory: ProcessMemory): void {
    assert(!this.#pages.has(iovaPfn), "a page held already gets a user more");
    this.#pages.set(iovaPfn, { pfn, memory, users: 1 });
  }

  /** Adds a user to a page. @returns its frame; −1 when it is not held */
  share(iovaPfn: number): number {
    const page = this.#pages.get(iovaPfn);
    if (page === undefined) return -1;
    page.users += 1;
    return page.pfn;
  }

  /** Takes a user off a page. @returns the page when that was the last one, else null */
  release(iovaPfn: number): PinnedPage | null {
    const page = this.#pages.get(iovaPfn);
    if (page === undefined) return null;
    page.users -= 1;
    if (page.users > 0) return null;
    this.#pages.delete(iovaPfn);
    return page;
  }

  /** How many of some frames are held. */
  countIn(iovaPfn: number, pages: number): number {
    let count = 0;
    if (pages < this.#pages.size) {
      for (let index = 0; index < pages; index += 1) {
        if (this.#pages.has(iovaPfn + index)) count += 1;
      }
      return count;
    }
    for (const held of this.#pages.keys()) {
      if (held >= iovaPfn && held < iovaPfn + pages) count += 1;
    }
    return count;
  }

  /** The I/O virtual frames held, in the order of pinning. */
  frames(): IterableIterator<number> {
    return this.#pages.keys();
  }
}
