/**
 * Operations of the store that may end later, cut into pieces so that no turn takes long: discards,
 * zeroes, and the flush that makes earlier writes durable.
 */
import type { BlockStore } from "../block/block-store.ts";

/** Bytes that one turn discards or zeroes: filling them takes a store in memory some ms. */
const TURN_BYTES = 2 ** 24;

/** What is to be done. */
export interface Work {
  /** `keep`: there are no ranges. */
  readonly kind: "keep" | "discard" | "zero";
  /** Pairs of offset and length, bytes. */
  readonly ranges: readonly number[];
  /** Whether zeroing may give space back. */
  readonly mayUnmap: boolean;
  /** Whether all that was written is made durable at the end. */
  readonly isDurable: boolean;
}

/** A flush and nothing else. */
export const FLUSH: Work = { kind: "keep", ranges: [], mayUnmap: false, isDurable: true };

/** An operation in progress. */
export interface Operation {
  readonly work: Work;
  /** Index in `ranges` of the pair that is next, and how much of it is done. */
  next: number;
  done: number;
  isRunning: boolean;
  mustFlush: boolean;
  errno: number;
}

/** Runs operations on a store. */
export class Operations {
  /** Calls of the store that have not come back, of earlier lives of the controller too. */
  running = 0;
  readonly #store: BlockStore;

  constructor(store: BlockStore) {
    this.#store = store;
  }

  /** Starts an operation; it may have ended when this returns. */
  begin(work: Work): Operation {
    const { isDurable } = work;
    const operation = { work, next: 0, done: 0, isRunning: false, mustFlush: isDurable, errno: 0 };
    this.step(operation);
    return operation;
  }

  /** Whether nothing is left to do. An error ends an operation. */
  hasEnded(operation: Operation): boolean {
    if (operation.isRunning) return false;
    return operation.errno !== 0 || (!this.#hasRange(operation) && !operation.mustFlush);
  }

  /** Goes on with an operation whose last piece came back. */
  step(operation: Operation): void {
    for (let budget = TURN_BYTES; budget > 0 && this.#canGoOn(operation); ) {
      if (!this.#hasRange(operation)) break;
      budget -= this.#piece(operation, budget);
    }
    if (!this.#canGoOn(operation) || this.#hasRange(operation) || !operation.mustFlush) return;
    operation.mustFlush = false;
    this.#store.flush(this.#start(operation));
  }

  #canGoOn(operation: Operation): boolean {
    return !operation.isRunning && operation.errno === 0;
  }

  #hasRange(operation: Operation): boolean {
    return operation.next < operation.work.ranges.length;
  }

  /** Does the next piece. @returns its bytes */
  #piece(operation: Operation, budget: number): number {
    const { ranges, kind, mayUnmap } = operation.work;
    const at = ranges[operation.next]! + operation.done;
    const left = ranges[operation.next + 1]! - operation.done;
    const bytes = Math.min(left, budget);
    operation.done += bytes;
    if (bytes === left) {
      operation.next += 2;
      operation.done = 0;
    }
    if (bytes === 0) return 1;
    const done = this.#start(operation);
    if (kind === "discard") this.#store.discard(at, bytes, done);
    else this.#store.writeZeroes(at, bytes, mayUnmap, done);
    // A small piece costs a call all the same.
    return Math.max(bytes, TURN_BYTES / 64);
  }

  #start(operation: Operation): (errno: number) => void {
    this.running += 1;
    operation.isRunning = true;
    return (errno) => {
      this.running -= 1;
      operation.isRunning = false;
      if (operation.errno === 0) operation.errno = errno;
    };
  }
}
