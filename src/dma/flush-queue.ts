/**
 * The flush queue of lazy mode: unmapped ranges wait for one flush of the whole IOTLB, which a full
 * ring or a timer brings about, before their IOVAs and page tables may be used again.
 *
 * Source: drivers/iommu/dma-iommu.c: queue_iova, fq_ring_free_locked, fq_flush_iotlb,
 * fq_flush_timeout, iommu_dma_init_fq, IOVA_DEFAULT_FQ_SIZE to IOVA_SINGLE_FQ_TIMEOUT.
 * An entry may go once a flush that started after it was queued has finished: it notes how many
 * flushes had been started, and waits until more than that have finished.
 *
 * Budget: 60 ns an entry, flushes and release into the IOVA cache included; bench/iova.bench.ts.
 */
import { assert } from "../errors.ts";
import type { TableList } from "../iommu/gather.ts";
import { type Meter, NULL_METER, Step } from "../meter.ts";
import { FlushRing } from "./flush-ring.ts";

/** One ring for every CPU, or one for all of them. */
export type FlushQueueKind = "per-cpu" | "single";

/** What brought a flush about. */
export type FlushCause = "full" | "timer";

/** Linux's sizes: places of a ring, of which one stays free, and time until the timer expires. */
export const FLUSH_QUEUE_DEFAULTS: Readonly<
  Record<FlushQueueKind, { readonly entries: number; readonly timeoutMs: number }>
> = {
  "per-cpu": { entries: 256, timeoutMs: 10 },
  single: { entries: 32_768, timeoutMs: 1000 },
};

/** What the queue acts on. */
export interface FlushQueueSink {
  /** Invalidates everything cached for the domain and completes it. */
  flushIotlbAll(): void;
  /** Frees a range's tables, then gives its IOVA back on `cpu`. */
  release(pfn: number, pages: number, tables: TableList | null, cpu: number, nowMs: number): void;
}

/** A timer that calls {@link FlushQueue.onTimer}, on a CPU of its choice, when it expires. */
export interface FlushTimer {
  arm(dueMs: number): void;
}

/** Hears how long ranges stay reachable after their unmap, and how long until they are reused. */
export interface FlushQueueObserver {
  /** A flush ended the reach of `entries` ranges; the oldest had been queued at `oldestMs`. */
  flushed(cause: FlushCause, entries: number, pages: number, oldestMs: number, nowMs: number): void;
  /** A range left the queue. */
  released(pfn: number, pages: number, queuedMs: number, nowMs: number): void;
}

/** Settings of a flush queue. */
export interface FlushQueueOptions {
  readonly kind: FlushQueueKind;
  /** CPUs that may exist. */
  readonly cpus: number;
  /** Places of a ring, a power of two. */
  readonly entries?: number;
  readonly timeoutMs?: number;
  readonly sink: FlushQueueSink;
  readonly timer: FlushTimer;
  readonly observer?: FlushQueueObserver;
  readonly meter?: Meter;
  /** Flushes counted before, 0 by default. */
  readonly flushesBefore?: number;
}

/** What a queue did so far. Pages count granules. */
export interface FlushQueueCounts {
  queued: number;
  released: number;
  flushesFull: number;
  flushesTimer: number;
  timerArms: number;
  /** Pages in the queue, still reachable or not. */
  queuedPages: number;
  peakQueuedPages: number;
  /** Pages queued and not yet flushed: devices may still reach them. */
  exposedPages: number;
  peakExposedPages: number;
  /** Sum over time of exposed pages, in pages × ms, up to the last queueing or flush. */
  exposedPageMs: number;
  longestExposureMs: number;
}

/** Ranges of one domain that wait for a flush. */
export class FlushQueue {
  readonly kind: FlushQueueKind;
  readonly entries: number;
  readonly timeoutMs: number;
  readonly counts: FlushQueueCounts = {
    queued: 0,
    released: 0,
    flushesFull: 0,
    flushesTimer: 0,
    timerArms: 0,
    queuedPages: 0,
    peakQueuedPages: 0,
    exposedPages: 0,
    peakExposedPages: 0,
    exposedPageMs: 0,
    longestExposureMs: 0,
  };
  readonly #options: FlushQueueOptions;
  readonly #sink: FlushQueueSink;
  readonly #timer: FlushTimer;
  readonly #meter: Meter;
  readonly #rings: (FlushRing | null)[];
  #started: number;
  #finished: number;
  #timerArmed = false;
  #exposedEntries = 0;
  #oldestMs = 0;
  #changedMs = 0;

  constructor(options: FlushQueueOptions) {
    assert(Number.isInteger(options.cpus) && options.cpus >= 1, "a machine has a CPU");
    const defaults = FLUSH_QUEUE_DEFAULTS[options.kind];
    this.kind = options.kind;
    this.entries = options.entries ?? defaults.entries;
    this.timeoutMs = options.timeoutMs ?? defaults.timeoutMs;
    this.#options = options;
    this.#sink = options.sink;
    this.#timer = options.timer;
    this.#meter = options.meter ?? NULL_METER;
    this.#rings = new Array<FlushRing | null>(options.kind === "single" ? 1 : options.cpus);
    this.#rings.fill(null);
    this.#started = options.flushesBefore ?? 0;
    this.#finished = this.#started;
  }

  /** Whether the timer will expire. */
  get timerArmed(): boolean {
    return this.#timerArmed;
  }

  /** Flushes started so far. */
  get flushesStarted(): number {
    return this.#started;
  }

  /** Flushes finished so far. */
  get flushesFinished(): number {
    return this.#finished;
  }

  /** Entries that wait in the ring of a CPU. */
  length(cpu: number): number {
    return this.#rings[this.#ringOf(cpu)]?.length ?? 0;
  }

  /**
   * Queues a range that was just unmapped. What other flushes have finished in this ring is
   * released first; a ring that is full even so is flushed on the spot.
   */
  queue(cpu: number, pfn: number, pages: number, tables: TableList | null, nowMs: number): void {
    const index = this.#ringOf(cpu);
    let ring = this.#rings[index]!;
    if (ring === null) {
      ring = new FlushRing(this.entries);
      this.#rings[index] = ring;
    }
    this.#release(ring, cpu, nowMs);
    if (ring.isFull) {
      this.flush("full", nowMs);
      this.#release(ring, cpu, nowMs);
    }
    ring.push(pfn, pages, tables, this.#started, nowMs);
    this.#meter.step(Step.flushQueueAdd, 1, 0);
    this.#expose(pages, nowMs);
    if (this.#timerArmed) return;
    this.#timerArmed = true;
    this.counts.timerArms += 1;
    this.#meter.step(Step.flushTimerArm, 1, 0);
    this.#timer.arm(nowMs + this.timeoutMs);
  }

  /** The timer expired on `cpu`: everything that was queued is flushed and released there. */
  onTimer(cpu: number, nowMs: number): void {
    this.clearTimer();
    this.flush("timer", nowMs);
    for (let ring = 0; ring < this.#rings.length; ring += 1) this.releaseRing(ring, cpu, nowMs);
  }

  /** First part of {@link onTimer}: from here on the next entry arms the timer again. */
  clearTimer(): void {
    this.#timerArmed = false;
  }

  /** Second part of {@link onTimer}: flushes the IOTLB. Nothing is released yet. */
  flush(cause: FlushCause, nowMs: number): void {
    this.startFlush();
    this.finishFlush(cause, nowMs);
  }

  /** The flush starts: what is queued from here on waits for the next one. */
  startFlush(): void {
    this.#started += 1;
  }

  /**
   * The flush is carried out and has finished: what was queued before its start may go. What was
   * queued since no longer counts as exposed either, though its turn comes with the next flush.
   */
  finishFlush(cause: FlushCause, nowMs: number): void {
    const { counts } = this;
    const entries = this.#exposedEntries;
    const pages = counts.exposedPages;
    const oldestMs = this.#oldestMs;
    this.#settleExposure(nowMs);
    this.#exposedEntries = 0;
    counts.exposedPages = 0;
    if (cause === "full") counts.flushesFull += 1;
    else counts.flushesTimer += 1;
    this.#meter.step(cause === "full" ? Step.flushFull : Step.flushTimer, 1, 0);
    this.#sink.flushIotlbAll();
    this.#finished += 1;
    if (entries === 0) return;
    counts.longestExposureMs = Math.max(counts.longestExposureMs, nowMs - oldestMs);
    this.#options.observer?.flushed(cause, entries, pages, oldestMs, nowMs);
  }

  /** Third part of {@link onTimer}: releases what is flushed in the ring of one CPU, on `cpu`. */
  releaseRing(ringCpu: number, cpu: number, nowMs: number): void {
    const ring = this.#rings[this.#ringOf(ringCpu)]!;
    if (ring !== null) this.#release(ring, cpu, nowMs);
  }

  /**
   * Ends the queue with its domain: calls `free` for the tables that it still holds. The IOVAs end
   * with their space. The owner must have stopped the timer.
   */
  dispose(free: (tables: TableList) => void): void {
    for (const ring of this.#rings) {
      while (ring !== null && !ring.isEmpty) {
        const { tables } = ring;
        ring.shift();
        if (tables !== null) free(tables);
      }
    }
  }

  /** An independent copy that acts on another sink and timer, and is not observed. */
  clone(sink: FlushQueueSink, timer: FlushTimer): FlushQueue {
    const { observer: _, ...options } = this.#options;
    const copy = new FlushQueue({ ...options, sink, timer });
    for (const [index, ring] of this.#rings.entries())
      copy.#rings[index] = ring === null ? null : ring.clone();
    Object.assign(copy.counts, this.counts);
    copy.#started = this.#started;
    copy.#finished = this.#finished;
    copy.#timerArmed = this.#timerArmed;
    copy.#exposedEntries = this.#exposedEntries;
    copy.#oldestMs = this.#oldestMs;
    copy.#changedMs = this.#changedMs;
    return copy;
  }

  #ringOf(cpu: number): number {
    return this.kind === "single" ? 0 : cpu;
  }

  /** Releases the entries that are flushed, oldest first. */
  #release(ring: FlushRing, cpu: number, nowMs: number): void {
    const finished = this.#finished;
    const { observer } = this.#options;
    while (!ring.isEmpty && ring.flushesStarted < finished) {
      const { pfn, pages, tables, queuedMs } = ring;
      ring.shift();
      this.counts.released += 1;
      this.counts.queuedPages -= pages;
      this.#sink.release(pfn, pages, tables, cpu, nowMs);
      observer?.released(pfn, pages, queuedMs, nowMs);
    }
  }

  #expose(pages: number, nowMs: number): void {
    const { counts } = this;
    this.#settleExposure(nowMs);
    if (this.#exposedEntries === 0) this.#oldestMs = nowMs;
    this.#exposedEntries += 1;
    counts.queued += 1;
    counts.queuedPages += pages;
    counts.exposedPages += pages;
    if (counts.queuedPages > counts.peakQueuedPages) counts.peakQueuedPages = counts.queuedPages;
    if (counts.exposedPages > counts.peakExposedPages)
      counts.peakExposedPages = counts.exposedPages;
  }

  #settleExposure(nowMs: number): void {
    if (nowMs === this.#changedMs) return;
    this.counts.exposedPageMs += this.counts.exposedPages * (nowMs - this.#changedMs);
    this.#changedMs = nowMs;
  }
}
