import { describe, expect, it } from "vitest";
import { vtdSecondStage } from "../../iommu/formats/vtd-second-stage.ts";
import { genericTablePrices } from "../profiles/kernel-tables.ts";
import { TimedDomain } from "./table-operations.ts";

const GIB = 2 ** 18;

function time(pages: number, pfn = 4 * GIB) {
  const format = vtdSecondStage({ levels: 4 });
  const domain = new TimedDomain({ format, prices: genericTablePrices, selective: null });
  domain.mapAndUnmap(8 * GIB, [{ pfn, pages }]);
  return domain.mapAndUnmap(8 * GIB, [{ pfn, pages }]);
}

describe("a call of map or unmap", () => {
  it("takes the same for the same leaves, and longer for more of them", () => {
    expect(time(64)).toEqual(time(64));
    expect(time(64).map).toBeGreaterThan(time(8).map);
    expect(time(64).unmap).toBeGreaterThan(time(8).unmap);
  });

  it("of 1 GiB is shorter by one leaf than by leaves of 4 KiB", () => {
    const aligned = time(GIB);
    const off = time(GIB, 4 * GIB + 1);
    expect(off.map).toBeGreaterThan(1000 * aligned.map);
    expect(off.unmap).toBeGreaterThan(1000 * aligned.unmap);
  });
});
