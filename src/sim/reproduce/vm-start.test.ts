import { describe, expect, it } from "vitest";
import { vmStartTables } from "./vm-start.ts";

describe("seed 5's table", () => {
  it("is within its targets: a fitted time by the page, a chosen one, two predicted", () => {
    const rows = vmStartTables.flatMap((table) => table.run(() => {}));
    expect(rows.map(({ role }) => role)).toEqual(["fitted", "fitted", "predicted", "predicted"]);
    expect(rows.filter(({ met }) => !met)).toEqual([]);
    expect(Math.abs(rows[0]!.error!)).toBeLessThan(0.001);
  }, 120_000);
});
