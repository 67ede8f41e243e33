import { describe, expect, it } from "vitest";
import { nvmeServerTables } from "./nvme-server.ts";

describe("tables of an NVMe disk behind VT-d", () => {
  it.each(nvmeServerTables.map((table) => [table.id, table] as const))(
    "%s: all within 7 %, and in their order unless strict costs reads what we do not have",
    (id, table) => {
      const rows = table.run(() => {});
      const missed = rows.filter(({ met }) => !met).map(({ name }) => name);
      expect(missed).toEqual(id === "nvme-server-1" ? ["pairs in another order"] : []);
      for (const { role, error, name } of rows.slice(0, -2)) {
        expect(Math.abs(error!), name).toBeLessThan(role === "fitted" ? 0.001 : 0.07);
      }
    },
    60_000,
  );
});
