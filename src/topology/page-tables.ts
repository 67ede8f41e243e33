/**
 * Where the page tables of a group's domain live, and from where the hardware walks them.
 *
 * A domain's tables are allocated on one node for all its life; every IOMMU that the domain is
 * attached to walks them there. Source: Linux 7.2 drivers/iommu/intel/iommu.c and amd/iommu.c (the
 * node of the device that the domain was allocated for: `pt_iommu.nid = dev_to_node(dev)`),
 * drivers/iommu/io-pgtable-arm.c:__arm_lpae_alloc_pages (the node of the SMMU),
 * drivers/iommu/iommu-pages.c (no node: that of the CPU that maps), drivers/iommu/iommu.c:
 * iommu_group_alloc_default_domain (the group's first device), virtio-iommu.c (no tables),
 * drivers/vfio/vfio_iommu_type1.c:vfio_iommu_type1_attach_group (the first group of a container).
 */
import type { GroupType, Iommu, Machine } from "./machine.ts";

/** Where page tables live. */
export type TablesHome =
  /** On one node. */
  | { readonly kind: "node"; readonly node: number; readonly rule: HomeRule }
  /** Wherever the CPU runs that makes the mapping: the device has no node. */
  | { readonly kind: "mapping-cpu"; readonly rule: HomeRule }
  /** There are none. */
  | { readonly kind: "none"; readonly because: "identity" | "blocked" | "virtio" }
  | { readonly kind: "unknown" };

/** Whose node decides. */
export type HomeRule = "device" | "smmu";

/** Who walks a domain's tables. */
export interface Walker {
  /** Name of the IOMMU. */
  readonly iommu: string;
  readonly node: number | null;
  /** Whether the node follows from the devices behind it and firmware does not state it. */
  readonly isInferred: boolean;
}

/** A domain's tables and its walker. */
export interface DomainPlacement {
  readonly home: TablesHome;
  readonly walker: Walker | null;
  /** Distance from walker to tables, 10 is local; null when either is not known. */
  readonly distance: number | null;
  readonly isRemote: boolean | null;
}

/** A device that a domain is allocated for, or attached to. */
export interface DomainDevice {
  readonly node: number | null;
  /** Name of its IOMMU. */
  readonly iommu: string | null;
}

/** The node of each IOMMU, stated or inferred. */
export function iommuNodes(machine: Machine): Map<string, Walker> {
  const seen = new Map<string, number | null>();
  for (const devices of [machine.functions, machine.platformDevices]) {
    for (const { iommu, node } of devices) {
      if (iommu === null || node === null) continue;
      const before = seen.get(iommu);
      // Devices of two nodes: no telling.
      if (before === undefined) seen.set(iommu, node);
      else if (before !== node) seen.set(iommu, null);
    }
  }
  return new Map(
    machine.iommus.map(({ name, node }) => [
      name,
      { iommu: name, node: node ?? seen.get(name) ?? null, isInferred: node === null },
    ]),
  );
}

/**
 * Where a domain that is allocated for `device` has its tables.
 *
 * @param type - what sort of domain; null for one of unknown type
 */
export function tablesHome(iommu: Iommu, device: DomainDevice, type: GroupType | null): TablesHome {
  if (type === "identity" || type === "blocked") return { kind: "none", because: type };
  switch (iommu.kind) {
    case "virtio-pci":
    case "virtio-mmio":
      return { kind: "none", because: "virtio" };
    case "vtd":
    case "amd":
      return homeOn(device.node, "device");
    case "smmuv2":
    case "smmuv3":
      return homeOn(iommu.node, "smmu");
    default:
      return { kind: "unknown" };
  }
}

function homeOn(node: number | null, rule: HomeRule): TablesHome {
  return node === null ? { kind: "mapping-cpu", rule } : { kind: "node", node, rule };
}

/**
 * The placement of a domain that several devices share, as in one VFIO container: the first decides
 * where the tables live, and the IOMMU of each walks them there.
 *
 * @param devices - in the order in which they are attached; at least one
 * @returns a placement for each device
 */
export function placeDomain(
  machine: Machine,
  devices: readonly DomainDevice[],
  type: GroupType | null,
  walkers = iommuNodes(machine),
): DomainPlacement[] {
  const first = devices[0];
  const unit = machine.iommus.find(({ name }) => name === first?.iommu);
  const unknown: TablesHome = { kind: "unknown" };
  const home = unit === undefined || !first ? unknown : tablesHome(unit, first, type);
  return devices.map((device) => {
    const walker = device.iommu === null ? null : (walkers.get(device.iommu) ?? null);
    const from = walker?.node ?? null;
    if (home.kind !== "node" || from === null) {
      return { home, walker, distance: null, isRemote: null };
    }
    const distance = distanceOf(machine, from, home.node);
    return { home, walker, distance, isRemote: from !== home.node };
  });
}

/** Distance between two nodes by id; null when one is not of the machine. */
export function distanceOf(machine: Machine, from: number, to: number): number | null {
  const row = machine.nodes.find(({ id }) => id === from);
  const column = machine.nodes.findIndex(({ id }) => id === to);
  return column < 0 ? null : (row?.distances[column] ?? null);
}
