/**
 * What makes a machine impossible: things that refer to what is not there, or contradict each other.
 *
 * A machine read from a running kernel passes; one written by hand may not.
 */
import { pciName, ridOf } from "../iommu/pci-function.ts";
import { hex } from "../units.ts";
import type { Iommu, Machine, MachineFunction } from "./machine.ts";
import { hostBridgeOf } from "./translation.ts";

/** One thing that cannot be. */
export interface MachineProblem {
  /** Where: keys of the machine and positions in its lists. */
  readonly path: readonly (string | number)[];
  readonly message: string;
}

/** What a name can refer to. */
class Names {
  readonly functions: ReadonlyMap<string, number>;
  readonly nodes: ReadonlySet<number>;
  readonly iommus: ReadonlySet<string>;
  readonly devices: ReadonlySet<string>;

  constructor(machine: Machine) {
    const functions = new Map<string, number>();
    for (const [index, one] of machine.functions.entries()) {
      const name = pciName(one);
      if (!functions.has(name)) functions.set(name, index);
    }
    this.functions = functions;
    this.nodes = new Set(machine.nodes.map(({ id }) => id));
    this.iommus = new Set(machine.iommus.map(({ name }) => name));
    this.devices = new Set(machine.platformDevices.map(({ name }) => name));
  }
}

/** Everything that is wrong, in the order of the machine's lists; empty when nothing is. */
export function machineProblems(machine: Machine): MachineProblem[] {
  const names = new Names(machine);
  return [
    ...nodeProblems(machine),
    ...hostBridgeProblems(machine, names),
    ...machine.functions.flatMap((_, index) => functionProblems(machine, index, names)),
    ...platformProblems(machine, names),
    ...iommuProblems(machine),
    ...groupProblems(machine, names),
  ];
}

function nodeProblems({ nodes }: Machine): MachineProblem[] {
  const problems: MachineProblem[] = [];
  const seen = new Set<number>();
  for (const [at, node] of nodes.entries()) {
    const problem = (key: string, message: string) =>
      problems.push({ path: ["nodes", at, key], message: `node ${node.id} ${message}` });
    if (seen.has(node.id)) problem("id", "is there twice");
    seen.add(node.id);
    if (node.distances.length !== nodes.length) {
      problem(
        "distances",
        `has ${node.distances.length} distances, the machine ${nodes.length} nodes`,
      );
    } else if (node.distances[at] !== 10) {
      problem("distances", `is ${node.distances[at]} away from itself; that is always 10`);
    } else if (node.distances.some((distance, to) => to !== at && distance <= 10)) {
      problem("distances", "is as near to another node as to itself");
    }
    if (node.firmwareCpuIds !== null && node.firmwareCpuIds.length !== node.cpus.length) {
      problem("firmwareCpuIds", "has not one firmware id for each CPU");
    }
  }
  const ranges = nodes.flatMap((node, at) => node.memory.map((range) => ({ range, node, at })));
  ranges.sort((a, b) => (a.range.start < b.range.start ? -1 : 1));
  for (const [at, { range, node, at: index }] of ranges.entries()) {
    const before = ranges[at - 1];
    if (before === undefined || range.start > before.range.last) continue;
    const what = `memory of node ${node.id} at ${hex(range.start)} overlaps that of node ${before.node.id}`;
    problems.push({ path: ["nodes", index, "memory"], message: what });
  }
  return problems;
}

function hostBridgeProblems({ hostBridges }: Machine, names: Names): MachineProblem[] {
  const problems: MachineProblem[] = [];
  for (const [at, bridge] of hostBridges.entries()) {
    const name = `the host bridge of bus ${hex(bridge.firstBus, 2).slice(2)}`;
    if (bridge.node !== null && !names.nodes.has(bridge.node)) {
      const message = `${name} is on node ${bridge.node}, which the machine does not have`;
      problems.push({ path: ["hostBridges", at, "node"], message });
    }
    const other = hostBridges.findIndex(
      (one, index) =>
        index < at &&
        one.segment === bridge.segment &&
        one.firstBus <= bridge.lastBus &&
        bridge.firstBus <= one.lastBus,
    );
    if (other >= 0) {
      const message = `${name} has buses that another host bridge of its segment has, too`;
      problems.push({ path: ["hostBridges", at, "buses"], message });
    }
  }
  return problems;
}

function functionProblems(machine: Machine, index: number, names: Names): MachineProblem[] {
  const problems: MachineProblem[] = [];
  const one = machine.functions[index]!;
  const name = pciName(one);
  const problem = (key: string, message: string) =>
    problems.push({ path: ["functions", index, key], message: `${name} ${message}` });
  if (names.functions.get(name) !== index) problem("at", "is there twice");
  if (one.node !== null && !names.nodes.has(one.node)) {
    problem("node", `is on node ${one.node}, which the machine does not have`);
  }
  if (one.iommu !== null && !names.iommus.has(one.iommu)) {
    problem("iommu", `is behind ${one.iommu}, which is no IOMMU of the machine`);
  }
  if (machine.hostBridges.length > 0 && hostBridgeOf(machine, one) === null) {
    problem("at", "is on a bus that no host bridge has");
  }
  if (one.bridge >= 0) {
    const wrong = bridgeProblem(one, machine.functions[one.bridge]!);
    if (wrong !== null) problem("bridge", wrong);
  }
  const physical = machine.functions[one.physicalFunction];
  if (physical !== undefined && physical.sriov === null && physical.configRead === "extended") {
    problem("physicalFunction", `is a virtual function of ${pciName(physical)}, which has none`);
  }
  const real = one.quirks?.realDmaFunction;
  if (real !== undefined && machine.functions[real] === undefined) {
    problem("quirks", "does its DMA as a function that is not there");
  }
  return problems;
}

function bridgeProblem(one: MachineFunction, bridge: MachineFunction): string | null {
  const name = pciName(bridge);
  if (bridge.header === "endpoint") return `is below ${name}, which is no bridge`;
  if (bridge.segment !== one.segment) return `is below ${name}, which is in another segment`;
  if (one.bus <= bridge.bus) {
    return `is below ${name}, and so on a bus with a higher number than that one's`;
  }
  const isReached = bridge.secondaryBus <= one.bus && one.bus <= bridge.subordinateBus;
  if (bridge.secondaryBus >= 0 && !isReached) {
    const last = hex(bridge.subordinateBus, 2).slice(2);
    return `is below ${name}, which leads to buses ${hex(bridge.secondaryBus, 2).slice(2)} to ${last}`;
  }
  return null;
}

function platformProblems(machine: Machine, names: Names): MachineProblem[] {
  return machine.platformDevices.flatMap((device, at): MachineProblem[] => {
    const problems: MachineProblem[] = [];
    const problem = (key: string, message: string) =>
      problems.push({ path: ["platformDevices", at, key], message: `${device.name} ${message}` });
    if (machine.platformDevices.findIndex(({ name }) => name === device.name) !== at) {
      problem("name", "is there twice");
    }
    if (device.node !== null && !names.nodes.has(device.node)) {
      problem("node", `is on node ${device.node}, which the machine does not have`);
    }
    if (device.iommu !== null && !names.iommus.has(device.iommu)) {
      problem("iommu", `is behind ${device.iommu}, which is no IOMMU of the machine`);
    }
    return problems;
  });
}

function iommuProblems(machine: Machine): MachineProblem[] {
  const problems: MachineProblem[] = [];
  const seen = new Set<string>();
  const nodes = new Set(machine.nodes.map(({ id }) => id));
  const rids = new Set(machine.functions.map((one) => `${one.segment}:${ridOf(one)}`));
  for (const [at, iommu] of machine.iommus.entries()) {
    const problem = (key: string, message: string) =>
      problems.push({ path: ["iommus", at, key], message: `${iommu.name} ${message}` });
    if (seen.has(iommu.name)) problem("name", "is there twice");
    seen.add(iommu.name);
    if (iommu.node !== null && !nodes.has(iommu.node)) {
      problem("node", `is on node ${iommu.node}, which the machine does not have`);
    }
    if (isFunction(iommu) && machine.functions.length > 0) {
      const isThere = rids.has(`${iommu.segment}:${iommu.rid}`);
      if (!isThere) problem("at", "is a PCI function that the machine does not have");
    }
    for (const [index, range] of iommu.translates.entries()) {
      if (range.firstId + (range.lastRid - range.firstRid) > 0xffff_ffff) {
        const path = ["iommus", at, "translates", index] as const;
        problems.push({ path, message: `${iommu.name} gives ids beyond 32 bits` });
      }
    }
  }
  return problems;
}

function isFunction(iommu: Iommu): iommu is Extract<Iommu, { readonly rid: number }> {
  return iommu.kind === "virtio-pci" || (iommu.kind === "amd" && iommu.rid !== 0);
}

function groupProblems(machine: Machine, names: Names): MachineProblem[] {
  const problems: MachineProblem[] = [];
  const groupOf = new Map<string, number>();
  const seen = new Set<number>();
  for (const [at, { id, devices }] of machine.groups.entries()) {
    const problem = (key: string, message: string) =>
      problems.push({ path: ["groups", at, key], message: `group ${id} ${message}` });
    if (seen.has(id)) problem("id", "is there twice");
    seen.add(id);
    for (const device of devices) {
      const isKnown = names.functions.has(device) || names.devices.has(device);
      if (!isKnown) problem("devices", `holds ${device}, which the machine does not have`);
      const other = groupOf.get(device);
      if (other !== undefined) problem("devices", `holds ${device}, which is in group ${other}`);
      groupOf.set(device, id);
    }
  }
  return problems;
}
