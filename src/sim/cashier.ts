/**
 * Pays bills in virtual time: stretch by stretch, each with its resource held for as long as it
 * lasts, and waited for where another holds it.
 */
import { assert } from "../errors.ts";
import type { BillingMeter } from "./billing-meter.ts";
import type { Engine } from "./engine.ts";
import type { ServerPool } from "./server-pool.ts";

/** Bills being paid at once. */
export const OPEN_BILLS_MAX = 2 ** 20;

/** Looks on while bills are paid. `payer` is what {@link Cashier.pay} was told. */
export interface PaymentObserver {
  /** A resource was waited for. */
  waited(payer: number, resource: number, time: number): void;
  /** A resource was held since then, until now. */
  held(payer: number, resource: number, since: number): void;
}

/** The payer of bills that are on nobody's account. */
export const NO_PAYER = -1;

interface OpenBill {
  readonly resources: number[];
  readonly times: number[];
  next: number;
  handler: number;
  a: number;
  b: number;
  payer: number;
  /** When it began to wait for, then to hold, the resource of its stretch. */
  since: number;
}

/** Whoever pays. */
export class Cashier {
  readonly #engine: Engine;
  readonly #pools: readonly (ServerPool | null)[];
  readonly #open: OpenBill[] = [];
  readonly #free: number[] = [];
  readonly #observer: PaymentObserver | null;
  readonly #granted: number;
  readonly #left: number;

  /**
   * @param pools - by resource of the price list; null for one that nobody has to wait for, as a
   *   process's own CPU
   */
  constructor(
    engine: Engine,
    pools: readonly (ServerPool | null)[],
    observer: PaymentObserver | null = null,
  ) {
    this.#engine = engine;
    this.#observer = observer;
    this.#pools = pools;
    this.#granted = engine.define((slot) => this.#hold(slot));
    this.#left = engine.define((slot) => this.#leave(slot));
  }

  /** Bills that are being paid. */
  get open(): number {
    return this.#open.length - this.#free.length;
  }

  /**
   * Takes what the meter holds as a bill and pays it.
   *
   * @param handler - its event comes once everything is paid
   * @param payer - for the observer
   */
  pay(meter: BillingMeter, handler: number, a = 0, b = 0, payer = NO_PAYER): void {
    const slot = this.#take();
    const bill = this.#open[slot]!;
    bill.resources.length = 0;
    bill.times.length = 0;
    for (let index = 0; index < meter.count; index += 1) {
      bill.resources.push(meter.resources[index]!);
      bill.times.push(meter.times[index]!);
    }
    meter.reset();
    bill.next = 0;
    bill.handler = handler;
    bill.a = a;
    bill.b = b;
    bill.payer = payer;
    this.#continue(slot);
  }

  #take(): number {
    const slot = this.#free.pop();
    if (slot !== undefined) return slot;
    assert(this.#open.length < OPEN_BILLS_MAX, "the number of open bills is bounded");
    const none = { next: 0, handler: 0, a: 0, b: 0, payer: NO_PAYER, since: 0 };
    this.#open.push({ resources: [], times: [], ...none });
    return this.#open.length - 1;
  }

  #continue(slot: number): void {
    const bill = this.#open[slot]!;
    if (bill.next === bill.times.length) {
      this.#free.push(slot);
      this.#engine.after(0, bill.handler, bill.a, bill.b);
      return;
    }
    const pool = this.#pools[bill.resources[bill.next]!] ?? null;
    bill.since = this.#engine.now;
    if (pool === null) this.#engine.after(bill.times[bill.next]!, this.#left, slot);
    else pool.acquire(this.#granted, slot);
  }

  #hold(slot: number): void {
    const bill = this.#open[slot]!;
    const { now } = this.#engine;
    this.#observer?.waited(bill.payer, bill.resources[bill.next]!, now - bill.since);
    bill.since = now;
    this.#engine.after(bill.times[bill.next]!, this.#left, slot);
  }

  #leave(slot: number): void {
    const bill = this.#open[slot]!;
    const resource = bill.resources[bill.next]!;
    this.#pools[resource]?.release();
    this.#observer?.held(bill.payer, resource, bill.since);
    bill.next += 1;
    this.#continue(slot);
  }
}
