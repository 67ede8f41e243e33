/**
 * Carries the flush queue out inside a hypothesis: a flush of the timer and what it releases, and
 * what a free does to the ring of its CPU.
 *
 * Source: drivers/iommu/dma-iommu.c: queue_iova, fq_flush_timeout, fq_ring_free_locked.
 */
import type { CacheModel } from "./cache-model.ts";
import type { FlushNode, Hypothesis } from "./magazine-state.ts";
import type { Rings } from "./rings.ts";

/** Moves ranges from rings to magazines. */
export class FlushCarrier {
  readonly #model: CacheModel;
  readonly #rings: Rings;
  readonly #places: number;
  readonly #late: number[] = [];

  /** @param places - ranges that a ring can hold */
  constructor(model: CacheModel, rings: Rings, places: number) {
    this.#model = model;
    this.#rings = rings;
    this.#places = places;
  }

  /** A flush starts, and finishes unless it takes until a later event. */
  start(to: Hypothesis, node: FlushNode): void {
    to.log = node;
    to.flushes += 1;
    if (node.ringsLater.length > 0) to.waiting = node;
    if (node.finishAfter < 0) this.#finish(to, node, node.gap);
    else to.unfinished = node;
  }

  /** A free on a CPU queues its range. */
  queue(to: Hypothesis, event: number): void {
    const cpu = this.#model.events.cpu[event]!;
    const { cpus } = this.#model.events;
    const rings = this.#rings;
    this.release(to, cpu, cpu, event, null, event);
    const { waiting } = to;
    if (waiting !== null && waiting.cpu === cpu && event > waiting.finishAfter) {
      for (const ring of waiting.ringsLater) this.release(to, ring, cpu, event, null, event);
      to.waiting = null;
    }
    if (rings.tail(cpu) - to.released[cpu]! < this.#places) return;
    for (let ring = 0; ring < cpus; ring += 1) to.eligible[ring] = rings.tail(ring);
    this.release(to, cpu, cpu, event, null, event);
  }

  /** An event has passed: a flush that took until then finishes. */
  passed(to: Hypothesis, event: number): void {
    const { unfinished } = to;
    if (unfinished === null || unfinished.finishAfter !== event) return;
    to.unfinished = null;
    this.#finish(to, unfinished, event + 1);
  }

  /** What a hypothesis costs once the flush that is under way is over. */
  settledCost(of: Hypothesis): number {
    const { unfinished, waiting } = of;
    if (unfinished === null && waiting === null) return of.cost;
    const to = of.clone();
    if (unfinished !== null) this.#finish(to, unfinished, unfinished.finishAfter + 1);
    if (waiting !== null) {
      const now = Math.max(waiting.gap, waiting.finishAfter + 1);
      for (const ring of [waiting.cpu, ...waiting.ringsLater]) {
        this.release(to, ring, waiting.cpu, waiting.gap, waiting, now);
      }
    }
    return to.cost;
  }

  #finish(to: Hypothesis, node: FlushNode, now: number): void {
    for (let ring = 0; ring < node.ends.length; ring += 1) {
      to.eligible[ring] = Math.max(to.eligible[ring]!, node.ends[ring]!);
    }
    for (const ring of node.rings) this.release(to, ring, node.cpu, node.gap, node, now);
  }

  /**
   * Releases what may be released of a ring into a CPU's magazines.
   *
   * @param gap - gap from which on a task of that CPU finds the ranges
   * @param now - gap from which on other CPUs find what goes to the depot
   */
  release(
    to: Hypothesis,
    ring: number,
    cpu: number,
    gap: number,
    node: FlushNode | null,
    now: number,
  ): void {
    const end = to.eligible[ring]!;
    const start = to.released[ring]!;
    if (end <= start) return;
    const late = this.#late;
    late.length = 0;
    for (const free of this.#rings.between(ring, start, end, late)) {
      this.#model.push(to, cpu, free, gap, node, now);
    }
    for (let at = 0; at < late.length; at += 2) {
      to.log = { kind: "late", previous: to.log, free: late[at]!, behind: late[at + 1]! };
    }
    to.released[ring] = end;
  }
}
