/**
 * The replay's clock: nanoseconds since the first event, never running backwards.
 *
 * Recordings are sorted by time, but a small step back happens where CPUs' clocks differ, and a
 * large one where recordings were put together: the first is levelled, after the second the clock
 * goes on from where it stood.
 */

/** A step back by more than this starts a new recording. */
const REBASE_US = 1_000_000;

/** Follows the events' times. */
export class RecordingClock {
  /** Nanoseconds since the first event. */
  nowNs = 0;
  #baseUs = Number.NaN;
  #baseNs = 0;
  #lastUs = 0;

  /** Moves on to an event's time: whole microseconds of the trace clock, and nanoseconds past. */
  advance(timeUs: number, timeNs: number): number {
    if (Number.isNaN(this.#baseUs)) {
      this.#baseUs = timeUs;
      this.#baseNs = timeNs;
    } else if (timeUs < this.#lastUs - REBASE_US) {
      this.#baseUs = timeUs;
      this.#baseNs = timeNs - this.nowNs;
    }
    this.#lastUs = timeUs;
    const ns = (timeUs - this.#baseUs) * 1000 + (timeNs - this.#baseNs);
    if (ns > this.nowNs) this.nowNs = ns;
    return this.nowNs;
  }
}
