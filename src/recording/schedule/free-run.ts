/**
 * The free run: our allocator and flush queue carry a frozen schedule out, never corrected, and
 * every address that they hand out is compared with the recorded one.
 */
import { FlushQueue, type FlushQueueSink } from "../../dma/flush-queue.ts";
import { IovaDomain } from "../../dma/iova-domain.ts";
import { DeviceIova } from "../../dma/iova-limits.ts";
import type { IovaRules } from "../../dma/iova-rules.ts";
import { assert } from "../../errors.ts";
import { PFN_LAST_32BIT } from "../../units.ts";
import { type Schedule, ScheduleStep } from "./schedule.ts";

/** How the run departs from Linux, for tests that break it. */
export interface FreeRunOptions {
  readonly rules?: Partial<IovaRules>;
  /** Lazy mode: free at the unmap instead of after a flush. */
  readonly immediateFree?: boolean;
}

/** An allocation that got another address than the recorded one. */
export interface FreeRunMiss {
  /** Line of the allocation's map event. */
  readonly line: number;
  readonly pages: number;
  readonly expectedPfn: number;
  readonly gotPfn: number;
}

/** The outcome. */
export interface FreeRunResult {
  readonly compared: number;
  readonly matched: number;
  /** The first of those that did not match, by line. */
  readonly misses: readonly FreeRunMiss[];
}

/** Misses that are listed at most. */
export const MISSES_LISTED_MAX = 10_000;

/** Carries a schedule out. */
export function freeRun(schedule: Schedule, options: FreeRunOptions = {}): FreeRunResult {
  return new FreeRun(schedule, options).run();
}

class FreeRun {
  readonly #schedule: Schedule;
  readonly #domain: IovaDomain;
  readonly #device: DeviceIova;
  readonly #queue: FlushQueue | null;
  /** By allocation: what our allocator gave. */
  readonly #given: Float64Array;
  readonly #misses: FreeRunMiss[] = [];
  #compared = 0;
  #matched = 0;

  constructor(schedule: Schedule, options: FreeRunOptions) {
    this.#schedule = schedule;
    const { cpus, limitPfn, reserved } = schedule;
    this.#domain = new IovaDomain({ cpus, ...(options.rules && { rules: options.rules }) });
    for (const { first, last } of reserved) this.#domain.reserve(first, last);
    this.#device = new DeviceIova(this.#domain, {
      apertureLastPfn: Math.max(limitPfn, PFN_LAST_32BIT),
      try32First: limitPfn <= PFN_LAST_32BIT,
    });
    const sink: FlushQueueSink = {
      flushIotlbAll() {},
      release: (pfn, pages, _tables, cpu, nowMs) => this.#domain.free(pfn, pages, cpu, nowMs),
    };
    const isQueued = schedule.deferred && options.immediateFree !== true;
    this.#queue = isQueued
      ? new FlushQueue({ kind: "per-cpu", cpus, sink, timer: { arm() {} } })
      : null;
    this.#given = new Float64Array(schedule.pages.length).fill(-1);
  }

  run(): FreeRunResult {
    const { count, kind, subject, cpu, timeMs } = this.#schedule;
    for (let step = 0; step < count; step += 1) {
      this.#step(kind[step]!, subject[step]!, cpu[step]!, timeMs[step]!);
    }
    this.#misses.sort((a, b) => a.line - b.line);
    return { compared: this.#compared, matched: this.#matched, misses: this.#misses };
  }

  #step(kind: number, subject: number, cpu: number, nowMs: number): void {
    const queue = this.#queue;
    switch (kind) {
      case ScheduleStep.allocate:
        this.#allocate(subject, cpu);
        return;
      case ScheduleStep.takeEarlier:
        this.#given[subject] = this.#schedule.pfn[subject]!;
        return;
      case ScheduleStep.free:
        this.#free(subject, cpu, nowMs);
        return;
      case ScheduleStep.flushStart:
        queue?.clearTimer();
        queue?.startFlush();
        return;
      case ScheduleStep.flushFinish:
        queue?.finishFlush("timer", nowMs);
        return;
      case ScheduleStep.release:
        queue?.releaseRing(subject, cpu, nowMs);
        return;
      default:
        assert(false, "a schedule has known steps only");
    }
  }

  #allocate(allocation: number, cpu: number): void {
    const { pages, pfn, line } = this.#schedule;
    const expectedPfn = pfn[allocation]!;
    const gotPfn = this.#device.alloc(pages[allocation]!, Number.MAX_SAFE_INTEGER, cpu);
    this.#given[allocation] = gotPfn;
    this.#compared += 1;
    if (gotPfn === expectedPfn) {
      this.#matched += 1;
    } else if (this.#misses.length < MISSES_LISTED_MAX) {
      this.#misses.push({
        line: line[allocation]!,
        pages: pages[allocation]!,
        expectedPfn,
        gotPfn,
      });
    }
  }

  #free(allocation: number, cpu: number, nowMs: number): void {
    const pages = this.#schedule.pages[allocation]!;
    // What was mapped before the recording has its recorded address.
    const given = this.#given[allocation]!;
    const pfn = given < 0 ? this.#schedule.pfn[allocation]! : given;
    if (pfn === 0) return;
    if (this.#queue === null) this.#domain.free(pfn, pages, cpu, nowMs);
    else this.#queue.queue(cpu, pfn, pages, null, nowMs);
  }
}
