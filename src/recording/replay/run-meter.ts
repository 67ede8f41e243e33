/** Counts the steps of one policy's run, and notices what ends the device's reach. */
import { type Meter, Step, type StepName } from "../../meter.ts";
import { SmallHistogram } from "./histogram.ts";

const STEPS = Object.keys(Step).length;

/** The meter that a run's mechanism reports to. */
export class RunMeter implements Meter {
  /** While false, nothing is counted: the mechanism makes up for what the recording left out. */
  counting = true;
  /** Requests that each sync waited for. */
  readonly batch = new SmallHistogram();
  /** Called when the device handles what is queued, or drops what it has cached. */
  onReachEnds: () => void = () => {};
  readonly #events = new Float64Array(STEPS);
  readonly #amounts = new Float64Array(STEPS);

  step(step: number, amount: number, _place: number): void {
    if (
      step === Step.virtqueueKick ||
      step === Step.invalidateDomain ||
      step === Step.invalidateGlobal
    ) {
      this.onReachEnds();
    }
    if (!this.counting) return;
    this.#events[step]! += 1;
    this.#amounts[step]! += amount;
    if (step === Step.virtqueueSync) this.batch.add(amount);
  }

  /** How often a step was reported. */
  events(name: StepName): number {
    return this.#events[Step[name]]!;
  }

  /** Sum of a step's amounts. */
  amount(name: StepName): number {
    return this.#amounts[Step[name]]!;
  }
}
