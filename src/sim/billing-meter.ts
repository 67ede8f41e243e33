/**
 * The meter of a simulation: it turns the steps that mechanism reports into a bill, which the
 * process that called the mechanism pays in virtual time.
 *
 * Mechanism does its work at once; what it costs is a list of stretches, each on one resource:
 *
 *     cpu 310 ns → queue lock 2 400 ns → cpu 90 ns
 *
 * Source of the idea: each step is reported at the moment the real system would do it, so the order
 * of the stretches is the order in which locks are taken and left.
 */
import { assert } from "../errors.ts";
import { type Meter, Step, type StepName } from "../meter.ts";
import type { PriceList } from "./price-list.ts";

/** Stretches of one bill. */
export const BILL_STRETCHES_MAX = 2 ** 16;

const stepNames = Object.keys(Step) as StepName[];

/** What was charged for one step. */
export interface StepCharge {
  readonly step: StepName;
  readonly times: number;
  readonly amount: number;
  /** Picoseconds. */
  readonly time: number;
  /** Of that, what was charged because the place was another node. */
  readonly remoteTime: number;
}

/** A meter that bills. */
export class BillingMeter implements Meter {
  /** Node of the process on whose behalf mechanism runs; −1 makes every place local. */
  payerNode = -1;
  /** Stretches since the last {@link reset}. */
  count = 0;
  /** Resource of each stretch, as an index into the list's resources. */
  readonly resources = new Int32Array(BILL_STRETCHES_MAX);
  /** Length of each stretch, picoseconds, whole. */
  readonly times = new Float64Array(BILL_STRETCHES_MAX);
  /** Time of the bill by step, picoseconds. */
  readonly billSteps = new Float64Array(stepNames.length);
  /** Of the bill, what was charged because a place was another node. */
  billRemote = 0;
  readonly #list: PriceList;
  readonly #stepTimes = new Float64Array(stepNames.length);
  readonly #stepRemote = new Float64Array(stepNames.length);
  readonly #stepCounts = new Float64Array(stepNames.length);
  readonly #stepAmounts = new Float64Array(stepNames.length);

  constructor(list: PriceList) {
    this.#list = list;
  }

  step(step: number, amount: number, place: number): void {
    this.#stepCounts[step]! += 1;
    this.#stepAmounts[step]! += amount;
    const list = this.#list;
    const resource = list.resourceOf[step]!;
    if (resource < 0) return;
    const isRemote = this.payerNode >= 0 && place !== this.payerNode;
    const remote = isRemote ? Math.round(list.remoteUnitPs[step]! * amount) : 0;
    const time = list.eachPs[step]! + Math.round(list.unitPs[step]! * amount) + remote;
    this.#stepTimes[step]! += time;
    this.#stepRemote[step]! += remote;
    this.billSteps[step]! += time;
    this.billRemote += remote;
    this.charge(resource, time);
  }

  /** Adds time on a resource beyond what steps cost. @param time - whole picoseconds */
  charge(resource: number, time: number): void {
    if (time === 0) return;
    const last = this.count - 1;
    if (last >= 0 && this.resources[last] === resource) {
      this.times[last]! += time;
      return;
    }
    assert(this.count < BILL_STRETCHES_MAX, "a bill has a bounded number of stretches");
    this.resources[this.count] = resource;
    this.times[this.count] = time;
    this.count += 1;
  }

  /** Starts a new bill; what steps were charged in all is kept. */
  reset(): void {
    this.count = 0;
    this.billSteps.fill(0);
    this.billRemote = 0;
  }

  /** What was charged for every step that was reported, dearest first. */
  charges(): StepCharge[] {
    return stepNames
      .map((step, index) => ({
        step,
        times: this.#stepCounts[index]!,
        amount: this.#stepAmounts[index]!,
        time: this.#stepTimes[index]!,
        remoteTime: this.#stepRemote[index]!,
      }))
      .filter(({ times }) => times > 0)
      .sort((a, b) => b.time - a.time || (a.step < b.step ? -1 : 1));
  }
}
