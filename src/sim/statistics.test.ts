import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Random } from "../random.ts";
import { bucketLast, bucketOf, Histogram } from "./histogram.ts";
import { steadyState, studentT975 } from "./steady-state.ts";

describe("histogram", () => {
  it("has buckets without gap or overlap, at most 1/64 wide", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }), (value) => {
        const bucket = bucketOf(value);
        expect(value).toBeLessThanOrEqual(bucketLast(bucket));
        if (bucket > 0) expect(value).toBeGreaterThan(bucketLast(bucket - 1));
        expect(bucketLast(bucket) - value).toBeLessThanOrEqual(value / 64);
      }),
    );
  });

  it("gives percentiles as a sorted list does, up to the width of a bucket", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 1e9 }), { minLength: 1, maxLength: 300 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (values, share) => {
          const histogram = new Histogram();
          for (const value of values) histogram.add(value);
          const sorted = [...values].sort((a, b) => a - b);
          const exact = sorted[Math.max(0, Math.ceil(share * values.length) - 1)]!;
          const got = histogram.percentile(share);
          expect(got).toBeGreaterThanOrEqual(exact);
          expect(got).toBeLessThanOrEqual(exact * (1 + 1 / 64));
          expect(histogram.mean).toBeCloseTo(values.reduce((a, b) => a + b, 0) / values.length, 3);
        },
      ),
    );
  });

  it("adds up: two halves merged are the whole", () => {
    const whole = new Histogram();
    const halves = [new Histogram(), new Histogram()] as const;
    const random = new Random(3);
    for (let index = 0; index < 1000; index += 1) {
      const value = random.below(1_000_000);
      whole.add(value);
      halves[index % 2]!.add(value);
    }
    halves[0].merge(halves[1]);
    const list = (histogram: Histogram) => {
      const rows: number[][] = [];
      histogram.forEach((last, count) => {
        rows.push([last, count]);
      });
      return [rows, histogram.count, histogram.mean, histogram.min, histogram.max];
    };
    expect(list(halves[0])).toEqual(list(whole));
  });

  it("is 0 throughout when empty", () => {
    const empty = new Histogram();
    expect([empty.count, empty.mean, empty.min, empty.max, empty.percentile(0.5)]).toEqual([
      0, 0, 0, 0, 0,
    ]);
  });
});

describe("steady state", () => {
  const noisy = (count: number, mean: (index: number) => number) => {
    const random = new Random(11);
    return Float64Array.from({ length: count }, (_, index) => mean(index) + random.below(21) - 10);
  };

  it("leaves the warm-up out and gives an interval that holds the mean", () => {
    const state = steadyState(noisy(1000, (index) => (index < 100 ? index * 5 : 500)));
    expect(state.kind).toBe("steady");
    if (state.kind !== "steady") return;
    expect(state.warmUp).toBeGreaterThanOrEqual(90);
    expect(state.warmUp).toBeLessThan(200);
    expect(Math.abs(state.mean - 500)).toBeLessThan(state.halfWidth95 * 1.5);
    expect(state.halfWidth95).toBeLessThan(1);
  });

  it("covers the true mean in about 95 of 100 series", () => {
    const random = new Random(5);
    let covered = 0;
    let judged = 0;
    for (let series = 0; series < 400; series += 1) {
      const state = steadyState(Float64Array.from({ length: 400 }, () => random.below(1001)));
      if (state.kind !== "steady") continue;
      judged += 1;
      if (Math.abs(state.mean - 500) <= state.halfWidth95) covered += 1;
    }
    expect(judged).toBeGreaterThan(340);
    expect(covered / judged).toBeGreaterThan(0.9);
    expect(covered / judged).toBeLessThan(0.99);
  });

  it("says so when a run keeps climbing, or is too short", () => {
    expect(steadyState(noisy(1000, (index) => index))).toMatchObject({
      kind: "unsettled",
      reason: "still-moving",
    });
    expect(steadyState(noisy(1000, (index) => (index < 700 ? 100 : 500)))).toMatchObject({
      kind: "unsettled",
    });
    expect(steadyState(new Float64Array(99))).toMatchObject({ reason: "too-short" });
  });

  it("takes a series without any noise as steady", () => {
    expect(steadyState(new Float64Array(200).fill(3))).toMatchObject({
      kind: "steady",
      mean: 3,
      halfWidth95: 0,
      warmUp: 0,
    });
  });

  it("knows Student's t: the tables' 2.571, 2.093 and 1.984", () => {
    expect(studentT975(5)).toBeCloseTo(2.571, 2);
    expect(studentT975(19)).toBeCloseTo(2.093, 3);
    expect(studentT975(100)).toBeCloseTo(1.984, 3);
  });
});
