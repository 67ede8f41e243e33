/**
 * What the kernel's own work on an IOMMU's page table costs: calls, entries written, entries
 * cleared, tables made.
 *
 * Source: J. Gunthorpe, "Consolidate iommu page table implementations", 2025, kernel unit benchmark;
 * its figures are "new, old": of generic page tables, and of what kernels before Linux 6.19 run.
 */
import type { StepName } from "../../meter.ts";
import { OWN_CPU, type Price } from "../price-list.ts";

/** The series. */
export const tablesThread = "Consolidate iommu page table implementations, 2025";

/** A price for each unit of a step, paid on the caller's CPU. */
export function unitPrice(
  step: StepName,
  unitNs: number,
  source: string,
  fittedOn: string | null = null,
): Price {
  return { step, eachNs: 0, unitNs, remoteUnitNs: 0, on: OWN_CPU, source, fittedOn };
}

/** A price for each time a step is taken, paid on the caller's CPU. */
export function eachPrice(
  step: StepName,
  eachNs: number,
  source: string,
  fittedOn: string | null = null,
): Price {
  return { step, eachNs, unitNs: 0, remoteUnitNs: 0, on: OWN_CPU, source, fittedOn };
}

// Kernels before 6.19: one call for one leaf, and one call for 256.
const VTD_MAP_NS = 65;
const VTD_MAP_256_NS = 518;
const X86_UNMAP_NS = 71;
const X86_UNMAP_256_NS = 899;

/** Nanoseconds of one more leaf written by the same call. */
export const OLD_LEAF_NS = (VTD_MAP_256_NS - VTD_MAP_NS) / 255;
const OLD_CLEARED_NS = (X86_UNMAP_256_NS - X86_UNMAP_NS) / 255;

/** Mapping, in kernels before 6.19. */
export const oldMapPrices: readonly Price[] = [
  eachPrice("domainMap", VTD_MAP_NS - OLD_LEAF_NS, `${tablesThread}: VT-d, map, 2^12, old`),
  unitPrice("entryWrite", OLD_LEAF_NS, `${tablesThread}: VT-d, map, 256x2^12 less 2^12, old`),
];

/** Unmapping, in kernels before 6.19; of VT-d there is no figure. */
export const oldUnmapPrices: readonly Price[] = [
  eachPrice("domainUnmap", X86_UNMAP_NS - OLD_CLEARED_NS, `${tablesThread}: x86, unmap, 2^12, old`),
  unitPrice("entryWrite", OLD_CLEARED_NS, `${tablesThread}: x86, unmap, 256x2^12 less 2^12, old`),
];
