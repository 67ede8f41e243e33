/**
 * Looks ahead in the recording: what is bound to go wrong when a freed range is put on a magazine.
 *
 * Every address of a recording is known, so the next allocation of a freed range says on which CPU
 * it lay, and all ranges of one magazine must be used in the reverse order of their frees. A wrong
 * flush shows here at once instead of hundreds of events later, when the magazine runs dry.
 *
 * The forecast of a push consists of
 * - place: the next user is another CPU, or a fresh range is taken while this one lies there;
 * - order: the range below is needed first.
 * A doubt that the window of an allocation can resolve is slight.
 */
import { Cost } from "./costs.ts";
import type { ScheduleEvents } from "./schedule-events.ts";

/** Fresh ranges that one forecast looks at. */
const FRESH_SEEN_MAX = 8;

/** Forecasts pushes. The fields hold the outcome of the last {@link push} or {@link depot}. */
export class Forecast {
  readonly #events: ScheduleEvents;
  readonly #magazine: number;
  readonly #fifo: boolean;
  readonly #cacheCpus: number;
  /** Allocations of ranges never freed before, by stack and by order. */
  readonly #freshOfStack: Int32Array[];
  readonly #freshOfOrder: Int32Array[];

  place = 0;
  order = 0;
  label = -1;

  constructor(
    events: ScheduleEvents,
    options: { magazine: number; fifo: boolean; cacheCpus: number; orders: number },
  ) {
    this.#events = events;
    this.#magazine = options.magazine;
    this.#fifo = options.fifo;
    this.#cacheCpus = options.cacheCpus;
    const stacks: number[][] = Array.from({ length: options.orders * options.cacheCpus }, () => []);
    const orders: number[][] = Array.from({ length: options.orders }, () => []);
    for (let event = 0; event < events.count; event += 1) {
      const order = events.order[event]!;
      if (events.isFree[event] === 1 || events.reuse[event]! >= 0 || order < 0) continue;
      stacks[order * options.cacheCpus + this.cacheCpu(events.cpu[event]!)]!.push(event);
      orders[order]!.push(event);
    }
    this.#freshOfStack = stacks.map((list) => Int32Array.from(list));
    this.#freshOfOrder = orders.map((list) => Int32Array.from(list));
  }

  /** CPU whose magazines a CPU uses. */
  cacheCpu(cpu: number): number {
    return this.#cacheCpus === 1 ? 0 : cpu;
  }

  /** Event that next allocates a freed range; the end of the recording when none does. */
  nextUse(free: number): number {
    const event = this.#events.reuse[free]!;
    return event < 0 ? this.#events.count : event;
  }

  /**
   * Forecasts a push.
   *
   * @param cpu - CPU whose stack gets the range
   * @param below - free of the range on top of the stack, −1 when it is empty
   * @param height - ranges on the stack
   * @param label - see `Cell.label`
   */
  push(
    order: number,
    cpu: number,
    free: number,
    gap: number,
    below: number,
    height: number,
    label: number,
  ): void {
    const { windowStart, reuse, cpu: cpuOf, count } = this.#events;
    const user = reuse[free]!;
    const use = user < 0 ? count : user;
    this.place = 0;
    this.order = 0;
    this.label = height === this.#magazine ? -1 : label;
    if (user >= 0) {
      const userCpu = this.cacheCpu(cpuOf[user]!);
      if (userCpu !== cpu) {
        // The loaded magazine may still go to the depot as a whole, and from there to the user.
        const mayMove = height >= this.#magazine && (this.label < 0 || this.label === userCpu);
        this.place = mayMove ? Cost.depotBound : Cost.doubt;
      }
      this.label = userCpu;
    }
    let buried = -1;
    if (below >= 0) {
      buried = this.nextUse(below);
      const first = this.#fifo ? use : buried;
      const second = this.#fifo ? buried : use;
      if (second > first) {
        const resolves =
          (first < count && windowStart[first]! <= gap) ||
          (second < count && windowStart[second]! <= first);
        this.order = resolves ? Cost.slight : Cost.doubt;
      }
    }
    const fresh = this.#freshOfStack[order * this.#cacheCpus + cpu]!;
    this.place += this.#freshDoubt(fresh, gap, use, buried);
  }

  /**
   * Ranges that are taken fresh between a gap and the next use of what lies there then.
   *
   * @param buried - next use of what lies below: what comes before it is counted there
   */
  #freshDoubt(list: Int32Array, gap: number, use: number, buried: number): number {
    const { windowStart, count } = this.#events;
    let doubt = 0;
    let at = firstFrom(list, gap);
    for (let seen = 0; seen < FRESH_SEEN_MAX && at < list.length; seen += 1, at += 1) {
      const fresh = list[at]!;
      if (fresh >= use) break;
      if (fresh < buried) continue;
      const resolves = windowStart[fresh]! <= gap || (use < count && windowStart[use]! <= fresh);
      if (!resolves) return Cost.doubt;
      doubt = Cost.slight;
    }
    return doubt;
  }

  /**
   * Forecasts a magazine in the depot.
   *
   * @param users - by CPU: how many of its ranges that CPU uses next
   * @param newest - free of its newest range
   */
  depot(order: number, users: Int32Array, newest: number, gap: number): number {
    let known = 0;
    let most = 0;
    for (const count of users) {
      known += count;
      if (count > most) most = count;
    }
    const doubt = Cost.doubt * (known - most);
    return doubt + this.#freshDoubt(this.#freshOfOrder[order]!, gap, this.nextUse(newest), -1);
  }
}

/** Index of the first element that is at least `from`. */
function firstFrom(list: Int32Array, from: number): number {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle]! < from) low = middle + 1;
    else high = middle;
  }
  return low;
}
