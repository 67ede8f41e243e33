/**
 * Which page size a driver is asked to map with next, and how often in a row.
 *
 * Source: drivers/iommu/iommu.c:iommu_pgsize. Addresses and sizes are in 4 KiB frames here, page
 * sizes are log2 of bytes.
 */
import { log2Floor, modulo, PAGE_SHIFT, powerOfTwo, trailingZeros } from "../units.ts";

/**
 * Picks the largest page that alignment and length allow, and how many of it make one run: small
 * pages stop early only where at least one whole page of the next supported size will follow.
 *
 * @param pageShifts - supported page sizes, log2 of bytes, ascending
 * @param iovaPfn - first frame of the I/O virtual range
 * @param physPfn - first frame of the physical range
 * @param pages - length in 4 KiB frames, at least 1
 * @param out - receives the run
 * @returns false when no supported size fits
 */
export function choosePageRun(
  pageShifts: readonly number[],
  iovaPfn: number,
  physPfn: number,
  pages: number,
  out: PageRun,
): boolean {
  const alignment = Math.min(trailingZeros(iovaPfn), trailingZeros(physPfn));
  const orderMax = Math.min(alignment, log2Floor(pages));
  // Sizes differ, so the size at an index is at least 2^index times the smallest.
  let index = Math.min(pageShifts.length - 1, orderMax);
  while (index >= 0 && pageShifts[index]! - PAGE_SHIFT > orderMax) index -= 1;
  if (index < 0) return false;
  const pageShift = pageShifts[index]!;
  const pageFrames = powerOfTwo(pageShift - PAGE_SHIFT);
  out.pageShift = pageShift;
  out.count = Math.floor(pages / pageFrames);
  if (index + 1 === pageShifts.length) return true;

  const nextFrames = powerOfTwo(pageShifts[index + 1]! - PAGE_SHIFT);
  const iovaInNext = modulo(iovaPfn, nextFrames);
  if (iovaInNext !== modulo(physPfn, nextFrames)) return true;
  const toBoundary = nextFrames - iovaInNext;
  if (toBoundary + nextFrames <= pages) out.count = toBoundary / pageFrames;
  return true;
}

/** A run of equal pages. */
export interface PageRun {
  /** log2 of the page size in bytes. */
  pageShift: number;
  /** How many pages of that size. */
  count: number;
}
