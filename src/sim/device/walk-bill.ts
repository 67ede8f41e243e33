/**
 * What a piece of hardware spends on the steps that it reports: a meter that adds up prices.
 *
 * Hardware that works on one thing holds one server for as long as that takes, so a sum is enough;
 * software takes and leaves locks on its way and needs a bill of stretches (`billing-meter.ts`).
 */
import { type Meter, Step, type StepName } from "../../meter.ts";
import type { PriceList } from "../price-list.ts";

const stepNames = Object.keys(Step) as StepName[];

/** A meter that adds up what steps cost. */
export class WalkBill implements Meter {
  /** Node of who works; −1 makes every place local. */
  node = -1;
  /** Whether steps are nobody's: they were paid before. */
  isOff = false;
  /** Sum of the prices since {@link begin}, picoseconds, whole. */
  time = 0;
  /** Table entries read at other nodes since {@link begin}. */
  remoteReads = 0;
  /** The same since the beginning, and what was charged because places were other nodes. */
  remoteCount = 0;
  remoteTime = 0;
  readonly #prices: PriceList;
  readonly #counts = new Float64Array(stepNames.length);
  readonly #times = new Float64Array(stepNames.length);

  constructor(prices: PriceList) {
    this.#prices = prices;
  }

  step(step: number, amount: number, place: number): void {
    if (this.isOff) return;
    const prices = this.#prices;
    this.#counts[step]! += amount;
    const time = prices.eachPs[step]! + Math.round(prices.unitPs[step]! * amount);
    this.time += time;
    this.#times[step]! += time;
    if (this.node < 0 || place === this.node) return;
    const remote = Math.round(prices.remoteUnitPs[step]! * amount);
    this.time += remote;
    this.remoteTime += remote;
    if (step !== Step.entryRead) return;
    this.remoteReads += amount;
    this.remoteCount += amount;
  }

  /** A step of amount 1 at the worker's own node, so many times. */
  repeat(step: number, times: number): void {
    const prices = this.#prices;
    this.#counts[step]! += times;
    const time = (prices.eachPs[step]! + Math.round(prices.unitPs[step]!)) * times;
    this.time += time;
    this.#times[step]! += time;
  }

  /** Starts a new sum. @param node - of who works */
  begin(node: number): void {
    this.node = node;
    this.time = 0;
    this.remoteReads = 0;
  }

  /** Forgets what was counted so far, as what it took to set things up. */
  forget(): void {
    this.#counts.fill(0);
    this.#times.fill(0);
    this.remoteCount = 0;
    this.remoteTime = 0;
  }

  /** Steps that were reported, with their amounts and what was charged for them at the own node. */
  charges(): { readonly step: StepName; readonly amount: number; readonly time: number }[] {
    return stepNames
      .map((step, index) => ({ step, amount: this.#counts[index]!, time: this.#times[index]! }))
      .filter(({ amount }) => amount > 0);
  }

  /** Sum of a step's amounts since the beginning. */
  count(name: StepName): number {
    return this.#counts[Step[name]]!;
  }
}
