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
}

/** What it took. Times in picoseconds. */
export interface VmStartResult {
  readonly mapTime: number;
  readonly unmapTime: number;
  /** What steps took of each, dearest first. */
  readonly mapCharges: readonly StepCharge[];
  readonly unmapCharges: readonly StepCharge[];
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
  const meter = new PhasedMeter(machine.prices);
  const times = { map: Math.round(machine.startNs * PS_PER_NS), unmap: 0 };
  engine.after(times.map, engine.define(nothing));
  engine.run();
  const parts = { meter, unmapMode: plan.unmapMode ?? "kernel" };
  const paid = engine.define(nothing);
  const call = (phase: Phase, mapping: VmMapping) => {
    const since = engine.now;
    meter.phase = phase;
    const errno = mapping[phase]();
    meter.phase = null;
    if (errno !== Errno.OK) throw refused(phase, errno);
    const pools = machine.prices[phase].resources.map(() => null);
    new Cashier(engine, pools).pay(meter.bills[phase], paid);
    engine.run();
    times[phase] += engine.now - since;
  };
  const guest = ram === undefined ? null : ramMapping(parts, ram);
  if (guest !== null) call("map", guest);
  for (const bar of bars) {
    const mapping = barMapping(parts, bar);
    for (let index = 0; index < bar.count; index += 1) {
      call("map", mapping);
      call("unmap", mapping);
    }
  }
  if (guest !== null) call("unmap", guest);
  return {
    mapTime: times.map,
    unmapTime: times.unmap,
    mapCharges: meter.bills.map.charges(),
    unmapCharges: meter.bills.unmap.charges(),
    hash: engine.hash,
  };
}

function nothing(): void {}

function refused(phase: Phase, errno: number): StackError {
  return new StackError({
    code: "sim/vm-start",
    kind: "input",
    message: `A ${phase} of the VM's memory was refused: ${errnoName(errno)}`,
    hint: "ENOMEM: the plan has too few frames; EINVAL: sizes have to be whole pages",
  });
}
