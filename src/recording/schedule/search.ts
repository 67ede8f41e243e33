/**
 * The search for the hidden schedule: a beam of hypotheses walks through the events, each a story of
 * where allocations and flushes really were, and the cheapest story is kept.
 *
 * Before every event a flush may have run; each allocation must then give its recorded address.
 * Hypotheses that go on alike are merged, the dearest are dropped.
 */
import type { IovaRules } from "../../dma/iova-rules.ts";
import { AllocationPlacer } from "./allocation-placer.ts";
import { CacheModel } from "./cache-model.ts";
import { FlushCarrier } from "./flush-carrier.ts";
import { FlushPlanner } from "./flush-planner.ts";
import { FlushVariants } from "./flush-variants.ts";
import type { Hypothesis } from "./magazine-state.ts";
import { Rings } from "./rings.ts";
import type { ScheduleEvents } from "./schedule-events.ts";

/** Settings of a search. */
export interface SearchOptions {
  /** Frees go through the flush queue. */
  readonly deferred: boolean;
  readonly rules: IovaRules;
  /** The recording starts in the middle of the machine's life. */
  readonly fromMiddle: boolean;
  /** Hypotheses kept, and how much dearer than the best one may be. */
  readonly width: number;
  readonly margin: number;
  /** Ranges that a ring of the flush queue can hold. */
  readonly ringPlaces: number;
}

/** Searches; returns the cheapest story. */
export function searchSchedule(events: ScheduleEvents, options: SearchOptions): Hypothesis {
  return new Search(events, options).run();
}

class Search {
  readonly #events: ScheduleEvents;
  readonly #options: SearchOptions;
  readonly #model: CacheModel;
  readonly #placer: AllocationPlacer;
  readonly #rings: Rings;
  readonly #carrier: FlushCarrier;
  readonly #flushes: FlushPlanner;
  readonly #seen = new Set<number>();

  constructor(events: ScheduleEvents, options: SearchOptions) {
    this.#events = events;
    this.#options = options;
    this.#model = new CacheModel(events, options.rules);
    this.#placer = new AllocationPlacer(this.#model, options.fromMiddle);
    this.#rings = new Rings(events);
    this.#carrier = new FlushCarrier(this.#model, this.#rings, options.ringPlaces);
    this.#flushes = new FlushPlanner(
      this.#model,
      this.#rings,
      new FlushVariants(this.#model, this.#placer, this.#rings, this.#carrier),
    );
  }

  run(): Hypothesis {
    const { deferred, margin } = this.#options;
    let beam: Hypothesis[] = [this.#model.start()];
    for (let event = 0; event < this.#events.count; event += 1) {
      const next: Hypothesis[] = [];
      if (deferred) {
        const limit = beam[0]!.cost + margin;
        for (const from of beam) this.#flushes.branch(from, event, limit, next);
      }
      for (const from of beam) next.push(from);
      for (const to of next) this.#apply(to, event);
      this.#rings.pass(event);
      beam = next.length === 1 ? next : this.#best(next);
    }
    return beam[0]!;
  }

  /** Carries out an event at its place. */
  #apply(to: Hypothesis, event: number): void {
    if (this.#events.isFree[event] === 0) this.#placer.place(to, event);
    else if (this.#options.deferred) this.#carrier.queue(to, event);
    else this.#model.push(to, this.#events.cpu[event]!, event, event, null);
    if (to.unfinished !== null) this.#carrier.passed(to, event);
  }

  #best(all: Hypothesis[]): Hypothesis[] {
    const { width, margin } = this.#options;
    all.sort((a, b) => a.cost - b.cost);
    const limit = all[0]!.cost + margin;
    const seen = this.#seen;
    seen.clear();
    const kept: Hypothesis[] = [];
    for (const hypothesis of all) {
      if (hypothesis.cost > limit || kept.length >= width) break;
      const key = hypothesis.key();
      if (seen.has(key)) continue;
      seen.add(key);
      kept.push(hypothesis);
    }
    return kept;
  }
}
