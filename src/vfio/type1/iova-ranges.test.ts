import { describe, expect, it } from "vitest";
import { type ReservedRegion, ReservedType } from "../../iommu/reserved-regions.ts";
import { ADDRESS_LAST } from "../../units.ts";
import type { IovaRange } from "./allowed-ranges.ts";
import { clipRanges, commonAperture, excludeRegions, spanOf } from "./iova-ranges.ts";

const range = (start: bigint, last: bigint): IovaRange => ({ start, last });
const region = (start: bigint, last: bigint, type = ReservedType.RESERVED as number) =>
  ({ start, last, type, prot: 0 }) as ReservedRegion;
const all = range(0n, ADDRESS_LAST);

describe("clipping to an aperture", () => {
  it("makes the aperture of a list that allows everything", () => {
    expect(clipRanges([], range(0x1000n, 0xffffn))).toEqual([range(0x1000n, 0xffffn)]);
  });

  it("cuts the ends and drops what lies outside", () => {
    const list = [range(0n, 0xfffn), range(0x2000n, 0x5fffn), range(0x8000n, 0x9fffn)];
    expect(clipRanges(list, range(0x3000n, 0x8fffn))).toEqual([
      range(0x3000n, 0x5fffn),
      range(0x8000n, 0x8fffn),
    ]);
    expect(clipRanges(list, range(0xa000n, 0xffffn))).toEqual([]);
  });

  it("drops a range of which one byte would be left, as Linux does", () => {
    const list = [range(0n, 0x1000n), range(0x2000n, 0x3000n)];
    expect(clipRanges(list, range(0x1000n, 0x2000n))).toEqual([]);
  });

  it("holds at the end of 64 bits", () => {
    const high = range(2n ** 63n, ADDRESS_LAST);
    expect(clipRanges([all], high)).toEqual([high]);
    expect(spanOf([range(0n, 1n), high])).toEqual(all);
    expect(commonAperture([])).toEqual(all);
  });
});

describe("excluding regions", () => {
  it("cuts holes, at the ends and in the middle, and leaves relaxable ones in", () => {
    const list = [range(0n, 0xffffn)];
    expect(excludeRegions(list, [region(0n, 0xfffn), region(0xf000n, 0x1_ffffn)])).toEqual([
      range(0x1000n, 0xefffn),
    ]);
    const middle = excludeRegions(list, [region(0x4000n, 0x4fffn), region(0x5000n, 0x5fffn)]);
    expect(middle).toEqual([range(0n, 0x3fffn), range(0x6000n, 0xffffn)]);
    const relaxable = region(0n, 0xffffn, ReservedType.DIRECT_RELAXABLE);
    expect(excludeRegions(list, [relaxable])).toEqual(list);
  });

  it("leaves nothing of what a region covers, up to the last byte of 64 bits", () => {
    expect(excludeRegions([all], [region(0n, ADDRESS_LAST)])).toEqual([]);
    expect(excludeRegions([all], [region(2n ** 63n, ADDRESS_LAST)])).toEqual([
      range(0n, 2n ** 63n - 1n),
    ]);
    expect(excludeRegions([], [region(0n, 1n)])).toEqual([]);
  });

  it("leaves its arguments alone", () => {
    const list = Object.freeze([Object.freeze(range(0n, 0xffffn))]);
    excludeRegions(list, [region(0x1000n, 0x1fffn)]);
    clipRanges(list, range(0x1000n, 0x1fffn));
    expect(list).toEqual([range(0n, 0xffffn)]);
  });
});
