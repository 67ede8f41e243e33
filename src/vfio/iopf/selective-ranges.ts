/**
 * Ranges of I/O virtual addresses with a count of users, for a group whose faults are served only
 * inside what its driver pinned.
 *
 * Neighbours with equal counts are one range. Source: RFC v3 of 2021, patch 7 of 8, struct
 * vfio_range. (Its text calls the ranges the "non-faultable scope"; its code serves faults inside
 * them, and so does this.)
 */
import { assert } from "../../errors.ts";

/** Pages of one call of vfio_pin_pages. */
const CALL_PAGES_MAX = 512;

interface CountedRange {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
  readonly users: number;
}

/** Counted ranges in ascending order, none of them touching another of the same count. */
export class SelectiveRanges {
  #ranges: CountedRange[] = [];

  /** Ranges held. */
  get count(): number {
    return this.#ranges.length;
  }

  /** Adds a user to every page from `start` on. */
  add(start: number, pages: number): void {
    this.#change(start, start + pages, 1);
  }

  /** Takes a user off every page from `start` on; each of them has one. */
  remove(start: number, pages: number): void {
    this.#change(start, start + pages, -1);
  }

  /** The end (exclusive) of what is held in one piece from a page on; the page if nothing is. */
  endFrom(page: number): number {
    const ranges = this.#ranges;
    let end = page;
    for (let index = this.#firstAfter(page); index < ranges.length; index += 1) {
      const range = ranges[index]!;
      if (range.start > end) break;
      end = range.end;
    }
    return end;
  }

  /** The start of what is held in one piece down from a page, which is held. */
  startBefore(page: number): number {
    const ranges = this.#ranges;
    let start = page;
    for (let index = this.#firstAfter(page); index >= 0; index -= 1) {
      const range = ranges[index]!;
      if (range.end < start) break;
      start = Math.min(start, range.start);
    }
    return start;
  }

  /** Every range, for tests and reports. */
  entries(): readonly CountedRange[] {
    return this.#ranges;
  }

  /** Index of the first range that ends above a page. */
  #firstAfter(page: number): number {
    const ranges = this.#ranges;
    let low = 0;
    let high = ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (ranges[middle]!.end > page) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** Adds to the count of every page in [start, end), splitting and joining where needed. */
  #change(start: number, end: number, by: 1 | -1): void {
    assert(start >= 0 && start < end, "a range is not empty");
    assert(end - start <= CALL_PAGES_MAX, "a driver pins at most 512 pages by a call");
    const ranges = this.#ranges;
    // One range more at either side, because the outcome may join them.
    const first = Math.max(this.#firstAfter(start) - 1, 0);
    let last = this.#firstAfter(end);
    if (last < ranges.length) last += 1;
    const pieces: CountedRange[] = [];
    const put = (from: number, to: number, users: number) => {
      if (from >= to || users === 0) return;
      const before = pieces.at(-1);
      if (before !== undefined && before.end === from && before.users === users) {
        pieces[pieces.length - 1] = { start: before.start, end: to, users };
      } else pieces.push({ start: from, end: to, users });
    };
    let at = start;
    for (const range of ranges.slice(first, last)) {
      put(range.start, Math.min(range.end, start), range.users);
      const from = Math.max(range.start, start);
      const to = Math.min(range.end, end);
      if (from < to) {
        assert(by > 0 || from === at, "a page that loses a user has one");
        put(at, from, 1);
        put(from, to, range.users + by);
        at = to;
      }
      if (range.end <= end) continue;
      this.#fill(put, at, end, by);
      at = end;
      put(Math.max(range.start, end), range.end, range.users);
    }
    this.#fill(put, at, end, by);
    ranges.splice(first, last - first, ...pieces);
  }

  #fill(
    put: (from: number, to: number, users: number) => void,
    at: number,
    end: number,
    by: number,
  ) {
    assert(by > 0 || at >= end, "a page that loses a user has one");
    put(at, end, 1);
  }
}
