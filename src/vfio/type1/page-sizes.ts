/**
 * The page sizes that all domains of a container can map.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c:vfio_update_pgsize_bitmap.
 */
import { ANY_PAGE_SIZE, type Type1Domain } from "./type1.ts";

/** A bit for each size; never none. */
export function commonPageSizes(domains: readonly Type1Domain[]): bigint {
  let common = ANY_PAGE_SIZE;
  let coarsest = 0n;
  for (const { domain } of domains) {
    const { pageShifts } = domain.driver!;
    common &= pageShifts.reduce((bits, shift) => bits | (1n << BigInt(shift)), 0n);
    const smallest = 1n << BigInt(pageShifts[0]!);
    if (smallest > coarsest) coarsest = smallest;
  }
  // With nothing in common the kernel's arithmetic is undefined. Multiples of the coarsest of the
  // smallest sizes can be mapped by every domain.
  return common === 0n ? coarsest : common;
}
