import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { SmallHistogram } from "./histogram.ts";

describe("SmallHistogram", () => {
  it("gives the percentiles of the sorted list", () => {
    const values = fc.array(fc.nat({ max: 5000 }), { minLength: 1, maxLength: 200 });
    fc.assert(
      fc.property(values, fc.integer({ min: 1, max: 100 }), (list, percent) => {
        const histogram = new SmallHistogram();
        for (const value of list) histogram.add(value);
        const sorted = list.toSorted((a, b) => a - b);
        const rank = Math.max(1, Math.ceil((list.length * percent) / 100));
        expect(histogram.percentile(percent)).toBe(sorted[rank - 1]);
        expect(histogram.max).toBe(sorted.at(-1));
        expect(histogram.mean).toBe(list.reduce((sum, value) => sum + value, 0) / list.length);
      }),
      { seed: 3, numRuns: 200 },
    );
  });

  it("has no mean, maximum or percentile without values", () => {
    const histogram = new SmallHistogram();
    expect([histogram.mean, histogram.max, histogram.percentile(50)]).toEqual([null, null, null]);
  });

  it("keeps sum and maximum of values beyond its range", () => {
    const histogram = new SmallHistogram();
    histogram.add(1e9);
    expect([histogram.max, histogram.mean, histogram.percentile(50)]).toEqual([1e9, 1e9, 65_536]);
  });
});
