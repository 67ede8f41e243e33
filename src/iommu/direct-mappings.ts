/**
 * Maps the ranges that firmware needs mapped to themselves, before their device is attached.
 *
 * Source: drivers/iommu/iommu.c:iommu_create_device_direct_mappings.
 */
import { Errno } from "../errno.ts";
import { alignUp, PAGE_BYTES, PAGE_SHIFT, pfnOf } from "../units.ts";
import type { IommuDevice } from "./device.ts";
import type { IommuDomain } from "./domain.ts";
import { type ReservedRegion, ReservedType } from "./reserved-regions.ts";

/** Pages that one region may have: what firmware asks beyond 1 TiB is refused. */
const PAGES_MAX = 2 ** 28;

/**
 * Maps a device's direct regions into a domain, page by page where a page is not mapped yet, and
 * notes on the device when it can never do without.
 *
 * @returns an errno, 0 on success; only domains of the DMA API get mappings
 */
export function createDirectMappings(domain: IommuDomain, device: IommuDevice): number {
  const regions = device.ops?.reservedRegions(device) ?? [];
  for (const region of regions) {
    if (region.type === ReservedType.DIRECT) device.requireDirect = true;
    const isDirect =
      region.type === ReservedType.DIRECT || region.type === ReservedType.DIRECT_RELAXABLE;
    if (!isDirect || !domain.isDma) continue;
    const errno = mapRegion(domain, region);
    if (errno !== Errno.OK) return errno;
  }
  if (regions.length > 0 && domain.isDma) domain.flushIotlbAll();
  return Errno.OK;
}

function mapRegion(domain: IommuDomain, region: ReservedRegion): number {
  const pageShift = domain.driver?.pageShifts[0];
  if (pageShift === undefined) return Errno.EINVAL;
  const page = 2 ** (pageShift - PAGE_SHIFT);
  const startFrame = pfnOf(region.start) + (region.start % BigInt(PAGE_BYTES) === 0n ? 0 : 1);
  const endFrame = pfnOf(region.last) + 1;
  const start = alignUp(startFrame, page);
  const end = alignUp(endFrame, page);
  if (end - start > PAGES_MAX * page) return Errno.ERANGE;
  let unmapped = 0;
  for (let pfn = start; pfn <= end; pfn += page) {
    // The kernel tells "not mapped" by physical address 0, so page 0 always counts as not mapped.
    if (pfn < end && domain.iovaToPhys(pfn) <= 0) {
      unmapped += page;
      continue;
    }
    if (unmapped === 0) continue;
    const errno = domain.map(pfn - unmapped, pfn - unmapped, unmapped, region.prot);
    if (errno !== Errno.OK) return errno;
    unmapped = 0;
  }
  return Errno.OK;
}
