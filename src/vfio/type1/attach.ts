/**
 * Attaching a group to a type1 container: the checks, the domain that it shares or gets, and the
 * mappings that a new domain has to have.
 *
 * In Linux a domain is shared wherever the driver's operations and the coherency agree, so one page
 * table serves IOMMUs on all NUMA nodes; the RFC "vfio: add attach_group_by_node" lets the node
 * decide as well (iommu/merge-rules.ts).
 *
 * Source: drivers/vfio/vfio_iommu_type1.c:vfio_iommu_type1_attach_group. A failure leaves group and
 * container as they were, but for the group's default domain: an owned group goes back to blocking.
 */
import { Errno } from "../../errno.ts";
import * as core from "../../iommu/attach.ts";
import { DomainType, type IommuDomain } from "../../iommu/domain.ts";
import type { IommuGroup } from "../../iommu/group.ts";
import { type MergeKey, mayMerge } from "../../iommu/merge-rules.ts";
import { type ReservedRegion, ReservedType } from "../../iommu/reserved-regions.ts";
import { pfnOf } from "../../units.ts";
import { AllowedRanges, type IovaRange } from "./allowed-ranges.ts";
import { apertureOf, clipRanges, excludeRegions, spanOf } from "./iova-ranges.ts";
import { commonPageSizes } from "./page-sizes.ts";
import { replayMappings } from "./replay.ts";
import type { Type1, Type1Domain, Type1Group } from "./type1.ts";

/** Memory that bookkeeping takes: struct vfio_iommu_group, vfio_domain, vfio_iova, a cookie. */
const GROUP_BYTES = 32;
const DOMAIN_BYTES = 56;
const RANGE_BYTES = 32;
const COOKIE_BYTES = 24;

/**
 * Attaches a group.
 *
 * @param isEmulated - whether it is that of a mediated device, which has no IOMMU
 * @returns EBUSY while memory is moving, EINVAL (attached already, apertures apart, mappings in the
 *   way, no address left), EPERM for interrupts that can be forged, ENOMEM, and what the drivers say
 */
export function attachGroup(type1: Type1, group: IommuGroup, isEmulated: boolean): number {
  if (type1.vaddrInvalidCount > 0) return Errno.EBUSY;
  if (hasGroup(type1, group)) return Errno.EINVAL;
  if (!type1.allow(GROUP_BYTES)) return Errno.ENOMEM;
  const member: Type1Group = { group, isPinnedScope: isEmulated };
  if (isEmulated) {
    type1.emulatedGroups.unshift(member);
    return Errno.OK;
  }
  if (!type1.allow(DOMAIN_BYTES)) return Errno.ENOMEM;
  const fresh = group.allocDomain(DomainType.UNMANAGED);
  if (typeof fresh === "number") return fresh;
  let errno = core.attachGroup(group, fresh);
  if (errno === Errno.OK) errno = settle(type1, member, fresh);
  if (errno === Errno.OK) return Errno.OK;
  if (group.domain === fresh) core.detachGroup(group);
  group.freeDomain(fresh);
  return errno;
}

/** Whether a container has a group. */
function hasGroup(type1: Type1, group: IommuGroup): boolean {
  if (type1.emulatedGroups.some((member) => member.group === group)) return true;
  return type1.domains.some((domain) => domain.groups.some((member) => member.group === group));
}

/** All that comes once the group is on a domain of its own. @returns an errno */
function settle(type1: Type1, member: Type1Group, fresh: IommuDomain): number {
  const { group } = member;
  const regions = group.reservedRegions();
  const ranges = narrow(type1, apertureOf(fresh), regions);
  if (typeof ranges === "number") return ranges;
  if (!type1.parameters.allowUnsafeInterrupts && !group.hasIsolatedMsi) return Errno.EPERM;
  const own: Type1Domain = {
    domain: fresh,
    groups: [],
    coherencyEnforced: fresh.driver!.enforceCacheCoherency?.() ?? false,
  };
  const shared = merge(type1, group, own);
  if (typeof shared === "number") return shared;
  // The kernel makes the cookie last, and on failure forgets that pages were pinned for the domain.
  let errno = shared === null ? makeCookie(type1, fresh, regions) : Errno.OK;
  if (errno === Errno.OK && shared === null) errno = fillDomain(type1, fresh);
  const target = shared ?? own;
  if (errno === Errno.OK && type1.isFaulting) {
    errno = type1.faulting!.groupAttached(target, member);
    if (errno !== Errno.OK && shared !== null) core.detachGroup(group);
  }
  if (errno !== Errno.OK) return errno;
  target.groups.unshift(member);
  if (shared === null) type1.domains.unshift(own);
  else group.freeDomain(fresh);
  type1.pageSizes = commonPageSizes(type1.domains);
  type1.allowed = new AllowedRanges(ranges);
  type1.nonPinnedGroups += 1;
  return Errno.OK;
}

/** The ranges that are left with a group, or an errno when it does not fit. */
function narrow(
  type1: Type1,
  aperture: IovaRange,
  regions: readonly ReservedRegion[],
): IovaRange[] | number {
  const { ranges } = type1.allowed;
  if (isApart(type1, ranges, aperture)) return Errno.EINVAL;
  for (const region of regions) {
    if (region.type === ReservedType.DIRECT_RELAXABLE) continue;
    const inTheWay = type1.mappings.firstIn(pfnOf(region.start), pfnOf(region.last));
    if (inTheWay !== null) return Errno.EINVAL;
  }
  if (!type1.allow((ranges.length + regions.length) * RANGE_BYTES)) return Errno.ENOMEM;
  const left = excludeRegions(clipRanges(ranges, aperture), regions);
  return left.length === 0 ? Errno.EINVAL : left;
}

/** Whether an aperture has nothing in common with the ranges, or leaves a mapping out. */
function isApart(type1: Type1, ranges: readonly IovaRange[], aperture: IovaRange): boolean {
  if (ranges.length === 0) return false;
  const span = spanOf(ranges);
  if (aperture.start > span.last || aperture.last < span.start) return true;
  const { mappings } = type1;
  if (aperture.start > span.start) {
    if (mappings.firstIn(pfnOf(span.start), pfnOf(aperture.start - 1n)) !== null) return true;
  }
  if (aperture.last < span.last) {
    if (mappings.firstIn(pfnOf(aperture.last + 1n), pfnOf(span.last)) !== null) return true;
  }
  return false;
}

/**
 * Tries the domains that the container has, the one made last first. Each try moves the group off
 * its own domain, and back when the driver refuses.
 *
 * @returns the domain that the group is on now, null when it stays on its own, or an errno
 */
function merge(type1: Type1, group: IommuGroup, own: Type1Domain): Type1Domain | number | null {
  const byNode = type1.parameters.attachGroupByNode ?? 0;
  for (const each of type1.domains) {
    // A failed try writes the node of the group's own domain anew, so it is asked for each time.
    if (!mayMerge(keyOf(each), keyOf(own), byNode)) continue;
    core.detachGroup(group);
    if (core.attachGroup(group, each.domain) === Errno.OK) return each;
    const errno = core.attachGroup(group, own.domain);
    if (errno !== Errno.OK) return errno;
  }
  return null;
}

function keyOf({ domain, coherencyEnforced }: Type1Domain): MergeKey {
  return { operations: domain.operations, coherencyEnforced, node: domain.driver!.nid ?? 0 };
}

/** Where the doorbell of interrupts is memory, the domain has to know where it is mapped. */
function makeCookie(type1: Type1, domain: IommuDomain, regions: readonly ReservedRegion[]): number {
  if (regions.some((region) => region.type === ReservedType.MSI)) return Errno.OK;
  // Of several the last one counts.
  const doorbell = regions.findLast((region) => region.type === ReservedType.SW_MSI);
  if (doorbell === undefined) return Errno.OK;
  if (!type1.allow(COOKIE_BYTES)) return Errno.ENOMEM;
  domain.cookie = { kind: "dma-msi", base: doorbell.start };
  return Errno.OK;
}

function fillDomain(type1: Type1, domain: IommuDomain): number {
  return type1.isFaulting ? Errno.OK : replayMappings(type1, domain);
}
