/** One policy's run: does what the recording's drivers did, on a stack of its own, and counts. */

import type { Policy } from "../../dma/policy.ts";
import { PAGE_BYTES, PFN_LAST_32BIT } from "../../units.ts";
import { doubled } from "./columns.ts";
import { ExposureGroup, ExposureTotals } from "./exposure.ts";
import type { PolicyStack } from "./policy-stack.ts";
import type { ExposureCounts, IommuKind, IovaCounts, RequestCounts } from "./result.ts";
import type { RunMeter } from "./run-meter.ts";
import type { Unjudged } from "./verdict.ts";

const NOT_MAPPED = -1;
/** Timers that can be armed one after the other once nothing happens any more. */
const TIMERS_AT_END_MAX = 1_000_000;

/** What is true of the recording as a whole. */
export interface RunSpan {
  /** First to last event. */
  readonly durationNs: number;
  readonly knowsTime: boolean;
}

/** Runs one policy. A buffer is named by a slot, a small integer that is reused. */
export class PolicyRun {
  readonly policy: Policy;
  readonly meter: RunMeter;
  readonly #stack: PolicyStack;
  readonly #exposures = new ExposureTotals();
  readonly #open = new ExposureGroup(this.#exposures);
  #nowNs = 0;
  #unmaps = 0;
  #allocations = 0;
  #above4GiB = 0;
  #failed = 0;
  #pageNsAtEnd = 0;
  #iovaPfn = new Float64Array(64);
  #pages = new Float64Array(64);
  /** Slots of which a part was unmapped before: the frames that are left, as [offset, pages]. */
  readonly #parts = new Map<number, [number, number][]>();

  constructor(policy: Policy, stack: PolicyStack, meter: RunMeter) {
    this.policy = policy;
    this.meter = meter;
    this.#stack = stack;
    meter.onReachEnds = () => this.#open.close(this.#nowNs);
  }

  /** Moves on to a time; timers that expire before it run at their own time. */
  advance(nowNs: number): void {
    const stack = this.#stack;
    while (stack.dueNs <= nowNs) {
      this.#nowNs = Math.max(this.#nowNs, stack.dueNs);
      stack.advance(this.#nowNs);
    }
    this.#nowNs = nowNs;
    stack.advance(nowNs);
  }

  mapWhole(slot: number, physPfn: number, pages: number, cpu: number): void {
    this.#count(slot, this.#stack.map(physPfn, pages, cpu), pages);
  }

  begin(slot: number, pages: number, cpu: number): void {
    this.#count(slot, this.#stack.begin(pages, cpu), pages);
  }

  link(slot: number, offset: number, physPfn: number, pages: number): void {
    const base = this.#iovaPfn[slot]!;
    if (base === NOT_MAPPED) return;
    const parts = this.#parts.get(slot);
    if (this.#stack.link(base + offset, physPfn, pages)) {
      parts?.push([offset, pages]);
      return;
    }
    this.#failed += 1;
    if (parts === undefined) this.#parts.set(slot, offset === 0 ? [] : [[0, offset]]);
  }

  commit(slot: number): void {
    const base = this.#iovaPfn[slot]!;
    if (base === NOT_MAPPED) return;
    if (!this.#stack.commit(base, this.#pages[slot]!)) this.#failed += 1;
  }

  unmap(slot: number, cpu: number): void {
    const base = this.#iovaPfn[slot]!;
    const pages = this.#pages[slot]!;
    this.#unmaps += 1;
    if (base === NOT_MAPPED) return;
    const parts = this.#parts.get(slot);
    if (parts !== undefined) {
      this.#parts.delete(slot);
      for (const [offset, count] of parts) this.#stack.unlink(base + offset, count);
      this.#stack.release(base, pages, cpu);
      return;
    }
    this.#stack.unmap(base, pages, cpu);
    if (this.#stack.hasReach) this.#open.open(pages, this.#nowNs);
  }

  /** Unmaps a part of a buffer at once. */
  unlink(slot: number, offset: number, pages: number): void {
    const base = this.#iovaPfn[slot]!;
    if (base === NOT_MAPPED) return;
    const before = this.#parts.get(slot) ?? [[0, this.#pages[slot]!]];
    const after: [number, number][] = [];
    for (const [start, count] of before) {
      const first = Math.max(start, offset);
      const end = Math.min(start + count, offset + pages);
      if (first >= end) {
        after.push([start, count]);
        continue;
      }
      this.#stack.unlink(base + first, end - first);
      if (start < first) after.push([start, first - start]);
      if (end < start + count) after.push([end, start + count - end]);
    }
    this.#parts.set(slot, after);
  }

  /** Maps, without counting, what the recording did not see being mapped. */
  adopt(slot: number, physPfn: number, pages: number, cpu: number): void {
    this.meter.counting = false;
    this.#note(slot, this.#stack.map(physPfn, pages, cpu), pages);
    this.meter.counting = true;
  }

  /** Runs the timers that are still armed: everything unmapped is out of reach afterwards. */
  finish(endNs: number): void {
    this.advance(endNs);
    this.#pageNsAtEnd = this.#exposures.pageNs + this.#open.openPageNs(endNs);
    for (let turns = 0; turns < TIMERS_AT_END_MAX; turns += 1) {
      const dueNs = this.#stack.dueNs;
      if (!Number.isFinite(dueNs)) return;
      this.advance(dueNs);
    }
  }

  /** The outcome. */
  result(span: RunSpan, iommu: IommuKind): Unjudged {
    const { policy } = this;
    const isTranslated = policy.mode !== "passthrough";
    return {
      policy: policy.name,
      requests: this.#requests(iommu === "virtio"),
      invalidations: this.#stack.invalidationCounts(),
      flushes: this.#flushes(span),
      iova: isTranslated ? this.#iova() : null,
      tables: this.#stack.tableCounts(),
      exposure: isTranslated ? this.#exposure(span) : null,
    };
  }

  #requests(hasQueue: boolean): RequestCounts {
    const { meter } = this;
    const each = (count: number | null) =>
      count === null || this.#unmaps === 0 ? null : count / this.#unmaps;
    const kicks = hasQueue ? meter.events("virtqueueKick") : null;
    const syncs = meter.events("virtqueueSync") + meter.events("invalidateWait");
    const { batch } = meter;
    return {
      map: this.#stack.mapCommands(),
      unmap: this.#stack.unmapCommands(),
      kicks,
      syncs,
      syncsPerUnmap: each(syncs),
      kicksPerUnmap: each(kicks),
      batch: {
        mean: batch.mean,
        p50: batch.percentile(50),
        p90: batch.percentile(90),
        p99: batch.percentile(99),
        max: batch.max,
      },
    };
  }

  #iova(): IovaCounts {
    const { meter } = this;
    const cacheHits = meter.events("iovaCacheHit");
    return {
      allocations: this.#allocations,
      cacheHits,
      cacheHitShare: this.#allocations === 0 ? null : cacheHits / this.#allocations,
      treeSearches: meter.events("iovaTreeSearch"),
      treeSteps: meter.amount("iovaTreeSearch"),
      below4GiBPeakBytes: this.#stack.below4GiBPeakPages() * PAGE_BYTES,
      above4GiB: this.#above4GiB,
      failed: this.#failed,
    };
  }

  #flushes(span: RunSpan): Unjudged["flushes"] {
    const counts = this.#stack.flushCounts();
    return counts === null || span.knowsTime ? counts : { ...counts, full: null, timer: null };
  }

  #exposure({ durationNs, knowsTime }: RunSpan): ExposureCounts {
    const totals = this.#exposures;
    const isMeasured = knowsTime && totals.count > 0;
    return {
      unmaps: totals.count,
      peakBytes: totals.peakPages * PAGE_BYTES,
      meanBytes: knowsTime && durationNs > 0 ? (this.#pageNsAtEnd / durationNs) * PAGE_BYTES : null,
      meanNs: isMeasured ? totals.sumNs / totals.count : null,
      longestNs: isMeasured ? totals.longestNs : null,
    };
  }

  /** Notes what an allocation gave. */
  #count(slot: number, iovaPfn: number, pages: number): void {
    if (iovaPfn === NOT_MAPPED) this.#failed += 1;
    else this.#allocations += 1;
    if (iovaPfn > PFN_LAST_32BIT) this.#above4GiB += 1;
    this.#note(slot, iovaPfn, pages);
  }

  #note(slot: number, iovaPfn: number, pages: number): void {
    if (slot >= this.#iovaPfn.length) {
      this.#iovaPfn = doubled(this.#iovaPfn);
      this.#pages = doubled(this.#pages);
    }
    this.#iovaPfn[slot] = iovaPfn;
    this.#pages[slot] = pages;
  }
}
