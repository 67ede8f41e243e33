/**
 * A device as the IOMMU core sees it, and what a driver of an IOMMU does for the core.
 *
 * Source: include/linux/iommu.h: struct iommu_ops, struct iommu_domain_ops, struct dev_iommu.
 */
import type { DomainType, IommuDomain } from "./domain.ts";
import type { FaultParam } from "./iopf/fault-group.ts";
import type { PageRequest, PageResponse } from "./iopf/page-request.ts";
import type { ReservedRegion } from "./reserved-regions.ts";

/** What a driver may demand as a device's default domain; null when it does not care. */
export type DemandedType = typeof DomainType.DMA | typeof DomainType.IDENTITY | null;

/** A driver of an IOMMU. Errno 22 (EINVAL) of an attach means: try another domain. */
export interface IommuOps {
  readonly name: string;
  /** The one domain for untranslated DMA, where the hardware needs no tables for it. */
  readonly identityDomain: IommuDomain | null;
  /** The one domain that lets nothing pass, where the hardware has such a state. */
  readonly blockedDomain: IommuDomain | null;
  /** The type that a device needs. */
  defaultType(device: IommuDevice): DemandedType;
  /**
   * Makes a paging domain that suits a device; the core sets its type and owner.
   *
   * @param forPasid - whether it has to suit the device's PASIDs as well
   * @returns the domain, or an errno: ENODEV, ENOMEM, EOPNOTSUPP
   */
  allocPaging(device: IommuDevice, forPasid: boolean): IommuDomain | number;
  /** Gives a domain of {@link allocPaging} back. Nothing is attached to it. */
  freePaging(domain: IommuDomain): void;
  /** Moves a device from one domain (null at first) to another. @returns an errno */
  attach(device: IommuDevice, domain: IommuDomain, old: IommuDomain | null): number;
  /** Moves a PASID of a device to a domain; null takes it away. @returns an errno */
  attachPasid(device: IommuDevice, domain: IommuDomain | null, pasid: number): number;
  /** What firmware or hardware reserve for a device. */
  reservedRegions(device: IommuDevice): readonly ReservedRegion[];
  /** Answers a group of page requests by its last one; absent where the hardware has none. */
  pageResponse?(device: IommuDevice, last: PageRequest, code: PageResponse): void;
  /** Whether users bring PASID tables of their own; they do not without it. */
  readonly userPasidTable?: boolean;
  /** Whether the hardware in front of a device can do something; it cannot without this. */
  capable?(device: IommuDevice, capability: IommuCapability): boolean;
}

/** What is asked of {@link IommuOps.capable}. Source: include/linux/iommu.h, enum iommu_cap. */
export type IommuCapability = "enforce-cache-coherency" | "dirty-tracking";

/** What a device brings with it. */
export interface IommuDeviceOptions {
  readonly name: string;
  /** Null when no IOMMU serves the device. */
  readonly ops: IommuOps | null;
  /** Requester id: bus << 8 | devfn. */
  readonly rid?: number;
  /** Whether it is an external PCI device that may be hostile. */
  readonly untrusted?: boolean;
  /** PASIDs are 1 … maxPasids − 1; 0 for a device without PASIDs. */
  readonly maxPasids?: number;
  /** Whether a crash kernel leaves it as it is until its driver maps something. */
  readonly attachDeferred?: boolean;
  /** Whether its interrupts cannot be forged by other devices. */
  readonly isolatedMsi?: boolean;
  /** NUMA node that it is on (its `numa_node` file), −1 when nobody says. */
  readonly node?: number;
}

/** A device. */
export class IommuDevice {
  readonly name: string;
  readonly ops: IommuOps | null;
  readonly rid: number;
  readonly untrusted: boolean;
  readonly maxPasids: number;
  readonly isolatedMsi: boolean;
  readonly node: number;
  attachDeferred: boolean;
  /** Whether firmware needs a range mapped to itself at all times. */
  requireDirect = false;
  /** What is kept of a device that may report page requests; null while it may not. */
  faultParam: FaultParam | null = null;

  constructor(options: IommuDeviceOptions) {
    this.name = options.name;
    this.ops = options.ops;
    this.rid = options.rid ?? 0;
    this.untrusted = options.untrusted ?? false;
    this.maxPasids = options.maxPasids ?? 0;
    this.attachDeferred = options.attachDeferred ?? false;
    this.isolatedMsi = options.isolatedMsi ?? true;
    this.node = options.node ?? -1;
  }
}
