/**
 * The ways in which one flush of the timer can mix with what else happens meanwhile.
 *
 * Source: drivers/iommu/dma-iommu.c: queue_iova, fq_flush_timeout. The timer's handler starts the
 * flush, waits for it, and then visits the rings of CPU 0, 1, 2 … Meanwhile
 * 1. a free on another CPU, once the flush has finished, empties that CPU's ring into its own
 *    magazines before the handler comes there;
 * 2. a free in an interrupt of the handler's CPU does so with that CPU's ring, ahead of its turn;
 * 3. frees while the flush is being waited for empty nothing;
 * 4. a free traced before the start may be queued after it, and miss the flush;
 * 5. an allocation traced later may hold a range already that the flush would bury.
 */
import type { AllocationPlacer } from "./allocation-placer.ts";
import type { CacheModel } from "./cache-model.ts";
import { Cost } from "./costs.ts";
import type { FlushCarrier } from "./flush-carrier.ts";
import type { FlushNode, Hypothesis } from "./magazine-state.ts";
import type { Rings } from "./rings.ts";
import { Level } from "./schedule-events.ts";

/** How long a flush and its handler may take, µs and events. */
const HANDLER_US_MAX = 5000;
const HANDLER_EVENTS_MAX = 64;
/** Ends of a flush that are tried. */
const ENDS_MAX = 6;
/** No two flushes of the timer are closer, µs. */
const NEXT_FLUSH_US = 8000;
/** Rings that are tried both ways. */
const DOUBTFUL_MAX = 2;

/** Where a flush is tried. */
export interface FlushPlace {
  readonly gap: number;
  readonly cpu: number;
  /** What the flush costs by itself. */
  readonly paid: number;
  readonly limit: number;
}

/** A hypothesis with a flush, and its cost with what is expected of rings that empty themselves. */
export interface FlushChoice {
  readonly hypothesis: Hypothesis;
  readonly cost: number;
}

/** Which rings empty themselves, and whether the handler's own one comes before ring `first`. */
interface Course {
  readonly self: readonly number[];
  /** −1: it comes in its turn. */
  readonly first: number;
  /** First event that shows the handler's CPU back at work. */
  readonly handlerEnd: number;
}

/** Carries variants of a flush out. */
export class FlushVariants {
  readonly #model: CacheModel;
  readonly #placer: AllocationPlacer;
  readonly #rings: Rings;
  readonly #carrier: FlushCarrier;
  readonly #held: number[] = [];

  constructor(model: CacheModel, placer: AllocationPlacer, rings: Rings, carrier: FlushCarrier) {
    this.#model = model;
    this.#placer = placer;
    this.#rings = rings;
    this.#carrier = carrier;
  }

  /** Adds the plausible courses of a flush to `out`, one hypothesis each. */
  collect(from: Hypothesis, place: FlushPlace, out: FlushChoice[]): void {
    const { events } = this.#model;
    const rings = this.#rings;
    const { gap, cpu } = place;
    const handlerEnd = this.#handlerEnd(gap, cpu);
    const ownFree = rings.nextFree(cpu, gap - 1, handlerEnd);
    const isInterrupted =
      ownFree >= 0 && events.nested[ownFree] === Level.softIrq && rings.holds(from, cpu);
    for (const self of this.#selfSets(from, cpu, gap, handlerEnd)) {
      this.#try(from, place, { self, first: -1, handlerEnd }, out);
      if (!isInterrupted) continue;
      for (let first = 0; first < cpu; first += 1) {
        this.#try(from, place, { self, first, handlerEnd }, out);
      }
    }
  }

  /** First event that shows the handler's CPU back at work. */
  #handlerEnd(gap: number, cpu: number): number {
    const { events } = this.#model;
    const end = Math.min(events.count, gap + HANDLER_EVENTS_MAX);
    for (let at = gap; at < end; at += 1) {
      if (events.timeUs[at]! - events.timeUs[gap]! > HANDLER_US_MAX) return at;
      if (events.cpu[at] !== cpu) continue;
      if (events.isFree[at] === 0 || events.level[at] !== Level.hardIrq) return at;
    }
    return end;
  }

  /** Sets of rings that may empty themselves, by where their ranges are used next. */
  #selfSets(from: Hypothesis, cpu: number, gap: number, handlerEnd: number): number[][] {
    const rings = this.#rings;
    const likely: number[] = [];
    const doubtful: number[] = [];
    for (let ring = 0; ring < this.#model.events.cpus; ring += 1) {
      if (ring === cpu || !rings.holds(from, ring)) continue;
      if (rings.nextFree(ring, gap - 1, handlerEnd) < 0) continue;
      const leaning = rings.leaning(from, ring, cpu, this.#model);
      if (leaning > 0) likely.push(ring);
      if (leaning !== 0 && doubtful.length < DOUBTFUL_MAX) doubtful.push(ring);
    }
    const sets: number[][] = [likely];
    if (likely.length > 0) sets.push([]);
    for (const ring of doubtful) {
      const other = likely.includes(ring)
        ? likely.filter((self) => self !== ring)
        : [...likely, ring].sort((a, b) => a - b);
      if (!sets.some((set) => set.join() === other.join())) sets.push(other);
    }
    return sets;
  }

  /** Carries one course out in the ways that its outcome suggests, and adds the best. */
  #try(from: Hypothesis, place: FlushPlace, course: Course, out: FlushChoice[]): void {
    const { self, first } = course;
    const { events } = this.#model;
    const rings: number[] = [];
    const ringsLater: number[] = [];
    for (let ring = 0; ring < events.cpus; ring += 1) {
      if (self.includes(ring) || !this.#rings.holds(from, ring)) continue;
      if (first < 0 || ring < first) rings.push(ring);
      else if (ring !== place.cpu) ringsLater.push(ring);
    }
    if (first >= 0 && ringsLater.length === 0) return;
    const raceCost = self.length * Cost.selfDrained + (first < 0 ? 0 : Cost.ownFirst);
    if (from.cost + place.paid + raceCost > place.limit) return;
    const finish = this.#finish(from, place, course, ringsLater);
    if (finish === null) return;

    const ends = Int32Array.from({ length: events.cpus }, (_, ring) => this.#rings.tail(ring));
    const plain: FlushNode = {
      kind: "flush",
      previous: null,
      gap: place.gap,
      cpu: place.cpu,
      rings,
      ringsLater,
      finishAfter: finish.after,
      inFlight: [],
      ends,
      isRace: raceCost > 0,
    };
    const paid = place.paid + raceCost + (finish.after < 0 ? 0 : Cost.slowFlush);
    const plainOutcome = this.#carryOut(from, plain, paid, []);
    const best = this.#better(from, plain, paid, plainOutcome);
    const cost = this.#carrier.settledCost(best) + finish.doubt;
    if (cost <= place.limit) out.push({ hypothesis: best, cost });
  }

  /** Looks for what makes a flush less doubtful than its plain course. */
  #better(from: Hypothesis, plain: FlushNode, paid: number, outcome: Hypothesis): Hypothesis {
    const carrier = this.#carrier;
    let best = outcome;
    let bestCost = carrier.settledCost(outcome);
    if (bestCost <= outcome.paid) return best;
    let node = plain;
    const take = (other: Hypothesis): boolean => {
      const cost = carrier.settledCost(other);
      if (cost >= bestCost) return false;
      best = other;
      bestCost = cost;
      return true;
    };
    const inFlight = this.#inFlight(from, plain);
    if (inFlight.length > 0) {
      const ends = plain.ends.slice();
      for (const free of inFlight) ends[this.#model.events.cpu[free]!]! -= 1;
      const missed = { ...plain, inFlight, ends };
      const cost = paid + inFlight.length * Cost.inFlight;
      if (take(this.#carryOut(from, missed, cost, []))) node = missed;
    }
    const cost = paid + node.inFlight.length * Cost.inFlight;
    this.#findHeld(from, node);
    const held = this.#held.slice();
    if (held.length > 0 && !take(this.#carryOut(from, node, cost, held))) held.length = 0;
    for (const finishAfter of this.#freshDuring(from, node, best)) {
      const slow = node.finishAfter < 0 ? Cost.slowFlush : 0;
      take(this.#carryOut(from, { ...node, finishAfter }, cost + slow, held));
    }
    return best;
  }

  #carryOut(from: Hypothesis, node: FlushNode, paid: number, held: readonly number[]): Hypothesis {
    const to = from.clone();
    for (const event of held) this.#placer.takeAhead(to, event, node.gap, node.cpu);
    to.paid += paid;
    this.#carrier.start(to, { ...node, previous: to.log });
    return to;
  }

  /** Last frees of other CPUs' rings that would rather miss the flush. */
  #inFlight(from: Hypothesis, node: FlushNode): number[] {
    const { events, forecast } = this.#model;
    const list: number[] = [];
    for (const ring of [...node.rings, ...node.ringsLater]) {
      const free = this.#rings.lastEvent(ring);
      if (ring === node.cpu || free < 0 || events.isFree[free] === 0) continue;
      if (!this.#rings.isWaiting(from, free) || events.order[free]! < 0) continue;
      // It has to wait for the next flush then.
      const use = forecast.nextUse(free);
      if (use < events.count && events.timeUs[use]! - events.timeUs[node.gap]! < NEXT_FLUSH_US) {
        continue;
      }
      list.push(free);
    }
    return list;
  }

  /** Allocations that may hold top ranges of the handler's stacks already. */
  #findHeld(from: Hypothesis, node: FlushNode): void {
    const { events, forecast } = this.#model;
    const firstUse = new Int32Array(from.depots.length).fill(-1);
    for (const ring of [...node.rings, ...node.ringsLater]) {
      for (let order = 0; order < firstUse.length; order += 1) {
        if (firstUse[order]! >= 0) continue;
        const free = this.#rings.firstOf(from, ring, order);
        if (free >= 0) firstUse[order] = Math.min(events.count, forecast.nextUse(free));
      }
    }
    this.#placer.heldBefore(from, node.cpu, node.gap, firstUse, this.#held);
  }

  /**
   * Allocations of other CPUs from the tree while the handler ran: until then the depot was empty,
   * so the release that filled it came later.
   */
  #freshDuring(from: Hypothesis, node: FlushNode, outcome: Hypothesis): number[] {
    const { events } = this.#model;
    const list: number[] = [];
    let filled = false;
    for (let order = 0; order < from.depots.length; order += 1) {
      filled ||= from.depots[order] !== outcome.depots[order];
    }
    if (!filled) return list;
    const end = this.#handlerEnd(node.gap, node.cpu);
    for (let at = Math.max(node.gap, node.finishAfter); at < end; at += 1) {
      if (events.isFree[at] === 1 || events.reuse[at]! >= 0 || events.order[at]! < 0) continue;
      if (list.length < ENDS_MAX) list.push(at);
    }
    return list;
  }

  /**
   * Chooses when the flush finishes, for rings that empty themselves: they do so at their CPU's
   * first free behind that.
   *
   * @returns `null` when a ring cannot empty itself in time
   */
  #finish(
    from: Hypothesis,
    place: FlushPlace,
    course: Course,
    ringsLater: readonly number[],
  ): { readonly after: number; readonly doubt: number } | null {
    const { self, first, handlerEnd } = course;
    if (self.length === 0 && first < 0) return { after: -1, doubt: 0 };
    const rings = this.#rings;
    const watched = first < 0 ? self : [...self, place.cpu, ...ringsLater];
    let best: { after: number; doubt: number } | null = null;
    let after = -1;
    for (let count = 0; count < ENDS_MAX; count += 1) {
      const behind = after < 0 ? place.gap - 1 : after;
      const doubt = this.#doubtBehind(from, place, course, ringsLater, behind);
      if (doubt === null) break;
      if (best === null || doubt + Cost.slowFlush < best.doubt) best = { after, doubt };
      if (best.doubt === 0) break;
      let next = -1;
      for (const ring of watched) {
        const free = rings.nextFree(ring, behind, handlerEnd);
        if (free >= 0 && (next < 0 || free < next)) next = free;
      }
      if (next < 0) break;
      after = next;
    }
    return best;
  }

  /** What is expected of rings that empty themselves behind an event; `null` when they cannot. */
  #doubtBehind(
    from: Hypothesis,
    place: FlushPlace,
    course: Course,
    ringsLater: readonly number[],
    behind: number,
  ): number | null {
    const { self, first, handlerEnd } = course;
    const rings = this.#rings;
    let doubt = 0;
    for (const ring of self) {
      const free = rings.nextFree(ring, behind, handlerEnd + HANDLER_EVENTS_MAX);
      if (free < 0) return null;
      const to = from.clone();
      to.eligible[ring] = rings.tail(ring);
      this.#carrier.release(to, ring, ring, free, null, free);
      doubt += Math.max(0, to.expected - from.expected);
    }
    if (first < 0) return doubt;
    const own = rings.nextFree(place.cpu, behind, handlerEnd);
    if (own < 0) return null;
    // The handler has not come to these rings yet, so that their CPUs' frees would empty them.
    for (const ring of ringsLater) {
      if (rings.nextFree(ring, behind, own) >= 0) doubt += Cost.doubt;
    }
    return doubt;
  }
}
