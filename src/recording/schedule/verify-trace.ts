/**
 * Verifies the addresses of a trace: infers the hidden schedule, freezes it, and lets our allocator
 * run freely over it.
 *
 * A trace does not say whether its kernel flushed strictly or lazily. Strict is tried first: it
 * leaves little to infer. Lazy, with its flushes at any time, could explain nearly everything, so it
 * is asked only when strict cannot explain the recording.
 */
import { addressOf, hex } from "../../units.ts";
import { OperationKind } from "../operation.ts";
import type { OperationColumns } from "../operation-columns.ts";
import type { ScheduleFacts, ScheduleOutcome } from "../verify/trace-checker.ts";
import { type FreeRunMiss, type FreeRunResult, freeRun } from "./free-run.ts";
import { inferSchedule } from "./infer-schedule.ts";
import type { Schedule } from "./schedule.ts";
import { eventsOf } from "./schedule-events.ts";
import { settleUnfinished } from "./unfinished.ts";

/** Operations at a recording's end that may be left out at most. */
const TAIL_MAX = 4096;

/** A search that keeps more in play, for what the first one cannot explain whole. */
const WIDE_SEARCH = { width: 96, margin: 120 };

/** A schedule and what the free run over it gave. */
interface Attempt {
  readonly schedule: Schedule;
  readonly result: FreeRunResult;
}

/**
 * Compares every allocation of a recording with what our allocator hands out.
 *
 * @returns null when events were lost: what the allocator held is not known after a gap
 */
export function verifyTrace(
  operations: OperationColumns,
  facts: ScheduleFacts,
): ScheduleOutcome | null {
  if (facts.lostEvents) return null;
  const isSegment = settleUnfinished(operations);
  let best = explain(operations, facts, (index) => isSegment[index] === 0);
  let cutOff = 0;
  if (!isWhole(best)) {
    const end = firstUnfinished(operations);
    const shorter = explain(operations, facts, (index) => index < end && isSegment[index] === 0);
    if (isWhole(shorter)) {
      cutOff = best.result.compared - shorter.result.compared;
      best = shorter;
    }
  }
  const { schedule, result } = best;
  return {
    compared: result.compared,
    matched: result.matched,
    moves: schedule.moves,
    ...(schedule.deferred ? { flushesInferred: schedule.flushesInferred } : {}),
    divergences: result.misses.map(divergenceOf),
    remarks: remarksOf(schedule, cutOff),
  };
}

const isWhole = ({ result }: Attempt): boolean => result.matched === result.compared;

/** Strict if that explains everything, else whatever explains more. */
function explain(
  operations: OperationColumns,
  facts: ScheduleFacts,
  select: (index: number) => boolean,
): Attempt {
  const events = eventsOf(operations, facts.cpus, select);
  const attempt = (options: { deferred: boolean; width?: number; margin?: number }): Attempt => {
    const schedule = inferSchedule(events, { ...options, fromMiddle: !facts.fromBoot });
    return { schedule, result: freeRun(schedule) };
  };
  const strict = attempt({ deferred: false });
  if (isWhole(strict)) return strict;
  const lazy = attempt({ deferred: true });
  const better = lazy.result.matched > strict.result.matched ? lazy : strict;
  if (isWhole(better)) return better;
  const wide = attempt({ deferred: better.schedule.deferred, ...WIDE_SEARCH });
  return wide.result.matched > better.result.matched ? wide : better;
}

/**
 * Where the end of a recording begins: the first allocation in its last quarter that no unmap
 * follows. Its size can only be guessed, and a wrong guess spoils what comes after.
 */
function firstUnfinished({ count, kind, allocation, freeAt }: OperationColumns): number {
  for (let index = count - Math.min(TAIL_MAX, count >> 2); index < count; index += 1) {
    if (kind[index] === OperationKind.allocate && freeAt[allocation[index]!]! < 0) return index;
  }
  return count;
}

function divergenceOf({ line, pages, expectedPfn, gotPfn }: FreeRunMiss) {
  return {
    line,
    expected: hex(addressOf(expectedPfn)),
    got: gotPfn === 0 ? "no address" : hex(addressOf(gotPfn)),
    waivedBy: null,
    what: `allocation of ${pages} ${pages === 1 ? "page" : "pages"}`,
  };
}

function remarksOf({ deferred, takenFromBefore }: Schedule, cutOff: number): string[] {
  const remarks = [`recognised as ${deferred ? "lazy" : "strict"} invalidation`];
  if (takenFromBefore > 0) {
    remarks.push(
      `${takenFromBefore} allocations took addresses that were free before the recording began; ` +
        "they are not compared",
    );
  }
  if (cutOff > 0) {
    remarks.push(
      `the last ${cutOff} allocations are not compared: the recording ends before unmaps that would ` +
        "tell the sizes of some",
    );
  }
  return remarks;
}
