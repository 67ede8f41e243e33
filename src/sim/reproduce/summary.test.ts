import { describe, expect, it } from "vitest";
import { compareTable, type TableRow } from "./summary.ts";

const rows: readonly TableRow[] = [
  { name: "a", published: 10, role: "fitted" },
  { name: "b", published: 20, role: "predicted" },
  { name: "c", published: 30, role: "predicted" },
  { name: "d", published: 30, role: "predicted" },
];

function summaryOf(ours: readonly number[]) {
  const [median, order] = compareTable({ unit: "s", resolution: 1 }, rows, ours).slice(rows.length);
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

  it("asks for no order of values that were rounded to neighbours", () => {
    const near = rows.map((row, index) => ({ ...row, published: 10 + index }));
    const ours = [11, 10, 13, 12];
    const orderAt = (resolution: number) =>
      compareTable({ unit: "s", resolution }, near, ours).at(-1)!.ours;
    expect(orderAt(1)).toBe(0);
    expect(orderAt(0.1)).toBeCloseTo(100 / 3);
  });
});
