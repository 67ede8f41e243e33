/**
 * What the kernel's own work on an IOMMU's page table costs: calls, entries written, entries
 * cleared, tables made.
 *
 * Source: J. Gunthorpe, "Consolidate iommu page table implementations", 2025, kernel unit benchmark;
 * its figures are "new, old": of generic page tables, and of what kernels before Linux 6.19 run.
 */
import type { StepName } from "../../meter.ts";
import { OWN_CPU, type Price, PriceList } from "../price-list.ts";
import { IOVA_TREE_NS, iovaPrices } from "./iova-prices.ts";

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
const X86_OLD_MAP_NS = 61;
const X86_OLD_MAP_256_NS = 1360;
/** The same where each leaf is a walk from the top: 256 leaves of the x86 format, old. */
export const OLD_WALKED_LEAF_NS = (X86_OLD_MAP_256_NS - X86_OLD_MAP_NS) / 255;

/** Mapping, in kernels before 6.19. */
export const oldMapPrices: readonly Price[] = [
  eachPrice("domainMap", VTD_MAP_NS - OLD_LEAF_NS, `${tablesThread}: VT-d, map, 2^12, old`),
  unitPrice("entryWrite", OLD_LEAF_NS, `${tablesThread}: VT-d, map, 256x2^12 less 2^12, old`),
];

/** An unmap also gathers what is to be invalidated: before 6.19 it was 10 ns longer than a map. */
const GATHER_NS = X86_UNMAP_NS - X86_OLD_MAP_NS;

/**
 * Unmapping by type1, in kernels before 6.19: it has one gathering for many calls
 * (iommu_unmap_fast). Of VT-d there is no figure.
 */
export const oldUnmapPrices: readonly Price[] = [
  eachPrice(
    "domainUnmap",
    X86_UNMAP_NS - GATHER_NS - OLD_CLEARED_NS,
    `${tablesThread}: x86, unmap, 2^12, old, less what it is longer than map`,
  ),
  unitPrice("entryWrite", OLD_CLEARED_NS, `${tablesThread}: x86, unmap, 256x2^12 less 2^12, old`),
];

// Generic page tables, which Linux has from 6.19 on: the row "x86 64-bit, map".
const X86_MAP_NS = 71;
const X86_MAP_1_GIB_NS = 59;
const X86_MAP_256_NS = 392;
const LEVEL_NS = (X86_MAP_NS - X86_MAP_1_GIB_NS) / 2;
const LEAF_NS = (X86_MAP_256_NS - X86_MAP_NS) / 255;
const CALL_NS = X86_MAP_NS - 4 * LEVEL_NS - LEAF_NS;

/** Bytes a nanosecond of clear_page on a Milan, in steps of 4 KiB. */
const CLEAR_RATE = 13.7;
const ENTRY_BYTES = 8;

const MAP_ROW = "x86 64-bit, map: 2^12, 2^30, 256x2^12";
const levelPrice = unitPrice("entryRead", LEVEL_NS, `${tablesThread}: by level`, MAP_ROW);
const leafPrice = unitPrice("entryWrite", LEAF_NS, `${tablesThread}: by leaf`, MAP_ROW);

/** Calls of generic page tables, x86 64-bit. */
export const genericTablePrices = {
  map: new PriceList([
    levelPrice,
    eachPrice("domainMap", CALL_NS, `${tablesThread}: a call of iommu_map`, MAP_ROW),
    leafPrice,
  ]),
  unmap: new PriceList([
    levelPrice,
    eachPrice(
      "domainUnmap",
      CALL_NS + GATHER_NS,
      `${tablesThread}: a call of iommu_map, and what unmap less map is in the old x86 format`,
    ),
    unitPrice(
      "entryWrite",
      ENTRY_BYTES / CLEAR_RATE,
      "introduce clear_pages(): 13.7 GB/s on Milan",
    ),
  ]),
};

const VTD_NEW_MAP_NS = 55;
const VTD_LEVELS = 4;

/** The same of VT-d's second stage: the call is its own, levels and leaves are those of x86. */
export const genericVtdPrices = {
  map: genericTablePrices.map.with([
    eachPrice(
      "domainMap",
      VTD_NEW_MAP_NS - VTD_LEVELS * LEVEL_NS - LEAF_NS,
      `${tablesThread}: a call of iommu_map`,
      "VT-d, map: 2^12",
    ),
  ]),
  unmap: genericTablePrices.unmap,
};

// SMMUv2 of 2021: the column of 2 MiB.
const SG_MAP_NS = 305_864;
const SG_UNMAP_NS = 67_291;
const SG_LEAVES = 512;

const sgThread = "20210609145315.25750-1: iommu_map_sg and iommu_unmap on SM8150";
const sgLeaf = unitPrice(
  "entryWrite",
  SG_MAP_NS / SG_LEAVES,
  `${sgThread}: a call of the driver for each leaf`,
  "2 MiB: iommu_map_sg",
);

/**
 * An SMMUv2 whose driver is called for each leaf, and told to invalidate by 4 KiB. How much less than
 * to write a leaf it is to clear one does not show at 2 MiB, where all go at once with their table.
 */
export const smmuV2Prices = {
  map: new PriceList([sgLeaf]),
  unmap: new PriceList([
    unitPrice(
      "entryWrite",
      ((SG_MAP_NS / SG_LEAVES) * OLD_CLEARED_NS) / OLD_WALKED_LEAF_NS,
      `${sgThread}, less as ${tablesThread}, x86, old: clearing against writing, a walk each`,
      "2 MiB: iommu_map_sg",
    ),
    unitPrice(
      "invalidateRange",
      SG_UNMAP_NS / SG_LEAVES,
      `${sgThread}: an invalidation for each 4 KiB`,
      "2 MiB: iommu_unmap",
    ),
  ]),
};

// SMMUv3 of 2021: the column of 64 pages, which are more than a magazine holds.
const DMA_MAP_NS = 3700;
const DMA_UNMAP_NS = 14_800;
const DMA_PAGES = 64;
/** Waiting for CMD_SYNC, one thread, on a Kunpeng 920. */
const SYNC_NS = 883;

const dmaThread = "edfff22f-251d-e07d-fdbc-0eb00c821f15: dma_map_benchmark on SMMUv3";

/** An SMMUv3 that is told to invalidate by the page. */
export const smmuV3Prices = {
  map: new PriceList([
    ...iovaPrices,
    unitPrice(
      "entryWrite",
      (DMA_MAP_NS - IOVA_TREE_NS) / DMA_PAGES,
      `${dmaThread}: by leaf`,
      "64 pages: map",
    ),
  ]),
  unmap: new PriceList([
    ...iovaPrices,
    eachPrice("invalidateWait", SYNC_NS, "B926444035E5E2439431908E3842AFD24B86DB: Kunpeng 920"),
    unitPrice(
      "entryWrite",
      (DMA_UNMAP_NS - SYNC_NS - IOVA_TREE_NS) / DMA_PAGES,
      `${dmaThread}: a leaf cleared, and the command that invalidates it`,
      "64 pages: unmap",
    ),
  ]),
};
