import { describe, expect, it } from "vitest";
import { pcieBenchTables } from "./pcie-bench.ts";

describe("pcie-bench's tables", () => {
  it.each(pcieBenchTables.map((table) => [table.id, table] as const))(
    "%s: latencies within 1 %, throughput within 8 %",
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
