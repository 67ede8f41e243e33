/**
 * Writes the story of a hypothesis down as a schedule: events in order, moved allocations where they
 * were found to lie, flushes between them.
 */
import type { FlushNode, Hypothesis, LogNode, PlacedNode } from "./magazine-state.ts";
import { type Schedule, ScheduleStep } from "./schedule.ts";
import { type ScheduleEvents, Shift } from "./schedule-events.ts";
import type { PfnRange } from "./tree-order.ts";

/** What the schedule says beside its steps. */
export interface AssembleOptions {
  readonly deferred: boolean;
  readonly fromMiddle: boolean;
  readonly limitPfn: number;
  readonly reserved: readonly PfnRange[];
}

/** Makes the schedule. */
export function assembleSchedule(
  events: ScheduleEvents,
  story: Hypothesis,
  options: AssembleOptions,
): Schedule {
  return new Assembly(events, story, options).run();
}

class Assembly {
  readonly #events: ScheduleEvents;
  readonly #story: Hypothesis;
  readonly #options: AssembleOptions;
  readonly #kind: number[] = [];
  readonly #subject: number[] = [];
  readonly #cpu: number[] = [];
  readonly #timeMs: number[] = [];
  /** By gap: what lies there, in order. */
  readonly #gaps = new Map<number, LogNode[]>();
  readonly #beforeFlush = new Map<FlushNode, PlacedNode[]>();
  /** By event: what follows it. */
  readonly #behind = new Map<number, (() => void)[]>();
  readonly #placed = new Map<number, PlacedNode>();
  readonly #skipped = new Set<number>();
  #taken = 0;

  constructor(events: ScheduleEvents, story: Hypothesis, options: AssembleOptions) {
    this.#events = events;
    this.#story = story;
    this.#options = options;
  }

  run(): Schedule {
    this.#sortLog();
    const { count, isFree } = this.#events;
    for (let event = 0; event < count; event += 1) {
      for (const node of this.#gaps.get(event) ?? []) {
        if (node.kind === "flush") this.#flush(node);
        else if (node.kind === "placed") this.#allocate(node.event, node.cpu, event);
      }
      if (isFree[event] === 1) {
        if (!this.#skipped.has(event)) this.#free(event, event);
      } else if (!this.#placed.has(event)) {
        this.#allocate(event, this.#events.cpu[event]!, event);
      }
      for (const action of this.#behind.get(event) ?? []) action();
    }
    return this.#schedule();
  }

  /** Sorts the story by gap. Of several placements of one allocation the last one holds. */
  #sortLog(): void {
    const log: LogNode[] = [];
    for (let node = this.#story.log; node !== null; node = node.previous) log.push(node);
    for (const node of log) {
      if (node.kind === "placed" && !this.#placed.has(node.event))
        this.#placed.set(node.event, node);
    }
    log.reverse();
    for (const node of log) {
      if (node.kind === "miss") continue;
      if (node.kind === "late") {
        const { free, behind } = node;
        this.#skipped.add(free);
        push(this.#behind, behind, () => this.#free(free, behind));
        continue;
      }
      if (node.kind === "flush") {
        for (const free of node.inFlight) this.#skipped.add(free);
      } else {
        if (this.#placed.get(node.event) !== node) continue;
        if (node.before !== null) {
          push(this.#beforeFlush, node.before, node);
          continue;
        }
      }
      push(this.#gaps, node.gap, node);
    }
  }

  #flush(node: FlushNode): void {
    const { gap, cpu } = node;
    for (const placed of this.#beforeFlush.get(node) ?? []) {
      this.#allocate(placed.event, placed.cpu, gap);
    }
    this.#step(ScheduleStep.flushStart, 0, cpu, gap);
    for (const free of node.inFlight) this.#free(free, gap);
    const finish = (): void => {
      this.#step(ScheduleStep.flushFinish, 0, cpu, gap);
      for (const ring of node.rings) this.#step(ScheduleStep.release, ring, cpu, gap);
    };
    if (node.finishAfter < 0) finish();
    else push(this.#behind, node.finishAfter, finish);
    if (node.ringsLater.length === 0) return;
    const own = this.#nextFreeOn(cpu, Math.max(gap - 1, node.finishAfter));
    push(this.#behind, own, () => {
      for (const ring of node.ringsLater) this.#step(ScheduleStep.release, ring, cpu, gap);
    });
  }

  #nextFreeOn(cpu: number, after: number): number {
    const { isFree, cpu: cpuOf, count } = this.#events;
    let event = after + 1;
    while (event < count - 1 && (isFree[event] === 0 || cpuOf[event] !== cpu)) event += 1;
    return event;
  }

  #allocate(event: number, cpu: number, gap: number): void {
    const { allocation, reuse, order } = this.#events;
    const isEarlier = this.#options.fromMiddle && (reuse[event]! < 0 || order[event]! < 0);
    if (isEarlier) this.#taken += 1;
    const step = isEarlier ? ScheduleStep.takeEarlier : ScheduleStep.allocate;
    this.#step(step, allocation[event]!, cpu, gap);
  }

  #free(event: number, gap: number): void {
    const { allocation, cpu } = this.#events;
    this.#step(ScheduleStep.free, allocation[event]!, cpu[event]!, gap);
  }

  #step(kind: number, subject: number, cpu: number, gap: number): void {
    this.#kind.push(kind);
    this.#subject.push(subject);
    this.#cpu.push(cpu);
    this.#timeMs.push(this.#events.timeUs[gap]! / 1000);
  }

  #schedule(): Schedule {
    const { events } = this;
    const size = events.allocations + events.allocationsBefore;
    const pages = new Float64Array(size);
    const pfn = new Float64Array(size);
    const line = new Float64Array(size);
    let shifted = 0;
    for (let event = events.count - 1; event >= 0; event -= 1) {
      const allocation = events.allocation[event]!;
      pages[allocation] = events.pages[event]!;
      pfn[allocation] = events.pfn[event]!;
      line[allocation] = events.line[event]!;
      if (events.shift[event] !== Shift.none && !this.#placed.has(event)) shifted += 1;
    }
    for (let event = 0; event < events.count; event += 1) {
      if (events.isFree[event] === 0) line[events.allocation[event]!] = events.line[event]!;
    }
    let moves = shifted + this.#skipped.size;
    for (const node of this.#placed.values()) {
      if (node.gap !== node.event || node.before !== null || node.cpu !== events.cpu[node.event]) {
        moves += 1;
      }
    }
    return {
      count: this.#kind.length,
      kind: Uint8Array.from(this.#kind),
      subject: Int32Array.from(this.#subject),
      cpu: Int32Array.from(this.#cpu),
      timeMs: Float64Array.from(this.#timeMs),
      pages,
      pfn,
      line,
      allocations: events.allocations,
      allocationsBefore: events.allocationsBefore,
      cpus: events.cpus,
      deferred: this.#options.deferred,
      limitPfn: this.#options.limitPfn,
      reserved: this.#options.reserved,
      moves,
      flushesInferred: this.#story.flushes,
      takenFromBefore: this.#taken,
      unexplained: this.#story.misses,
    };
  }

  get events(): ScheduleEvents {
    return this.#events;
  }
}

function push<Key, Value>(map: Map<Key, Value[]>, key: Key, value: Value): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}
