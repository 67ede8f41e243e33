/**
 * The order of the allocations that the tree served. Their addresses tell it: Linux searches down
 * from where it found the last range, so of two pending allocations the one with the higher address
 * came first, whatever the order of their map events.
 *
 * Source: drivers/iommu/iova.c:__alloc_and_insert_iova_range. An allocation is only ever moved
 * inside its own window; what stays unexplained is put where its event is.
 */

import { roundedPages } from "../../dma/iova-domain.ts";
import { IovaTree, NO_IOVA } from "../../dma/iova-tree.ts";
import { PFN_LAST_32BIT } from "../../units.ts";
import { reordered, type ScheduleEvents, Shift, UNCACHED } from "./schedule-events.ts";

/** Events that a look ahead reaches. */
const REACH = 512;
/** A stretch that no allocation ever touches is taken for reserved from this size on: 1 MiB. */
const WINDOW_PAGES_MIN = 256;
/** Windows that are inferred at most. */
const WINDOWS_MAX = 8;

/** Frames first … last. */
export interface PfnRange {
  readonly first: number;
  readonly last: number;
}

/** What the tree is like. */
export interface TreeOrderOptions {
  /** Last frame that an allocation may take. */
  readonly limitPfn: number;
  readonly reserved: readonly PfnRange[];
  readonly aligned: boolean;
  readonly searchFromTop: boolean;
  /** Whether stretches never used may be taken for reserved. */
  readonly inferWindows: boolean;
}

/** The outcome. */
export interface TreeOrder {
  readonly events: ScheduleEvents;
  /** Windows inferred, in the order in which they showed. */
  readonly windows: readonly PfnRange[];
  /** Allocations that the tree served, and how many of them it explains. */
  readonly served: number;
  readonly explained: number;
}

/** Puts the allocations that the tree served into the order in which it served them. */
export function settleTreeOrder(events: ScheduleEvents, options: TreeOrderOptions): TreeOrder {
  return new TreeReplay(events, options).run();
}

class TreeReplay {
  readonly #events: ScheduleEvents;
  readonly #options: TreeOrderOptions;
  #tree: IovaTree;
  /** Events that reach the tree. */
  readonly #list: Int32Array;
  readonly #done: Uint8Array;
  readonly #movedBefore = new Map<number, number[]>();
  readonly #shifted: Uint8Array;
  readonly #windows: PfnRange[] = [];
  readonly #used: Float64Array;
  #explained = 0;
  #served = 0;

  constructor(events: ScheduleEvents, options: TreeOrderOptions) {
    this.#events = events;
    this.#options = options;
    this.#list = treeEvents(events);
    this.#done = new Uint8Array(events.count);
    this.#shifted = new Uint8Array(events.count);
    this.#used = usedStarts(events);
    this.#tree = new IovaTree({
      startPfn: 1,
      limit32Pfn: PFN_LAST_32BIT + 1,
      searchFromTop: options.searchFromTop,
    });
    for (const { first, last } of options.reserved) this.#tree.reserve(first, last);
  }

  run(): TreeOrder {
    const { isFree, pfn } = this.#events;
    for (let at = 0; at < this.#list.length; at += 1) {
      const event = this.#list[at]!;
      if (isFree[event] === 1) {
        this.#takeBefore(event, at, true);
        this.#tree.free(pfn[event]!);
      } else if (this.#done[event] === 0) {
        this.#takeBefore(event, at, false);
        this.#serve(event);
      }
    }
    return {
      events: this.#movedBefore.size === 0 ? this.#events : this.#reorder(),
      windows: this.#windows,
      served: this.#served,
      explained: this.#explained,
    };
  }

  /**
   * Serves pending allocations that must have come before `event`: before an allocation those with
   * a higher address, before a free those whose address the free would change.
   */
  #takeBefore(event: number, at: number, beforeFree: boolean): void {
    const { isFree, pfn, windowStart } = this.#events;
    const pending: number[] = [];
    for (let next = at + 1; next < this.#list.length; next += 1) {
      const later = this.#list[next]!;
      if (later - event > REACH) break;
      if (isFree[later] === 1 || this.#done[later] === 1 || windowStart[later]! > event) continue;
      if (beforeFree || pfn[later]! > pfn[event]!) pending.push(later);
    }
    if (pending.length === 0) return;
    pending.sort((a, b) => pfn[b]! - pfn[a]!);
    for (const later of pending) {
      if (this.#peek(this.#tree, later) !== pfn[later]) continue;
      if (beforeFree && this.#servedAfter(event, later)) continue;
      this.#serve(later);
      this.#shifted[later] = Shift.allocatedEarlier;
      const list = this.#movedBefore.get(event);
      if (list === undefined) this.#movedBefore.set(event, [later]);
      else list.push(later);
    }
  }

  /** Whether an allocation gets the same address after a free as before it. */
  #servedAfter(free: number, later: number): boolean {
    const copy = this.#tree.clone();
    copy.free(this.#events.pfn[free]!);
    return this.#peek(copy, later) === this.#events.pfn[later];
  }

  /** Serves one allocation; takes its recorded address where the tree would give another one. */
  #serve(event: number): void {
    const { pfn, pages } = this.#events;
    const wanted = pfn[event]!;
    this.#served += 1;
    this.#done[event] = 1;
    for (;;) {
      const got = this.#alloc(this.#tree, event);
      if (got === wanted) {
        this.#explained += 1;
        return;
      }
      if (got === NO_IOVA) break;
      this.#tree.free(got);
      if (!this.#inferWindow(wanted, got, roundedPages(pages[event]!))) break;
    }
    this.#tree.reserve(wanted, wanted + roundedPages(pages[event]!) - 1);
  }

  /** Reserves what lies between two addresses when the recording never uses it. */
  #inferWindow(wanted: number, got: number, pages: number): boolean {
    const first = wanted + pages;
    const last = got + pages - 1;
    if (!this.#options.inferWindows || this.#windows.length >= WINDOWS_MAX) return false;
    if (last - first + 1 < WINDOW_PAGES_MIN || this.#isUsed(first, last)) return false;
    this.#windows.push({ first, last });
    this.#tree.reserve(first, last);
    return true;
  }

  /** Whether an allocation starts in first … last. */
  #isUsed(first: number, last: number): boolean {
    const used = this.#used;
    let low = 0;
    let high = used.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (used[middle]! < first) low = middle + 1;
      else high = middle;
    }
    return low < used.length && used[low]! <= last;
  }

  #alloc(tree: IovaTree, event: number): number {
    const { limitPfn, aligned } = this.#options;
    return tree.alloc(roundedPages(this.#events.pages[event]!), limitPfn, aligned);
  }

  /** The address that the tree would give. */
  #peek(tree: IovaTree, event: number): number {
    const got = this.#alloc(tree, event);
    if (got !== NO_IOVA) tree.free(got);
    return got;
  }

  #reorder(): ScheduleEvents {
    const { count } = this.#events;
    const order = new Int32Array(count);
    let placed = 0;
    for (let event = 0; event < count; event += 1) {
      for (const earlier of this.#movedBefore.get(event) ?? []) {
        order[placed] = earlier;
        placed += 1;
      }
      if (this.#shifted[event] !== Shift.none) continue;
      order[placed] = event;
      placed += 1;
    }
    return reordered(this.#events, order, this.#shifted);
  }
}

function treeEvents(events: ScheduleEvents): Int32Array {
  const list = new Int32Array(events.count);
  let length = 0;
  for (let event = 0; event < events.count; event += 1) {
    const uncached = events.order[event] === UNCACHED;
    const fresh = events.isFree[event] === 0 && events.reuse[event]! < 0;
    if (!uncached && !fresh) continue;
    list[length] = event;
    length += 1;
  }
  return list.slice(0, length);
}

function usedStarts(events: ScheduleEvents): Float64Array {
  const starts = new Float64Array(events.count);
  let length = 0;
  for (let event = 0; event < events.count; event += 1) {
    if (events.isFree[event] === 1) continue;
    starts[length] = events.pfn[event]!;
    length += 1;
  }
  return starts.slice(0, length).sort();
}
