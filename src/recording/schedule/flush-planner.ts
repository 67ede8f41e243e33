/**
 * Where flushes of the timer may lie: makes the hypotheses in which one ran just before an event.
 *
 * A gap is only tried when it matters: before an allocation whose range still waits for a flush, and
 * before a free that had better not be part of it. Delay and CPU of the timer are habits, not laws:
 * a flush comes three to four ticks of 4 ms after the first entry, mostly on the CPU that queued it.
 */
import type { CacheModel } from "./cache-model.ts";
import {
  BURST_US,
  Cost,
  EARLY_COST,
  LATE_COST,
  LATE_COST_MAX,
  TIMER_MS_LATE,
  TIMER_MS_MIN,
} from "./costs.ts";
import type { FlushChoice, FlushVariants } from "./flush-variants.ts";
import type { Hypothesis } from "./magazine-state.ts";
import type { Rings } from "./rings.ts";
import { Level } from "./schedule-events.ts";

/** Hypotheses that are kept for one gap, and how much dearer than the best they may be. */
const KEPT_MAX = 6;
const KEPT_SLACK = 40;
/** A ring this full may overflow: then every gap counts. */
const NEARLY_FULL = 240;

/** Makes the hypotheses in which a flush lies in a gap. */
export class FlushPlanner {
  readonly #model: CacheModel;
  readonly #rings: Rings;
  readonly #variants: FlushVariants;

  constructor(model: CacheModel, rings: Rings, variants: FlushVariants) {
    this.#model = model;
    this.#rings = rings;
    this.#variants = variants;
  }

  /**
   * Adds to `out` the hypotheses that follow from one when a flush lies just before an event.
   *
   * @param limit - cost above which a hypothesis is not worth keeping
   */
  branch(from: Hypothesis, event: number, limit: number, out: Hypothesis[]): void {
    if (from.unfinished !== null || from.waiting !== null) return;
    const oldest = this.#rings.oldestWaiting(from);
    if (oldest < 0) return;
    const { events } = this.#model;
    const isFree = events.isFree[event] === 1;
    if (!isFree && !this.#waitsFor(from, event)) return;
    const waitedMs = (events.timeUs[event]! - events.timeUs[oldest]!) / 1000;
    const paid = Cost.flush + timerCost(waitedMs) + (this.#isInBurst(event) ? Cost.burst : 0);
    if (from.cost + paid > limit) return;
    const armCpu = events.cpu[oldest]!;
    const choices: FlushChoice[] = [];
    for (const cpu of this.#candidates(from, event, armCpu)) {
      if (isFree && this.#canWait(from, event, cpu)) continue;
      const extra = paid + (cpu === armCpu ? 0 : Cost.otherCpu);
      if (from.cost + extra <= limit) {
        this.#variants.collect(from, { gap: event, cpu, paid: extra, limit }, choices);
      }
    }
    choices.sort((a, b) => a.cost - b.cost);
    for (let at = 0; at < choices.length && at < KEPT_MAX; at += 1) {
      const { hypothesis, cost } = choices[at]!;
      if (cost > limit || cost > choices[0]!.cost + KEPT_SLACK) break;
      out.push(hypothesis);
    }
  }

  /** Whether an allocation needs a range that still waits for a flush. */
  #waitsFor(from: Hypothesis, event: number): boolean {
    const free = this.#model.events.reuse[event]!;
    if (free < 0 || !this.#rings.isWaiting(from, free)) return false;
    for (let list = from.ahead; list !== null; list = list.rest) {
      if (list.event === event) return false;
    }
    return true;
  }

  /** CPUs that the timer may have run on. */
  #candidates(from: Hypothesis, event: number, armCpu: number): number[] {
    const { events } = this.#model;
    const list = [armCpu];
    const user = this.#rings.mainUser(from, this.#model);
    if (user >= 0 && user !== armCpu) list.push(user);
    if (events.isFree[event] === 0 && !list.includes(events.cpu[event]!)) {
      list.push(events.cpu[event]!);
    }
    return list;
  }

  /** A flush right behind this free would do as well: nothing speaks against including it. */
  #canWait(from: Hypothesis, event: number, cpu: number): boolean {
    const { events, forecast } = this.#model;
    const order = events.order[event]!;
    if (order < 0) return true;
    const rings = this.#rings;
    const ring = events.cpu[event]!;
    if (rings.tail(ring) - from.released[ring]! >= NEARLY_FULL) return false;
    // It may be the very free that empties its ring while the flush is under way.
    if (ring === cpu ? events.nested[event] === Level.softIrq : rings.holds(from, ring)) {
      if (ring === cpu || rings.leaning(from, ring, cpu, this.#model) > 0) return false;
    }
    const last = rings.lastOf(from, ring, order);
    const top = from.stacks[this.#model.stackOf(order, cpu)]!;
    const below = last >= 0 ? last : top === null ? -1 : top.free;
    forecast.push(order, forecast.cacheCpu(cpu), event, event, below, 0, -1);
    if (forecast.place + forecast.order > 0) return false;
    for (let other = ring + 1; other < events.cpus; other += 1) {
      const first = rings.firstOf(from, other, order);
      if (first >= 0 && forecast.nextUse(first) > forecast.nextUse(event)) return false;
    }
    return true;
  }

  /** Inside an interrupt's burst of frees only another CPU's timer can run. */
  #isInBurst(event: number): boolean {
    const { isFree, level, cpu, timeUs } = this.#model.events;
    if (event === 0 || isFree[event] === 0 || level[event] === Level.task) return false;
    const previous = event - 1;
    if (isFree[previous] === 0 || cpu[previous] !== cpu[event]) return false;
    return timeUs[event]! - timeUs[previous]! < BURST_US;
  }
}

function timerCost(waitedMs: number): number {
  if (waitedMs < TIMER_MS_MIN) return (TIMER_MS_MIN - waitedMs) * EARLY_COST;
  return Math.min(LATE_COST_MAX, Math.max(0, waitedMs - TIMER_MS_LATE) * LATE_COST);
}
