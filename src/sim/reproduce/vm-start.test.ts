import { describe, expect, it } from "vitest";
import { vmStartTables } from "./vm-start.ts";

describe("seed 5's table", () => {
  it("is within its targets but for the BAR of 16 GiB, whose machine is quicker by the page", () => {
    const rows = vmStartTables.flatMap((table) => table.run(() => {}));
    expect(rows.filter(({ met }) => !met).map(({ name }) => name)).toEqual(["16 GiB"]);
    for (const { error, name } of rows) expect(Math.abs(error!), name).toBeLessThan(0.3);
    expect(Math.abs(rows[0]!.error!)).toBeLessThan(0.001);
  }, 120_000);
});
