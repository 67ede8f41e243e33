/** Machines of studies: a known one with what a file says in its place, if that can exist. */
import type { z } from "zod";
import type { LinkSpeed } from "../sim/link.ts";
import type { PriceList } from "../sim/price-list.ts";
import type { AcceleratorMachine } from "../sim/workload/accelerator-run.ts";
import type { AllReduceMachine, AllReduceUnit } from "../sim/workload/all-reduce.ts";
import type { WindowMachine } from "../sim/workload/random-window.ts";
import type { VmStartMachine } from "../sim/workload/vm-start.ts";
import { PAGE_BYTES } from "../units.ts";
import { type Complain, checkedPrices, type WrittenPrice } from "./complaints.ts";
import type {
  acceleratorScenario,
  allReduceScenario,
  vmStartScenario,
  windowScenario,
} from "./study-schema.ts";
import type { ValuePath } from "./yaml-source.ts";

type Own<S extends z.ZodType<{ machine: unknown }>> = Partial<
  Exclude<z.output<S>["machine"], string>
>;

const PS_PER_NS = 1000;
const BUS_DEVICES_MAX = 255;
const BUFFER_PAGES_MAX = 2 ** 20;

const ps = (ns: number) => Math.round(ns * PS_PER_NS);

function pricesOf(
  base: PriceList,
  own: readonly WrittenPrice[] | undefined,
  complain: Complain,
  path: ValuePath,
): PriceList {
  if (own === undefined) return base;
  // Who does a step is the machine's, so that a price can name nothing else.
  const resources = [...new Set(base.prices.map(({ on }) => on))];
  return base.with(checkedPrices(own, resources, complain, path));
}

/** What refuses a value of 0 or less by name. */
function refuser(name: string, complain: Complain) {
  return {
    none(value: number, path: ValuePath, what: string, hint: string): void {
      if (value < 1) throw complain(path, `${what} of the machine "${name}"`, hint);
    },
    link(given: LinkSpeed, path: ValuePath, what: string): void {
      if (given.bytesPerSecond >= 1) return;
      const message = `the ${what} of the machine "${name}" carries nothing: its bandwidth is ${given.bytesPerSecond}`;
      throw complain([...path, "bytesPerSecond"], message, "give bytes a second, such as 7.88e9");
    },
  };
}

function linkOf(
  base: LinkSpeed,
  own: { latencyNs: number; bytesPerSecond: number } | undefined,
): LinkSpeed {
  return own === undefined
    ? base
    : { latency: ps(own.latencyNs), bytesPerSecond: own.bytesPerSecond };
}

/** The machine of a window. */
export function windowMachineOf(
  base: WindowMachine,
  own: Own<typeof windowScenario>,
  name: string,
  complain: Complain,
): WindowMachine {
  const rateOf = (from: WindowMachine["reads"], to: typeof own.reads) =>
    to === undefined ? from : { inFlight: to.inFlight, gap: ps(to.gapNs) };
  const entries = own.pagingCacheEntries;
  const machine: WindowMachine = {
    prices: pricesOf(base.prices, own.prices, complain, ["prices"]),
    iotlbEntries: own.iotlbEntries ?? base.iotlbEntries,
    pagingCache:
      entries === undefined
        ? base.pagingCache
        : entries === 0
          ? null
          : { sets: 1, ways: entries, replacement: "lru" },
    walkers: own.walkers ?? base.walkers,
    up: linkOf(base.up, own.up),
    down: linkOf(base.down, own.down),
    reads: rateOf(base.reads, own.reads),
    writes: rateOf(base.writes, own.writes),
    memoryTime: own.memoryNs === undefined ? base.memoryTime : ps(own.memoryNs),
    cacheTime: own.cacheNs === undefined ? base.cacheTime : ps(own.cacheNs),
    cacheBytes: own.cacheBytes === undefined ? base.cacheBytes : Number(own.cacheBytes),
    ...(base.packet === undefined ? {} : { packet: base.packet }),
  };
  const { none, link } = refuser(name, complain);
  none(machine.walkers, ["walkers"], "there is no walker in the IOMMU", "a miss would never end");
  none(machine.iotlbEntries, ["iotlbEntries"], "there is no entry in the IOTLB", "one at least");
  link(machine.up, ["up"], "PCIe link up");
  link(machine.down, ["down"], "PCIe link down");
  for (const side of ["reads", "writes"] as const) {
    const what = `no ${side} can be in flight from the device`;
    none(machine[side].inFlight, [side, "inFlight"], what, "one request at least");
  }
  // Time has to pass between one access and the next, or a run never ends.
  const { latency } = machine.up;
  if (latency + machine.reads.gap < 1 || latency + machine.writes.gap < 1) {
    const message = `accesses of the machine "${name}" take no time`;
    throw complain(["up"], message, "give the link a latency, or requests a gap");
  }
  return machine;
}

/** The machine of an all-reduce. */
export function allReduceMachineOf(
  base: AllReduceMachine,
  own: Own<typeof allReduceScenario>,
  name: string,
  complain: Complain,
): AllReduceMachine {
  const { nic } = base;
  const to = own.nic ?? {};
  const pages = own.bufferBytes === undefined ? base.pages : Number(own.bufferBytes) / PAGE_BYTES;
  const { none, link } = refuser(name, complain);
  if (!(pages >= 1 && pages <= BUFFER_PAGES_MAX && Number.isInteger(pages))) {
    const message = `buffers of ${own.bufferBytes} bytes on the machine "${name}"`;
    throw complain(["bufferBytes"], message, "whole pages of 4 KiB, up to 4 GiB");
  }
  if (pages % 512 !== 0) {
    const message = `buffers of ${own.bufferBytes} bytes on the machine "${name}"`;
    throw complain(["bufferBytes"], message, "a multiple of 2 MiB, so that huge pages hold them");
  }
  const machine: AllReduceMachine = {
    prices: pricesOf(base.prices, own.prices, complain, ["prices"]),
    walkers: own.walkers ?? base.walkers,
    iotlbEntries: own.iotlbEntries ?? base.iotlbEntries,
    interconnect: linkOf(base.interconnect, own.interconnect),
    nic: {
      inFlight: to.inFlight ?? nic.inFlight,
      bytes: to.bytes ?? nic.bytes,
      bytesPerSecond: to.bytesPerSecond ?? nic.bytesPerSecond,
      link: linkOf(nic.link, to.link),
      memoryTime: to.memoryNs === undefined ? nic.memoryTime : ps(to.memoryNs),
    },
    hosts: own.hosts ?? base.hosts,
    pages,
    ...(own.blockPages === undefined ? {} : { blockPages: own.blockPages === 512n ? 512 : 1 }),
    ...(own.units === undefined ? {} : { units: unitsOf(own, name, complain) }),
  };
  none(machine.walkers, ["walkers"], "there is no walker in the IOMMUs", "a miss would never end");
  none(machine.iotlbEntries, ["iotlbEntries"], "there is no entry in the IOTLBs", "one at least");
  none(machine.hosts, ["hosts"], "no VM takes part", "this one at least");
  none(
    machine.nic.inFlight,
    ["nic", "inFlight"],
    "no request is in flight from a NIC",
    "one at least",
  );
  link(machine.interconnect, ["interconnect"], "link between nodes");
  link(machine.nic.link, ["nic", "link"], "PCIe link of a NIC");
  link({ latency: 0, bytesPerSecond: machine.nic.bytesPerSecond }, ["nic"], "wire of a NIC");
  return machine;
}

function unitsOf(
  { units = [], nodes }: Own<typeof allReduceScenario>,
  name: string,
  complain: Complain,
): readonly AllReduceUnit[] {
  if (units.length === 0) {
    throw complain(["units"], `the machine "${name}" has no IOMMU`, "give one unit at least");
  }
  const seen = new Set<string>();
  let devices = 0;
  for (const [index, unit] of units.entries()) {
    devices += unit.gpus + unit.nics;
    const what = `the IOMMU "${unit.name}" of the machine "${name}"`;
    if (seen.has(unit.name)) {
      throw complain(["units", index, "name"], `${what} is there twice`, "names differ");
    }
    seen.add(unit.name);
    if (unit.gpus + unit.nics === 0) {
      throw complain(["units", index], `${what} has no device behind it`, "give it gpus or nics");
    }
    if (nodes !== undefined && unit.node >= nodes) {
      const message = `${what} and its devices are on node ${unit.node}, which is none`;
      throw complain(["units", index, "node"], message, `its nodes are 0 to ${nodes - 1}`);
    }
  }
  if (devices > BUS_DEVICES_MAX) {
    const message = `the machine "${name}" has ${devices} devices`;
    throw complain(["units"], message, `each has a bus of its own: at most ${BUS_DEVICES_MAX}`);
  }
  return units;
}

/** The machine of an accelerator. */
export function acceleratorMachineOf(
  base: AcceleratorMachine,
  own: Own<typeof acceleratorScenario>,
  name: string,
  complain: Complain,
): AcceleratorMachine {
  const machine: AcceleratorMachine = {
    ...base,
    prices: pricesOf(base.prices, own.prices, complain, ["prices"]),
    startUpNs: own.startUpNs ?? base.startUpNs,
    bytesPerSecond: own.bytesPerSecond ?? base.bytesPerSecond,
    reportNs: own.reportNs ?? base.reportNs,
    messages: own.messages ?? base.messages,
    inFlight: own.inFlight ?? base.inFlight,
  };
  const { none, link } = refuser(name, complain);
  const { alone, together } = machine.inFlight;
  none(machine.messages, ["messages"], "no message is in the accelerator", "one at least");
  const what = "no access is in flight from the accelerator";
  none(Math.min(alone, together), ["inFlight"], what, "one at least");
  link({ latency: 0, bytesPerSecond: machine.bytesPerSecond }, [], "accelerator");
  return machine;
}

/** The machine of a VM that starts. */
export function vmStartMachineOf(
  base: VmStartMachine,
  own: Own<typeof vmStartScenario>,
  complain: Complain,
): VmStartMachine {
  const { map, unmap } = own.prices ?? {};
  return {
    ...base,
    startNs: own.startNs ?? base.startNs,
    prices: {
      map: pricesOf(base.prices.map, map, complain, ["prices", "map"]),
      unmap: pricesOf(base.prices.unmap, unmap, complain, ["prices", "unmap"]),
    },
  };
}
