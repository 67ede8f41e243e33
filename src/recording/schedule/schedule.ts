/**
 * A schedule: everything that one allocator and its flush queue did, in one order, with nothing left
 * to choose. A free run carries it out; only the addresses are not part of it.
 */
import type { PfnRange } from "./tree-order.ts";

/** What is done. */
export const ScheduleStep = {
  /** An allocation is made: subject = allocation. */
  allocate: 0,
  /** An allocation is freed, or queued in lazy mode: subject = allocation. */
  free: 1,
  /** A flush of the timer starts. */
  flushStart: 2,
  /** It finishes: what was queued before its start may be released. */
  flushFinish: 3,
  /** The timer's CPU releases a ring: subject = CPU of the ring. */
  release: 4,
  /** An allocation takes what was in a magazine before the recording: subject = allocation. */
  takeEarlier: 5,
} as const;

/** A frozen schedule. Index the step columns with 0 … `count` − 1. */
export interface Schedule {
  readonly count: number;
  readonly kind: Uint8Array;
  readonly subject: Int32Array;
  readonly cpu: Int32Array;
  readonly timeMs: Float64Array;
  /** By allocation; those from before the recording come last. */
  readonly pages: Float64Array;
  /** By allocation: the recorded address and the line of the event that shows it. */
  readonly pfn: Float64Array;
  readonly line: Float64Array;
  readonly allocations: number;
  readonly allocationsBefore: number;

  readonly cpus: number;
  /** Frees go through a flush queue. */
  readonly deferred: boolean;
  readonly limitPfn: number;
  readonly reserved: readonly PfnRange[];

  /** Allocations and frees that are not where their events are, or on another CPU. */
  readonly moves: number;
  readonly flushesInferred: number;
  /** Allocations whose address was in a magazine before the recording. */
  readonly takenFromBefore: number;
  /** Allocations that the search could not explain. */
  readonly unexplained: number;
}
