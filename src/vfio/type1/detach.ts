/**
 * A group leaves a type1 container: its domain goes with the last group on it, the mappings with
 * the last group at all. Domains are never merged afterwards, whatever is left.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c: vfio_iommu_type1_detach_group,
 * vfio_iommu_unmap_unpin_all, vfio_iommu_unmap_unpin_reaccount.
 */
import { assert } from "../../errors.ts";
import * as core from "../../iommu/attach.ts";
import type { IommuGroup } from "../../iommu/group.ts";
import { AllowedRanges, type IovaRange } from "./allowed-ranges.ts";
import { markDirty } from "./dirty.ts";
import { clipRanges, commonAperture, excludeRegions, spanOf } from "./iova-ranges.ts";
import { commonPageSizes } from "./page-sizes.ts";
import type { Type1, Type1Domain, Type1Group } from "./type1.ts";
import { removeMapping, unmapUnpin } from "./unmap-unpin.ts";

/** Takes a group out; it cannot fail. The group is blocked then, as long as it has an owner. */
export function detachGroup(type1: Type1, group: IommuGroup): void {
  const member = leaveEmulated(type1, group) ?? leaveDomain(type1, group);
  assert(member !== null, "a group that leaves is in the container");
  if (member.isPinnedScope) return;
  type1.nonPinnedGroups -= 1;
  if (!type1.isTrackingDirty) return;
  // What the group wrote is not known any more, so all of it may be written.
  for (const mapping of type1.mappings) markDirty(type1, mapping, 0, mapping.pages);
}

/** Removes every mapping. */
export function removeAllMappings(type1: Type1): void {
  for (const mapping of type1.mappings) removeMapping(type1, mapping);
}

function leaveEmulated(type1: Type1, group: IommuGroup): Type1Group | null {
  const member = takeOut(type1.emulatedGroups, group);
  if (member === null) return null;
  if (type1.emulatedGroups.length === 0 && type1.domains.length === 0) removeAllMappings(type1);
  return member;
}

function leaveDomain(type1: Type1, group: IommuGroup): Type1Group | null {
  const { domains } = type1;
  for (const [index, domain] of domains.entries()) {
    const member = domain.groups.find((each) => each.group === group);
    if (member === undefined) continue;
    if (type1.isFaulting) type1.faulting!.groupDetached(domain, member);
    core.detachGroup(group);
    takeOut(domain.groups, group);
    const isGone = domain.groups.length === 0;
    if (isGone) {
      if (domains.length === 1) emptyLast(type1);
      domains.splice(index, 1);
      group.freeDomain(domain.domain);
      type1.pageSizes = commonPageSizes(domains);
    }
    widen(type1, isGone);
    return member;
  }
  return null;
}

/** The last domain goes: so do the mappings, unless mediated devices go on using them. */
function emptyLast(type1: Type1): void {
  if (type1.emulatedGroups.length === 0) {
    removeAllMappings(type1);
    return;
  }
  // What faults mapped goes with the domain; nothing of it is pinned.
  if (type1.isFaulting) return;
  for (const mapping of type1.mappings) unmapUnpin(type1, mapping);
}

/**
 * Works out anew what may be mapped. The ends move only when a domain went, so that after the
 * departure of a group that shared its domain, a region at an end of the span stays forbidden.
 */
function widen(type1: Type1, isDomainGone: boolean): void {
  const { ranges } = type1.allowed;
  if (ranges.length === 0) return;
  const { domains } = type1;
  const span: IovaRange = isDomainGone
    ? commonAperture(domains.map((each) => each.domain))
    : spanOf(ranges);
  const regions = domains.flatMap(regionsOf);
  const left = excludeRegions(clipRanges([], span), regions);
  // As in the kernel, a result that allows nothing is thrown away.
  if (left.length > 0) type1.allowed = new AllowedRanges(left);
}

function regionsOf(domain: Type1Domain) {
  return domain.groups.flatMap((member) => member.group.reservedRegions());
}

function takeOut(members: Type1Group[], group: IommuGroup): Type1Group | null {
  const index = members.findIndex((member) => member.group === group);
  return index < 0 ? null : members.splice(index, 1)[0]!;
}
