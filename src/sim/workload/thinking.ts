/**
 * The pauses of a process with `thinktime`: after `thinktime_blocks` requests it submits nothing,
 * waits until none is in flight, and sleeps. So no more than that many are ever in flight.
 *
 * Source: fio's HOWTO, `thinktime` and `thinktime_blocks`; fio 3.33 at depth 16 with a pause of 1 ms
 * completes 898 requests a second, one in flight at a time.
 */

/** One process. What it would submit is a number, the caller's. */
export class ThinkingProcess {
  readonly #blocks: number;
  readonly #waiting: number[] = [];
  #left: number;
  #inFlight = 0;

  /** @param blocks - requests between two pauses */
  constructor(blocks: number) {
    this.#blocks = blocks;
    this.#left = blocks;
  }

  /** Whether the request may be submitted; else it is handed out by {@link awake}. */
  mayBegin(request: number): boolean {
    if (this.#left === 0) {
      this.#waiting.push(request);
      return false;
    }
    this.#left -= 1;
    this.#inFlight += 1;
    return true;
  }

  /** A request is complete. @returns whether the process goes to sleep now */
  complete(): boolean {
    this.#inFlight -= 1;
    return this.#left === 0 && this.#inFlight === 0;
  }

  /** The pause is over. @returns the requests that wait to be submitted, which is asked for anew */
  awake(): readonly number[] {
    this.#left = this.#blocks;
    return this.#waiting.splice(0);
  }
}
