/**
 * The start of a VM with devices passed through, as far as mapping for DMA goes: a VMM maps the
 * guest's memory and the devices' BARs through VFIO, and unmaps them at the end.
 *
 * Everything is the real thing: process, type1 or iommufd, domain and page tables; each call is a
 * bill that is paid in virtual time. Guest memory stays mapped until the end. BARs are mapped and
 * unmapped one after the other, so that no more page tables are held than one of them needs; the
 * times are sums and do not change by that.
 */
import { Errno, errnoName } from "../../errno.ts";
import { StackError } from "../../errors.ts";
import type { StepCharge } from "../billing-meter.ts";
import { Cashier } from "../cashier.ts";
import { Engine } from "../engine.ts";
import { type Phase, PhasedMeter } from "../host/phased-meter.ts";
import type { PriceList } from "../price-list.ts";
import { faultedRam } from "./faulted-ram.ts";
import type { SliceRecorder } from "./slices.ts";
import {
  type BarPlan,
  barMapping,
  type RamPlan,
  ramMapping,
  type VmMapping,
} from "./vm-mappings.ts";

/** A machine on which VMs start. */
export interface VmStartMachine {
  /** What steps cost while something is mapped, and while something is unmapped. */
  readonly prices: Readonly<Record<Phase, PriceList>>;
  /** The same of BARs where that differs: a page of device memory is not zeroed. */
  readonly barPrices?: Readonly<Record<Phase, PriceList>>;
  /** What a start costs that has nothing to do with mapping, nanoseconds. */
  readonly startNs: number;
}

/** What a VM is made of. */
export interface VmStartPlan {
  readonly machine: VmStartMachine;
  readonly ram?: RamPlan;
  readonly bars?: readonly BarPlan[];
  /** How type1 unmaps: see `Type1Options.unmapMode`. */
  readonly unmapMode?: "kernel" | "extents";
  /** Keeps each call for a timeline. */
  readonly slices?: SliceRecorder;
}

/** What it took. Times in picoseconds. */
export interface VmStartResult {
  readonly mapTime: number;
  readonly unmapTime: number;
  /** What steps took of each, dearest first. */
  readonly mapCharges: readonly StepCharge[];
  readonly unmapCharges: readonly StepCharge[];
  /** Of what mapping took, BARs. */
  readonly barCharges: readonly StepCharge[];
  /** Everything that happened, as one number. */
  readonly hash: string;
}

const PS_PER_NS = 1000;

/**
 * Starts a VM and ends it.
 *
 * @throws StackError `sim/vm-start` when a mapping is refused, with the errno
 */
export function runVmStart(plan: VmStartPlan): VmStartResult {
  const { machine, ram, bars = [] } = plan;
  const engine = new Engine();
  const ramPrices = machine.prices;
  const barPrices = machine.barPrices ?? ramPrices;
  const meters = { ram: new PhasedMeter(ramPrices), bars: new PhasedMeter(barPrices) };
  const times = { map: Math.round(machine.startNs * PS_PER_NS), unmap: 0 };
  engine.after(times.map, engine.define(nothing));
  engine.run();
  const unmapMode = plan.unmapMode ?? "kernel";
  const paid = engine.define(nothing);
  const call = (of: "ram" | "bars", phase: Phase, mapping: VmMapping, what: string) => {
    const since = engine.now;
    const meter = meters[of];
    meter.phase = phase;
    const errno = mapping[phase]();
    meter.phase = null;
    if (errno !== Errno.OK) throw refused(phase, errno);
    const pools = (of === "ram" ? ramPrices : barPrices)[phase].resources.map(() => null);
    new Cashier(engine, pools).pay(meter.bills[phase], paid);
    engine.run();
    times[phase] += engine.now - since;
    plan.slices?.add("VMM", `${phase} ${what}`, since, engine.now);
  };
  const mapRam = ram?.faulting === undefined ? ramMapping : faultedRam;
  const guest = ram === undefined ? null : mapRam({ meter: meters.ram, unmapMode }, ram);
  if (guest !== null) call("ram", "map", guest, "RAM");
  for (const bar of bars) {
    const mapping = barMapping({ meter: meters.bars, unmapMode }, bar);
    for (let index = 0; index < bar.count; index += 1) {
      call("bars", "map", mapping, `BAR ${index}`);
      call("bars", "unmap", mapping, `BAR ${index}`);
    }
  }
  if (guest !== null) call("ram", "unmap", guest, "RAM");
  const charges = (phase: Phase) =>
    sumOf([meters.ram.bills[phase].charges(), meters.bars.bills[phase].charges()]);
  return {
    mapTime: times.map,
    unmapTime: times.unmap,
    mapCharges: charges("map"),
    unmapCharges: charges("unmap"),
    barCharges: meters.bars.bills.map.charges(),
    hash: engine.hash,
  };
}

function nothing(): void {}

/** Charges step by step, dearest first. */
function sumOf(lists: readonly (readonly StepCharge[])[]): readonly StepCharge[] {
  const sums = new Map<string, StepCharge>();
  for (const charge of lists.flat()) {
    const known = sums.get(charge.step);
    const sum = known ?? { ...charge, times: 0, amount: 0, time: 0, remoteTime: 0 };
    sums.set(charge.step, {
      step: charge.step,
      times: sum.times + charge.times,
      amount: sum.amount + charge.amount,
      time: sum.time + charge.time,
      remoteTime: sum.remoteTime + charge.remoteTime,
    });
  }
  return [...sums.values()].sort((a, b) => b.time - a.time || (a.step < b.step ? -1 : 1));
}

function refused(phase: Phase, errno: number): StackError {
  return new StackError({
    code: "sim/vm-start",
    kind: "input",
    message: `A ${phase} of the VM's memory was refused: ${errnoName(errno)}`,
    hint: "ENOMEM: the plan has too few frames; EINVAL: sizes have to be whole pages",
  });
}
