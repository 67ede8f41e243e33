/**
 * A hardware page table: a domain that suits one device's IOMMU and shows what its IOAS holds.
 *
 * Several of them on one IOAS, one for each IOMMU or node, are how tables come to lie next to the
 * hardware that walks them. Source: drivers/iommu/iommufd/hw_pagetable.c:
 * iommufd_hwpt_paging_alloc, __iommufd_hwpt_destroy, iommufd_hwpt_paging_enforce_cc.
 */
import { Errno } from "../../errno.ts";
import type { IommuDevice, IommuOps } from "../../iommu/device.ts";
import { DomainType, type IommuDomain } from "../../iommu/domain.ts";
import type { FaultObject } from "./fault-object.ts";
import type { Ioas } from "./ioas.ts";
import type { IommufdObject } from "./objects.ts";
import { HwptFlag } from "./uapi.ts";

const FLAGS_ALL =
  HwptFlag.NEST_PARENT | HwptFlag.DIRTY_TRACKING | HwptFlag.FAULT_ID_VALID | HwptFlag.PASID;

/** An IOAS as an object. */
export class IoasObject implements IommufdObject {
  readonly kind = "ioas";
  id = 0;
  users = 0;
  readonly ioas: Ioas;
  /** Its page tables, the oldest first. */
  readonly tables: Hwpt[] = [];

  constructor(ioas: Ioas) {
    this.ioas = ioas;
  }

  destroy(): void {
    this.ioas.unmapAll();
  }
}

/** A hardware page table. */
export class Hwpt implements IommufdObject {
  readonly kind = "hwpt";
  id = 0;
  users = 0;
  readonly ioas: IoasObject;
  readonly domain: IommuDomain;
  /** Whether it was made because a device asked for the IOAS, and goes with the last such device. */
  isAuto = false;
  /** Whether all DMA through it is forced to be coherent. */
  readonly enforcesCoherency: boolean;
  /** Whether guests may nest tables of their own on it. */
  readonly isNestParent: boolean;
  readonly canTrackDirty: boolean;
  isTrackingDirty = false;
  /** Where page requests go, or null. */
  fault: FaultObject | null = null;
  readonly #ops: IommuOps;

  constructor(parts: {
    readonly ioas: IoasObject;
    readonly domain: IommuDomain;
    readonly ops: IommuOps;
    readonly flags: number;
    readonly enforcesCoherency: boolean;
  }) {
    this.ioas = parts.ioas;
    this.domain = parts.domain;
    this.#ops = parts.ops;
    this.enforcesCoherency = parts.enforcesCoherency;
    this.isNestParent = (parts.flags & HwptFlag.NEST_PARENT) !== 0;
    this.canTrackDirty = (parts.flags & HwptFlag.DIRTY_TRACKING) !== 0;
    parts.ioas.users += 1;
    parts.ioas.tables.push(this);
  }

  /** Has page requests go to a fault object, which stays as long as this. */
  setFault(fault: FaultObject): void {
    this.fault = fault;
    this.domain.iopfHandler = fault;
    fault.users += 1;
  }

  destroy(): void {
    const { ioas, fault } = this;
    ioas.tables.splice(ioas.tables.indexOf(this), 1);
    ioas.ioas.removeDomain(this.domain);
    this.#ops.freePaging(this.domain);
    if (fault !== null) fault.users -= 1;
    ioas.users -= 1;
  }
}

/**
 * Makes a table for a device and fills it with what the IOAS holds.
 *
 * @param attach - attaches the device before the table is filled, as older drivers need it
 * @returns the table, or an errno and nothing has changed: EOPNOTSUPP (flags), ENOMEM, what the
 *   driver or the attach gave, what {@link Ioas.addDomain} gives
 */
export function allocHwpt(
  ioas: IoasObject,
  device: IommuDevice,
  flags: number,
  attach: { readonly to: (domain: IommuDomain) => number; readonly undo: () => void } | null,
): Hwpt | number {
  const ops = device.ops!;
  if ((flags & ~FLAGS_ALL) !== 0) return Errno.EOPNOTSUPP;
  const tracksDirty = ops.capable?.(device, "dirty-tracking") ?? false;
  if ((flags & HwptFlag.DIRTY_TRACKING) !== 0 && !tracksDirty) return Errno.EOPNOTSUPP;
  const isFaulting = (flags & HwptFlag.FAULT_ID_VALID) !== 0;
  if (isFaulting && (flags & HwptFlag.NEST_PARENT) !== 0) return Errno.EOPNOTSUPP;
  const domain = ops.allocPaging(device, (flags & HwptFlag.PASID) !== 0);
  if (typeof domain === "number") return domain;
  domain.type = DomainType.UNMANAGED;
  domain.owner = ops;
  const canEnforce = ops.capable?.(device, "enforce-cache-coherency") ?? false;
  const enforcesCoherency = canEnforce && (domain.driver!.enforceCacheCoherency?.() ?? false);
  let errno = attach?.to(domain) ?? Errno.OK;
  if (errno === Errno.OK) {
    errno = ioas.ioas.addDomain(domain);
    if (errno === Errno.OK) return new Hwpt({ ioas, domain, ops, flags, enforcesCoherency });
    attach?.undo();
  }
  ops.freePaging(domain);
  return errno;
}
