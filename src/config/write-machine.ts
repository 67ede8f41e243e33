/** Writes machines as topology files: what has its ordinary value is left out. */
import { pciName } from "../iommu/pci-function.ts";
import type {
  Bar,
  BridgeWindow,
  FirmwareRegion,
  HostBridge,
  Iommu,
  Machine,
  MachineFunction,
  NumaNode,
  RidRange,
} from "../topology/machine.ts";
import { numberListText } from "../topology/number-list.ts";
import { addressOfRid, type PciAddress } from "../topology/pci-address.ts";
import { hex } from "../units.ts";
import { defaultPort, inheritedNode, TOPOLOGY_SCHEMA } from "./machine-defaults.ts";
import { type YamlValue, yamlText } from "./yaml-text.ts";

type YamlMap = { readonly [key: string]: YamlValue | undefined };

/** Writes a topology file; `machineFromYaml` reads the same machine from it. */
export function machineToYaml(machine: Machine): string {
  return yamlText(documentOf(machine));
}

function documentOf(machine: Machine): YamlMap {
  const { kernel } = machine;
  const crowded = crowdedSlots(machine.functions);
  return {
    schema: TOPOLOGY_SCHEMA,
    architecture: machine.architecture ?? undefined,
    firmware: machine.firmware === "none" ? undefined : machine.firmware,
    kernel:
      kernel === null
        ? undefined
        : {
            release: kernel.release ?? undefined,
            commandLine: kernel.commandLine ?? undefined,
            strict: kernel.isStrict ?? undefined,
            passthrough: kernel.isPassthrough ?? undefined,
          },
    nodes: list(machine.nodes.map((node, index) => nodeOf(node, index, machine.nodes.length))),
    hostBridges: list(machine.hostBridges.map(hostBridgeOf)),
    iommus: list(machine.iommus.map(iommuOf)),
    functions: list(machine.functions.map((one) => functionOf(one, machine, crowded))),
    platformDevices: list(
      machine.platformDevices.map((device) => ({
        name: device.name,
        path: device.path ?? undefined,
        identity: device.identity ?? undefined,
        registers: list(device.registers.map(rangeText)),
        interrupts: numbers(device.interrupts),
        node: device.node ?? undefined,
        driver: device.driver ?? undefined,
        iommu: device.iommu ?? undefined,
        group: device.group ?? undefined,
      })),
    ),
    firmwareRegions: list(machine.firmwareRegions.map(regionOf)),
    atsScopes: list(
      machine.atsScopes.map((scope) => ({
        segment: scope.segment === 0 ? undefined : scope.segment,
        kind: scope.kind,
        functions: list(scope.rids.map((rid) => pciName(addressOfRid(scope.segment, rid)))),
        required: scope.isRequired ? true : undefined,
      })),
    ),
    groups: list(
      machine.groups.map((group) => ({
        id: group.id,
        type: group.type ?? undefined,
        name: group.name ?? undefined,
        devices: group.devices.length === 0 ? [] : group.devices,
        regions: list(group.regions.map((one) => ({ range: rangeText(one), type: one.type }))),
      })),
    ),
  };
}

function list<T extends YamlValue>(values: readonly T[]): readonly T[] | undefined {
  return values.length === 0 ? undefined : values;
}

function numbers(values: readonly number[]): string | undefined {
  return values.length === 0 ? undefined : numberListText(values);
}

function rangeText({ start, last }: { readonly start: bigint; readonly last: bigint }): string {
  return `${hex(start)}-${hex(last)}`;
}

function windowText(window: BridgeWindow): string {
  return `${window.kind} ${rangeText(window)}`;
}

function busesText(segment: number, firstBus: number, lastBus: number): string {
  const two = (bus: number) => hex(bus, 2).slice(2);
  return `${hex(segment, 4).slice(2)}:${two(firstBus)}-${two(lastBus)}`;
}

function idText(vendor: number, device: number): string {
  return `${hex(vendor, 4).slice(2)}:${hex(device, 4).slice(2)}`;
}

function nodeOf(node: NumaNode, index: number, count: number): YamlMap {
  const sum = node.memory.reduce((bytes, { start, last }) => bytes + (last - start + 1n), 0n);
  const isAssumed =
    node.distances.length === count &&
    node.distances.every((distance, to) => distance === (to === index ? 10 : 20));
  return {
    id: node.id,
    proximityDomain: node.proximityDomain ?? undefined,
    cpus: numbers(node.cpus),
    firmwareCpuIds: node.firmwareCpuIds === null ? undefined : numberListText(node.firmwareCpuIds),
    memory: list(
      node.memory.map((range): YamlValue => {
        if (!range.hotPluggable && !range.nonVolatile) return rangeText(range);
        return {
          range: rangeText(range),
          hotPluggable: range.hotPluggable ? true : undefined,
          nonVolatile: range.nonVolatile ? true : undefined,
        };
      }),
    ),
    memoryBytes: sum === node.memoryBytes ? undefined : node.memoryBytes,
    distances: isAssumed ? undefined : node.distances,
  };
}

function hostBridgeOf(bridge: HostBridge): YamlMap {
  return {
    buses: busesText(bridge.segment, bridge.firstBus, bridge.lastBus),
    node: bridge.node ?? undefined,
    ecamBase: bridge.ecamBase ?? undefined,
    windows: list(bridge.windows.map(windowText)),
    bypassesIommu: bridge.bypassesIommu ? true : undefined,
    atsSupported: bridge.atsSupported ?? undefined,
  };
}

/** Slots with a function other than the first. */
function crowdedSlots(functions: readonly MachineFunction[]): Set<string> {
  return new Set(functions.filter(({ devfn }) => (devfn & 7) > 0).map(slotOf));
}

function slotOf({ segment, bus, devfn }: PciAddress): string {
  return `${segment}:${bus}:${devfn >> 3}`;
}

function functionOf(one: MachineFunction, machine: Machine, crowded: ReadonlySet<string>): YamlMap {
  const { functions } = machine;
  const nameAt = (index: number) => (index < 0 ? undefined : pciName(functions[index]!));
  const hasBuses = one.secondaryBus >= 0;
  const header = hasBuses ? "bridge" : "endpoint";
  const isMultifunction = one.physicalFunction < 0 && crowded.has(slotOf(one));
  const inherited = inheritedNode({ at: one }, machine);
  return {
    at: pciName(one),
    bridge: nameAt(one.bridge),
    id: one.vendor === 0xffff && one.device === 0xffff ? undefined : idText(one.vendor, one.device),
    subsystem:
      one.subsystemVendor === 0 && one.subsystemDevice === 0
        ? undefined
        : idText(one.subsystemVendor, one.subsystemDevice),
    revision: one.revision === 0 ? undefined : one.revision,
    class:
      one.classCode === (one.header === "bridge" ? 0x060400 : 0)
        ? undefined
        : BigInt(one.classCode),
    header: one.header === header ? undefined : one.header,
    port:
      one.portType === defaultPort(one.header === "bridge", one.bridge >= 0)
        ? undefined
        : one.portType,
    multifunction: one.isMultifunction === isMultifunction ? undefined : one.isMultifunction,
    buses: hasBuses ? busesText(one.segment, one.secondaryBus, one.subordinateBus) : undefined,
    windows: list(one.windows.map(windowText)),
    node: one.node === inherited ? undefined : (one.node ?? "none"),
    acs: one.acs === null ? undefined : hexMap(one.acs),
    ...capabilitiesOf(one),
    physicalFunction: nameAt(one.physicalFunction),
    bars: list(one.bars.map(barOf)),
    quirks: quirksOf(one, nameAt),
    configRead: one.configRead === "extended" ? undefined : one.configRead,
    untrusted: one.isUntrusted ? true : undefined,
    driver: one.driver ?? undefined,
    iommu: one.iommu ?? undefined,
    group: one.group ?? undefined,
  };
}

function hexMap({ capability, control }: { capability: number; control: number }): YamlMap {
  return { capability: BigInt(capability), control: BigInt(control) };
}

function capabilitiesOf({ ats, pri, pasid, sriov }: MachineFunction): YamlMap {
  return {
    ats: ats === null ? undefined : { ...ats },
    pri: pri === null ? undefined : { ...pri },
    pasid: pasid === null ? undefined : { ...pasid },
    sriov: sriov === null ? undefined : { ...sriov },
  };
}

function barOf({ index, kind, prefetchable, start, bytes }: Bar): YamlMap {
  return { index, kind, prefetchable: prefetchable ? true : undefined, start, bytes };
}

function quirksOf(
  { quirks }: MachineFunction,
  nameAt: (index: number) => string | undefined,
): YamlMap | undefined {
  if (quirks === undefined) return undefined;
  return {
    isolated: quirks.isolated,
    aliases: quirks.aliasDevfns,
    dmaOf: nameAt(quirks.realDmaFunction ?? -1),
    isTranslationRoot: quirks.isTranslationRoot,
    aliasesSecondaryBus: quirks.aliasesSecondaryBus,
  };
}

function ridRangeOf(range: RidRange): YamlMap {
  const first = pciName(addressOfRid(range.segment, range.firstRid));
  const last = pciName(addressOfRid(range.segment, range.lastRid));
  return {
    functions: range.firstRid === range.lastRid ? first : `${first}-${last}`,
    firstId: range.firstId === range.firstRid ? undefined : BigInt(range.firstId),
    below: range.includesBelow ? true : undefined,
  };
}

function regionOf(region: FirmwareRegion): YamlMap {
  const read = region.canRead ? "read" : "";
  const write = region.canWrite ? "write" : "";
  const access = read !== "" && write !== "" ? undefined : read + write || "none";
  return {
    range: rangeText(region),
    source: region.source,
    treatment: region.treatment === "mapped" ? undefined : region.treatment,
    access,
    functions: region.functions === null ? undefined : region.functions.map(ridRangeOf),
  };
}

function iommuOf(iommu: Iommu): YamlMap {
  const at = "rid" in iommu ? { at: pciName(addressOfRid(iommu.segment, iommu.rid)) } : {};
  return {
    name: iommu.name,
    kind: iommu.kind,
    node: iommu.node ?? undefined,
    ...at,
    ...("registers" in iommu ? { registers: rangeText(iommu.registers) } : {}),
    ...particulars(iommu),
    rest: iommu.includesRest ? true : undefined,
    // An empty list says that nothing being translated is meant.
    translates: iommu.translates.map(ridRangeOf),
    endpoints: list(
      iommu.endpoints.map(({ base, id, path }) => ({ base, id, path: path ?? undefined })),
    ),
    interruptSources: list(
      iommu.interruptSources.map(({ kind, id, segment, rid }) => {
        return { kind, id, at: pciName(addressOfRid(segment, rid)) };
      }),
    ),
  };
}

function particulars(iommu: Iommu): YamlMap {
  switch (iommu.kind) {
    case "vtd":
      return {
        segment: iommu.segment === 0 ? undefined : iommu.segment,
        version: iommu.version ?? undefined,
        capability: iommu.capability ?? undefined,
        extendedCapability: iommu.extendedCapability ?? undefined,
      };
    case "amd":
      return {
        capabilityOffset: iommu.capabilityOffset === 0 ? undefined : BigInt(iommu.capabilityOffset),
        features: iommu.features ?? undefined,
        features2: iommu.features2 ?? undefined,
      };
    case "smmuv2":
    case "smmuv3":
      return {
        coherent: iommu.isCoherent ? true : undefined,
        interrupts: numbers(iommu.interrupts),
      };
    case "virtio-mmio":
      return { interrupts: numbers(iommu.interrupts) };
    default:
      return {};
  }
}
