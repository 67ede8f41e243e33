/**
 * What the search for a schedule pays for what it assumes. The unit is one allocation moved inside
 * its window; a row that nothing explains costs more than any plausible story that explains it.
 */

/** Paid once for each. */
export const Cost = {
  /** An allocation or free that stays unexplained. */
  miss: 30,
  /** An expected miss: the address is used next on another CPU, in another order, or buried. */
  doubt: 20,
  /** An expected move: the window of an allocation may resolve it. */
  slight: 1,
  /** An entry that another CPU uses next, where the magazine may still go to the depot. */
  depotBound: 0.05,
  /** An allocation before interrupts that its task suffered. */
  moveBack: 0.5,
  /** An allocation before other tasks' allocations. */
  moveAhead: 1,
  /** An allocation on another CPU than its event. */
  migration: 4,
  /** For each event that a move passes. */
  distance: 0.01,
  /** A flush. */
  flush: 1.5,
  /** A flush on another CPU than the one that armed the timer. */
  otherCpu: 1.5,
  /** A flush inside an interrupt's burst of frees. */
  burst: 4,
  /** A ring that its own CPU emptied between the flush and the timer's visit. */
  selfDrained: 3,
  /** An interrupt on the timer's CPU that emptied its ring between flush and release. */
  ownFirst: 3,
  /** Frees that ran while the flush was being waited for. */
  slowFlush: 1,
  /** A free that was traced before the flush and queued after it. */
  inFlight: 4,
} as const;

/** Time from the first queued entry to the flush, ms: less costs, the more the earlier. */
export const TIMER_MS_MIN = 10;
/** For each millisecond earlier. */
export const EARLY_COST = 1.5;
/** Later than this costs a little. */
export const TIMER_MS_LATE = 30;
export const LATE_COST = 0.02;
export const LATE_COST_MAX = 3;

/** Frees closer than this on one CPU belong to one interrupt, µs. */
export const BURST_US = 120;
/** Events and time that a move may pass. The window bounds it as well. */
export const MOVE_EVENTS_MAX = 4096;
export const MOVE_US_MAX = 1_000_000;
