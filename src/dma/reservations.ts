/**
 * What is taken out of an IOVA space before the first mapping: the windows of the PCI host bridge,
 * gaps between the ranges that it lets DMA through, and what the IOMMU reserves.
 *
 * Source: drivers/iommu/dma-iommu.c: iova_reserve_pci_windows, iova_reserve_iommu_regions.
 */
import { Errno } from "../errno.ts";
import { type ReservedRegion, ReservedType } from "../iommu/reserved-regions.ts";
import { ADDRESS_LAST, PAGE_SHIFT, pfnOf } from "../units.ts";
import type { IovaDomain } from "./iova-domain.ts";

/** A range of bytes on the bus. */
export interface BusRange {
  readonly start: bigint;
  /** Inclusive. */
  readonly last: bigint;
}

/** What is reserved for the first device of a space. */
export interface Reservations {
  /** Memory windows of the host bridge; none for a device that is not on PCI. */
  readonly windows?: readonly BusRange[];
  /** Ranges that the host bridge lets DMA through; empty when firmware names none. */
  readonly dmaRanges?: readonly BusRange[];
  readonly regions?: readonly ReservedRegion[];
}

/**
 * Reserves it all, except where software itself maps the interrupt doorbell.
 *
 * @returns EINVAL when ranges for DMA overlap, else 0
 */
export function reserveIovas(domain: IovaDomain, reservations: Reservations): number {
  for (const { start, last } of reservations.windows ?? []) reserve(domain, start, last);
  const errno = reserveGaps(domain, reservations.dmaRanges ?? []);
  if (errno !== Errno.OK) return errno;
  for (const { type, start, last } of reservations.regions ?? []) {
    if (type !== ReservedType.SW_MSI) reserve(domain, start, last);
  }
  return Errno.OK;
}

/** A gap is reserved with the first page of the range above it, as Linux has it. */
function reserveGaps(domain: IovaDomain, ranges: readonly BusRange[]): number {
  const sorted = [...ranges].sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  let start = 0n;
  for (const range of sorted) {
    if (range.start < start) return Errno.EINVAL;
    if (range.start > start) reserve(domain, start, range.start);
    start = range.last + 1n;
  }
  if (sorted.length > 0 && start < ADDRESS_LAST) reserve(domain, start, ADDRESS_LAST);
  return Errno.OK;
}

function reserve(domain: IovaDomain, start: bigint, last: bigint): void {
  const frames = 2 ** (domain.granuleShift - PAGE_SHIFT);
  domain.reserve(Math.floor(pfnOf(start) / frames), Math.floor(pfnOf(last) / frames));
}
