/**
 * Groups the map and unmap events of a trace into allocations, as a stream: an unmap covers exactly
 * a set of whole map events, and that set is one allocation, made at its first map event.
 *
 * Why several events make one allocation: drivers/iommu/dma-iommu.c, dma_iova_try_alloc and one
 * dma_iova_link for each physically contiguous segment, then one unmap; and iommu_map_sg, which
 * emits one event for each run of segments. Memory is bounded by the live mappings and the window.
 */
import { StackError } from "../errors.ts";
import { isAligned, log2Ceil } from "../units.ts";
import { CHAIN_MAX, LIVE_MAX, LiveMaps } from "./live-maps.ts";
import { Operation, OperationKind, type OperationSink } from "./operation.ts";
import { OperationRing } from "./operation-ring.ts";
import { SeenFrames } from "./seen-frames.ts";
import { type TraceEvent, TraceKind } from "./trace-event.ts";

/** What is odd about an event; the recording goes on. */
export type Oddity =
  | "size is zero"
  | "not a whole number of pages"
  | "runs past the end of the address space"
  | "overlaps a live mapping"
  | "unmaps a part of a mapping"
  | "unmaps what is not mapped"
  | "driver removed another size than asked";

/** Receives oddities. */
export type OdditySink = (oddity: Oddity, event: TraceEvent) => void;

/** Counters of a grouping. */
export class AllocationCounts {
  maps = 0;
  unmaps = 0;
  /** Allocations made in the recording, open ones included. */
  allocations = 0;
  /** Allocations of more than one map event. */
  segmented = 0;
  /** Allocations that were never unmapped. */
  neverUnmapped = 0;
  /** Unmaps of what was mapped before the recording started: inferred mappings, and their frames. */
  before = 0;
  beforePages = 0;
  /** Unmaps of which a part was mapped before the recording started. */
  straddling = 0;
  /** Unmaps that covered several allocations which had been told apart by their looks. */
  lateGroups = 0;
  /** Mappings taken for gone because many newer ones have their address: lost unmaps. */
  forgotten = 0;
  /** Oddities by sort. */
  readonly oddities = new Map<Oddity, number>();
  /** Most map events, and most frames, live at once. */
  livePeak = 0;
  livePagesPeak = 0;
}

/** Options of {@link AllocationReader}. */
export interface AllocationOptions {
  /**
   * How many operations wait at most for an unmap that tells the size of the oldest; a power of
   * two of at least 256. Default 65 536.
   */
  readonly window?: number;
  readonly oddity?: OdditySink;
}

const SPACE_PAGES = 2 ** 52;

/** Turns trace events into operations; call `event` for each, in order, and `end` once. */
export class AllocationReader {
  readonly counts: AllocationCounts = new AllocationCounts();
  readonly #sink: OperationSink;
  readonly #oddity: OdditySink;
  readonly #live = new LiveMaps();
  readonly #ring: OperationRing;
  readonly #seen = new SeenFrames();
  readonly #out = new Operation();
  readonly #members: number[] = [];
  /** Allocations that were given out before their unmap: what of them is still mapped. */
  readonly #early = new Map<number, { iovaPfn: number; pages: number; left: number }>();

  constructor(sink: OperationSink, options: AllocationOptions = {}) {
    this.#sink = sink;
    this.#oddity = options.oddity ?? (() => {});
    this.#ring = new OperationRing(options.window ?? 65_536);
  }

  /** Mappings live now. */
  get live(): LiveMaps {
    return this.#live;
  }

  event(event: TraceEvent): void {
    if (event.kind === TraceKind.map) {
      this.counts.maps += 1;
      if (this.#isSane(event, event.pages, event.pagesRest)) this.#map(event);
    } else if (event.kind === TraceKind.unmap) {
      this.counts.unmaps += 1;
      this.#unmap(event);
    }
  }

  /** Settles what is still open: these allocations were never unmapped. */
  end(): void {
    for (let number = this.#ring.head; number < this.#ring.tail; number += 1) {
      if (!this.#ring.isSettled(number)) this.#settleByLooks(number);
    }
    this.#drain();
    this.counts.neverUnmapped += this.#early.size;
  }

  #isSane(event: TraceEvent, pages: number, rest: number): boolean {
    if (pages === 0 && rest === 0) return this.#odd("size is zero", event);
    if (rest !== 0 || event.iovaOffset !== 0)
      return this.#odd("not a whole number of pages", event);
    if (event.kind === TraceKind.map && event.physOffset !== 0) {
      return this.#odd("not a whole number of pages", event);
    }
    if (event.iovaPfn + pages > SPACE_PAGES) {
      return this.#odd("runs past the end of the address space", event);
    }
    return true;
  }

  #odd(oddity: Oddity, event: TraceEvent): false {
    const { oddities } = this.counts;
    oddities.set(oddity, (oddities.get(oddity) ?? 0) + 1);
    this.#oddity(oddity, event);
    return false;
  }

  #map(event: TraceEvent): void {
    const live = this.#live;
    const { iovaPfn, pages } = event;
    const overlaps = live.overlapping(iovaPfn, pages) >= 0;
    if (overlaps) {
      this.#odd("overlaps a live mapping", event);
      if (live.countAt(iovaPfn) === CHAIN_MAX) this.#forget(live.firstAt(iovaPfn));
    }
    if (live.size >= LIVE_MAX - 2) {
      throw new StackError({
        code: "recording/too-many-live",
        kind: "input",
        message: `More than ${LIVE_MAX - 2} mappings are live at once`,
        hint: "the recording may have lost its unmap events; record iommu:unmap as well",
      });
    }
    const number = this.#push(OperationKind.allocate, event);
    const slot = live.insert(iovaPfn, pages, overlaps);
    live.operation[slot] = number;
    live.allocation[slot] = -1;
    live.pid[slot] = event.pid;
    live.cpu[slot] = event.cpu;
    this.#ring.setSlot(number, slot);
    this.#seen.add(iovaPfn, pages);
    if (live.size > this.counts.livePeak) this.counts.livePeak = live.size;
    if (live.totalPages > this.counts.livePagesPeak) this.counts.livePagesPeak = live.totalPages;
  }

  /** Takes a mapping for gone: too many newer ones have its address, its unmap must be missing. */
  #forget(slot: number): void {
    const live = this.#live;
    if (live.allocation[slot]! < 0) this.#settleByLooks(live.operation[slot]!);
    const rest = this.#early.get(live.allocation[slot]!);
    if (rest !== undefined) {
      rest.left -= live.pages[slot]!;
      if (rest.left <= 0) {
        this.#early.delete(live.allocation[slot]!);
        this.counts.neverUnmapped += 1;
      }
    }
    live.remove(slot);
    this.counts.forgotten += 1;
  }

  #unmap(event: TraceEvent): void {
    if (event.unmappedPages !== event.pages || event.unmappedRest !== event.pagesRest) {
      if (this.#isSane(event, event.pages, event.pagesRest)) {
        this.#odd("driver removed another size than asked", event);
      }
    }
    const pages = event.unmappedPages;
    if (!this.#isSane(event, pages, event.unmappedRest)) return;
    const { iovaPfn } = event;
    const members = this.#members;
    const count = this.#live.cover(iovaPfn, pages, event.cpu, members);
    if (count > 0) this.#freeWhole(event, pages, count);
    else if (this.#live.overlapping(iovaPfn, pages) >= 0) this.#freeParts(event, pages);
    else this.#freeUnknown(event, iovaPfn, pages);
    this.#drain();
  }

  /** Frees whole mappings: in the usual case they are one allocation that is still open. */
  #freeWhole(event: TraceEvent, pages: number, count: number): void {
    const { iovaPfn } = event;
    const members = this.#members;
    const live = this.#live;
    let first = Number.POSITIVE_INFINITY;
    let settled = false;
    for (let index = 0; index < count; index += 1) {
      const slot = members[index]!;
      first = Math.min(first, live.operation[slot]!);
      settled ||= live.allocation[slot]! >= 0;
    }
    if (settled) {
      this.#freeEarly(event, count);
      return;
    }
    this.#range.iovaPfn = iovaPfn;
    this.#range.pages = pages;
    this.#range.open = false;
    for (let index = 0; index < count; index += 1) {
      const slot = members[index]!;
      const number = live.operation[slot]!;
      const kind = number === first ? OperationKind.allocate : OperationKind.extend;
      this.#ring.settle(number, kind, first, this.#range);
    }
    live.removeCover(members, count);
    this.counts.allocations += 1;
    if (count > 1) this.counts.segmented += 1;
    this.#finish(OperationKind.free, event, first);
  }

  readonly #range = { iovaPfn: 0, pages: 0, open: false };

  /** Frees mappings of which some were given out as allocations before. */
  #freeEarly(event: TraceEvent, count: number): void {
    const live = this.#live;
    const touched = new Set<number>();
    for (let index = 0; index < count; index += 1) {
      const slot = this.#members[index]!;
      if (live.allocation[slot]! < 0) this.#settleByLooks(live.operation[slot]!);
      const allocation = live.allocation[slot]!;
      const rest = this.#early.get(allocation);
      if (rest !== undefined) rest.left -= live.pages[slot]!;
      touched.add(allocation);
      live.remove(slot);
    }
    if (touched.size > 1) this.counts.lateGroups += 1;
    for (const allocation of touched) this.#finishEarly(event, allocation);
  }

  /** Writes the end, or the shrinking, of an allocation that was given out before. */
  #finishEarly(event: TraceEvent, allocation: number): void {
    const rest = this.#early.get(allocation);
    if (rest === undefined) return;
    const whole = rest.left <= 0;
    this.#range.iovaPfn = whole ? rest.iovaPfn : event.iovaPfn;
    this.#range.pages = whole ? rest.pages : event.unmappedPages;
    this.#range.open = false;
    this.#finish(whole ? OperationKind.free : OperationKind.shrink, event, allocation);
    if (whole) this.#early.delete(allocation);
  }

  /** Frees what a range covers when mappings stick out of it or leave gaps in it. */
  #freeParts(event: TraceEvent, pages: number): void {
    const live = this.#live;
    const { iovaPfn } = event;
    const end = iovaPfn + pages;
    const touched = new Set<number>();
    let covered = 0;
    let sticksOut = false;
    for (;;) {
      const slot = live.overlapping(iovaPfn, end - iovaPfn);
      if (slot < 0) break;
      const start = live.iovaPfn[slot]!;
      const stop = start + live.pages[slot]!;
      const number = live.operation[slot]!;
      if (live.allocation[slot]! < 0) this.#settleByLooks(number);
      const allocation = live.allocation[slot]!;
      const removed = Math.min(end, stop) - Math.max(iovaPfn, start);
      covered += removed;
      const rest = this.#early.get(allocation);
      if (rest !== undefined) rest.left -= removed;
      touched.add(allocation);
      if (start < iovaPfn || stop > end) sticksOut = true;
      const { pid, cpu } = { pid: live.pid[slot]!, cpu: live.cpu[slot]! };
      live.remove(slot);
      if (start < iovaPfn) this.#keepPart(start, iovaPfn, number, allocation, pid, cpu);
      if (stop > end) this.#keepPart(end, stop, number, allocation, pid, cpu);
    }
    if (sticksOut) this.#odd("unmaps a part of a mapping", event);
    for (const allocation of touched) this.#finishEarly(event, allocation);
    if (covered < pages && !sticksOut) {
      this.counts.straddling += 1;
      this.#freeBefore(event, iovaPfn, pages - covered);
    }
  }

  #keepPart(
    start: number,
    end: number,
    operation: number,
    allocation: number,
    pid: number,
    cpu: number,
  ): void {
    const live = this.#live;
    const slot = live.insert(start, end - start, live.overlapping(start, end - start) >= 0);
    live.operation[slot] = operation;
    live.allocation[slot] = allocation;
    live.pid[slot] = pid;
    live.cpu[slot] = cpu;
  }

  #freeUnknown(event: TraceEvent, iovaPfn: number, pages: number): void {
    if (this.#seen.hasAny(iovaPfn, pages)) this.#odd("unmaps what is not mapped", event);
    else this.#freeBefore(event, iovaPfn, pages);
  }

  #freeBefore(event: TraceEvent, iovaPfn: number, pages: number): void {
    this.#seen.add(event.iovaPfn, event.unmappedPages);
    this.counts.before += 1;
    this.counts.beforePages += pages;
    this.#range.iovaPfn = iovaPfn;
    this.#range.pages = pages;
    this.#range.open = false;
    this.#finish(OperationKind.freeBefore, event, -1);
  }

  #finish(kind: number, event: TraceEvent, allocation: number): void {
    const number = this.#push(kind, event);
    this.#ring.settle(number, kind, allocation, this.#range);
  }

  /**
   * Settles an open map event without its unmap: as an allocation of its own, and of those events
   * that follow it in the address space and could not be one (a size-aligned IOVA: iova.c,
   * alloc_iova with size_aligned).
   */
  #settleByLooks(number: number): void {
    const live = this.#live;
    const first = this.#ring.slotOf(number);
    const group = [first];
    const pid = live.pid[first]!;
    const start = live.iovaPfn[first]!;
    let end = start + live.pages[first]!;
    for (;;) {
      const next = live.firstAt(end);
      if (next < 0 || live.allocation[next]! >= 0 || live.pid[next] !== pid) break;
      if (live.operation[next]! < number) break;
      if (isAligned(end, 2 ** log2Ceil(live.pages[next]!))) break;
      group.push(next);
      end += live.pages[next]!;
    }
    const range = { iovaPfn: start, pages: end - start, open: true };
    for (const slot of group) {
      const member = live.operation[slot]!;
      const kind = member === number ? OperationKind.allocate : OperationKind.extend;
      this.#ring.settle(member, kind, number, range);
      live.allocation[slot] = number;
    }
    this.#early.set(number, { iovaPfn: start, pages: range.pages, left: range.pages });
    this.counts.allocations += 1;
    if (group.length > 1) this.counts.segmented += 1;
  }

  #push(kind: number, event: TraceEvent): number {
    if (this.#ring.full) {
      if (!this.#ring.isSettled(this.#ring.head)) this.#settleByLooks(this.#ring.head);
      this.#drain();
    }
    return this.#ring.push(kind, event);
  }

  #drain(): void {
    const out = this.#out;
    while (this.#ring.shift(out)) this.#sink(out);
  }
}
