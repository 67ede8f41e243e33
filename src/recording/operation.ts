/**
 * What a recording shows a driver doing, in the order of the recording: allocations made, extended
 * by further segments, and freed. `allocations.ts` makes these out of trace events.
 */

/** Sorts of operations. */
export const OperationKind = {
  /** First map event of an allocation. */
  allocate: 0,
  /** A further map event of the same allocation: the next physically contiguous segment. */
  extend: 1,
  /** The unmap that ends an allocation. */
  free: 2,
  /** An unmap of something that was mapped before the recording started: no allocate precedes. */
  freeBefore: 3,
  /** An unmap of a part: the allocation lives on. */
  shrink: 4,
} as const;

/** One of {@link OperationKind}. */
export type OperationKind = (typeof OperationKind)[keyof typeof OperationKind];

/** An operation: one record that is written anew for each. */
export class Operation {
  kind: number = 0;
  /**
   * Which allocation: the number, from 0, of its first map event among all map events. Unique and
   * ascending, with gaps. −1 for `freeBefore`.
   */
  allocation = 0;
  /** First frame of the allocation; of the part for `shrink`. */
  iovaPfn = 0;
  /** Frames of the whole allocation; of the part for `shrink`. */
  pages = 0;
  /** allocate, extend: this map event's own first frame, its size and its physical frame. */
  segmentPfn = 0;
  segmentPages = 0;
  physPfn = 0;
  /** Line of the event, its time, and where it was written. See {@link TraceEvent}. */
  line = 0;
  timeUs = 0;
  timeNs = 0;
  cpu = 0;
  pid = 0;
  context = 0;
  comm = 0;
  /** The size is a guess: no unmap of it was seen (yet). */
  open = false;
}

/** Receives operations; the record is only valid during the call. */
export type OperationSink = (operation: Operation) => void;
