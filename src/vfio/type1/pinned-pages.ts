/**
 * Pages of a mapping that drivers of mediated devices hold, each with how often.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c: struct vfio_pfn, vfio_add_to_pfn_list,
 * vfio_iova_get_vfio_pfn, vfio_iova_put_vfio_pfn, vpfn_pages.
 */
import { assert } from "../../errors.ts";

interface PinnedPage {
  readonly pfn: number;
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
  add(iovaPfn: number, pfn: number): void {
    assert(!this.#pages.has(iovaPfn), "a page held already gets a user more");
    this.#pages.set(iovaPfn, { pfn, users: 1 });
  }

  /** Adds a user to a page. @returns its frame; −1 when it is not held */
  share(iovaPfn: number): number {
    const page = this.#pages.get(iovaPfn);
    if (page === undefined) return -1;
    page.users += 1;
    return page.pfn;
  }

  /** Takes a user off a page. @returns its frame when that was the last one, else −1 */
  release(iovaPfn: number): number {
    const page = this.#pages.get(iovaPfn);
    if (page === undefined) return -1;
    page.users -= 1;
    if (page.users > 0) return -1;
    this.#pages.delete(iovaPfn);
    return page.pfn;
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
