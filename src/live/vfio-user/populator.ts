/**
 * Brings memory in that is pinned: each page of it is touched once, a bounded number in a turn, so
 * that a client is answered meanwhile. Pinning in the kernel does the same before it returns.
 */
import type { FileHold } from "./ports.ts";

const PAGE_BYTES = 4096;
/** Pages of one turn at most, and when it ends before that: where each has to be cleared first. */
const TURN_PAGES = 128;
const TURN_US = 200;
/** Pages between two looks at the clock. */
const STEP_PAGES = 8;

interface Task {
  readonly hold: FileHold;
  piece: number;
  /** Bytes of the piece that are done. */
  done: number;
}

/** Memory that is brought in. */
export class Populator {
  /** Bytes brought in, of holds that are still there or not. */
  bytes = 0;
  /** What it took, microseconds. */
  us = 0;
  /** What was read, so that reading is not left out. */
  sum = 0;
  readonly #now: () => number;
  #tasks: Task[] = [];

  constructor(now: () => number) {
    this.#now = now;
  }

  get isDone(): boolean {
    return this.#tasks.length === 0;
  }

  add(hold: FileHold): void {
    this.#tasks.push({ hold, piece: 0, done: 0 });
  }

  /** A hold goes: it must not be touched any more. */
  remove(hold: FileHold): void {
    this.#tasks = this.#tasks.filter((task) => task.hold !== hold);
  }

  /** Touches some pages. @returns whether there is more */
  work(): boolean {
    if (this.#tasks.length === 0) return false;
    const start = this.#now();
    let left = TURN_PAGES;
    while (left > 0 && this.#now() - start <= TURN_US) {
      const [task] = this.#tasks;
      if (task === undefined) break;
      const piece = task.hold.pieces[task.piece];
      if (piece === undefined) this.#tasks.shift();
      else {
        const step = Math.min(left, STEP_PAGES) * PAGE_BYTES;
        const end = Math.min(piece.bytes, task.done + step);
        const bytes = new Uint8Array(piece.buffer, piece.byteOffset, piece.bytes);
        for (let at = task.done; at < end; at += PAGE_BYTES) this.sum += bytes[at]!;
        left -= Math.ceil((end - task.done) / PAGE_BYTES);
        this.bytes += end - task.done;
        task.done = end;
        if (end === piece.bytes) {
          task.piece += 1;
          task.done = 0;
        }
      }
    }
    this.us += this.#now() - start;
    return this.#tasks.length > 0;
  }
}
