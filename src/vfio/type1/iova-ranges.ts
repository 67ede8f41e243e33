/**
 * Arithmetic of the ranges that a container allows: clipped to apertures, with reserved regions cut
 * out. Lists are sorted and their ranges apart; every function leaves its arguments alone.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c: vfio_iommu_aper_conflict, vfio_iommu_aper_resize,
 * vfio_iommu_resv_exclude, vfio_iommu_aper_expand, vfio_iommu_resv_refresh.
 */
import type { IommuDomain } from "../../iommu/domain.ts";
import { type ReservedRegion, ReservedType } from "../../iommu/reserved-regions.ts";
import { ADDRESS_LAST, addressOf } from "../../units.ts";
import type { IovaRange } from "./allowed-ranges.ts";

/** What a domain can translate, in bytes. */
export function apertureOf(domain: IommuDomain): IovaRange {
  const { apertureStartPfn, apertureLastPfn } = domain.driver!;
  return { start: addressOf(apertureStartPfn), last: addressOf(apertureLastPfn, 0xfff) };
}

/**
 * Clips a list to an aperture; an empty list, which allows everything, becomes the aperture.
 *
 * As in the kernel, a range of which but one byte is left goes.
 */
export function clipRanges(ranges: readonly IovaRange[], aperture: IovaRange): IovaRange[] {
  if (ranges.length === 0) return [aperture];
  const { start, last } = aperture;
  return ranges
    .filter((range) => start < range.last && last > range.start)
    .map((range) => overlapOf(range, aperture));
}

/** What two ranges that overlap have in common. */
function overlapOf(a: IovaRange, b: IovaRange): IovaRange {
  return { start: (a.start > b.start ? a : b).start, last: (a.last < b.last ? a : b).last };
}

/** Cuts regions out of a list. Those that only count until a user comes stay in. */
export function excludeRegions(
  ranges: readonly IovaRange[],
  regions: readonly ReservedRegion[],
): IovaRange[] {
  let left = [...ranges];
  for (const region of regions) {
    if (region.type === ReservedType.DIRECT_RELAXABLE) continue;
    left = left.flatMap((range) => cut(range, region));
  }
  return left;
}

function cut(range: IovaRange, hole: IovaRange): IovaRange[] {
  if (hole.start > range.last || hole.last < range.start) return [range];
  const pieces: IovaRange[] = [];
  if (hole.start > range.start) pieces.push({ start: range.start, last: hole.start - 1n });
  if (hole.last < range.last) pieces.push({ start: hole.last + 1n, last: range.last });
  return pieces;
}

/** From the first to the last byte of a list that is not empty. */
export function spanOf(ranges: readonly IovaRange[]): IovaRange {
  return { start: ranges[0]!.start, last: ranges.at(-1)!.last };
}

/** What all apertures have in common; without any, everything. */
export function commonAperture(domains: readonly IommuDomain[]): IovaRange {
  return domains.map(apertureOf).reduce(overlapOf, { start: 0n, last: ADDRESS_LAST });
}
