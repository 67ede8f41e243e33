/** Complaints about members of a file that are of the right form and cannot be. */
import { StackError } from "../errors.ts";
import { Step, type StepName } from "../meter.ts";
import type { Price } from "../sim/price-list.ts";
import { nearest } from "./nearest.ts";
import type { ValuePath, YamlSource } from "./yaml-source.ts";

/** Makes a complaint about a member. */
export type Complain = (path: ValuePath, message: string, hint: string) => StackError;

const stepNames = Object.keys(Step);
const NAME_SHOWN = 60;

/** Complaints about members below a path, with their lines and columns. */
export function complainer(
  source: YamlSource,
  code: `config/${string}`,
  below: ValuePath = [],
): Complain {
  return (path, message, hint) => {
    const at = source.positionOf([...below, ...path]);
    return new StackError({ code, kind: "input", message, at, hint });
  };
}

/** What to write instead of a name that is not known. */
export function hintFor(name: string, known: readonly string[]): string {
  const best = nearest(name, known);
  return best === null ? `known are ${known.join(", ")}` : `did you mean "${best}"?`;
}

/** A name as a message shows it. */
export function shownName(name: string): string {
  return `"${name.slice(0, NAME_SHOWN)}"`;
}

/** A price as a file has it. */
export type WrittenPrice = Omit<Price, "step" | "on"> & {
  readonly step: string;
  readonly on?: string | undefined;
};

/**
 * Prices of steps that exist, each once, on resources that exist.
 *
 * @param resources - of the machine; the first is meant where a price names none
 * @param path - of the list
 */
export function checkedPrices(
  prices: readonly WrittenPrice[],
  resources: readonly string[],
  complain: Complain,
  path: ValuePath = ["prices"],
): readonly Price[] {
  const seen = new Set<string>();
  return prices.map((price, index) => {
    const at = [...path, index, "step"];
    const name = `${path.join(".")}[${index}].step`;
    if (!stepNames.includes(price.step)) {
      const message = `${name}: there is no step ${shownName(price.step)}`;
      throw complain(at, message, hintFor(price.step, stepNames));
    }
    if (seen.has(price.step)) {
      throw complain(at, `${name}: ${price.step} has a price already`, "each step has one price");
    }
    seen.add(price.step);
    const { on = resources[0]! } = price;
    if (!resources.includes(on)) {
      const message = `${path.join(".")}[${index}].on: there is no resource ${shownName(on)}`;
      throw complain([...path, index, "on"], message, `known are ${resources.join(", ")}`);
    }
    return { ...price, on, step: price.step as StepName };
  });
}
