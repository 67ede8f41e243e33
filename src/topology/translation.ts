/**
 * Which IOMMU a device is behind by firmware's word, and the ids it is known by there.
 *
 * A function's DMA may carry other requester ids than its own (bridges, quirks); each is looked up
 * for itself. Source: drivers/iommu/intel/dmar.c:dmar_find_matched_drhd_unit, intel/iommu.c:
 * device_lookup_iommu (explicit scopes first, a virtual function by its physical one, then
 * INCLUDE_PCI_ALL); drivers/acpi/viot.c:viot_pci_dev_iommu_init (of overlapping ranges the one later
 * in the table; an IOMMU is not behind itself); drivers/acpi/arm64/iort.c:iort_node_map_id (first).
 */
import { eachDmaAlias } from "../iommu/group-rules.ts";
import { ridOf } from "../iommu/pci-function.ts";
import type { HostBridge, Iommu, Machine, MachineFunction, RidRange } from "./machine.ts";

/** An IOMMU and an id that it knows a device by. */
export interface Translation {
  /** Position in `machine.iommus`. */
  readonly iommu: number;
  /** Endpoint id (virtio), stream id (SMMU), requester id (VT-d), device id (AMD). */
  readonly id: number;
}

/** Answers for one machine; made once, asked for many devices. */
export class TranslationMap {
  readonly #machine: Machine;
  readonly #bypasses: boolean;

  constructor(machine: Machine) {
    this.#machine = machine;
    this.#bypasses = machine.hostBridges.some((bridge) => bridge.bypassesIommu);
  }

  /** What translates a function's own requester id; null when nothing does. */
  of(index: number): Translation | null {
    const pci = this.#machine.functions[index]!;
    if (this.#isBypassed(pci)) return null;
    return this.#lookUp(index, pci.segment, ridOf(pci));
  }

  /** What translates each requester id of a function's DMA, its own first; null where nothing. */
  ofAliases(index: number): (Translation | null)[] {
    const found: (Translation | null)[] = [];
    const { functions } = this.#machine;
    eachDmaAlias(functions, index, (at, rid) => {
      const pci = functions[at]!;
      found.push(this.#isBypassed(pci) ? null : this.#lookUp(at, pci.segment, rid));
      return false;
    });
    return found;
  }

  /** What translates a device by the start of its first memory resource. */
  ofMmio(base: bigint): Translation | null {
    for (const [iommu, { endpoints }] of this.#machine.iommus.entries()) {
      const endpoint = endpoints.find((one) => one.base === base);
      if (endpoint !== undefined) return { iommu, id: endpoint.id };
    }
    return null;
  }

  #isBypassed(pci: MachineFunction): boolean {
    return this.#bypasses && hostBridgeOf(this.#machine, pci)?.bypassesIommu === true;
  }

  #lookUp(index: number, segment: number, rid: number): Translation | null {
    const { iommus, functions } = this.#machine;
    const { physicalFunction } = functions[index]!;
    let rest = -1;
    for (const [at, iommu] of iommus.entries()) {
      if (isItself(iommu, segment, rid)) continue;
      const byOwn = rangeIn(iommu, segment, rid);
      if (byOwn !== null) return { iommu: at, id: idIn(byOwn, rid) };
      if (this.#isBelow(iommu, index)) return { iommu: at, id: rid };
      const isVf = iommu.kind === "vtd" && physicalFunction >= 0;
      if (isVf && this.#coversPhysical(iommu, physicalFunction)) return { iommu: at, id: rid };
      if (iommu.includesRest && rest < 0 && segmentOf(iommu) === segment) rest = at;
    }
    return rest < 0 ? null : { iommu: rest, id: rid };
  }

  #coversPhysical(iommu: Iommu, index: number): boolean {
    const pci = this.#machine.functions[index]!;
    return rangeIn(iommu, pci.segment, ridOf(pci)) !== null || this.#isBelow(iommu, index);
  }

  /** Whether a bridge above the function is in a range that includes what is below. */
  #isBelow(iommu: Iommu, index: number): boolean {
    const ranges = iommu.translates.filter((range) => range.includesBelow);
    if (ranges.length === 0) return false;
    const { functions } = this.#machine;
    let at = functions[index]!.bridge;
    for (let hops = 0; at >= 0 && hops < functions.length; hops += 1) {
      const bridge = functions[at]!;
      if (ranges.some((range) => contains(range, bridge.segment, ridOf(bridge)))) return true;
      at = bridge.bridge;
    }
    return false;
  }
}

/** The host bridge that a function is below, or null. */
export function hostBridgeOf(
  machine: Machine,
  pci: { readonly segment: number; readonly bus: number },
): HostBridge | null {
  for (const bridge of machine.hostBridges) {
    if (bridge.segment !== pci.segment) continue;
    if (bridge.firstBus <= pci.bus && pci.bus <= bridge.lastBus) return bridge;
  }
  return null;
}

function contains(range: RidRange, segment: number, rid: number): boolean {
  return range.segment === segment && range.firstRid <= rid && rid <= range.lastRid;
}

function rangeIn(iommu: Iommu, segment: number, rid: number): RidRange | null {
  const isHit = (range: RidRange) => contains(range, segment, rid);
  const isVirtio = iommu.kind === "virtio-pci" || iommu.kind === "virtio-mmio";
  const range = isVirtio ? iommu.translates.findLast(isHit) : iommu.translates.find(isHit);
  return range ?? null;
}

function idIn(range: RidRange, rid: number): number {
  return range.firstId + (rid - range.firstRid);
}

function isItself(iommu: Iommu, segment: number, rid: number): boolean {
  if (iommu.kind !== "virtio-pci" && iommu.kind !== "amd") return false;
  return iommu.segment === segment && iommu.rid === rid;
}

/** The segment whose rest an IOMMU can take: its own, 0 where it has none. */
export function segmentOf(iommu: Iommu): number {
  return iommu.kind === "vtd" || iommu.kind === "amd" || iommu.kind === "virtio-pci"
    ? iommu.segment
    : 0;
}
