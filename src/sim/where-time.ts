/** Where the time of a run went, in words that all workloads share. Times are picoseconds. */
import type { StepName } from "../meter.ts";

/** A part of the latency of what was measured. */
export interface TimePart {
  /** Whether something was held, or waited for. */
  readonly kind: "hold" | "wait";
  /** A step's name, a place's, or `waiting`. */
  readonly name: string;
  readonly resource: string;
  readonly time: number;
}

/** What the requests of one node took. */
export interface NodeTime {
  readonly node: number;
  readonly requests: number;
  /** Sum of their latencies. */
  readonly latency: number;
  /** Of that, what was paid because something lay on another node. */
  readonly remote: number;
}

/** How often a step was taken, and what it was charged. */
export interface StepUse {
  readonly step: StepName;
  readonly amount: number;
  readonly time: number;
}

/** How a queue was used. */
export interface QueueUse {
  readonly name: string;
  readonly servers: number;
  readonly granted: number;
  readonly busyTime: number;
  readonly waited: number;
  readonly waitTime: number;
  /** The most that waited at once; null where nobody counts. */
  readonly waitingMax: number | null;
}
