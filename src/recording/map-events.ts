/**
 * Map and unmap events of a trace in columns, to be compared with the calls that caused them.
 *
 * A trace holds the events of every task; those of one call follow each other in its own.
 */
import { assert } from "../errors.ts";
import { type TraceEvent, TraceKind } from "./trace-event.ts";
import { TraceTextReader } from "./trace-text.ts";

/** Events that are kept; a trace with more is read to there. */
export const MAP_EVENTS_MAX = 4_000_000;

const FIRST_CAPACITY = 4096;

/** The events. */
export class MapEvents {
  /** Lines of the trace. */
  lines: Float64Array = new Float64Array(FIRST_CAPACITY);
  tasks: Int32Array = new Int32Array(FIRST_CAPACITY);
  iovaPfns: Float64Array = new Float64Array(FIRST_CAPACITY);
  /** −1 for an unmap. */
  physPfns: Float64Array = new Float64Array(FIRST_CAPACITY);
  /** Of a map what was mapped, of an unmap what was asked for. */
  pages: Float64Array = new Float64Array(FIRST_CAPACITY);
  count = 0;
  /** Events that no longer fitted, or are no whole pages. */
  dropped = 0;
  readonly #reader = new TraceTextReader((event) => this.#event(event));

  push(chunk: Uint8Array): void {
    this.#reader.push(chunk);
  }

  end(): void {
    this.#reader.end();
  }

  #event(event: TraceEvent): void {
    if (event.kind !== TraceKind.map && event.kind !== TraceKind.unmap) return;
    const isWhole = event.iovaOffset + event.physOffset + event.pagesRest === 0;
    if (this.count === MAP_EVENTS_MAX || !isWhole) {
      this.dropped += 1;
      return;
    }
    if (this.count === this.lines.length) this.#grow();
    const index = this.count;
    this.lines[index] = event.line;
    this.tasks[index] = event.pid;
    this.iovaPfns[index] = event.iovaPfn;
    this.physPfns[index] = event.kind === TraceKind.map ? event.physPfn : -1;
    this.pages[index] = event.pages;
    this.count += 1;
  }

  #grow(): void {
    const capacity = Math.min(MAP_EVENTS_MAX, this.count * 2);
    const wider = (from: Float64Array): Float64Array => {
      const to = new Float64Array(capacity);
      to.set(from);
      return to;
    };
    this.lines = wider(this.lines);
    this.iovaPfns = wider(this.iovaPfns);
    this.physPfns = wider(this.physPfns);
    this.pages = wider(this.pages);
    const tasks = new Int32Array(capacity);
    tasks.set(this.tasks);
    this.tasks = tasks;
  }
}

/** Events of one mapping: positions in {@link MapEvents}, ends exclusive. */
export interface CallEvents {
  /** Its map events, among those of other tasks. */
  readonly first: number;
  readonly end: number;
  /** From `end` to here: its unmap events. */
  readonly unmapEnd: number;
}

/** Which events belong to which call. */
export interface EventsOfCalls {
  readonly task: number;
  /** For each call, null where none were found that make up its size. */
  readonly calls: readonly (CallEvents | null)[];
  /** Calls whose events were found. */
  readonly found: number;
  /** Runs of events in the task that belong to no call. */
  readonly left: number;
}

/** Tasks, runs of events of one, and calls that are looked through. */
const TASKS_MAX = 16;
const RUNS_MAX = 4096;
export const CALLS_MAX = 1024;

/**
 * Finds the map events of each call. Events of one task that continue each other's addresses are
 * those of one call, whose size they make up; calls and events come in the same order, and as many
 * as can be are matched, so that an event that is missing only costs its own call.
 *
 * @param pagesOfCalls - sizes of the calls in their order, 0 for one that mapped nothing
 */
export function eventsOfCalls(events: MapEvents, pagesOfCalls: readonly number[]): EventsOfCalls {
  assert(pagesOfCalls.length <= CALLS_MAX, "calls are bounded");
  let best: EventsOfCalls = { task: 0, calls: pagesOfCalls.map(() => null), found: 0, left: 0 };
  const tasks = new Set(events.tasks.subarray(0, events.count));
  for (const task of [...tasks].slice(0, TASKS_MAX)) {
    const runs = runsOfTask(events, task);
    const calls = matchInOrder(runs, pagesOfCalls);
    const found = calls.filter((each) => each !== null).length;
    if (found > best.found) best = { task, calls, found, left: runs.length - found };
  }
  return best;
}

interface EventRun extends CallEvents {
  readonly pages: number;
}

/** Runs of map events of a task that continue each other, each with the unmap events behind it. */
function runsOfTask({ count, tasks, physPfns, iovaPfns, pages }: MapEvents, task: number) {
  const runs: EventRun[] = [];
  let [first, end, total, isClosed] = [-1, 0, 0, true];
  const close = (unmapEnd: number) => {
    if (first >= 0) runs.push({ first, end, unmapEnd, pages: total });
    first = -1;
  };
  for (let index = 0; index < count && runs.length < RUNS_MAX; index += 1) {
    if (tasks[index] !== task || pages[index] === 0) continue;
    if (physPfns[index]! < 0) {
      isClosed = true;
      continue;
    }
    const isNext = !isClosed && first >= 0 && iovaPfns[index] === iovaPfns[first]! + total;
    if (!isNext) {
      close(index);
      [first, total, isClosed] = [index, 0, false];
    }
    total += pages[index]!;
    end = index + 1;
  }
  close(count);
  return runs;
}

/** The longest common subsequence of runs and calls by their sizes. */
function matchInOrder(
  runs: readonly EventRun[],
  pagesOfCalls: readonly number[],
): (CallEvents | null)[] {
  const width = runs.length + 1;
  /** Most matches of the calls from one on and the runs from one on. */
  const most = new Uint16Array((pagesOfCalls.length + 1) * width);
  const isMatch = (call: number, run: number) =>
    pagesOfCalls[call] === runs[run]!.pages && runs[run]!.pages > 0;
  for (let call = pagesOfCalls.length - 1; call >= 0; call -= 1) {
    for (let run = runs.length - 1; run >= 0; run -= 1) {
      const without = Math.max(most[(call + 1) * width + run]!, most[call * width + run + 1]!);
      const both = most[(call + 1) * width + run + 1]! + (isMatch(call, run) ? 1 : 0);
      most[call * width + run] = Math.max(without, both);
    }
  }
  const calls: (CallEvents | null)[] = [];
  for (let call = 0, run = 0; call < pagesOfCalls.length; call += 1) {
    const here = most[call * width + run]!;
    // Runs that no call of a best match takes are passed over.
    while (run < runs.length && most[call * width + run + 1] === here) run += 1;
    const takes = run < runs.length && most[(call + 1) * width + run]! < here;
    if (takes) {
      const { first, end, unmapEnd } = runs[run]!;
      calls.push({ first, end, unmapEnd });
      run += 1;
    } else {
      calls.push(null);
    }
  }
  return calls;
}
