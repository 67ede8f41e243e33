/**
 * The allocations and frees of one recording as columns, in the order of their trace events, with
 * what bounds their true order: where the task was, and which free an allocation reuses.
 *
 * Sources: drivers/iommu/iommu.c: iommu_map_nosync and __iommu_unmap (an allocation happens before
 * its map event, a free after its unmap event); kernel/trace/trace_output.c (context columns).
 * A *gap* g is the place just before event g; an allocation lies in a gap of its window.
 */
import { CACHED_ORDERS } from "../../dma/iova-rules.ts";
import { log2Ceil } from "../../units.ts";
import { OperationKind } from "../operation.ts";
import type { OperationColumns } from "../operation-columns.ts";
import { ContextFlag } from "../trace-event.ts";

/** Where a CPU was when it wrote an event; a higher level interrupts the lower ones. */
export const Level = { task: 0, softIrq: 1, hardIrq: 2 } as const;

/** Order of an allocation that no cache keeps. */
export const UNCACHED = -1;

/** What a pre-pass did to an event. */
export const Shift = { none: 0, allocatedEarlier: 1, freedLater: 2 } as const;

/** Events 0 … `count` − 1, allocations and frees only. */
export interface ScheduleEvents {
  readonly count: number;
  /** CPUs of the machine, at least as many as the events name. */
  readonly cpus: number;
  readonly isFree: Uint8Array;
  readonly cpu: Int32Array;
  /** {@link Level} */
  readonly level: Uint8Array;
  /** Level that the event's interrupt interrupted. */
  readonly nested: Uint8Array;
  readonly pid: Float64Array;
  readonly timeUs: Float64Array;
  readonly line: Float64Array;
  readonly pfn: Float64Array;
  readonly pages: Float64Array;
  /** log2 of the pages as rounded by the allocator, {@link UNCACHED} for the large. */
  readonly order: Int8Array;
  /** Allocation that the event makes or ends; those from before the recording come last. */
  readonly allocation: Int32Array;
  readonly allocations: number;
  /** Allocations that only their free shows. */
  readonly allocationsBefore: number;
  /** Allocations: first gap that the task allows; the event's own index is the last one. */
  readonly windowStart: Int32Array;
  /** A free: event that next allocates its address. An allocation: event that last freed it. −1. */
  readonly reuse: Int32Array;
  /** {@link Shift} */
  readonly shift: Uint8Array;
}

type MutableEvents = { -readonly [Key in keyof ScheduleEvents]: ScheduleEvents[Key] };

/**
 * Takes the allocations and frees out of a recording's operations.
 *
 * @param cpus - CPUs that the recording says the machine has, 0 when it does not say
 * @param select - which operations count, all by default: `select(index)`
 */
export function eventsOf(
  columns: OperationColumns,
  cpus: number,
  select: (index: number) => boolean = () => true,
): ScheduleEvents {
  const total = columns.count;
  const events = emptyEvents(total);
  const lastOfTask = new Map<number, number>();
  const lastOfCpu = new Map<number, number>();
  const numbers = new Map<number, number>();
  let count = 0;
  let cpusSeen = Math.max(1, cpus);
  let before = 0;
  for (let index = 0; index < total; index += 1) {
    if (!select(index)) continue;
    const kind = columns.kind[index]!;
    const cpu = columns.cpu[index]!;
    const pid = columns.pid[index]!;
    const isFree = kind === OperationKind.free || kind === OperationKind.freeBefore;
    const level = levelOf(columns.context[index]!, kind);
    if (isFree || kind === OperationKind.allocate) {
      const window = level === Level.task ? lastOfTask.get(pid) : lastOfCpu.get(cpu);
      events.isFree[count] = isFree ? 1 : 0;
      events.cpu[count] = cpu;
      events.level[count] = level;
      events.nested[count] = nestedIn(columns.context[index]!, level);
      events.pid[count] = pid;
      events.timeUs[count] = columns.timeUs[index]!;
      events.line[count] = columns.line[index]!;
      events.pfn[count] = columns.iovaPfn[index]!;
      events.pages[count] = columns.pages[index]!;
      events.order[count] = orderOf(columns.pages[index]!);
      events.windowStart[count] = window ?? 0;
      const known = columns.allocation[index]!;
      if (kind === OperationKind.freeBefore || known < 0) {
        before += 1;
        events.allocation[count] = -before;
      } else {
        const number = numbers.get(known) ?? numbers.size;
        numbers.set(known, number);
        events.allocation[count] = number;
      }
      count += 1;
    }
    if (level === Level.task) lastOfTask.set(pid, count);
    lastOfCpu.set(cpu, count);
    cpusSeen = Math.max(cpusSeen, cpu + 1);
  }
  for (let event = 0; event < count; event += 1) {
    const number = events.allocation[event]!;
    if (number < 0) events.allocation[event] = numbers.size - number - 1;
  }
  events.count = count;
  events.cpus = cpusSeen;
  events.allocations = numbers.size;
  events.allocationsBefore = before;
  linkReuse(events);
  return events;
}

/**
 * The same events in another order. Gaps of windows move with the events before them.
 *
 * @param order - old indices in their new order
 * @param shifted - by old index: how the event was moved, see {@link Shift}
 */
export function reordered(
  events: ScheduleEvents,
  order: Int32Array,
  shifted: Uint8Array,
): ScheduleEvents {
  const { count } = events;
  const next = emptyEvents(count);
  next.count = count;
  next.cpus = events.cpus;
  next.allocations = events.allocations;
  next.allocationsBefore = events.allocationsBefore;
  const placeOf = new Int32Array(count);
  for (let place = 0; place < count; place += 1) placeOf[order[place]!] = place;
  // A gap lies behind the last event before it that stayed.
  const gapOf = new Int32Array(count + 1);
  let gap = 0;
  for (let old = 0; old <= count; old += 1) {
    gapOf[old] = gap;
    if (old < count && shifted[old] === Shift.none) gap = placeOf[old]! + 1;
  }
  for (let place = 0; place < count; place += 1) {
    const old = order[place]!;
    next.isFree[place] = events.isFree[old]!;
    next.cpu[place] = events.cpu[old]!;
    next.level[place] = events.level[old]!;
    next.nested[place] = events.nested[old]!;
    next.pid[place] = events.pid[old]!;
    next.timeUs[place] = events.timeUs[old]!;
    next.line[place] = events.line[old]!;
    next.pfn[place] = events.pfn[old]!;
    next.pages[place] = events.pages[old]!;
    next.order[place] = events.order[old]!;
    next.allocation[place] = events.allocation[old]!;
    next.windowStart[place] = gapOf[events.windowStart[old]!]!;
    next.shift[place] = shifted[old] === Shift.none ? events.shift[old]! : shifted[old]!;
  }
  linkReuse(next);
  return next;
}

/** The same events as seen by an allocator that has no caches. */
export function withoutCaches(events: ScheduleEvents): ScheduleEvents {
  const { count } = events;
  return {
    ...events,
    order: new Int8Array(count).fill(UNCACHED),
    reuse: new Int32Array(count).fill(-1),
  };
}

/** log2 of the pages that the allocator takes for `pages`, or {@link UNCACHED}. */
export function orderOf(pages: number): number {
  const order = log2Ceil(pages);
  return order < CACHED_ORDERS ? order : UNCACHED;
}

function levelOf(context: number, kind: number): number {
  if ((context & ContextFlag.unknown) !== 0) {
    return kind === OperationKind.free || kind === OperationKind.freeBefore
      ? Level.hardIrq
      : Level.task;
  }
  if ((context & (ContextFlag.hardIrq | ContextFlag.nmi)) !== 0) return Level.hardIrq;
  return (context & ContextFlag.softIrq) !== 0 ? Level.softIrq : Level.task;
}

function nestedIn(context: number, level: number): number {
  const inSoftIrq = level === Level.hardIrq && (context & ContextFlag.softIrq) !== 0;
  return inSoftIrq ? Level.softIrq : Level.task;
}

/** Fills in `reuse`. A range of another size class at the same address came through the tree. */
function linkReuse(events: MutableEvents): void {
  const freedBy = new Map<number, number>();
  events.reuse.fill(-1);
  for (let event = 0; event < events.count; event += 1) {
    const pfn = events.pfn[event]!;
    if (events.order[event] === UNCACHED) continue;
    if (events.isFree[event] === 1) {
      freedBy.set(pfn, event);
      continue;
    }
    const free = freedBy.get(pfn);
    if (free === undefined || events.order[free] !== events.order[event]) continue;
    events.reuse[event] = free;
    events.reuse[free] = event;
    freedBy.delete(pfn);
  }
}

function emptyEvents(size: number): MutableEvents {
  return {
    count: 0,
    cpus: 1,
    isFree: new Uint8Array(size),
    cpu: new Int32Array(size),
    level: new Uint8Array(size),
    nested: new Uint8Array(size),
    pid: new Float64Array(size),
    timeUs: new Float64Array(size),
    line: new Float64Array(size),
    pfn: new Float64Array(size),
    pages: new Float64Array(size),
    order: new Int8Array(size),
    allocation: new Int32Array(size),
    allocations: 0,
    allocationsBefore: 0,
    windowStart: new Int32Array(size),
    reuse: new Int32Array(size),
    shift: new Uint8Array(size),
  };
}
