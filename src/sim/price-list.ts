/**
 * The price list: what each step of mechanism costs on a machine, where it is paid, and where the
 * figure comes from. A step without a price is free and shows up as such.
 */
import { assert, StackError } from "../errors.ts";
import { Step, type StepName } from "../meter.ts";

/** Where a figure comes from. */
export interface PriceSource {
  /** A measurement, paper, data sheet or kernel function, so that it can be found. */
  readonly source: string;
  /** The published row that it was fitted on; null when none was. */
  readonly fittedOn: string | null;
}

/** What one step costs. */
export interface Price extends PriceSource {
  readonly step: StepName;
  /** Each time the step is reported, nanoseconds. */
  readonly eachNs: number;
  /** For each unit of its amount, nanoseconds. */
  readonly unitNs: number;
  /** What is added for each unit when its place is another node than the payer's, nanoseconds. */
  readonly remoteUnitNs: number;
  /** The resource that is held meanwhile. */
  readonly on: string;
}

const stepCount = Object.keys(Step).length;
const PS_PER_NS = 1000;

/** The resource that belongs to nobody else: the payer's own CPU. */
export const OWN_CPU = "cpu";

/** Prices by step, in columns; times in picoseconds. */
export class PriceList {
  readonly prices: readonly Price[];
  /** Names of the resources that prices are paid on; the first is the payer's own CPU. */
  readonly resources: readonly string[];
  readonly eachPs = new Float64Array(stepCount);
  readonly unitPs = new Float64Array(stepCount);
  readonly remoteUnitPs = new Float64Array(stepCount);
  /** Index into {@link resources} by step; −1 for a step without a price. */
  readonly resourceOf = new Int32Array(stepCount).fill(-1);

  /** @throws StackError `sim/price` when a price is negative, no number, or given twice */
  constructor(prices: readonly Price[]) {
    const resources = [OWN_CPU];
    for (const price of prices) {
      const step = Step[price.step];
      const numbers = [price.eachNs, price.unitNs, price.remoteUnitNs];
      if (numbers.some((number) => !Number.isFinite(number) || number < 0)) {
        throw refused(price, "is not a number of nanoseconds from 0 on");
      }
      if (this.resourceOf[step] !== -1) throw refused(price, "is given twice");
      if (!resources.includes(price.on)) resources.push(price.on);
      this.eachPs[step] = Math.round(price.eachNs * PS_PER_NS);
      this.unitPs[step] = price.unitNs * PS_PER_NS;
      this.remoteUnitPs[step] = price.remoteUnitNs * PS_PER_NS;
      this.resourceOf[step] = resources.indexOf(price.on);
    }
    assert(resources[0] === OWN_CPU, "the payer's own CPU comes first");
    this.prices = prices;
    this.resources = resources;
  }

  /** The same list with some prices replaced or added. */
  with(changes: readonly Price[]): PriceList {
    const changed = new Set(changes.map(({ step }) => step));
    return new PriceList([...this.prices.filter(({ step }) => !changed.has(step)), ...changes]);
  }
}

function refused(price: Price, what: string): StackError {
  return new StackError({
    code: "sim/price",
    kind: "input",
    message: `The price of ${price.step} ${what}`,
    hint: "each step has one price, in nanoseconds",
  });
}
