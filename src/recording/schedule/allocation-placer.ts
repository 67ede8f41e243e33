/**
 * Places an allocation inside a hypothesis: at its event when the caches then give the recorded
 * address, else as little earlier as its window allows, together with other tasks' allocations that
 * must have come before it.
 *
 * An allocation is earlier than its map event when an interrupt or another task came between the
 * two. It may lie anywhere after its task's previous event, never before: an address that was on
 * top at some other time does not count.
 */
import { CACHED_ORDERS } from "../../dma/iova-rules.ts";
import type { CacheModel, Opened } from "./cache-model.ts";
import { Cost, MOVE_EVENTS_MAX, MOVE_US_MAX } from "./costs.ts";
import type { Cell, DepotMagazine, EventList, FlushNode, Hypothesis } from "./magazine-state.ts";

/** Other tasks' allocations that one placement may need. */
const AHEAD_MAX = 12;
/** Ranges on a stack that a placement looks through. */
const DEPTH_MAX = 512;

/** Where an allocation can go. */
interface Placement {
  readonly stack: number;
  readonly opened: Opened;
  /** How many of the opened ranges other allocations take first, and those allocations. */
  readonly taken: number;
  readonly ahead: readonly number[];
  readonly gap: number;
  readonly before: FlushNode | null;
  readonly isMoved: boolean;
  readonly cost: number;
}

/** Places allocations. */
export class AllocationPlacer {
  readonly #model: CacheModel;
  /** The recording starts in the middle: what was never freed in it may lie below everything. */
  readonly #fromMiddle: boolean;

  constructor(model: CacheModel, fromMiddle: boolean) {
    this.#model = model;
    this.#fromMiddle = fromMiddle;
  }

  /** Carries out the allocation of an event. */
  place(to: Hypothesis, event: number): void {
    const { events } = this.#model;
    if (to.ahead !== null && dropFromList(to, event)) return;
    if (events.order[event]! < 0) return;
    if (events.reuse[event]! < 0) this.#placeFresh(to, event);
    else this.#placeReuse(to, event);
  }

  /**
   * Allocations that may already hold the top ranges of a CPU's stack, which ranges that are used
   * later than they would otherwise bury.
   *
   * @param use - by order: event that uses the first of those ranges, −1 when there is none
   */
  heldBefore(from: Hypothesis, cpu: number, gap: number, use: Int32Array, out: number[]): void {
    const { events, forecast } = this.#model;
    out.length = 0;
    if (this.#model.fifo) return;
    for (let order = 0; order < CACHED_ORDERS; order += 1) {
      if (use[order]! < 0) continue;
      let cell: Cell | null = from.stacks[this.#model.stackOf(order, cpu)]!;
      for (let count = 0; count < AHEAD_MAX && cell !== null; count += 1) {
        const event = events.reuse[cell.free]!;
        if (event < 0 || event > use[order]! || !this.#mayHold(event, gap, gap)) break;
        if (forecast.cacheCpu(events.cpu[event]!) !== forecast.cacheCpu(cpu)) break;
        out.push(event);
        cell = cell.below;
      }
    }
  }

  /** Takes the top of a stack for an allocation whose event is still to come. */
  takeAhead(to: Hypothesis, event: number, gap: number, cpu: number): void {
    const stack = this.#model.stackOf(this.#model.events.order[event]!, cpu);
    to.setTop(stack, to.stacks[stack]!.below);
    to.paid += Cost.moveAhead + distanceCost(gap, event);
    this.#logAhead(to, event, gap, cpu, null);
  }

  #placeReuse(to: Hypothesis, event: number): void {
    const model = this.#model;
    const { events } = model;
    const free = events.reuse[event]!;
    const order = events.order[event]!;
    const cpu = events.cpu[event]!;
    const own = model.stackOf(order, cpu);
    if (to.stacks[own] === null && to.depots[order]?.frees[0] === free) {
      model.pull(to, order, cpu, event);
    }
    const next = model.nextCell(to, own);
    if (next !== null && next.free === free) {
      if (next === to.stacks[own]) to.setTop(own, next.below);
      else model.close(to, own, model.open(to, own, free)!, 0);
      return;
    }
    let best: Placement | null = null;
    let bestCpu = cpu;
    for (let other = 0; other < model.cacheCpus; other += 1) {
      const stack = order * model.cacheCpus + other;
      const isOwn = stack === own;
      const found = this.#find(to, stack, event, free);
      if (found === null) continue;
      const cost = found.cost + (isOwn ? 0 : Cost.migration);
      if (best !== null && cost >= best.cost) continue;
      best = { ...found, cost, isMoved: found.isMoved || !isOwn };
      bestCpu = isOwn ? cpu : other;
    }
    if (best !== null) {
      this.#apply(to, event, best, bestCpu);
      return;
    }
    model.takeByForce(to, order, free);
    this.#miss(to, event);
  }

  #placeFresh(to: Hypothesis, event: number): void {
    const model = this.#model;
    const { events } = model;
    const order = events.order[event]!;
    const cpu = events.cpu[event]!;
    const own = model.stackOf(order, cpu);
    if (to.stacks[own] === null && to.depots[order] === null) {
      to.fresh = { event, gap: event, rest: to.fresh };
      return;
    }
    const found = this.#find(to, own, event, -1);
    const placement = found === null ? null : this.#beforeDepot(to, event, found);
    const follow = placement === null ? [] : this.#overtaken(to, placement.gap);
    const cost =
      placement === null
        ? Number.POSITIVE_INFINITY
        : placement.cost + this.#followCost(follow, placement.gap);
    const other = to.depots[order] === null ? this.#emptyStack(to, order) : -1;
    if (other >= 0 && cost > Cost.migration) {
      to.paid += Cost.migration;
      to.moves += 1;
      to.log = { kind: "placed", previous: to.log, event, gap: event, cpu: other, before: null };
      to.fresh = { event, gap: event, rest: to.fresh };
    } else if (placement !== null && cost <= Cost.miss) {
      const { gap, before } = placement;
      to.paid += cost - placement.cost;
      for (const earlier of follow) {
        const cpuEarlier = events.cpu[earlier]!;
        to.log = { kind: "placed", previous: to.log, event: earlier, gap, cpu: cpuEarlier, before };
        to.moves += 1;
        to.fresh = { event: earlier, gap, rest: to.fresh };
      }
      this.#apply(to, event, placement, cpu);
      to.fresh = { event, gap, rest: to.fresh };
    } else {
      this.#miss(to, event);
    }
  }

  /** A CPU whose caches hold nothing of an order, −1 for none. */
  #emptyStack(from: Hypothesis, order: number): number {
    const { cacheCpus } = this.#model;
    for (let cpu = 0; cpu < cacheCpus; cpu += 1) {
      if (from.stacks[order * cacheCpus + cpu] === null) return cpu;
    }
    return -1;
  }

  /**
   * Allocations that the tree served before one that now lies in `gap`, although they lie behind
   * it: they have to follow it to the front.
   */
  #overtaken(from: Hypothesis, gap: number): number[] {
    const late: number[] = [];
    if (this.#fromMiddle) return late;
    for (let list = from.fresh; list !== null && list.event >= gap; list = list.rest) {
      if (list.gap > gap) late.push(list.event);
    }
    return late.reverse();
  }

  #followCost(follow: readonly number[], gap: number): number {
    let cost = 0;
    for (const event of follow) {
      cost += this.#wasEmpty(event, gap) ? Cost.moveBack + distanceCost(gap, event) : Cost.miss;
    }
    return cost;
  }

  /** Whether an allocation may have found its CPU's caches empty in an earlier gap. */
  #wasEmpty(event: number, gap: number): boolean {
    const { windowStart, isFree, cpu, order, reuse } = this.#model.events;
    if (windowStart[event]! > gap) return false;
    for (let at = gap; at < event; at += 1) {
      if (isFree[at] === 1 || cpu[at] !== cpu[event] || order[at] !== order[event]) continue;
      if (reuse[at]! >= 0 && reuse[at]! < gap) return false;
    }
    return true;
  }

  /** The cheapest place for a range on one stack, `null` when the windows allow none. */
  #find(from: Hypothesis, stack: number, event: number, free: number): Placement | null {
    const model = this.#model;
    const top = from.stacks[stack]!;
    if (top !== null && top.height > DEPTH_MAX) return null;
    const opened = model.open(from, stack, free);
    if (opened === null) return null;
    if (model.fifo) return this.#findBehind(stack, opened, event);
    const { cell, above } = opened;
    const { windowStart, timeUs } = model.events;
    const window = windowStart[event]!;
    let taken = 0;
    while (taken < above.length && !arrivedLater(above[taken]!, cell, window)) taken += 1;
    if (taken > AHEAD_MAX) return null;
    const first = above[taken] ?? null;
    const gap = first === null ? event : first.gap;
    let cost = 0;
    if (first !== null) {
      if (event - gap > MOVE_EVENTS_MAX || timeUs[event]! - timeUs[gap]! > MOVE_US_MAX) return null;
      cost += Cost.moveBack + distanceCost(gap, event);
    }
    const ahead: number[] = [];
    for (let at = taken - 1; at >= 0; at -= 1) {
      const holder = model.events.reuse[above[at]!.free]!;
      if (holder < 0 || holder <= event || !this.#mayHold(holder, gap, event)) return null;
      const sameCpu =
        model.stackOf(model.events.order[holder]!, model.events.cpu[holder]!) === stack;
      cost += Cost.moveAhead + distanceCost(gap, holder) + (sameCpu ? 0 : Cost.migration);
      ahead.push(holder);
    }
    const before = first === null ? null : first.flush;
    return { stack, opened, taken, ahead, gap, before, isMoved: first !== null, cost };
  }

  /** As {@link #find} for magazines that give the oldest range: only holders can come before. */
  #findBehind(stack: number, opened: Opened, event: number): Placement | null {
    const { cell, above } = opened;
    if (cell === null) return above.length === 0 ? freshHere(stack, opened, event) : null;
    if (cell.height !== 1 && cell.height !== this.#model.magazine + 1) return null;
    return { ...freshHere(stack, opened, event), isMoved: false };
  }

  /** Whether an allocation whose event is to come may have been made in a gap already. */
  #mayHold(event: number, gap: number, now: number): boolean {
    const { windowStart, timeUs, isFree } = this.#model.events;
    if (isFree[event] === 1 || event < now || windowStart[event]! > gap) return false;
    return event - now <= MOVE_EVENTS_MAX && timeUs[event]! - timeUs[now]! <= MOVE_US_MAX;
  }

  /** A fresh range is only taken while the depot is empty: move before what filled it. */
  #beforeDepot(from: Hypothesis, event: number, placement: Placement): Placement | null {
    const { windowStart, order, cpu, isFree } = this.#model.events;
    const window = windowStart[event]!;
    let result = placement;
    let magazine: DepotMagazine | null = from.depots[order[event]!]!;
    for (; magazine !== null; magazine = magazine.below) {
      if (magazine.gap < window || placement.taken > 0) return null;
      if (magazine.gap > result.gap) continue;
      const cost = Cost.moveBack + distanceCost(magazine.gap, event);
      result = { ...result, gap: magazine.gap, before: magazine.flush, isMoved: true, cost };
    }
    // Between its way to the depot and from there to this CPU, the CPU must not have had others.
    const bottom = placement.opened.above[placement.taken] ?? null;
    const end = bottom === null ? event : bottom.since;
    for (let at = result.gap; at < end && result.gap !== event; at += 1) {
      if (isFree[at] === 0 && cpu[at] === cpu[event] && order[at] === order[event]) return null;
    }
    return result;
  }

  #apply(to: Hypothesis, event: number, placement: Placement, cpu: number): void {
    const { gap, before } = placement;
    for (const holder of placement.ahead) this.#logAhead(to, holder, gap, cpu, before);
    if (placement.isMoved || placement.ahead.length > 0) {
      to.log = { kind: "placed", previous: to.log, event, gap, cpu, before };
      if (placement.isMoved) to.moves += 1;
    }
    this.#model.close(to, placement.stack, placement.opened, placement.taken);
    to.paid += placement.cost;
  }

  #logAhead(
    to: Hypothesis,
    event: number,
    gap: number,
    cpu: number,
    before: FlushNode | null,
  ): void {
    to.log = { kind: "placed", previous: to.log, event, gap, cpu, before };
    to.ahead = { event, gap, rest: to.ahead };
    to.moves += 1;
  }

  #miss(to: Hypothesis, event: number): void {
    to.paid += Cost.miss;
    to.misses += 1;
    to.log = { kind: "miss", previous: to.log, event };
  }
}

/** What a move past events costs. */
function distanceCost(from: number, to: number): number {
  return Cost.distance * Math.min(500, to - from);
}

/** Whether a range came inside the window, and after the one below, so that that was on top. */
function arrivedLater(above: Cell, below: Cell | null, window: number): boolean {
  if (above.gap < window) return false;
  if (below === null) return true;
  return above.gap > below.gap || above.flush !== below.flush;
}

function freshHere(stack: number, opened: Opened, event: number): Placement {
  return {
    stack,
    opened,
    taken: 0,
    ahead: [],
    gap: event,
    before: null,
    isMoved: false,
    cost: 0,
  };
}

/** Removes an event from the allocations placed ahead. */
function dropFromList(from: Hypothesis, event: number): boolean {
  const kept: EventList[] = [];
  let found = false;
  for (let list = from.ahead; list !== null; list = list.rest) {
    if (list.event === event) found = true;
    else kept.push(list);
  }
  if (!found) return false;
  from.ahead = null;
  for (const item of kept.reverse()) {
    from.ahead = { event: item.event, gap: item.gap, rest: from.ahead };
  }
  return true;
}
