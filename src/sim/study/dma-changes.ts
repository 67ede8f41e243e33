/** What could help a device behind an IOMMU: changes of what both kinds of machine have. */
import type { StepName } from "../../meter.ts";
import type { LinkSpeed } from "../link.ts";
import { PriceList } from "../price-list.ts";
import { type StudyChange, type StudyRun, timeIn } from "./study.ts";

/** What machines with devices and IOMMUs have in common. */
export interface DmaMachine {
  readonly prices: PriceList;
  readonly walkers: number;
  readonly iotlbEntries: number;
}

/** A change of a machine that has yet to be run. */
export interface MachineChange<M> {
  readonly id: string;
  readonly what: string;
  readonly isTranslation: boolean;
  readonly machine: M;
  /** Time that it could save at most, roughly. */
  readonly worth: number;
}

/** Each step free, twice the walkers, twice the entries. */
export function translationChanges<M extends DmaMachine>(
  machine: M,
  run: StudyRun,
): readonly MachineChange<M>[] {
  const walking = timeIn(run, ({ resource }) => resource === "IOMMU" || resource === "node link");
  const waiting = timeIn(run, ({ resource }) => resource === "walkers");
  const walkers = 2 * machine.walkers;
  const entries = 2 * machine.iotlbEntries;
  const entryWait = timeIn(run, ({ resource }) => resource === "IOTLB entries");
  const steps = machine.prices.prices.map(({ step }): MachineChange<M> => {
    const own = timeIn(run, ({ name }) => name === step);
    return {
      id: `free:${step}`,
      what: `${step} free`,
      isTranslation: true,
      machine: { ...machine, prices: withFree(machine.prices, step) },
      // Who waits for walkers waits for what they do.
      worth: own === 0 ? 0 : own + (waiting * own) / walking,
    };
  });
  const change = (id: string, what: string, changed: Partial<DmaMachine>, worth: number) => ({
    id,
    what,
    isTranslation: true,
    machine: { ...machine, ...changed },
    worth,
  });
  return [
    ...steps,
    change("walkers", "twice the walkers", { walkers }, waiting / 2),
    change(
      "entries",
      "twice the IOTLB's entries",
      { iotlbEntries: entries },
      entryWait + walking / 4,
    ),
  ];
}

/** The list with one step free. */
export function withFree(prices: PriceList, step: StepName): PriceList {
  return new PriceList(
    prices.prices.map((price) =>
      price.step === step ? { ...price, eachNs: 0, unitNs: 0, remoteUnitNs: 0 } : price,
    ),
  );
}

/** Twice as fast, in bytes and on the way. */
export function quicker({ latency, bytesPerSecond }: LinkSpeed): LinkSpeed {
  return { latency: Math.round(latency / 2), bytesPerSecond: bytesPerSecond * 2 };
}

/** Makes a change of a machine one that can be run. */
export function runnable<M>(
  change: MachineChange<M>,
  run: (machine: M) => StudyRun,
): StudyChange & { readonly worth: number } {
  const { id, what, isTranslation, worth, machine } = change;
  return { id, what, isTranslation, isSetting: false, worth, run: () => run(machine) };
}
