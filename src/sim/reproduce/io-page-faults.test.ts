import { describe, expect, it } from "vitest";
import { ioPageFaultTables } from "./io-page-faults.ts";

describe("seed 3's tables", () => {
  it("give the slow-downs within two points", () => {
    const rows = ioPageFaultTables[0]!.run(() => {});
    expect(rows).toHaveLength(9);
    expect(rows.filter(({ met }) => !met)).toEqual([]);
    for (const { role, error, name } of rows) {
      if (role === "fitted") expect(Math.abs(error!), name).toBeLessThan(0.1);
    }
  }, 120_000);

  it("give the counts: exactly where buffers explain them, within 4 % elsewhere", () => {
    const rows = ioPageFaultTables[1]!.run(() => {});
    expect(rows.filter(({ met }) => !met)).toEqual([]);
    expect(rows.map(({ ours }) => ours)).toEqual([512, 1024, 1024, 518, 1036, 1036, 13, 26, 26]);
  });
});
