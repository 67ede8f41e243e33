/**
 * Where mappings of a container may lie (iova_list): what the apertures of its domains and the
 * reserved regions of its groups leave over.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c: struct vfio_iova, vfio_iommu_iova_dma_valid.
 */
import { assert } from "../../errors.ts";
import { PFN_LAST } from "../../units.ts";

/** A range of bytes, `last` inclusive. */
export interface IovaRange {
  readonly start: bigint;
  readonly last: bigint;
}

/** An ordered list of ranges that do not overlap; an empty one allows everything. */
export class AllowedRanges {
  readonly ranges: readonly IovaRange[];
  /** First and last whole frame of each range. */
  readonly #firstPfns: Float64Array;
  readonly #lastPfns: Float64Array;

  constructor(ranges: readonly IovaRange[] = []) {
    for (let index = 1; index < ranges.length; index += 1) {
      assert(ranges[index - 1]!.last < ranges[index]!.start, "ranges are sorted and apart");
    }
    this.ranges = ranges;
    this.#firstPfns = Float64Array.from(ranges, (range) => Number((range.start + 0xfffn) >> 12n));
    this.#lastPfns = Float64Array.from(ranges, (range) => Number((range.last + 1n) >> 12n) - 1);
  }

  /** Whether frames lie wholly inside one range. */
  contains(firstPfn: number, lastPfn: number): boolean {
    if (this.ranges.length === 0) return lastPfn <= PFN_LAST;
    for (let index = 0; index < this.ranges.length; index += 1) {
      if (firstPfn >= this.#firstPfns[index]! && lastPfn <= this.#lastPfns[index]!) return true;
    }
    return false;
  }
}
