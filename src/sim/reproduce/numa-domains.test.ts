import { describe, expect, it } from "vitest";
import { numaDomainTables } from "./numa-domains.ts";

describe("seed 1's tables", () => {
  it.each(numaDomainTables.map((table) => [table.id, table] as const))(
    "%s: both nodes before within 7 %, everything after within 3 %",
    (_, table) => {
      const rows = table.run(() => {});
      expect(rows.filter(({ met }) => !met)).toEqual([]);
      for (const { role, error, name } of rows) {
        if (role === "fitted") expect(Math.abs(error!), name).toBeLessThan(0.01);
      }
    },
    60_000,
  );
});
