/** Makes a machine into the answer of `inspect`: devices, groups held against the rules, tables. */
import { isAcsEffective } from "../iommu/group-rules.ts";
import { pciName } from "../iommu/pci-function.ts";
import { combineRegions, regionsText } from "../iommu/reserved-regions.ts";
import {
  compareGroups,
  type DerivedGroup,
  deriveGroups,
  translatedFunctions,
} from "../topology/groups.ts";
import type {
  Iommu,
  Machine,
  MachineFunction,
  NumaNode,
  PlatformDevice,
  RecordedGroup,
  RecordedRegion,
} from "../topology/machine.ts";
import { numberListText } from "../topology/number-list.ts";
import {
  type DomainPlacement,
  iommuNodes,
  placeDomain,
  type Walker,
} from "../topology/page-tables.ts";
import { ridText } from "../topology/pci-address.ts";
import { groupRegions } from "../topology/regions.ts";
import { TranslationMap } from "../topology/translation.ts";
import { hex } from "../units.ts";
import { bySeverity, type Finding } from "./findings.ts";
import { findingsOf } from "./inspect-findings.ts";
import type {
  InspectedDevice,
  InspectedGroup,
  InspectedIommu,
  InspectedNode,
  InspectedTables,
  InspectResult,
} from "./inspect-result.ts";
import { className } from "./pci-classes.ts";
import { NO_NAMES, type PciNames } from "./pci-ids.ts";

/** What is known beside the machine. */
export interface InspectOptions {
  readonly names?: PciNames;
  /** Paths that the system would not show. */
  readonly deniedCount?: number;
  /** What other readers found. */
  readonly findings?: readonly Finding[];
}

/** Inspects a machine. */
export function inspectMachine(machine: Machine, options: InspectOptions = {}): InspectResult {
  const behind = iommuOfFunctions(machine);
  const derived = deriveGroups(machine);
  const groups = groupsOf(machine, derived, behind);
  const groupOf = new Map(groups.flatMap(({ id, devices }) => devices.map((name) => [name, id])));
  const names = options.names ?? NO_NAMES;
  const vfCounts = new Map<number, number>();
  for (const { physicalFunction: pf } of machine.functions) {
    if (pf >= 0) vfCounts.set(pf, (vfCounts.get(pf) ?? 0) + 1);
  }
  const devices = machine.functions.map((one, index): InspectedDevice => {
    const group = groupOf.get(pciName(one)) ?? null;
    const virtualFunctions = vfCounts.get(index) ?? 0;
    return functionOf(machine, one, { names, group, virtualFunctions, iommu: behind[index]! });
  });
  devices.push(...machine.platformDevices.map((one) => platformOf(one, groupOf)));
  const result = {
    nodes: machine.nodes.map(nodeOf),
    iommus: iommusOf(machine, devices),
    devices,
    groups,
  };
  const deniedCount = options.deniedCount ?? 0;
  const findings = [
    ...(options.findings ?? []),
    ...findingsOf(machine, result, {
      deniedCount,
      isUncertain: !derived.every((g) => g.isCertain),
    }),
  ];
  return { ...result, findings: bySeverity(findings) };
}

/** Name of each function's IOMMU: by the kernel's word, else by firmware's. */
function iommuOfFunctions(machine: Machine): (string | null)[] {
  const isTranslated = translatedFunctions(machine);
  const map = new TranslationMap(machine);
  return machine.functions.map(({ iommu }, index) => {
    if (iommu !== null || !isTranslated[index]) return iommu;
    const found = map.of(index);
    return found === null ? null : machine.iommus[found.iommu]!.name;
  });
}

function nodeOf(node: NumaNode): InspectedNode {
  const { id, proximityDomain, memoryBytes, cpus, distances } = node;
  return {
    id,
    proximityDomain,
    memoryBytes: Number(memoryBytes),
    cpus: numberListText(cpus),
    distances,
  };
}

function iommusOf(machine: Machine, devices: readonly InspectedDevice[]): InspectedIommu[] {
  const nodes = iommuNodes(machine);
  const counts = new Map<string, number>();
  for (const { iommu } of devices) {
    if (iommu !== null) counts.set(iommu, (counts.get(iommu) ?? 0) + 1);
  }
  return machine.iommus.map((iommu) => ({
    name: iommu.name,
    kind: iommu.kind,
    node: nodes.get(iommu.name)?.node ?? null,
    nodeIsInferred: nodes.get(iommu.name)?.isInferred === true,
    registers: registersOf(iommu),
    bdf: bdfOf(iommu),
    deviceCount: counts.get(iommu.name) ?? 0,
  }));
}

function registersOf(iommu: Iommu): string | null {
  if (!("registers" in iommu)) return null;
  return iommu.registers.start === 0n ? null : hex(iommu.registers.start);
}

function bdfOf(iommu: Iommu): string | null {
  if (iommu.kind !== "virtio-pci" && iommu.kind !== "amd") return null;
  return `${hex(iommu.segment, 4).slice(2)}:${ridText(iommu.rid)}`;
}

/** What stands beside a function. */
interface Context {
  readonly names: PciNames;
  readonly iommu: string | null;
  readonly group: number | null;
  readonly virtualFunctions: number;
}

function functionOf(machine: Machine, one: MachineFunction, context: Context): InspectedDevice {
  const name = pciName(one);
  const id = (value: number) => hex(value, 4).slice(2);
  const parent = machine.functions[one.bridge];
  const physical = machine.functions[one.physicalFunction];
  // What vendor no function has is what reading a function that does not answer gives.
  const isNamed = one.vendor !== 0xffff;
  const isRead = one.configRead !== "none" && one.configRead !== "header";
  const state = (registers: { readonly enabled: boolean } | null) =>
    registers === null ? null : registers.enabled ? ("enabled" as const) : ("off" as const);
  return {
    bdf: name,
    name,
    kind: one.header === "endpoint" ? "function" : "bridge",
    node: one.node,
    iommu: context.iommu,
    group: context.group,
    driver: one.driver,
    parent: parent === undefined ? null : pciName(parent),
    classCode: isNamed ? hex(one.classCode, 6) : null,
    className: isNamed ? className(one.classCode) : "unreadable device",
    vendor: isNamed ? id(one.vendor) : null,
    device: isNamed ? id(one.device) : null,
    description: isNamed ? context.names(one.vendor, one.device) : null,
    portType: isRead ? one.portType : null,
    acs: isRead ? (isAcsEffective(one) ? "effective" : "missing") : null,
    ats: state(one.ats),
    pri: state(one.pri),
    pasid: state(one.pasid),
    physicalFunction: physical === undefined ? null : pciName(physical),
    virtualFunctions: context.virtualFunctions,
    bars: one.bars.map(({ index, kind, prefetchable, start, bytes }) => {
      return { index, kind, prefetchable, start: hex(start), bytes: Number(bytes) };
    }),
  };
}

function platformOf(device: PlatformDevice, groupOf: ReadonlyMap<string, number>): InspectedDevice {
  return {
    bdf: null,
    name: device.name,
    kind: "platform",
    node: device.node,
    iommu: device.iommu,
    group: groupOf.get(device.name) ?? null,
    driver: device.driver,
    parent: null,
    classCode: null,
    className: device.identity ?? "platform device",
    vendor: null,
    device: null,
    description: null,
    portType: null,
    acs: null,
    ats: null,
    pri: null,
    pasid: null,
    physicalFunction: null,
    virtualFunctions: 0,
    bars: [],
  };
}

function groupsOf(
  machine: Machine,
  derived: readonly DerivedGroup[],
  behind: readonly (string | null)[],
): InspectedGroup[] {
  const maker = new GroupMaker(machine, behind);
  if (machine.groups.length === 0) {
    return derived.map((group) => {
      const devices = [...group.devices];
      const compared = { derived: group.isCertain ? devices : null, agrees: null };
      return maker.make({ id: group.id, type: null, devices, regions: [] }, null, compared);
    });
  }
  const comparisons = compareGroups(machine, derived);
  return machine.groups.map((group, at) => maker.make(group, group.devices, comparisons[at]!));
}

/** Makes groups of one machine, with what is the same for all of them at hand. */
class GroupMaker {
  readonly #machine: Machine;
  readonly #behind: readonly (string | null)[];
  readonly #indexOf: ReadonlyMap<string, number>;
  readonly #platform: ReadonlyMap<string, PlatformDevice>;
  readonly #iommus: ReadonlyMap<string, Iommu>;
  readonly #walkers: Map<string, Walker>;

  constructor(machine: Machine, behind: readonly (string | null)[]) {
    this.#machine = machine;
    this.#behind = behind;
    this.#indexOf = new Map(machine.functions.map((one, index) => [pciName(one), index]));
    this.#platform = new Map(machine.platformDevices.map((one) => [one.name, one]));
    this.#iommus = new Map(machine.iommus.map((one) => [one.name, one]));
    this.#walkers = iommuNodes(machine);
  }

  make(
    group: Pick<RecordedGroup, "id" | "type" | "devices" | "regions">,
    recorded: readonly string[] | null,
    compared: Pick<InspectedGroup, "derived" | "agrees">,
  ): InspectedGroup {
    const functions = group.devices
      .map((name) => this.#indexOf.get(name))
      .filter((index) => index !== undefined)
      .sort((a, b) => a - b);
    const first = functions[0];
    const device = this.#platform.get(group.devices[0] ?? "");
    const iommu = first === undefined ? (device?.iommu ?? null) : this.#behind[first]!;
    const node =
      first === undefined ? (device?.node ?? null) : this.#machine.functions[first]!.node;
    const unit = iommu === null ? undefined : this.#iommus.get(iommu);
    const placement = placeDomain(this.#machine, [{ node, iommu }], group.type, this.#walkers)[0]!;
    const ruled = unit === undefined ? null : groupRegions(this.#machine, unit, functions);
    const text = recordedText(group.regions);
    const isRecorded = recorded !== null;
    const regions = isRecorded ? text : regionsText(ruled ?? []);
    return {
      id: group.id,
      type: group.type,
      devices: group.devices,
      recorded,
      derived: compared.derived,
      agrees: compared.agrees,
      iommu,
      node,
      regions: regionList(regions),
      regionsAgree:
        isRecorded && ruled !== null ? regionsText(combineRegions([ruled])) === text : null,
      pageTables: tablesOf(placement, unit),
    };
  }
}

/** The text of `reserved_regions` again. */
export function recordedText(regions: readonly RecordedRegion[]): string {
  return regions
    .map(({ start, last, type }) => `${hex(start, 16)} ${hex(last, 16)} ${type}\n`)
    .join("");
}

function regionList(text: string): InspectedGroup["regions"] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const [start, last, type] = line.split(" ");
      const short = (address: string) => hex(BigInt(address));
      return { start: short(start!), last: short(last!), type: type! };
    });
}

function tablesOf(placement: DomainPlacement, unit: Iommu | undefined): InspectedTables {
  const { home, walker, distance, isRemote } = placement;
  return {
    home: home.kind,
    node: home.kind === "node" ? home.node : null,
    why: whyThere(placement, unit),
    walker: walker?.iommu ?? null,
    walkerNode: walker?.node ?? null,
    distance,
    isRemote,
  };
}

function whyThere({ home }: DomainPlacement, unit: Iommu | undefined): string {
  switch (home.kind) {
    case "node":
      return home.rule === "smmu"
        ? "the node of the SMMU"
        : "the node of the device that the domain was allocated for";
    case "mapping-cpu":
      return `${home.rule === "smmu" ? "the SMMU" : "the device"} has no node: that of the CPU that maps`;
    case "none":
      if (home.because === "virtio") return "a virtio-iommu keeps none in the guest";
      return home.because === "identity" ? "not translated" : "all DMA blocked";
    default:
      return unit === undefined ? "no IOMMU is known" : `nothing is known of a ${unit.kind} unit`;
  }
}
