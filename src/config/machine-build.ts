/** Makes a topology document into a machine: names become positions, what is left out its default. */
import { type PciQuirks, pciName } from "../iommu/pci-function.ts";
import {
  EMPTY_MACHINE,
  type Iommu,
  type IommuCommon,
  type Machine,
  type MachineFunction,
  type MemoryRange,
  type NumaNode,
  type RidRange,
} from "../topology/machine.ts";
import { ridOfAddress } from "../topology/pci-address.ts";
import type { MachineProblem } from "../topology/validate.ts";
import { defaultPort, inheritedNode } from "./machine-defaults.ts";
import type {
  FunctionDocument,
  IommuDocument,
  MachineDocument,
  NodeDocument,
  RidRangeDocument,
} from "./machine-schema.ts";

const LOCAL = 10;
const REMOTE = 20;

/** Builds a machine; what names nothing comes back as a problem. */
export function buildMachine(document: MachineDocument): {
  readonly machine: Machine;
  readonly problems: readonly MachineProblem[];
} {
  const problems: MachineProblem[] = [];
  const nodes = document.nodes ?? [];
  const partial: Machine = {
    ...EMPTY_MACHINE,
    architecture: document.architecture ?? null,
    firmware: document.firmware ?? "none",
    nodes: nodes.map((node, index) => nodeOf(node, index, nodes.length)),
    hostBridges: (document.hostBridges ?? []).map((bridge) => ({
      ...bridge.buses,
      node: bridge.node === undefined || bridge.node === "none" ? null : bridge.node,
      ecamBase: bridge.ecamBase ?? null,
      windows: bridge.windows ?? [],
      bypassesIommu: bridge.bypassesIommu ?? false,
      atsSupported: bridge.atsSupported ?? null,
    })),
    platformDevices: (document.platformDevices ?? []).map((device) => ({
      name: device.name,
      path: device.path ?? null,
      identity: device.identity ?? null,
      registers: device.registers ?? [],
      interrupts: device.interrupts ?? [],
      node: device.node ?? null,
      driver: device.driver ?? null,
      iommu: device.iommu ?? null,
      group: device.group ?? null,
    })),
    iommus: (document.iommus ?? []).map(iommuOf),
    firmwareRegions: (document.firmwareRegions ?? []).map((region) => ({
      ...region.range,
      source: region.source,
      treatment: region.treatment ?? "mapped",
      canRead: (region.access ?? "read-write").startsWith("read"),
      canWrite: (region.access ?? "read-write").endsWith("write"),
      functions: region.functions === undefined ? null : region.functions.map(rangeOf),
    })),
    atsScopes: (document.atsScopes ?? []).map((scope) => ({
      segment: scope.segment ?? 0,
      kind: scope.kind,
      rids: (scope.functions ?? []).map(ridOfAddress),
      isRequired: scope.required ?? false,
    })),
    groups: (document.groups ?? []).map((group) => ({
      id: group.id,
      type: group.type ?? null,
      name: group.name ?? null,
      devices: group.devices,
      regions: (group.regions ?? []).map(({ range, type }) => ({ ...range, type })),
    })),
    kernel:
      document.kernel === undefined
        ? null
        : {
            release: document.kernel.release ?? null,
            commandLine: document.kernel.commandLine ?? null,
            isStrict: document.kernel.strict ?? null,
            isPassthrough: document.kernel.passthrough ?? null,
          },
  };
  const functions = functionsOf(document.functions ?? [], partial, problems);
  const machine = { ...partial, functions };
  for (const [at, iommu] of (document.iommus ?? []).entries()) {
    if (isIdle(iommu, machine)) {
      const message = `${iommu.name} is an IOMMU without devices: nothing says what it translates`;
      problems.push({ path: ["iommus", at], message });
    }
  }
  return { machine, problems };
}

/** Whether nothing is behind an IOMMU, and `translates: []` does not say that this is meant. */
function isIdle(iommu: IommuDocument, machine: Machine): boolean {
  if (iommu.translates !== undefined || iommu.rest === true) return false;
  if ((iommu.endpoints ?? []).length > 0) return false;
  const isNamed = ({ iommu: name }: { readonly iommu: string | null }) => name === iommu.name;
  return !machine.functions.some(isNamed) && !machine.platformDevices.some(isNamed);
}

function nodeOf(node: NodeDocument, index: number, count: number): NumaNode {
  const memory = (node.memory ?? []).map((entry): MemoryRange => {
    const range = "range" in entry ? entry.range : entry;
    const flags: { hotPluggable?: boolean | undefined; nonVolatile?: boolean | undefined } =
      "range" in entry ? entry : {};
    return {
      start: range.start,
      last: range.last,
      hotPluggable: flags.hotPluggable ?? false,
      nonVolatile: flags.nonVolatile ?? false,
    };
  });
  const sum = memory.reduce((bytes, { start, last }) => bytes + (last - start + 1n), 0n);
  const assumed = Array.from({ length: count }, (_, to) => (to === index ? LOCAL : REMOTE));
  return {
    id: node.id,
    proximityDomain: node.proximityDomain ?? null,
    memory,
    memoryBytes: node.memoryBytes ?? sum,
    cpus: node.cpus ?? [],
    firmwareCpuIds: node.firmwareCpuIds ?? null,
    distances: node.distances ?? assumed,
  };
}

function rangeOf({ functions, firstId, below }: RidRangeDocument): RidRange {
  return { ...functions, firstId: firstId ?? functions.firstRid, includesBelow: below ?? false };
}

function functionsOf(
  documents: readonly FunctionDocument[],
  machine: Machine,
  problems: MachineProblem[],
): MachineFunction[] {
  const indexOf = new Map(documents.map(({ at }, index) => [pciName(at), index]));
  const slots = new Set(documents.map(({ at }) => slotOf(at)));
  const crowded = new Set<string>();
  for (const { at } of documents) if ((at.devfn & 7) > 0) crowded.add(slotOf(at));
  const look = (index: number, key: "bridge" | "physicalFunction", one: FunctionDocument) => {
    const named = one[key];
    if (named === undefined) return -1;
    const found = indexOf.get(pciName(named));
    if (found === undefined) {
      const message = `${pciName(one.at)} names ${pciName(named)}, which the machine does not have`;
      problems.push({ path: ["functions", index, key], message });
    }
    return found ?? -1;
  };
  return documents.map((one, index) =>
    functionOf(one, {
      machine,
      bridge: look(index, "bridge", one),
      physicalFunction: look(index, "physicalFunction", one),
      isCrowded: slots.has(slotOf(one.at)) && crowded.has(slotOf(one.at)),
      real: one.quirks?.dmaOf === undefined ? -1 : (indexOf.get(pciName(one.quirks.dmaOf)) ?? -1),
    }),
  );
}

function slotOf({ segment, bus, devfn }: FunctionDocument["at"]): string {
  return `${segment}:${bus}:${devfn >> 3}`;
}

interface Surroundings {
  readonly machine: Machine;
  readonly bridge: number;
  readonly physicalFunction: number;
  readonly isCrowded: boolean;
  readonly real: number;
}

function functionOf(one: FunctionDocument, around: Surroundings): MachineFunction {
  const { bridge, physicalFunction } = around;
  const header = one.header ?? (one.buses === undefined ? "endpoint" : "bridge");
  const quirks = quirksOf(one, around.real);
  return {
    ...one.at,
    portType: one.port ?? defaultPort(header === "bridge", bridge >= 0),
    isMultifunction: one.multifunction ?? (physicalFunction < 0 && around.isCrowded),
    acs: one.acs ?? null,
    bridge,
    secondaryBus: one.buses?.firstBus ?? -1,
    ...(quirks === null ? {} : { quirks }),
    vendor: one.id?.vendor ?? 0xffff,
    device: one.id?.device ?? 0xffff,
    subsystemVendor: one.subsystem?.vendor ?? 0,
    subsystemDevice: one.subsystem?.device ?? 0,
    revision: one.revision ?? 0,
    classCode: one.class ?? (header === "bridge" ? 0x060400 : 0),
    header,
    subordinateBus: one.buses?.lastBus ?? -1,
    windows: one.windows ?? [],
    node: one.node === undefined ? inheritedNode(one, around.machine) : nodeNumber(one.node),
    bars: (one.bars ?? []).map((bar) => ({ ...bar, prefetchable: bar.prefetchable ?? false })),
    ...capabilitiesOf(one),
    physicalFunction,
    configRead: one.configRead ?? "extended",
    isUntrusted: one.untrusted ?? false,
    driver: one.driver ?? null,
    iommu: one.iommu ?? null,
    group: one.group ?? null,
  };
}

function nodeNumber(node: number | "none"): number | null {
  return node === "none" ? null : node;
}

function capabilitiesOf({
  ats,
  pri,
  pasid,
  sriov,
}: FunctionDocument): Pick<MachineFunction, "ats" | "pri" | "pasid" | "sriov"> {
  return {
    ats:
      ats === undefined
        ? null
        : {
            enabled: ats.enabled ?? false,
            queueDepth: ats.queueDepth ?? 32,
            pageAligned: ats.pageAligned ?? false,
            unitShift: ats.unitShift ?? 12,
          },
    pri:
      pri === undefined
        ? null
        : {
            enabled: pri.enabled ?? false,
            requestsMax: pri.requestsMax ?? 0,
            requestsAllocated: pri.requestsAllocated ?? 0,
            pasidRequired: pri.pasidRequired ?? false,
          },
    pasid:
      pasid === undefined
        ? null
        : {
            enabled: pasid.enabled ?? false,
            bits: pasid.bits ?? 20,
            execute: pasid.execute ?? false,
            privileged: pasid.privileged ?? false,
          },
    sriov:
      sriov === undefined
        ? null
        : {
            totalVfs: sriov.totalVfs,
            vfs: sriov.vfs ?? 0,
            firstVfOffset: sriov.firstVfOffset ?? 1,
            vfStride: sriov.vfStride ?? 1,
            vfDevice: sriov.vfDevice ?? 0,
          },
  };
}

function quirksOf({ quirks }: FunctionDocument, real: number): PciQuirks | null {
  if (quirks === undefined) return null;
  return {
    ...(quirks.isolated === undefined ? {} : { isolated: quirks.isolated }),
    ...(quirks.aliases === undefined ? {} : { aliasDevfns: quirks.aliases }),
    ...(quirks.dmaOf === undefined ? {} : { realDmaFunction: real }),
    ...(quirks.isTranslationRoot === undefined
      ? {}
      : { isTranslationRoot: quirks.isTranslationRoot }),
    ...(quirks.aliasesSecondaryBus === undefined
      ? {}
      : { aliasesSecondaryBus: quirks.aliasesSecondaryBus }),
  };
}

function iommuOf(one: IommuDocument): Iommu {
  const common: IommuCommon = {
    name: one.name,
    node: one.node ?? null,
    includesRest: one.rest ?? false,
    translates: (one.translates ?? []).map(rangeOf),
    endpoints: (one.endpoints ?? []).map(({ base, id, path }) => ({
      base,
      id,
      path: path ?? null,
    })),
    interruptSources: (one.interruptSources ?? []).map(({ kind, id, at }) => {
      return { kind, id, segment: at.segment, rid: ridOfAddress(at) };
    }),
  };
  const registers = one.registers ?? { start: 0n, last: 0xfffn };
  const segment = one.at?.segment ?? one.segment ?? 0;
  const rid = one.at === undefined ? 0 : ridOfAddress(one.at);
  switch (one.kind) {
    case "vtd":
      return {
        ...common,
        kind: "vtd",
        segment,
        registers,
        version: one.version ?? null,
        capability: one.capability ?? null,
        extendedCapability: one.extendedCapability ?? null,
      };
    case "amd": {
      const capabilityOffset = one.capabilityOffset ?? 0;
      const features = one.features ?? null;
      const features2 = one.features2 ?? null;
      return {
        ...common,
        kind: "amd",
        segment,
        rid,
        capabilityOffset,
        registers,
        features,
        features2,
      };
    }
    case "smmuv2":
    case "smmuv3": {
      const isCoherent = one.coherent ?? false;
      return { ...common, kind: one.kind, registers, isCoherent, interrupts: one.interrupts ?? [] };
    }
    case "virtio-pci":
      return { ...common, kind: "virtio-pci", segment, rid };
    case "virtio-mmio":
      return { ...common, kind: "virtio-mmio", registers, interrupts: one.interrupts ?? [] };
    default:
      return { ...common, kind: "other" };
  }
}
