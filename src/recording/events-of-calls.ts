/**
 * Which events of a trace belong to which call: the events of one call follow each other in its
 * task, continue each other's addresses, and make up its size. Calls and events stand in the same
 * order. Where events do not make up the call that they stand at, they are given to it all the
 * same, so that nothing of what a task mapped is passed over.
 */
import { assert } from "../errors.ts";
import type { MapEvents } from "./map-events.ts";

/** Events of one call: positions in {@link MapEvents}, ends exclusive. */
export interface CallEvents {
  /** Its map events, among those of other tasks. */
  readonly first: number;
  readonly end: number;
  /** From `end` to here: its unmap events. */
  readonly unmapEnd: number;
  /** Whether the map events continue each other and make up the size of the call. */
  readonly isWhole: boolean;
}

/** Addresses that the calls of a task use; `endPfn` is exclusive. */
export interface TaskWindow {
  readonly task: number;
  readonly startPfn: number;
  readonly endPfn: number;
}

/** Events of the task, in its window, that belong to no call. */
export interface OrphanEvents {
  /** Positions of the first and the last one, and how many of the task's lie there. */
  readonly first: number;
  readonly last: number;
  readonly count: number;
  /** The call behind which they stand, −1 before the first. */
  readonly afterCall: number;
}

/** What was found. */
export interface EventsOfCalls {
  readonly window: TaskWindow;
  /** For each call, null where the task has no events for it. */
  readonly calls: readonly (CallEvents | null)[];
  /** Calls whose events make up their size. */
  readonly found: number;
  readonly orphans: readonly OrphanEvents[];
  /** Calls from the first on that lie before the trace: its first event is that of a later one. */
  readonly callsBefore: number;
}

/** Tasks, runs of events of one, and calls that are looked through. */
const TASKS_MAX = 16;
const RUNS_MAX = 4096;
export const CALLS_MAX = 1024;

/** A run of map events, and the unmap events behind it. */
interface EventRun {
  readonly first: number;
  readonly end: number;
  readonly unmapEnd: number;
  readonly pages: number;
}

/**
 * Finds the events of each call, in the task whose events make up most calls.
 *
 * @param pagesOfCalls - sizes of the calls in their order, 0 for one that mapped nothing
 * @returns null when the events make up no call at all
 */
export function eventsOfCalls(
  events: MapEvents,
  pagesOfCalls: readonly number[],
): EventsOfCalls | null {
  assert(pagesOfCalls.length <= CALLS_MAX, "calls are bounded");
  let best: EventsOfCalls | null = null;
  const tasks = new Set(events.tasks.subarray(0, events.count));
  for (const task of [...tasks].slice(0, TASKS_MAX)) {
    const found = eventsOfTask(events, task, pagesOfCalls);
    if (found !== null && (best === null || isBetter(found, best))) best = found;
  }
  return best;
}

/** Whether events explain more calls, or as many and leave fewer over. */
export function isBetter(a: EventsOfCalls, b: EventsOfCalls): boolean {
  return a.found !== b.found ? a.found > b.found : a.orphans.length < b.orphans.length;
}

function eventsOfTask(
  events: MapEvents,
  task: number,
  pagesOfCalls: readonly number[],
): EventsOfCalls | null {
  const everything = { task, startPfn: 0, endPfn: Number.POSITIVE_INFINITY };
  const all = runsOf(events, everything);
  const starts = matchInOrder(all, pagesOfCalls).flatMap((run) =>
    run < 0 ? [] : [events.iovaPfns[all[run]!.first]!],
  );
  if (starts.length === 0) return null;
  // What the task maps elsewhere, of a device of its own for instance, is no business of the calls.
  const startPfn = starts.reduce((a, b) => Math.min(a, b));
  const largest = pagesOfCalls.reduce((a, b) => Math.max(a, b));
  const endPfn = starts.reduce((a, b) => Math.max(a, b)) + largest;
  const window = { task, startPfn, endPfn };
  const runs = runsOf(events, window);
  const runOfCalls = matchInOrder(runs, pagesOfCalls);
  const calls = fillGaps(runs, runOfCalls, pagesOfCalls);
  const firstEvent = calls.findIndex((call) => call !== null);
  return {
    window,
    calls,
    found: calls.filter((call) => call?.isWhole === true).length,
    orphans: orphansOf(events, window, calls),
    callsBefore: isInWindow(events, window, 0) ? firstEvent : 0,
  };
}

/** Whether an event is one of a task in its window. */
export function isInWindow(events: MapEvents, window: TaskWindow, index: number): boolean {
  const pfn = events.iovaPfns[index]!;
  return events.tasks[index] === window.task && pfn >= window.startPfn && pfn < window.endPfn;
}

/** Runs of map events that continue each other, each with the unmap events behind it. */
function runsOf(events: MapEvents, window: TaskWindow): EventRun[] {
  const { count, physPfns, iovaPfns, pages } = events;
  const runs: EventRun[] = [];
  let [first, end, total, isClosed] = [-1, 0, 0, true];
  const close = (unmapEnd: number) => {
    if (first >= 0) runs.push({ first, end, unmapEnd, pages: total });
    first = -1;
  };
  for (let index = 0; index < count && runs.length < RUNS_MAX; index += 1) {
    if (!isInWindow(events, window, index)) continue;
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

/**
 * The longest common subsequence of runs and calls by their sizes, so that an event that is wrong
 * only costs its own call.
 *
 * @returns the run of each call, −1 for none
 */
function matchInOrder(runs: readonly EventRun[], pagesOfCalls: readonly number[]): number[] {
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
  const runOfCalls: number[] = [];
  for (let call = 0, run = 0; call < pagesOfCalls.length; call += 1) {
    const here = most[call * width + run]!;
    // Runs that no call of a best match takes are passed over.
    while (run < runs.length && most[call * width + run + 1] === here) run += 1;
    const takes = run < runs.length && most[(call + 1) * width + run]! < here;
    runOfCalls.push(takes ? run : -1);
    if (takes) run += 1;
  }
  return runOfCalls;
}

/** Gives the runs between matched ones to the calls between them. */
function fillGaps(
  runs: readonly EventRun[],
  runOfCalls: readonly number[],
  pagesOfCalls: readonly number[],
): (CallEvents | null)[] {
  const calls: (CallEvents | null)[] = runOfCalls.map((run) =>
    run < 0 ? null : { ...rangeOf(runs[run]!, runs[run]!), isWhole: true },
  );
  let before = -1;
  let open: number[] = [];
  for (let call = 0; call <= runOfCalls.length; call += 1) {
    const run = call === runOfCalls.length ? runs.length : runOfCalls[call]!;
    if (run < 0) {
      if (pagesOfCalls[call]! > 0) open.push(call);
      continue;
    }
    let next = before + 1;
    for (const [rank, each] of open.entries()) {
      const first = next;
      const isLast = rank === open.length - 1;
      let pages = 0;
      while (next < run && (isLast || pages < pagesOfCalls[each]!)) {
        pages += runs[next]!.pages;
        next += 1;
      }
      if (next > first) {
        calls[each] = { ...rangeOf(runs[first]!, runs[next - 1]!), isWhole: false };
      }
    }
    [before, open] = [run, []];
  }
  return calls;
}

function rangeOf(first: EventRun, last: EventRun): Omit<CallEvents, "isWhole"> {
  return { first: first.first, end: last.end, unmapEnd: last.unmapEnd };
}

/** Events that belong to no call, those side by side together. */
function orphansOf(
  events: MapEvents,
  window: TaskWindow,
  calls: readonly (CallEvents | null)[],
): OrphanEvents[] {
  const orphans: OrphanEvents[] = [];
  const taken = calls.flatMap((call, index) => (call === null ? [] : [{ ...call, index }]));
  let rank = 0;
  let isOpen = false;
  for (let index = 0; index < events.count; index += 1) {
    if (!isInWindow(events, window, index)) continue;
    while (rank < taken.length && taken[rank]!.unmapEnd <= index) rank += 1;
    const isTaken = rank < taken.length && index >= taken[rank]!.first;
    if (isTaken) isOpen = false;
    else {
      const afterCall = rank === 0 ? -1 : taken[rank - 1]!.index;
      const open = isOpen ? orphans.at(-1) : undefined;
      if (open !== undefined && open.afterCall === afterCall) {
        orphans[orphans.length - 1] = { ...open, last: index, count: open.count + 1 };
      } else {
        orphans.push({ first: index, last: index, count: 1, afterCall });
      }
      isOpen = true;
    }
  }
  return orphans;
}
