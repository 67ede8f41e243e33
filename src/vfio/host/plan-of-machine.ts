/**
 * A plan out of a machine that was read, from sysfs or firmware tables: so that what a real host
 * would do when devices are passed through can be tried here.
 *
 * VT-d capability bits: specification 11.4.2 (ND, CM, SAGAW, MGAW) and 11.4.3 (SC, IR).
 */
import { pciName } from "../../iommu/pci-function.ts";
import type { Iommu, Machine, MachineFunction } from "../../topology/machine.ts";
import { groupRegions } from "../../topology/regions.ts";
import { TranslationMap } from "../../topology/translation.ts";
import { offsetOf, pfnOf } from "../../units.ts";
import type { PciBar } from "../device/pci-bar.ts";
import type { DevicePlan, HostPlan, UnitKind, UnitPlan } from "./host-plan.ts";

/** What the machine does not say. */
export interface PlanChoices {
  /** Addresses of the functions to bind to vfio-pci; those bound to it already without it. */
  readonly passThrough?: readonly string[];
  /** Bytes that page tables can take on each node, 256 MiB without it. */
  readonly tableMemory?: number;
}

const TABLE_MEMORY = 2 ** 28;
const BARS = 6;

/**
 * The plan. Units whose tables the host does not hold (virtio-iommu) and what only platform devices
 * use are left out; the functions behind them are then behind none.
 */
export function planOfMachine(machine: Machine, choices: PlanChoices = {}): HostPlan {
  const { tableMemory: memory = TABLE_MEMORY } = choices;
  const indexOf = new Map(machine.nodes.map(({ id }, index) => [id, index]));
  const nodeOf = (id: number | null) => (id === null ? -1 : (indexOf.get(id) ?? -1));
  const nodes = machine.nodes.length === 0 ? [{ memory }] : machine.nodes.map(() => ({ memory }));
  const hasDistances = machine.nodes.some(({ distances }) => distances.length > 0);
  const translations = new TranslationMap(machine);
  return {
    nodes,
    ...(hasDistances ? { distances: machine.nodes.map(({ distances }) => distances) } : {}),
    units: machine.iommus.flatMap((iommu) => unitOf(iommu, nodeOf(iommu.node))),
    devices: machine.functions.map((pci, index): DevicePlan => {
      const position = translations.of(index)?.iommu;
      const named = machine.iommus.find(({ name }) => name === pci.iommu);
      const iommu = named ?? (position === undefined ? null : machine.iommus[position]!);
      const unit = iommu !== null && kindOf(iommu) !== null ? iommu.name : null;
      const regions = iommu === null ? null : groupRegions(machine, iommu, [index]);
      return {
        ...deviceOf(machine, pci, choices.passThrough ?? null),
        unit,
        node: nodeOf(pci.node),
        ...(regions === null ? {} : { regions }),
      };
    }),
  };
}

function kindOf(iommu: Iommu): UnitKind | null {
  switch (iommu.kind) {
    case "vtd":
    case "amd":
      return iommu.kind;
    case "smmuv2":
    case "smmuv3":
      return "smmu";
    default:
      return null;
  }
}

function unitOf(iommu: Iommu, node: number): UnitPlan[] {
  const kind = kindOf(iommu);
  if (kind === null) return [];
  const plain = { name: iommu.name, kind, node };
  return [iommu.kind === "vtd" ? { ...plain, ...vtdTraits(iommu) } : plain];
}

function vtdTraits(iommu: Extract<Iommu, { kind: "vtd" }>): Partial<UnitPlan> {
  const { capability, extendedCapability } = iommu;
  const bit = (word: bigint, position: number) => ((word >> BigInt(position)) & 1n) === 1n;
  const traits: { -readonly [Key in keyof UnitPlan]?: UnitPlan[Key] } = {};
  if (capability !== null) {
    // The widest tables that the unit walks and needs for the addresses it takes.
    const addressBits = Number((capability >> 16n) & 0x3fn) + 1;
    const levels = [5, 4].find((each) => {
      return bit(capability, 6 + each) && addressBits > 9 * (each - 1) + 12;
    });
    traits.format = `vtd-second-stage-${levels ?? 3}`;
    traits.cachingMode = bit(capability, 7);
    traits.domainIds = 2 ** (4 + 2 * Number(capability & 7n));
  }
  if (extendedCapability !== null) {
    traits.snoopControl = bit(extendedCapability, 7);
    traits.isolatesMsi = bit(extendedCapability, 3);
  }
  return traits;
}

function deviceOf(
  machine: Machine,
  pci: MachineFunction,
  passThrough: readonly string[] | null,
): Omit<DevicePlan, "unit"> {
  const address = pciName(pci);
  const isPassed = passThrough?.includes(address) ?? pci.driver === "vfio-pci";
  // Drivers of ports and stubs do no DMA of their own.
  const isIdle = pci.driver === null || ["pcieport", "pci-stub", "vfio-pci"].includes(pci.driver);
  const bridge = machine.functions[pci.bridge];
  const { classCode, portType, isMultifunction, acs, quirks, secondaryBus } = pci;
  return {
    address,
    driver: isPassed ? "vfio-pci" : isIdle ? "none" : "kernel",
    classCode,
    portType,
    isMultifunction,
    secondaryBus,
    bars: pci.header === "endpoint" ? barsOf(pci) : [],
    ...(acs === null ? {} : { acs }),
    ...(quirks === undefined ? {} : { quirks }),
    ...(bridge === undefined ? {} : { bridge: pciName(bridge) }),
  };
}

function barsOf(pci: MachineFunction): (PciBar | null)[] {
  const bars = new Array<PciBar | null>(BARS).fill(null);
  for (const { index, kind, start, bytes } of pci.bars) {
    if (index >= BARS) continue;
    const place = { pfn: pfnOf(start), offset: offsetOf(start), bytes: Number(bytes) };
    bars[index] = { ...place, isMemory: kind !== "io" };
  }
  return bars;
}
