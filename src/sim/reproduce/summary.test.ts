import { describe, expect, it } from "vitest";
import { compareTable, type TableRow } from "./summary.ts";

const rows: readonly TableRow[] = [
  { name: "a", published: 10, role: "fitted" },
  { name: "b", published: 20, role: "predicted" },
  { name: "c", published: 30, role: "predicted" },
  { name: "d", published: 30, role: "predicted" },
];

function summaryOf(ours: readonly number[]) {
  const [median, order] = compareTable("s", rows, ours).slice(rows.length);
  return { median: median!, order: order! };
}

describe("a table as a whole", () => {
  it("has the median error of its predictions, whatever the fitted rows are off", () => {
    const { median } = summaryOf([5, 22, 30, 36]);
    expect(median.ours).toBeCloseTo(10);
    expect(median.met).toBe(true);
  });

  it("misses a median above 15 %", () => {
    expect(summaryOf([10, 24, 36, 36]).median.met).toBe(false);
  });

  it("counts pairs that are turned round or fall together, and none that were published equal", () => {
    expect(summaryOf([10, 20, 30, 31]).order).toMatchObject({ ours: 0, met: true });
    const turned = summaryOf([10, 31, 30, 32]).order;
    expect(turned.ours).toBeCloseTo(20);
    expect(turned.met).toBe(false);
    expect(summaryOf([10, 30, 30, 32]).order.ours).toBeCloseTo(20);
  });
});
