/**
 * The caches of the allocator inside a hypothesis: pushes, pops, the depot, each with its forecast.
 *
 * Source: drivers/iommu/iova.c:__iova_rcache_insert, __iova_rcache_get, iova_depot_push,
 * iova_depot_pop. See {@link Cell} for how two magazines become one stack.
 */
import { CACHED_ORDERS, type IovaRules } from "../../dma/iova-rules.ts";
import { Forecast } from "./forecast.ts";
import {
  type Cell,
  type DepotMagazine,
  type FlushNode,
  Hypothesis,
  mix,
} from "./magazine-state.ts";
import type { ScheduleEvents } from "./schedule-events.ts";

/** A stack of ranges taken apart: above which cell, and what lies on it, lowest first. */
export interface Opened {
  readonly cell: Cell | null;
  readonly above: readonly Cell[];
}

/** Acts on the caches of hypotheses. */
export class CacheModel {
  readonly events: ScheduleEvents;
  readonly forecast: Forecast;
  readonly magazine: number;
  readonly fifo: boolean;
  readonly cacheCpus: number;
  readonly #users: Int32Array;

  constructor(events: ScheduleEvents, rules: IovaRules) {
    this.events = events;
    this.magazine = rules.magazineSize;
    this.fifo = rules.fifo;
    this.cacheCpus = rules.oneCacheForAllCpus ? 1 : events.cpus;
    this.forecast = new Forecast(events, {
      magazine: this.magazine,
      fifo: rules.fifo,
      cacheCpus: this.cacheCpus,
      orders: CACHED_ORDERS,
    });
    this.#users = new Int32Array(this.cacheCpus);
  }

  /** The state in which everything is empty. */
  start(): Hypothesis {
    return new Hypothesis(CACHED_ORDERS * this.cacheCpus, CACHED_ORDERS, this.events.cpus);
  }

  stackOf(order: number, cpu: number): number {
    return order * this.cacheCpus + this.forecast.cacheCpu(cpu);
  }

  /**
   * A range comes into the cache of a CPU. Uncached sizes are left to the tree.
   *
   * @param gap - gap from which on a task of that CPU finds the range
   * @param now - gap from which on other CPUs find what goes to the depot
   */
  push(
    to: Hypothesis,
    cpu: number,
    free: number,
    gap: number,
    flush: FlushNode | null,
    now: number = gap,
  ): void {
    const order = this.events.order[free]!;
    if (order < 0) return;
    if (to.ghosts !== null && dropGhost(to, free)) return;
    const stack = this.stackOf(order, cpu);
    const full = to.stacks[stack]!;
    if (full !== null && full.height === 2 * this.magazine) {
      this.#spill(to, order, stack, now, now === gap ? flush : null);
    }
    const below = to.stacks[stack]!;
    to.setTop(stack, this.#cellOn(below, order, cpu, free, gap, flush, gap));
  }

  /** The depot's newest magazine becomes the loaded one of a CPU that has none. */
  pull(to: Hypothesis, order: number, cpu: number, gap: number): void {
    const magazine = to.depots[order]!;
    if (magazine === null) return;
    to.depots[order] = magazine.below;
    to.expected -= magazine.doubt;
    const stack = this.stackOf(order, cpu);
    let cell: Cell | null = to.stacks[stack]!;
    for (let at = magazine.frees.length - 1; at >= 0; at -= 1) {
      cell = this.#cellOn(cell, order, cpu, magazine.frees[at]!, magazine.gap, magazine.flush, gap);
    }
    to.setTop(stack, cell);
  }

  /** Opens a stack at the range that `free` freed; `null` when it does not hold it. */
  open(from: Hypothesis, stack: number, free: number): Opened | null {
    const above: Cell[] = [];
    let cell: Cell | null = from.stacks[stack]!;
    while (cell !== null && cell.free !== free) {
      above.push(cell);
      cell = cell.below;
    }
    if (cell === null && free >= 0) return null;
    return { cell, above: above.reverse() };
  }

  /** Closes a stack without the opened range and without the first `taken` ranges above it. */
  close(to: Hypothesis, stack: number, opened: Opened, taken: number): void {
    let cell = opened.cell === null ? null : opened.cell.below;
    for (let at = taken; at < opened.above.length; at += 1) {
      const old = opened.above[at]!;
      // What lay below is gone, and with it the doubt about the order.
      cell = restacked(cell, old, at === taken ? 0 : old.orderDoubt);
    }
    to.setTop(stack, cell);
  }

  /** The cell that an allocation takes next. */
  nextCell(from: Hypothesis, stack: number): Cell | null {
    let cell: Cell | null = from.stacks[stack]!;
    if (!this.fifo || cell === null) return cell;
    const oldest = cell.height > this.magazine ? this.magazine + 1 : 1;
    while (cell !== null && cell.height > oldest) cell = cell.below;
    return cell;
  }

  /** Takes a range out of wherever it is, as a recorded address that nothing explains demands. */
  takeByForce(from: Hypothesis, order: number, free: number): void {
    for (let cpu = 0; cpu < this.cacheCpus; cpu += 1) {
      const stack = order * this.cacheCpus + cpu;
      const opened = this.open(from, stack, free);
      if (opened === null) continue;
      this.close(from, stack, opened, 0);
      return;
    }
    const depot = withoutFree(from.depots[order]!, free);
    if (depot !== null) from.depots[order] = depot;
    else from.ghosts = { event: free, gap: 0, rest: from.ghosts };
  }

  /** The loaded magazine of a full stack goes to the depot. */
  #spill(to: Hypothesis, order: number, stack: number, gap: number, flush: FlushNode | null): void {
    const users = this.#users.fill(0);
    const frees = new Int32Array(this.magazine);
    let cell: Cell | null = to.stacks[stack]!;
    let doubt = 0;
    for (let at = 0; at < this.magazine && cell !== null; at += 1) {
      frees[at] = cell.free;
      const user = this.events.reuse[cell.free]!;
      if (user >= 0) users[this.forecast.cacheCpu(this.events.cpu[user]!)]! += 1;
      if (at < this.magazine - 1) doubt += cell.orderDoubt;
      cell = cell.below;
    }
    doubt += this.forecast.depot(order, users, frees[0]!, gap);
    const below: DepotMagazine | null = to.depots[order]!;
    const hash = mix(below === null ? 3 : below.hash, mix(frees[0]!, frees[frees.length - 1]!));
    to.depots[order] = { below, frees, gap, flush, doubt, hash };
    to.expected += doubt;
    to.setTop(stack, cell);
  }

  #cellOn(
    below: Cell | null,
    order: number,
    cpu: number,
    free: number,
    gap: number,
    flush: FlushNode | null,
    since: number,
  ): Cell {
    const forecast = this.forecast;
    const height = below === null ? 0 : below.height;
    forecast.push(
      order,
      forecast.cacheCpu(cpu),
      free,
      since,
      below === null ? -1 : below.free,
      height,
      below === null ? -1 : below.label,
    );
    return {
      below,
      free,
      gap,
      flush,
      since,
      height: height + 1,
      placeDoubt: forecast.place,
      orderDoubt: forecast.order,
      label: forecast.label,
      doubt: (below === null ? 0 : below.doubt) + forecast.place + forecast.order,
      hash: mix(below === null ? 7 : below.hash, free),
    };
  }
}

function restacked(below: Cell | null, old: Cell, orderDoubt: number): Cell {
  return {
    below,
    free: old.free,
    gap: old.gap,
    flush: old.flush,
    since: old.since,
    height: (below === null ? 0 : below.height) + 1,
    placeDoubt: old.placeDoubt,
    orderDoubt,
    label: old.label,
    doubt: (below === null ? 0 : below.doubt) + old.placeDoubt + orderDoubt,
    hash: mix(below === null ? 7 : below.hash, old.free),
  };
}

function dropGhost(from: Hypothesis, free: number): boolean {
  const kept: number[] = [];
  let found = false;
  for (let list = from.ghosts; list !== null; list = list.rest) {
    if (list.event === free) found = true;
    else kept.push(list.event);
  }
  if (!found) return false;
  from.ghosts = null;
  for (const event of kept.reverse()) from.ghosts = { event, gap: 0, rest: from.ghosts };
  return true;
}

/** The depot without one range, `null` when it does not hold it. */
function withoutFree(magazine: DepotMagazine | null, free: number): DepotMagazine | null {
  if (magazine === null) return null;
  if (magazine.frees.includes(free)) {
    return { ...magazine, frees: magazine.frees.filter((other) => other !== free) };
  }
  const below = withoutFree(magazine.below, free);
  return below === null ? null : { ...magazine, below };
}
