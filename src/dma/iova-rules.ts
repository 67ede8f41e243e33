/**
 * The rules of the IOVA allocator that can be broken on purpose, with Linux's as the default.
 *
 * A test that switches one of them off shows that a recording can tell the difference.
 * Source: drivers/iommu/iova.c: IOVA_MAG_SIZE, IOVA_RANGE_CACHE_MAX_SIZE, IOVA_DEPOT_DELAY,
 * iova_rcache_range.
 */

import { PAGE_BYTES } from "../units.ts";

/** Size classes of the caches: 1, 2, 4, 8, 16 and 32 pages. */
export const CACHED_ORDERS = 6;
/** Sizes below this many pages are rounded up to a power of two. */
export const ROUNDED_PAGES = 1 << (CACHED_ORDERS - 1);
/** Bytes of the largest mapping that the caches serve: dma_opt_mapping_size. */
export const OPTIMAL_MAPPING_BYTES = ROUNDED_PAGES * PAGE_BYTES;
/** Time between a magazine's arrival in the depot and the work that trims it. */
export const DEPOT_DELAY_MS = 100;

/** How an allocator behaves. */
export interface IovaRules {
  /** Page numbers that one magazine holds. */
  readonly magazineSize: number;
  /** Reuse the oldest number of a magazine instead of the newest. */
  readonly fifo: boolean;
  /** No magazines and no depot: everything goes through the tree. */
  readonly noCache: boolean;
  /** Starts are not aligned to the size. */
  readonly noAlignment: boolean;
  /** Searches of the tree start at the top instead of the cached node. */
  readonly searchFromTop: boolean;
  /** Every CPU uses the magazines of CPU 0. */
  readonly oneCacheForAllCpus: boolean;
}

/** Linux 7.2. */
export const LINUX_IOVA_RULES: IovaRules = {
  magazineSize: 127,
  fifo: false,
  noCache: false,
  noAlignment: false,
  searchFromTop: false,
  oneCacheForAllCpus: false,
};
