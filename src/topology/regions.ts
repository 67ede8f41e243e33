/**
 * Reserved regions of a machine's devices, as each IOMMU driver would report them.
 *
 * The rules themselves are in `iommu/reserved-regions.ts`; here is which ranges of the firmware are
 * meant for which device. Source: drivers/iommu/intel/iommu.c:intel_iommu_get_resv_regions,
 * amd/iommu.c:amd_iommu_get_resv_regions, drivers/acpi/arm64/iort.c:iort_rmr_alloc.
 */
import { ridOf } from "../iommu/pci-function.ts";
import { Prot } from "../iommu/prot.ts";
import {
  amdRegions,
  combineRegions,
  type ReservedRegion,
  ReservedType,
  smmuRegions,
  virtioRegions,
  vtdRegions,
} from "../iommu/reserved-regions.ts";
import type { FirmwareRegion, Iommu, Machine, MachineFunction } from "./machine.ts";

/**
 * The regions of a group.
 *
 * @param functions - positions of its functions; empty for a platform device
 * @returns null where they cannot be told: a virtio-iommu's stand in its answers to PROBE
 */
export function groupRegions(
  machine: Machine,
  iommu: Iommu,
  functions: readonly number[],
): ReservedRegion[] | null {
  const lists: ReservedRegion[][] = [];
  const members = functions.length === 0 ? [null] : functions;
  for (const index of members) {
    const pci = index === null ? null : machine.functions[index]!;
    const regions = deviceRegions(machine, iommu, pci);
    if (regions === null) return null;
    lists.push(regions);
  }
  return combineRegions(lists);
}

function deviceRegions(
  machine: Machine,
  iommu: Iommu,
  pci: MachineFunction | null,
): ReservedRegion[] | null {
  const own = machine.firmwareRegions.filter((region) => isFor(machine, region, pci));
  const from = (source: FirmwareRegion["source"]) => own.filter((one) => one.source === source);
  switch (iommu.kind) {
    case "vtd":
      return vtdRegions(pci?.classCode ?? -1, from("rmrr"));
    case "amd":
      return amdRegions(
        from("ivmd").map((region) => {
          // An exclusion range becomes a unity range that is read and written.
          const isAll = region.treatment === "excluded";
          const prot =
            (region.canRead || isAll ? Prot.READ : 0) | (region.canWrite || isAll ? Prot.WRITE : 0);
          return { start: region.start, last: region.last, prot, excluded: false };
        }),
      );
    case "smmuv2":
    case "smmuv3":
      return [...smmuRegions(), ...from("rmr").map(directRegion)];
    case "virtio-pci":
    case "virtio-mmio": {
      const probed = from("probe");
      return probed.length === 0 ? null : virtioRegions(probed.map(probedRegion));
    }
    default:
      return null;
  }
}

function directRegion({ start, last }: FirmwareRegion): ReservedRegion {
  return { type: ReservedType.DIRECT, start, last, prot: Prot.READ | Prot.WRITE };
}

function probedRegion({ start, last, treatment }: FirmwareRegion): ReservedRegion {
  const type = treatment === "msi" ? ReservedType.MSI : ReservedType.RESERVED;
  return { type, start, last, prot: 0 };
}

/** Whether a region is meant for a function; `null` stands for a device of no bus. */
function isFor(machine: Machine, region: FirmwareRegion, pci: MachineFunction | null): boolean {
  if (region.functions === null) return true;
  if (pci === null) return false;
  let at: MachineFunction | undefined = pci;
  for (let hops = 0; at !== undefined && hops <= machine.functions.length; hops += 1) {
    const here: MachineFunction = at;
    const isNamed = region.functions.some(
      (range) =>
        range.segment === here.segment &&
        range.firstRid <= ridOf(here) &&
        ridOf(here) <= range.lastRid &&
        (here === pci || range.includesBelow),
    );
    if (isNamed) return true;
    at = machine.functions[here.bridge];
  }
  return false;
}
