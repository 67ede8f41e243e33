/**
 * Plain twins of the IOVA allocator, for tests: a sorted list walked range by range as Linux walks
 * its tree, and arrays for magazines. Written from the same facts, sharing no code.
 */
import { ANCHOR_PFN } from "./range-tree.ts";

interface PlainRange {
  first: number;
  last: number;
}

/** The tree as a sorted list. */
export class PlainIovaTree {
  readonly ranges: PlainRange[] = [{ first: ANCHOR_PFN, last: ANCHOR_PFN }];
  cached = this.ranges[0]!;
  cached32 = this.ranges[0]!;
  failed32: number;
  visited = 0;
  readonly start: number;
  readonly limit32: number;
  readonly fromTop: boolean;

  constructor(start: number, limit32: number, fromTop = false) {
    this.start = start;
    this.limit32 = limit32;
    this.failed32 = limit32;
    this.fromTop = fromTop;
  }

  alloc(pages: number, limitPfn: number, aligned: boolean): number {
    const limit = limitPfn + 1;
    this.visited = 0;
    if (limit <= this.limit32 && pages >= this.failed32) return 0;
    let alignment = 1;
    while (aligned && alignment < pages) alignment *= 2;
    const anchor = this.ranges.at(-1)!;
    const from = this.fromTop ? anchor : limit <= this.limit32 ? this.cached32 : this.cached;
    let start = this.#walk(this.ranges.indexOf(from), limit, this.start, pages, alignment);
    if (start < 0 && from.last < limit) {
      const top =
        limit > this.limit32
          ? this.ranges.length - 1
          : this.ranges.findIndex((range) => range.last >= limit);
      start = this.#walk(top, limit, from.last + 1, pages, alignment);
    }
    if (start < 0) {
      this.failed32 = pages;
      return 0;
    }
    const range = { first: start, last: start + pages - 1 };
    this.#insert(range);
    if (range.last < this.limit32) this.cached32 = range;
    else this.cached = range;
    return start;
  }

  #walk(index: number, limit: number, low: number, pages: number, alignment: number): number {
    let high = limit;
    for (let at = index; ; at -= 1) {
      this.visited += 1;
      high = Math.min(high, this.ranges[at]!.first);
      if (high < pages) return -1;
      const start = Math.floor((high - pages) / alignment) * alignment;
      if (start < low) return -1;
      if (at === 0 || start > this.ranges[at - 1]!.last) return start;
    }
  }

  free(pfn: number): number {
    const at = this.ranges.findIndex((range) => range.first <= pfn && pfn <= range.last);
    if (at < 0) return 0;
    const range = this.ranges[at]!;
    const next = this.ranges[at + 1]!;
    const isLower = range.last < this.limit32 && range.first >= this.cached32.first;
    if (range === this.cached32 || isLower) this.cached32 = next;
    if (range.first < this.limit32) this.failed32 = this.limit32;
    if (range.first >= this.cached.first) this.cached = next;
    this.ranges.splice(at, 1);
    return range.last - range.first + 1;
  }

  reserve(first: number, last: number): void {
    let from = first;
    for (const range of this.ranges) {
      if (range.last < from || range.first > last) continue;
      if (from < range.first) range.first = from;
      if (last <= range.last) return;
      from = range.last + 1;
    }
    this.#insert({ first: from, last });
  }

  #insert(range: PlainRange): void {
    let at = 0;
    while (this.ranges[at]!.last < range.last) at += 1;
    this.ranges.splice(at, 0, range);
  }

  largestGapBelow(ceiling: number): number {
    let largest = 0;
    let bottom = 0;
    for (const { first, last } of this.ranges) {
      largest = Math.max(largest, Math.min(first, ceiling) - bottom);
      bottom = last + 1;
    }
    return largest;
  }
}

/** Tree and caches with plain arrays; Linux's sizes. */
export class PlainIovaDomain {
  readonly tree: PlainIovaTree;
  readonly loaded: number[][][];
  readonly previous: number[][][];
  readonly depots: number[][][] = [[], [], [], [], [], []];
  readonly due = [-1, -1, -1, -1, -1, -1];
  readonly online: boolean[];
  readonly magazine: number;

  constructor(cpus: number, start = 1, magazine = 127) {
    this.tree = new PlainIovaTree(start, 2 ** 20);
    const empty = (): number[][][] =>
      Array.from({ length: cpus }, () => Array.from({ length: 6 }, () => []));
    this.loaded = empty();
    this.previous = empty();
    this.online = new Array<boolean>(cpus).fill(true);
    this.magazine = magazine;
  }

  static order(pages: number): number {
    let order = 0;
    while (2 ** order < pages) order += 1;
    return order;
  }

  alloc(pages: number, limit: number, flush: boolean, cpu: number): number {
    const order = PlainIovaDomain.order(pages);
    const taken = pages < 32 ? 2 ** order : pages;
    if (order < 6) {
      const cached = this.#get(order, limit + 1 - taken, cpu);
      if (cached !== 0) return cached;
    }
    const pfn = this.tree.alloc(taken, limit, true);
    if (pfn !== 0 || !flush) return pfn;
    this.online.forEach((isOnline, other) => {
      if (isOnline) this.drain(other);
    });
    for (const depot of this.depots) {
      while (depot.length > 0) for (const freed of depot.pop()!) this.tree.free(freed);
    }
    return this.tree.alloc(taken, limit, true);
  }

  #get(order: number, highest: number, cpu: number): number {
    if (this.loaded[cpu]![order]!.length === 0) {
      if (this.previous[cpu]![order]!.length > 0) this.#swap(order, cpu);
      else if (this.depots[order]!.length > 0)
        this.loaded[cpu]![order] = this.depots[order]!.pop()!;
      else return 0;
    }
    const magazine = this.loaded[cpu]![order]!;
    for (let at = magazine.length - 1; at >= 0; at -= 1) {
      const pfn = magazine[at]!;
      if (pfn > highest) continue;
      const top = magazine.pop()!;
      if (at < magazine.length) magazine[at] = top;
      return pfn;
    }
    return 0;
  }

  #swap(order: number, cpu: number): void {
    const loaded = this.loaded[cpu]![order]!;
    this.loaded[cpu]![order] = this.previous[cpu]![order]!;
    this.previous[cpu]![order] = loaded;
  }

  free(pfn: number, pages: number, cpu: number, now: number): void {
    const order = PlainIovaDomain.order(pages);
    if (order >= 6) {
      this.tree.free(pfn);
      return;
    }
    if (this.loaded[cpu]![order]!.length >= this.magazine) {
      if (this.previous[cpu]![order]!.length < this.magazine) this.#swap(order, cpu);
      else {
        this.depots[order]!.push(this.loaded[cpu]![order]!);
        this.loaded[cpu]![order] = [];
        if (this.due[order] === -1) this.due[order] = now + 100;
      }
    }
    this.loaded[cpu]![order]!.push(pfn);
  }

  drain(cpu: number): void {
    for (let order = 0; order < 6; order += 1) {
      for (const pfn of this.loaded[cpu]![order]!) this.tree.free(pfn);
      for (const pfn of this.previous[cpu]![order]!) this.tree.free(pfn);
      this.loaded[cpu]![order] = [];
      this.previous[cpu]![order] = [];
    }
  }

  work(now: number): void {
    for (let order = 0; order < 6; order += 1) {
      if (this.due[order] === -1 || this.due[order]! > now) continue;
      this.due[order] = -1;
      if (this.depots[order]!.length <= this.online.filter((isOnline) => isOnline).length) continue;
      for (const pfn of this.depots[order]!.pop()!) this.tree.free(pfn);
      this.due[order] = now + 100;
    }
  }
}
