/**
 * Which I/O virtual pages somebody holds a view of, so that only their end makes the views void:
 * drivers unmap all the time, and hardly ever the pages of a ring.
 */

/** Pages beyond which every unmapping counts: more than any number of usual queues has. */
const PAGES_MAX = 1024;

/** A set of pages that is only ever added to, asked, and emptied. */
export class WindowPages {
  /** Whether a view was asked for in vain: a new mapping may be what was missing. */
  hasRefused = false;
  readonly #pages: number[] = [];
  #first = Number.POSITIVE_INFINITY;
  #last = -1;

  /** Adds a page. */
  add(pfn: number): void {
    if (this.#pages.length > PAGES_MAX || this.#pages.includes(pfn)) return;
    this.#pages.push(pfn);
    this.#first = Math.min(this.#first, pfn);
    this.#last = Math.max(this.#last, pfn);
  }

  /** Whether a page of a range is held, as far as that is known. */
  meets(firstPfn: number, lastPfn: number): boolean {
    if (this.#pages.length > PAGES_MAX) return true;
    if (lastPfn < this.#first || firstPfn > this.#last) return false;
    for (const pfn of this.#pages) if (pfn >= firstPfn && pfn <= lastPfn) return true;
    return false;
  }

  /** Forgets all. */
  clear(): void {
    this.hasRefused = false;
    this.#pages.length = 0;
    this.#first = Number.POSITIVE_INFINITY;
    this.#last = -1;
  }
}
