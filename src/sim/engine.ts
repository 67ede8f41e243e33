/**
 * Virtual time: a discrete-event engine in integer picoseconds.
 *
 * A handler is a function of two numbers, defined once; an event is a handler, its two numbers and
 * a time. Events of one time run in the order in which they were scheduled. Every event goes into a
 * hash, so that two runs can be compared by one number. 2^53 ps are two and a half hours.
 *
 *     const engine = new Engine();
 *     const tick = engine.define((count) => {
 *       if (count > 0) engine.after(1000, tick, count - 1);
 *     });
 *     engine.after(0, tick, 3);
 *     engine.run(); // engine.now is 3000
 */
import { assert, StackError } from "../errors.ts";
import { EventHeap } from "./event-heap.ts";

/** What happens at an event. The numbers are whatever the one who scheduled it passed. */
export type EventHandler = (a: number, b: number) => void;

/** The latest time there is, in picoseconds. */
export const TIME_MAX = Number.MAX_SAFE_INTEGER;

/** How far a run may go. */
export interface RunLimits {
  /** Events after this time stay pending; picoseconds. */
  readonly until?: number;
  /** The run ends after that many events. */
  readonly events?: number;
}

/** Why a run ended. */
export type RunEnd = "idle" | "until" | "events" | "stopped";

/** A simulation. */
export class Engine {
  readonly #heap = new EventHeap();
  readonly #handlers: EventHandler[] = [];
  #now = 0;
  #events = 0;
  #low = 0x811c_9dc5;
  #high = 0x9e37_79b9;
  #isStopped = false;

  /** The time, in picoseconds. */
  get now(): number {
    return this.#now;
  }

  /** Events run so far. */
  get events(): number {
    return this.#events;
  }

  /** Events still to come. */
  get pending(): number {
    return this.#heap.count;
  }

  /** Everything that happened so far as 16 hexadecimal digits. */
  get hash(): string {
    const digits = (half: number) => (half >>> 0).toString(16).padStart(8, "0");
    return digits(this.#high) + digits(this.#low);
  }

  /** Makes a handler known. @returns its number, for {@link after} and {@link at} */
  define(handler: EventHandler): number {
    this.#handlers.push(handler);
    return this.#handlers.length - 1;
  }

  /** Schedules an event a while from now. @param delay - picoseconds, an integer, not negative */
  after(delay: number, handler: number, a = 0, b = 0): void {
    this.at(this.#now + delay, handler, a, b);
  }

  /**
   * Schedules an event.
   *
   * @param time - picoseconds, an integer, not in the past
   * @throws StackError `sim/too-slow` beyond {@link TIME_MAX}
   */
  at(time: number, handler: number, a = 0, b = 0): void {
    // One comparison refuses the past, NaN and what is too late.
    if (!(time >= this.#now && time <= TIME_MAX)) refuse(time, this.#now);
    this.#heap.push(time, handler, a, b);
  }

  /** Runs a handler now, as part of the event at hand. */
  call(handler: number, a = 0, b = 0): void {
    this.#handlers[handler]!(a, b);
  }

  /** Ends the run that is going on, after the event at hand. */
  stop(): void {
    this.#isStopped = true;
  }

  /** Runs events until none is left or a limit is reached. */
  run(limits: RunLimits = {}): RunEnd {
    const { until = TIME_MAX, events = Number.POSITIVE_INFINITY } = limits;
    const heap = this.#heap;
    const handlers = this.#handlers;
    this.#isStopped = false;
    let left = events;
    while (heap.count > 0) {
      if (left <= 0) return "events";
      if (heap.nextTime > until) {
        if (until > this.#now) this.#now = until;
        return "until";
      }
      heap.pop();
      left -= 1;
      const { time, handler, a, b } = heap;
      this.#now = time;
      this.#events += 1;
      this.#mix(time, handler, a, b);
      handlers[handler]!(a, b);
      if (this.#isStopped) return "stopped";
    }
    return "idle";
  }

  /** FNV-1a over words instead of bytes, two lanes. */
  #mix(time: number, handler: number, a: number, b: number): void {
    let low = Math.imul(this.#low ^ time, 0x0100_0193);
    low = Math.imul(low ^ handler, 0x0100_0193);
    this.#low = Math.imul(low ^ a, 0x0100_0193);
    let high = Math.imul(this.#high ^ (time / 2 ** 32), 0x85eb_ca6b);
    high = Math.imul(high ^ b ^ (this.#low >>> 15), 0x85eb_ca6b);
    this.#high = high ^ (high >>> 13);
  }
}

function refuse(time: number, now: number): never {
  assert(time >= now, `an event is not scheduled in the past (${time} < ${now})`);
  assert(time > TIME_MAX, "the time of an event is a number");
  throw new StackError({
    code: "sim/too-slow",
    kind: "input",
    message: "the run would take more than 2^53 picoseconds of virtual time, two and a half hours",
    hint: "a price or a latency is too long for this workload, or a bandwidth too small",
  });
}
