import { describe, expect, it } from "vitest";
import { pinningTables } from "./pinning.ts";

describe("tables of pinning", () => {
  it.each(pinningTables.map((table) => [table.id, table] as const))(
    "%s: median error and order are within their targets, fitted rows within a percent",
    (_, table) => {
      const rows = table.run(() => {});
      expect(rows.filter(({ met }) => !met)).toEqual([]);
      for (const { role, error, name } of rows) {
        if (role === "fitted") expect(Math.abs(error!), name).toBeLessThan(0.01);
      }
    },
    120_000,
  );
});
