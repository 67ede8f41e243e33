/**
 * How an IOMMU can be told to forget a range, and what that makes of the range asked for.
 *
 * A VT-d unit takes aligned power-of-two blocks up to a size, so ranges are widened, and what is
 * too wide becomes a domain-selective invalidation. An Arm SMMU takes one page a command, or with
 * range invalidation a range.
 *
 * Source: drivers/iommu/intel/cache.c: calculate_psi_aligned_address, qi_batch_add_iotlb via
 * cache_tag_flush_iotlb; drivers/iommu/amd/iommu.c:build_inv_address;
 * drivers/iommu/arm/arm-smmu-v3: __arm_smmu_tlb_inv_range.
 */
import { alignDown, log2Ceil } from "../units.ts";

/** What page-selective invalidations a unit offers. */
export type SelectiveInvalidation =
  /** Aligned blocks of at most 2^maskMax frames (VT-d: MAMV; AMD: 51). */
  | { readonly kind: "mask"; readonly maskMax: number }
  /** One page of `2^pageShift` bytes a command, up to a number of commands in a row. */
  | { readonly kind: "pages"; readonly pageShift: number; readonly commandsMax: number }
  /** Exact ranges of any length, one command each. */
  | { readonly kind: "range" }
  /** None: every invalidation is of a whole domain. */
  | { readonly kind: "none" };

/** Mask that covers all 2^52 frames. */
export const MASK_ALL = 52;

/**
 * The order of the smallest aligned power-of-two block that holds a range of frames.
 *
 * @returns log2 of its length in frames, 0 … 52
 * @example
 * blockMask(0x1001, 0x1001); // 0
 * blockMask(0x0fff, 0x1000); // 13: 0x0000 … 0x1fff
 */
export function blockMask(firstPfn: number, lastPfn: number): number {
  if (firstPfn === lastPfn) return 0;
  let mask = log2Ceil(lastPfn - firstPfn + 1);
  while (mask < MASK_ALL && alignDown(firstPfn, 2 ** mask) !== alignDown(lastPfn, 2 ** mask)) {
    mask += 1;
  }
  return mask;
}
