/**
 * Groups of a machine by the kernel's rules, to be held against those that a kernel formed.
 *
 * Source: drivers/iommu/iommu.c: bus_iommu_probe (platform before PCI), pci_device_group,
 * generic_device_group; drivers/pci/probe.c: pci_scan_child_bus_extend (a bus before the buses
 * below it), which is the order in which devices get their numbers.
 */
import { PciGroupFinder } from "../iommu/group-rules.ts";
import { pciName } from "../iommu/pci-function.ts";
import type { Machine, MachineFunction } from "./machine.ts";
import { TranslationMap } from "./translation.ts";

/** A group that follows from the rules. */
export interface DerivedGroup {
  /** Number in the order of probing. */
  readonly id: number;
  /** Positions in `machine.functions`, in the order of probing; empty for a platform device. */
  readonly functions: readonly number[];
  /** Names of all devices. */
  readonly devices: readonly string[];
  /** Whether all that decides could be read: ports and capabilities of members and bridges. */
  readonly isCertain: boolean;
}

/** Whether each function is behind an IOMMU: by the kernel's word, else by firmware's. */
export function translatedFunctions(machine: Machine): boolean[] {
  const isRecorded =
    machine.groups.length > 0 || machine.functions.some(({ iommu }) => iommu !== null);
  if (isRecorded) {
    return machine.functions.map(({ iommu, group }) => iommu !== null || group !== null);
  }
  const map = new TranslationMap(machine);
  return machine.functions.map((_, index) => map.of(index) !== null);
}

/** Positions of all functions in the order in which a kernel finds them. */
export function probeOrder(functions: readonly MachineFunction[]): number[] {
  const below: number[][] = functions.map(() => []);
  const roots: number[] = [];
  for (const [index, { bridge }] of functions.entries()) {
    (below[bridge] ?? roots).push(index);
  }
  const order: number[] = [];
  const isPlaced = new Uint8Array(functions.length);
  // A stack of lists: the functions of a bus first, then what is below each of them.
  const pending = groupByBus(functions, roots).reverse();
  while (pending.length > 0) {
    const bus = pending.pop()!;
    for (const index of bus) {
      if (isPlaced[index] === 0) order.push(index);
      isPlaced[index] = 1;
    }
    for (const index of [...bus].reverse()) {
      const list = below[index]!;
      below[index] = [];
      if (list.length > 0) pending.push(list);
    }
  }
  return order;
}

/** Functions of root buses, a list for each bus. */
function groupByBus(functions: readonly MachineFunction[], roots: readonly number[]): number[][] {
  const byBus = new Map<string, number[]>();
  for (const index of roots) {
    const { segment, bus } = functions[index]!;
    const key = `${segment}:${bus}`;
    const list = byBus.get(key);
    if (list === undefined) byBus.set(key, [index]);
    else list.push(index);
  }
  return [...byBus.values()];
}

/** Derives all groups. */
export function deriveGroups(machine: Machine): DerivedGroup[] {
  const { functions } = machine;
  const isTranslated = translatedFunctions(machine);
  const members: number[][] = [];
  const groupOf = new Map<number, number>();
  const names: string[][] = [];
  for (const device of machine.platformDevices) {
    if (device.iommu === null && device.group === null) continue;
    members.push([]);
    names.push([device.name]);
  }
  const finder = new PciGroupFinder<number>(functions, (index) => groupOf.get(index) ?? null);
  for (const index of probeOrder(functions)) {
    if (!isTranslated[index]) continue;
    let group = finder.find(index);
    if (group === null) {
      group = members.length;
      members.push([]);
      names.push([]);
    }
    members[group]!.push(index);
    names[group]!.push(pciName(functions[index]!));
    groupOf.set(index, group);
  }
  return members.map((list, id) => ({
    id,
    functions: list,
    devices: names[id]!,
    isCertain: list.every((index) => isPathRead(functions, index)),
  }));
}

function isPathRead(functions: readonly MachineFunction[], index: number): boolean {
  let at = index;
  for (let hops = 0; at >= 0 && hops <= functions.length; hops += 1) {
    const one = functions[at]!;
    const isVirtual = one.physicalFunction >= 0;
    if (!isVirtual && (one.configRead === "none" || one.configRead === "header")) return false;
    at = one.bridge;
  }
  return true;
}

/** A recorded group beside what the rules make of its devices. */
export interface GroupComparison {
  /** Id of the recorded group. */
  readonly id: number;
  /** Members of all derived groups that share a device with it, sorted; null when uncertain. */
  readonly derived: readonly string[] | null;
  readonly agrees: boolean | null;
}

/** Holds recorded groups against derived ones. */
export function compareGroups(
  machine: Machine,
  derived: readonly DerivedGroup[],
): GroupComparison[] {
  const groupOf = new Map(derived.flatMap((one) => one.devices.map((name) => [name, one])));
  return machine.groups.map(({ id, devices }) => {
    // The kernel keeps no empty group: its members could not be read.
    if (devices.length === 0) return { id, derived: null, agrees: null };
    const touched = new Set(devices.map((name) => groupOf.get(name)));
    const groups = [...touched].filter((one) => one !== undefined);
    if (groups.some(({ isCertain }) => !isCertain)) return { id, derived: null, agrees: null };
    const names = groups.flatMap((one) => one.devices).sort();
    const recorded = [...devices].sort();
    const agrees = touched.size === 1 && names.join() === recorded.join();
    // Devices of one recorded group that fall into several: show the first's.
    return { id, derived: groups.length === 1 ? names : [...(groups[0]?.devices ?? [])], agrees };
  });
}
