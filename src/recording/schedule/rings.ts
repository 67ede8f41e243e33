/**
 * The rings of the flush queue, shared by all hypotheses: every CPU's frees in order, and how many
 * of them the search has passed. A hypothesis only knows how far each ring was released.
 *
 * Source: drivers/iommu/dma-iommu.c: struct iova_fq, fq_full.
 */
import type { CacheModel } from "./cache-model.ts";
import { findLateFrees } from "./late-frees.ts";
import type { Hypothesis } from "./magazine-state.ts";
import type { ScheduleEvents } from "./schedule-events.ts";

/** Frees by CPU. */
export class Rings {
  readonly #events: ScheduleEvents;
  readonly #lists: Int32Array[];
  /** By free: its place in its ring. */
  readonly #places: Int32Array;
  readonly #tails: Int32Array;
  readonly #lastEvents: Int32Array;
  readonly #users: Int32Array;
  /** By free: the free that overtook it when both are released together, −1 for none. */
  readonly #overtakenBy: Int32Array;
  /** By ring: how many frees up to a place may be overtaken. */
  readonly #lateCounts: Int32Array[];

  constructor(events: ScheduleEvents) {
    this.#events = events;
    const lists: number[][] = Array.from({ length: events.cpus }, () => []);
    this.#places = new Int32Array(events.count);
    for (let event = 0; event < events.count; event += 1) {
      if (events.isFree[event] === 0) continue;
      const list = lists[events.cpu[event]!]!;
      this.#places[event] = list.length;
      list.push(event);
    }
    this.#lists = lists.map((list) => Int32Array.from(list));
    this.#tails = new Int32Array(events.cpus);
    this.#lastEvents = new Int32Array(events.cpus).fill(-1);
    this.#users = new Int32Array(events.cpus);
    this.#overtakenBy = findLateFrees(events);
    this.#lateCounts = this.#lists.map((list) => {
      const counts = new Int32Array(list.length + 1);
      for (let at = 0; at < list.length; at += 1) {
        counts[at + 1] = counts[at]! + (this.#overtakenBy[list[at]!]! < 0 ? 0 : 1);
      }
      return counts;
    });
  }

  /** The search passes an event. */
  pass(event: number): void {
    const cpu = this.#events.cpu[event]!;
    this.#lastEvents[cpu] = event;
    if (this.#events.isFree[event] === 1) this.#tails[cpu]! += 1;
  }

  /** Frees of a CPU, in order. */
  list(ring: number): Int32Array {
    return this.#lists[ring]!;
  }

  /**
   * The frees of a ring from one place to another in the order in which they were queued: those
   * that an interrupt overtook lie behind the interrupt's.
   *
   * @param late - receives pairs of an overtaken free and the one that it lies behind
   */
  between(ring: number, from: number, to: number, late: number[] | null): Int32Array {
    const natural = this.#lists[ring]!.subarray(from, to);
    const counts = this.#lateCounts[ring]!;
    if (to <= from || counts[to] === counts[from]) return natural;
    const list = natural.slice();
    for (let at = list.length - 1; at >= 0; at -= 1) {
      const free = list[at]!;
      const target = this.#overtakenBy[free]!;
      if (target < 0 || this.#places[target]! >= to) continue;
      let place = at;
      while (place + 1 < list.length && list[place] !== target) {
        list[place] = list[place + 1]!;
        place += 1;
        if (list[place - 1] === target) break;
      }
      list[place] = free;
      late?.push(free, target);
    }
    return list;
  }

  /** How many frees of a ring were passed. */
  tail(ring: number): number {
    return this.#tails[ring]!;
  }

  /** The last event passed on a CPU, −1 for none. */
  lastEvent(ring: number): number {
    return this.#lastEvents[ring]!;
  }

  /** Whether a ring holds anything. */
  holds(from: Hypothesis, ring: number): boolean {
    return from.released[ring]! < this.#tails[ring]!;
  }

  /** Whether a free that was passed was not released yet. */
  isWaiting(from: Hypothesis, free: number): boolean {
    return this.#places[free]! >= from.released[this.#events.cpu[free]!]!;
  }

  /** The first free that is not part of any flush yet, −1 when there is none. */
  oldestWaiting(from: Hypothesis): number {
    let oldest = -1;
    for (let ring = 0; ring < this.#lists.length; ring += 1) {
      const at = Math.max(from.released[ring]!, from.eligible[ring]!);
      if (at >= this.#tails[ring]!) continue;
      const free = this.#lists[ring]![at]!;
      if (oldest < 0 || free < oldest) oldest = free;
    }
    return oldest;
  }

  /** The newest free of an order in a ring, −1 for none. */
  lastOf(from: Hypothesis, ring: number, order: number): number {
    const list = this.#lists[ring]!;
    for (let at = this.#tails[ring]! - 1; at >= from.released[ring]!; at -= 1) {
      if (this.#events.order[list[at]!] === order) return list[at]!;
    }
    return -1;
  }

  /** The oldest free of an order in a ring, −1 for none. */
  firstOf(from: Hypothesis, ring: number, order: number): number {
    const list = this.#lists[ring]!;
    for (let at = from.released[ring]!; at < this.#tails[ring]!; at += 1) {
      if (this.#events.order[list[at]!] === order) return list[at]!;
    }
    return -1;
  }

  /** The first free on a CPU behind event `after` and before event `end`, −1 for none. */
  nextFree(cpu: number, after: number, end: number): number {
    const list = this.#lists[cpu]!;
    let low = 0;
    let high = list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle]! <= after) low = middle + 1;
      else high = middle;
    }
    return low < list.length && list[low]! < end ? list[low]! : -1;
  }

  /** The CPU that uses most of what waits next, −1 when no use of it is known. */
  mainUser(from: Hypothesis, model: CacheModel): number {
    const users = this.#users.fill(0);
    for (let ring = 0; ring < this.#lists.length; ring += 1) {
      for (let at = from.released[ring]!; at < this.#tails[ring]!; at += 1) {
        const user = this.#events.reuse[this.#lists[ring]![at]!]!;
        if (user >= 0) users[model.forecast.cacheCpu(this.#events.cpu[user]!)]! += 1;
      }
    }
    let best = -1;
    for (let cpu = 0; cpu < users.length; cpu += 1) {
      if (users[cpu]! > 0 && (best < 0 || users[cpu]! > users[best]!)) best = cpu;
    }
    return best;
  }

  /**
   * Whether what waits in a ring is used next on the ring's CPU (above 0) rather than on the
   * timer's (below 0); 0 when nothing tells.
   */
  leaning(from: Hypothesis, ring: number, timerCpu: number, model: CacheModel): number {
    const own = model.forecast.cacheCpu(ring);
    const timer = model.forecast.cacheCpu(timerCpu);
    let leaning = 0;
    for (let at = from.released[ring]!; at < this.#tails[ring]!; at += 1) {
      const user = this.#events.reuse[this.#lists[ring]![at]!]!;
      if (user < 0) continue;
      const cpu = model.forecast.cacheCpu(this.#events.cpu[user]!);
      if (cpu === own) leaning += 1;
      else if (cpu === timer) leaning -= 1;
    }
    return leaning;
  }
}
