import { describe, expect, it } from "vitest";
import { pageTableTables } from "./page-table.ts";

const ORDER = "pairs in another order";
const MEDIAN = "median error of predictions";

describe("tables of map and unmap", () => {
  it.each(pageTableTables.map((table) => [table.id, table] as const))(
    "%s: the median error is within its target, the order nearly so, fitted rows within a percent",
    (_, table) => {
      const rows = table.run(() => {});
      expect(rows.find(({ name }) => name === MEDIAN)!.met).toBe(true);
      expect(rows.filter(({ met }) => !met).map(({ name }) => name)).toEqual([ORDER]);
      expect(rows.find(({ name }) => name === ORDER)!.ours).toBeLessThan(14);
      for (const { role, error, name } of rows) {
        if (role === "fitted") expect(Math.abs(error!), name).toBeLessThan(0.01);
      }
    },
  );
});
