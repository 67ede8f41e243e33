/**
 * Pinning by a driver that knows where its device will write: faults of the device's group are
 * served there and nowhere else.
 *
 * Source: RFC v3 of 2021, patch 7 of 8 (marked untested): vfio_pin_pages fills the group's ranges.
 */
import { Errno } from "../../errno.ts";
import { pinPages, unpinPages } from "../type1/external-pins.ts";
import type { Type1, Type1Group } from "../type1/type1.ts";
import type { Type1Faulting } from "./type1-faulting.ts";

/** Pins pages, and has the group fault only where it has pinned. @returns as `pinPages` */
export function pinForFaults(
  type1: Type1,
  faulting: Type1Faulting,
  member: Type1Group,
  iovaPfn: number,
  pages: number,
  prot: number,
  out: Float64Array,
): number {
  const errno = pinPages(type1, member, iovaPfn, pages, prot, out);
  if (errno === Errno.OK) faulting.pagesPinned(member, iovaPfn, pages);
  return errno;
}

/** Ends {@link pinForFaults} for pages pinned by one call. @returns as `unpinPages` */
export function unpinForFaults(
  type1: Type1,
  faulting: Type1Faulting,
  member: Type1Group,
  iovaPfn: number,
  pages: number,
): number {
  faulting.pagesUnpinned(member, iovaPfn, pages);
  return unpinPages(type1, iovaPfn, pages);
}
