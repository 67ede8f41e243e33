/**
 * Writes a machine's topology as a devicetree: what an IOMMU needs to be found, and the NUMA nodes.
 *
 * It is a part of a platform's tree: interrupt controller, timers and firmware calls are the
 * platform's own. Left out, since a machine does not know them: I/O windows (their address on the
 * CPU's side). Source: bindings pci-iommu, virtio/iommu, virtio/mmio, iommu/arm,smmu-v3,
 * pci/host-generic-pci, numa.
 */

import type {
  BridgeWindow,
  HostBridge,
  Iommu,
  Machine,
  MmioEndpoint,
  PlatformDevice,
  SmmuIommu,
  VirtioMmioIommu,
  VirtioPciIommu,
} from "../../topology/machine.ts";
import { hex } from "../../units.ts";
import { cannotDescribe } from "../build-error.ts";
import { laterWins } from "../rid-spans.ts";
import { devfnText } from "./names.ts";
import { numaNodes } from "./numa-build.ts";
import { cells, type DevicetreeParts, type DtNode, dtNode, strings, twoCells } from "./tree.ts";

const AS = "devicetree";
const EMPTY = new Uint8Array();
/** Phandles of IOMMUs count from here, clear of those of a platform's tree. */
const PHANDLE_FIRST = 0x8000;

/** IOMMUs that a devicetree has a binding for. */
type DtIommu = VirtioPciIommu | VirtioMmioIommu | SmmuIommu;

function hasBinding(iommu: Iommu): iommu is DtIommu {
  return ["virtio-pci", "virtio-mmio", "smmuv2", "smmuv3"].includes(iommu.kind);
}

/** Describes a machine. @throws StackError `firmware/cannot-describe` */
export function buildDevicetree(machine: Machine): DevicetreeParts {
  const iommus = machine.iommus.filter(hasBinding);
  if (machine.iommus.length > 0 && iommus.length === 0) {
    const kinds = [...new Set(machine.iommus.map(({ kind }) => kind))].join(", ");
    throw cannotDescribe(AS, `no binding for ${kinds}`, "VT-d is in dmar, AMD-Vi in ivrs");
  }
  const phandles = new Map(iommus.map((one, index) => [one, PHANDLE_FIRST + index]));
  checkCovered(machine, iommus);
  const root = dtNode(
    "",
    {
      "#address-cells": cells(2),
      "#size-cells": cells(2),
      compatible: strings("linux,dummy-virt"),
      model: strings("iommukit topology"),
    },
    [
      ...numaNodes(machine, AS),
      ...machine.hostBridges.map((one) => hostBridge(one, machine, phandles)),
      ...iommus
        .filter((one) => one.kind !== "virtio-pci")
        .map((one) => mmioIommu(one, machine, phandles)),
      ...devices(machine, iommus, phandles),
    ],
  );
  return { reservations: [], bootCpu: 0, root };
}

/** Every range must be below a host bridge, and be one that can be said. */
function checkCovered({ hostBridges, functions }: Machine, iommus: readonly DtIommu[]): void {
  for (const { name, includesRest, translates } of iommus) {
    if (includesRest || translates.some(({ includesBelow }) => includesBelow)) {
      throw cannotDescribe(AS, `${name} translates what is below bridges`, "name requester ids");
    }
    for (const { segment, firstRid, lastRid } of translates) {
      const isBelow = hostBridges.some(
        (one) =>
          one.segment === segment && one.firstBus <= lastRid >> 8 && firstRid >> 8 <= one.lastBus,
      );
      if (isBelow) continue;
      const message = `${name} translates segment ${segment}, where no host bridge is`;
      const hint =
        functions.length > 0 ? "add `hostBridges`" : "add the host bridge of that segment";
      throw cannotDescribe(AS, message, hint);
    }
  }
}

function nodeCell(node: number | null): Uint8Array | null {
  return node === null ? null : cells(node);
}

function hostBridge(
  bridge: HostBridge,
  machine: Machine,
  phandles: ReadonlyMap<DtIommu, number>,
): DtNode {
  const { segment, firstBus, lastBus, node, ecamBase, atsSupported } = bridge;
  const ecam = ecamBase === null ? null : ecamBase + BigInt(firstBus) * 0x10_0000n;
  const map = bridge.bypassesIommu ? [] : iommuMap(bridge, phandles);
  const inside = [...phandles.keys()].filter(
    (one): one is VirtioPciIommu =>
      one.kind === "virtio-pci" &&
      one.segment === segment &&
      one.rid >> 8 >= firstBus &&
      one.rid >> 8 <= lastBus,
  );
  const children = inside.map((iommu) => {
    if (iommu.rid >> 8 !== firstBus) {
      const message = `${iommu.name} is not on the root bus ${firstBus}`;
      throw cannotDescribe(AS, message, "a node of its own needs a bus that firmware numbers");
    }
    return pciIommu(iommu, phandles.get(iommu)!, machine);
  });
  return dtNode(
    ecam === null ? `pcie-${segment}-${firstBus}` : `pcie@${hex(ecam).slice(2)}`,
    {
      compatible: strings("pci-host-ecam-generic"),
      device_type: strings("pci"),
      reg:
        ecam === null
          ? null
          : cells(...twoCells(ecam), ...twoCells(BigInt(lastBus - firstBus + 1) * 0x10_0000n)),
      "#address-cells": cells(3),
      "#size-cells": cells(2),
      "bus-range": cells(firstBus, lastBus),
      "linux,pci-domain": cells(segment),
      ranges: windowCells(bridge.windows),
      "numa-node-id": nodeCell(node),
      "dma-coherent": EMPTY,
      "ats-supported": atsSupported === true ? EMPTY : null,
      "iommu-map": map.length > 0 ? cells(...map) : null,
    },
    children,
  );
}

/** Memory windows; the PCI address is the CPU's. */
function windowCells(windows: readonly BridgeWindow[]): Uint8Array {
  const words: number[] = [];
  for (const { kind, start, last } of windows) {
    if (kind === "io") continue;
    const space = last <= 0xffff_ffffn ? 0x0200_0000 : 0x0300_0000;
    const flags = kind === "prefetchable" ? space + 0x4000_0000 : space;
    words.push(flags, ...twoCells(start), ...twoCells(start), ...twoCells(last - start + 1n));
  }
  return cells(...words);
}

/** Entries of the map: of ranges that overlap each IOMMU's own rule says which counts. */
function iommuMap(
  { segment, firstBus, lastBus }: HostBridge,
  phandles: ReadonlyMap<DtIommu, number>,
): number[] {
  const spans = [...phandles].reverse().flatMap(([iommu, phandle]) => {
    const own = iommu.kind === "virtio-pci" && iommu.segment === segment ? [iommu.rid] : [];
    const ranges = iommu.translates
      .filter((range) => range.segment === segment)
      .map((range) => ({
        first: Math.max(range.firstRid, firstBus * 256),
        last: Math.min(range.lastRid, lastBus * 256 + 255),
        value: { phandle, own, offset: range.firstId - range.firstRid },
      }))
      .filter(({ first, last }) => first <= last);
    return iommu.kind === "smmuv2" || iommu.kind === "smmuv3" ? ranges.reverse() : ranges;
  });
  const words: number[] = [];
  for (const { first, last, value } of laterWins(spans)) {
    const { phandle, own, offset } = value;
    if (last + offset > 0xffff_ffff) {
      throw cannotDescribe(AS, "IDs pass 32 bits", "start the range at a lower ID");
    }
    const put = (from: number, to: number) => {
      if (from <= to) words.push(from, phandle, from + offset, to - from + 1);
    };
    const cut = own.find((rid) => first <= rid && rid <= last);
    if (cut === undefined) put(first, last);
    else {
      put(first, cut - 1);
      put(cut + 1, last);
    }
  }
  return words;
}

/** A virtio-iommu on a root bus (F84). */
function pciIommu(iommu: VirtioPciIommu, phandle: number, machine: Machine): DtNode {
  checkEndpoints(iommu, machine);
  return dtNode(`iommu@${devfnText(iommu.rid & 0xff)}`, {
    compatible: strings("virtio,pci-iommu", "pci1af4,1057"),
    reg: cells(iommu.rid * 256, 0, 0, 0, 0),
    "#iommu-cells": cells(1),
    "numa-node-id": nodeCell(iommu.node),
    phandle: cells(phandle),
  });
}

/** A GIC's shared interrupts take three cells; elsewhere, or with a private one, a number does. */
function interruptCells(interrupts: readonly number[]): Uint8Array | null {
  if (interrupts.length === 0) return null;
  if (interrupts.some((one) => one < 32)) return cells(...interrupts);
  return cells(...interrupts.flatMap((one) => [0, one - 32, 4]));
}

function registerCells({ start, last }: { start: bigint; last: bigint }): Uint8Array {
  return cells(...twoCells(start), ...twoCells(last - start + 1n));
}

const names = { "virtio-mmio": "virtio_mmio", smmuv2: "iommu", smmuv3: "smmuv3" } as const;

function mmioIommu(
  iommu: VirtioMmioIommu | SmmuIommu,
  machine: Machine,
  phandles: ReadonlyMap<DtIommu, number>,
): DtNode {
  checkEndpoints(iommu, machine);
  const { kind, registers, interrupts, node } = iommu;
  const compatible =
    kind === "virtio-mmio" ? "virtio,mmio" : kind === "smmuv3" ? "arm,smmu-v3" : "arm,smmu-v2";
  const isCoherent = kind === "virtio-mmio" || iommu.isCoherent;
  return dtNode(`${names[kind]}@${hex(registers.start).slice(2)}`, {
    compatible: strings(compatible),
    reg: registerCells(registers),
    interrupts: interruptCells(interrupts),
    "dma-coherent": isCoherent ? EMPTY : null,
    "numa-node-id": nodeCell(node),
    "#iommu-cells": cells(1),
    phandle: cells(phandles.get(iommu)!),
  });
}

/** An endpoint is known by its address. */
function checkEndpoints({ endpoints, name }: Iommu, { platformDevices }: Machine): void {
  const lost = endpoints.find(
    ({ base, path }) =>
      base === 0n && !platformDevices.some((one) => one.path === path && one.registers.length > 0),
  );
  if (lost === undefined) return;
  const message = `endpoint ${lost.path ?? lost.id} of ${name} has no address`;
  throw cannotDescribe(AS, message, "give the start of its first memory resource");
}

/** Platform devices, and endpoints that are nobody else's. */
function devices(
  machine: Machine,
  iommus: readonly DtIommu[],
  phandles: ReadonlyMap<DtIommu, number>,
): DtNode[] {
  const taken = new Set(
    iommus.flatMap((one) => (one.kind === "virtio-pci" ? [] : [one.registers.start])),
  );
  const nodes: DtNode[] = [];
  for (const device of machine.platformDevices) {
    const base = device.registers[0]?.start;
    if (base === undefined || taken.has(base)) continue;
    taken.add(base);
    const entries = entriesFor(iommus, phandles, (one) => isSame(one, device, base));
    nodes.push(deviceNode(device, base, entries));
  }
  for (const { base } of iommus.flatMap(({ endpoints }) => endpoints)) {
    if (base === 0n || taken.has(base)) continue;
    taken.add(base);
    const entries = entriesFor(iommus, phandles, (one) => one.base === base);
    const reg = registerCells({ start: base, last: base + 0x1ffn });
    const values = { compatible: strings("virtio,mmio"), reg, iommus: cells(...entries) };
    nodes.push(dtNode(`virtio_mmio@${hex(base).slice(2)}`, values));
  }
  return nodes;
}

function isSame(endpoint: MmioEndpoint, device: PlatformDevice, base: bigint): boolean {
  return endpoint.base === base || (endpoint.base === 0n && endpoint.path === device.path);
}

function entriesFor(
  iommus: readonly DtIommu[],
  phandles: ReadonlyMap<DtIommu, number>,
  isIt: (endpoint: MmioEndpoint) => boolean,
): number[] {
  return iommus.flatMap((iommu) =>
    iommu.endpoints.filter(isIt).flatMap(({ id }) => [phandles.get(iommu)!, id]),
  );
}

function deviceNode(device: PlatformDevice, base: bigint, entries: readonly number[]): DtNode {
  const { identity, registers, interrupts, node } = device;
  // LNRO0005 is the ACPI name of virtio-mmio; other ACPI names mean nothing here.
  const compatible = identity === null || identity === "LNRO0005" ? "virtio,mmio" : identity;
  const stem = compatible === "virtio,mmio" ? "virtio_mmio" : "device";
  return dtNode(`${stem}@${hex(base).slice(2)}`, {
    compatible: strings(compatible),
    reg: cells(
      ...registers.flatMap(({ start, last }) => [
        ...twoCells(start),
        ...twoCells(last - start + 1n),
      ]),
    ),
    interrupts: interruptCells(interrupts),
    "numa-node-id": nodeCell(node),
    iommus: entries.length > 0 ? cells(...entries) : null,
  });
}
