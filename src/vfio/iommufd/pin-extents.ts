/**
 * Which pages of a piece of memory are pinned, where they lie, and by how many users: contiguous
 * frames as one extent, so that what is done to pages costs by extent and not by page.
 *
 * Linux keeps frames in the page table of the first domain, or in an xarray for kernel users, and
 * reads them back page by page (drivers/iommu/iommufd/pages.c: batch_from_domain,
 * batch_from_xarray); the results are the same.
 */
import { assert } from "../../errors.ts";

/** Numbers of a row: first index, first frame, pages, users. */
const STRIDE = 4;
const NO_ROWS: number[] = [];

/** Pins pages that are not pinned yet. */
export interface Pinner {
  /**
   * Pins a run from `index` on, of at most `pages`.
   *
   * @returns an errno; after 0 `pfn` and `pages` tell the run
   */
  pin(index: number, pages: number): number;
  unpin(pfn: number, pages: number): void;
  /** First frame of the run pinned last. */
  readonly pfn: number;
  /** Its length. */
  readonly pages: number;
}

/** Visits a run. @returns an errno, which ends the visit when it is not 0 */
export type RunVisitor = (index: number, pfn: number, pages: number) => number;

/** Extents, ordered by index, apart from each other. */
export class PinExtents {
  #rows: number[] = NO_ROWS;
  #pages = 0;
  /** After {@link hold}: last index that it holds. */
  heldLast = -1;

  /** Pages pinned, each counted once. */
  get pages(): number {
    return this.#pages;
  }

  /** Extents kept. */
  get count(): number {
    return this.#rows.length / STRIDE;
  }

  /**
   * Adds a user to the pages from `first` on, pinning those that nobody holds yet, until `last` or
   * until `runsMax` extents were passed; {@link heldLast} tells where it stopped.
   *
   * @returns the errno of a page that cannot be pinned, and then nothing has changed
   */
  hold(first: number, last: number, runsMax: number, pinner: Pinner): number {
    assert(first <= last, "a range of pages has one");
    const above = this.#cut(first, last + 1);
    let next = 0;
    let index = first;
    let errno = 0;
    for (let runs = 0; index <= last && runs < runsMax; runs += 1) {
      const start = next < above.length ? above[next]! : last + 1;
      if (start === index) {
        const pages = above[next + 2]!;
        this.#push(index, above[next + 1]!, pages, above[next + 3]! + 1);
        next += STRIDE;
        index += pages;
        continue;
      }
      errno = pinner.pin(index, Math.min(last + 1, start) - index);
      if (errno !== 0) break;
      this.#push(index, pinner.pfn, pinner.pages, 1);
      this.#pages += pinner.pages;
      index += pinner.pages;
    }
    this.#append(above, next);
    this.heldLast = index - 1;
    if (errno !== 0 && index > first) this.release(first, index - 1, pinner);
    return errno;
  }

  /** Takes a user off the pages of a range, and unpins those that nobody holds any more. */
  release(first: number, last: number, pinner: Pinner): void {
    const above = this.#cut(first, last + 1);
    let next = 0;
    for (let index = first; index <= last; next += STRIDE) {
      assert(above[next] === index, "pages released were held");
      const pfn = above[next + 1]!;
      const pages = above[next + 2]!;
      const users = above[next + 3]! - 1;
      if (users > 0) {
        this.#push(index, pfn, pages, users);
      } else {
        this.#pages -= pages;
        pinner.unpin(pfn, pages);
      }
      index += pages;
    }
    this.#append(above, next);
  }

  /**
   * Visits the physically contiguous runs of a range that is held, at most `runsMax` of them.
   *
   * @returns the errno of the visitor that gave one, 0 without
   */
  forEachRun(first: number, last: number, visit: RunVisitor): number {
    const rows = this.#rows;
    let row = this.#rowOf(first);
    let index = first;
    while (index <= last) {
      assert(row < rows.length && rows[row]! <= index, "pages visited are held");
      const pfn = rows[row + 1]! + index - rows[row]!;
      let end = rows[row]! + rows[row + 2]!;
      assert(end > index, "pages visited are held");
      row += STRIDE;
      while (end <= last && rows[row] === end && rows[row + 1] === pfn + end - index) {
        end += rows[row + 2]!;
        row += STRIDE;
      }
      const stop = Math.min(end, last + 1);
      const errno = visit(index, pfn, stop - index);
      if (errno !== 0) return errno;
      index = stop;
    }
    return 0;
  }

  /** Every extent as [index, frame, pages, users]; for tests and dumps. */
  list(): number[][] {
    const out: number[][] = [];
    for (let row = 0; row < this.#rows.length; row += STRIDE) {
      out.push(this.#rows.slice(row, row + STRIDE));
    }
    return out;
  }

  /** Position of the first row that starts at or above an index. */
  #rowFrom(index: number): number {
    const rows = this.#rows;
    let low = 0;
    let high = rows.length / STRIDE;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (rows[middle * STRIDE]! < index) low = middle + 1;
      else high = middle;
    }
    return low * STRIDE;
  }

  /** Position of the row that an index may lie in. */
  #rowOf(index: number): number {
    const row = this.#rowFrom(index);
    return row < this.#rows.length && this.#rows[row] === index ? row : Math.max(row - STRIDE, 0);
  }

  /** Takes the rows from an index on away, none of which spans it or `end`. */
  #cut(index: number, end: number): number[] {
    this.#splitAt(index);
    this.#splitAt(end);
    const row = this.#rowFrom(index);
    if (row === this.#rows.length) return NO_ROWS;
    if (row > 0) return this.#rows.splice(row);
    const all = this.#rows;
    this.#rows = NO_ROWS;
    return all;
  }

  /** Puts rows that were cut off back, from position `next` on. */
  #append(rows: readonly number[], next: number): void {
    if (next >= rows.length) return;
    this.#push(rows[next]!, rows[next + 1]!, rows[next + 2]!, rows[next + 3]!);
    if (next + STRIDE < rows.length) this.#rows = this.#rows.concat(rows.slice(next + STRIDE));
  }

  /** Adds a row at the end, as a part of the one before where it goes on with it. */
  #push(index: number, pfn: number, pages: number, users: number): void {
    const rows = this.#rows;
    const below = rows.length - STRIDE;
    if (below >= 0 && rows[below + 3] === users) {
      const count = rows[below + 2]!;
      if (rows[below]! + count === index && rows[below + 1]! + count === pfn) {
        rows[below + 2] = count + pages;
        return;
      }
    }
    // The first row makes an array of its size: most memory is one extent.
    if (rows.length === 0) this.#rows = [index, pfn, pages, users];
    else rows.push(index, pfn, pages, users);
  }

  /** Makes an extent begin at an index, if one spans it. */
  #splitAt(index: number): void {
    const rows = this.#rows;
    const row = this.#rowFrom(index) - STRIDE;
    if (row < 0) return;
    const start = rows[row]!;
    const end = start + rows[row + 2]!;
    if (end <= index) return;
    rows.splice(
      row + STRIDE,
      0,
      index,
      rows[row + 1]! + index - start,
      end - index,
      rows[row + 3]!,
    );
    rows[row + 2] = index - start;
  }
}
