/**
 * A meter whose prices depend on what is being done: to write an entry is dearer when it is
 * composed than when it is cleared.
 */
import type { Meter } from "../../meter.ts";
import { BillingMeter } from "../billing-meter.ts";
import type { PriceList } from "../price-list.ts";

/** What is being done to mappings. */
export type Phase = "map" | "unmap";

/** Passes steps to the bill of the phase at hand, or to none. */
export class PhasedMeter implements Meter {
  readonly bills: Readonly<Record<Phase, BillingMeter>>;
  #bill: BillingMeter | null = null;

  constructor(prices: Readonly<Record<Phase, PriceList>>) {
    this.bills = { map: new BillingMeter(prices.map), unmap: new BillingMeter(prices.unmap) };
  }

  /** Whose bill steps go on from now; null for nobody's. */
  set phase(phase: Phase | null) {
    this.#bill = phase === null ? null : this.bills[phase];
  }

  step(step: number, amount: number, place: number): void {
    this.#bill?.step(step, amount, place);
  }
}
