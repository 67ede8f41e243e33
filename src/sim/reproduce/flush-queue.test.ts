import { describe, expect, it } from "vitest";
import { flushQueueTables } from "./flush-queue.ts";

describe("seed 2's tables", () => {
  it.each(flushQueueTables.map((table) => [table.id, table] as const))(
    "%s: every prediction is within its target, every fitted row within two points or percent",
    (_, table) => {
      const rows = table.run(() => {});
      expect(rows.filter(({ met }) => !met)).toEqual([]);
      for (const { error, errorKind, name } of rows) {
        expect(Math.abs(error!), name).toBeLessThan(errorKind === "points" ? 2 : 0.02);
      }
    },
    120_000,
  );
});
