import { describe, expect, it } from "vitest";
import { pageTableTables } from "./page-table.ts";

const ORDER = "pairs in another order";

/** Tables with pairs whose order has no mechanism here, and the percentage of them at most. */
const disordered: Readonly<Record<string, number>> = { "page-table-x86": 3.1, "page-table-dma": 1 };

describe("tables of map and unmap", () => {
  it.each(pageTableTables.map((table) => [table.id, table] as const))(
    "%s: the median error is within its target, the order too or nearly so, fitted rows within a percent",
    (id, table) => {
      const rows = table.run(() => {});
      const most = disordered[id];
      const missed = rows.filter(({ met }) => !met).map(({ name }) => name);
      expect(missed).toEqual(most === undefined ? [] : [ORDER]);
      expect(rows.find(({ name }) => name === ORDER)!.ours).toBeLessThan(most ?? 0.01);
      for (const { role, error, name } of rows) {
        if (role === "fitted") expect(Math.abs(error!), name).toBeLessThan(0.01);
      }
    },
  );
});
