/**
 * Who may use a group's DMA: ownership by kernel drivers and by users, and attaching domains.
 *
 * Every function returns an errno, 0 on success. Source: drivers/iommu/iommu.c:
 * iommu_device_use_default_domain, iommu_device_unuse_default_domain, iommu_group_claim_dma_owner,
 * iommu_device_claim_dma_owner, __iommu_take_dma_ownership, iommu_group_release_dma_owner,
 * iommu_attach_group, iommu_attach_device, iommu_detach_group, iommu_attach_device_pasid.
 */
import { Errno } from "../errno.ts";
import { assert } from "../errors.ts";
import type { IommuDevice, IommuOps } from "./device.ts";
import { DomainType, type IommuDomain } from "./domain.ts";
import type { IommuGroup } from "./group.ts";

/**
 * A kernel driver that uses the DMA API is bound to a member.
 *
 * @returns EPROBE_DEFER before the default domain is set up, EBUSY when a user owns the group
 */
export function useDefaultDomain(group: IommuGroup): number {
  if (group.defaultDomain === null) return Errno.EPROBE_DEFER;
  if (group.ownerCount > 0) {
    const isForeign = group.domain !== group.defaultDomain || group.owner !== null;
    if (isForeign || group.pasids.size > 0) return Errno.EBUSY;
  }
  group.ownerCount += 1;
  return Errno.OK;
}

/** The driver of {@link useDefaultDomain} is unbound. */
export function unuseDefaultDomain(group: IommuGroup): void {
  assert(group.ownerCount > 0, "a driver unbound was bound");
  group.ownerCount -= 1;
}

/**
 * A user takes the DMA of a whole group.
 *
 * @returns EPERM when a driver is bound or another user has it, EBUSY when the group is not on its
 *   default domain, EINVAL when a member must not be blocked
 */
export function claimGroup(group: IommuGroup, owner: object): number {
  return group.ownerCount > 0 ? Errno.EPERM : takeOwnership(group, owner);
}

/** A user takes the DMA of a member's group; the same user may do so for each member. */
export function claimDevice(group: IommuGroup, owner: object): number {
  if (group.ownerCount === 0) return takeOwnership(group, owner);
  if (group.owner !== owner) return Errno.EPERM;
  group.ownerCount += 1;
  return Errno.OK;
}

function takeOwnership(group: IommuGroup, owner: object): number {
  const isAway = group.domain !== null && group.domain !== group.defaultDomain;
  if (isAway || group.pasids.size > 0) return Errno.EBUSY;
  const allocErrno = ensureBlockingDomain(group);
  if (allocErrno !== Errno.OK) return allocErrno;
  const errno = group.setDomain(group.blockingDomain!);
  if (errno !== Errno.OK) return errno;
  group.owner = owner;
  group.ownerCount += 1;
  return Errno.OK;
}

/** The driver's blocked state, or an empty paging domain where it has none. */
function ensureBlockingDomain(group: IommuGroup): number {
  if (group.blockingDomain !== null) return Errno.OK;
  let domain = group.allocDomain(DomainType.BLOCKED);
  if (typeof domain === "number") domain = group.allocDomain(DomainType.UNMANAGED);
  if (typeof domain === "number") return domain;
  group.blockingDomain = domain;
  return Errno.OK;
}

/** Ends {@link claimGroup}: the kernel has the group back on its default domain. */
export function releaseGroup(group: IommuGroup): void {
  assert(group.owner !== null, "a group released was claimed");
  assert(group.pasids.size === 0, "a group released has no PASID attached");
  group.ownerCount = 0;
  group.owner = null;
  returnToDefault(group);
}

/** Ends one {@link claimDevice}; the last one gives the group back. */
export function releaseDevice(group: IommuGroup): void {
  assert(group.owner !== null, "a group released was claimed");
  if (group.ownerCount > 1) group.ownerCount -= 1;
  else releaseGroup(group);
}

function returnToDefault(group: IommuGroup): void {
  if (group.defaultDomain !== null) group.setDomainAtAllCosts(group.defaultDomain);
}

/**
 * Attaches a group to a user's domain.
 *
 * @returns EBUSY when it is on another user's domain or a member is being reset, EINVAL when the
 *   domain is of another driver, else what a member's driver said
 */
export function attachGroup(group: IommuGroup, domain: IommuDomain): number {
  const { ops } = group;
  const isFree =
    group.domain === null ||
    group.domain === group.defaultDomain ||
    group.domain === group.blockingDomain;
  if (!isFree) return Errno.EBUSY;
  if (ops === null || !isCompatible(ops, domain)) return Errno.EINVAL;
  return group.setDomain(domain);
}

/** Attaches the only member of a group. @returns EINVAL when it is not the only one */
export function attachDevice(group: IommuGroup, domain: IommuDomain): number {
  return group.devices.length === 1 ? attachGroup(group, domain) : Errno.EINVAL;
}

/** Takes a user's domain away: the group is blocked while it has an owner, else on its default. */
export function detachGroup(group: IommuGroup): void {
  const domain = group.owner === null ? group.defaultDomain : group.blockingDomain;
  if (domain !== null) group.setDomainAtAllCosts(domain);
}

function isCompatible(ops: IommuOps, domain: IommuDomain): boolean {
  return domain.owner === ops || domain === ops.identityDomain || domain === ops.blockedDomain;
}

/**
 * Attaches a PASID of every member to a domain.
 *
 * @param pasid - 1 … 2^20 − 1
 * @returns EBUSY when the PASID is in use, EINVAL when a member lacks it or the domain is of another
 *   driver, else what a member's driver said; then none is attached
 */
export function attachPasid(group: IommuGroup, domain: IommuDomain, pasid: number): number {
  const { ops } = group;
  if (ops === null || !isCompatible(ops, domain) || pasid < 1) return Errno.EINVAL;
  if (group.devices.some((device) => pasid >= device.maxPasids)) return Errno.EINVAL;
  if (group.pasids.has(pasid)) return Errno.EBUSY;
  const attached: IommuDevice[] = [];
  for (const device of group.devices) {
    const errno = device.ops!.attachPasid(device, domain, pasid);
    if (errno !== Errno.OK) {
      for (const each of attached) each.ops!.attachPasid(each, null, pasid);
      return errno;
    }
    attached.push(device);
  }
  group.pasids.set(pasid, domain);
  return Errno.OK;
}

/** Ends {@link attachPasid}. */
export function detachPasid(group: IommuGroup, pasid: number): void {
  assert(group.pasids.delete(pasid), "a PASID detached was attached");
  for (const device of group.devices) device.ops!.attachPasid(device, null, pasid);
}
