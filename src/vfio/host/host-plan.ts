/**
 * A host as plain data: NUMA nodes, IOMMU units, PCI devices. `buildHost` makes it run.
 *
 *     const plan: HostPlan = {
 *       nodes: [{ memory: 64 * MIB }, { memory: 64 * MIB }],
 *       units: [{ name: "dmar0", node: 0 }, { name: "dmar1", node: 1 }],
 *       devices: [
 *         { address: "0000:17:00.0", unit: "dmar0" },
 *         { address: "0000:98:00.0", unit: "dmar1" },
 *       ],
 *     };
 */
import type { DomainType } from "../../iommu/domain.ts";
import type { IotlbGeometry } from "../../iommu/iotlb.ts";
import type { PciPortType, PciQuirks } from "../../iommu/pci-function.ts";
import type { FirmwareRange, ReservedRegion } from "../../iommu/reserved-regions.ts";
import type { CacheGeometry } from "../../iommu/tag-array.ts";
import type { PciBar } from "../device/pci-bar.ts";

/** Kinds of IOMMU. */
export type UnitKind = "vtd" | "amd" | "smmu";

/** A NUMA node; nodes are numbered in the order of their list. */
export interface NodePlan {
  /** Bytes that page tables can take, a multiple of 1 MiB. */
  readonly memory: number;
}

/** An IOMMU. */
export interface UnitPlan {
  readonly name: string;
  /** `vtd` without it. */
  readonly kind?: UnitKind;
  /** NUMA node; −1 where the firmware does not say (a DMAR without RHSA). */
  readonly node: number;
  /** Name of the format of new page tables, the usual one of the kind without it. */
  readonly format?: string;
  /** Names of all formats it can walk, that of its own tables without it. */
  readonly formats?: readonly string[];
  /** Whether it can force coherency, true without it. */
  readonly snoopControl?: boolean;
  /** Whether it isolates interrupts (interrupt remapping), true without it. */
  readonly isolatesMsi?: boolean;
  readonly cachingMode?: boolean;
  readonly domainIds?: number;
  readonly iotlb?: IotlbGeometry;
  readonly pagingCache?: CacheGeometry | null;
}

/** A PCI function. What is not said is that of an endpoint alone in its slot on a root bus. */
export interface DevicePlan {
  /** As lspci prints it: `0000:17:00.0`. */
  readonly address: string;
  /** Name of the unit that its DMA passes; null for none. */
  readonly unit: string | null;
  /** NUMA node, that of the unit without it; −1 unknown. */
  readonly node?: number;
  /** `vfio-pci` (without it), a kernel driver that uses the DMA API, or none. */
  readonly driver?: "vfio-pci" | "kernel" | "none";
  /** Class, subclass and interface, 24 bits. */
  readonly classCode?: number;
  /** Ranges that firmware needs mapped to themselves (RMRR, IVMD). */
  readonly directRanges?: readonly FirmwareRange[];
  /** All its reserved regions, in place of what the driver of its unit would report. */
  readonly regions?: readonly ReservedRegion[];
  /** Address of the bridge above. */
  readonly bridge?: string;
  /** Bus below a bridge. */
  readonly secondaryBus?: number;
  readonly portType?: PciPortType;
  readonly isMultifunction?: boolean;
  /** ACS capability and control registers. */
  readonly acs?: { readonly capability: number; readonly control: number };
  readonly quirks?: PciQuirks;
  /** BARs 0 … 5; null for one that is not there. */
  readonly bars?: readonly (PciBar | null)[];
  /** Whether it caches translations itself. */
  readonly ats?: IotlbGeometry;
}

/** A host. */
export interface HostPlan {
  readonly nodes: readonly NodePlan[];
  /** As in a SLIT: `distances[from][to]`. */
  readonly distances?: readonly (readonly number[])[];
  readonly units: readonly UnitPlan[];
  /** Bridges come before what is below them. */
  readonly devices: readonly DevicePlan[];
  /**
   * Where VT-d puts a domain's tables. `7.2`: on the node of the device that the domain was made
   * for, for good. `6.6`: on the node of the CPU that maps, until a second unit comes; then on that
   * of a device. With the parameter of the by-node RFC, on the node of the unit attached last.
   */
  readonly kernel?: "7.2" | "6.6";
  /** Type of the default domains, DMA without it. */
  readonly defaultType?: DomainType;
}
