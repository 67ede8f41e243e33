import { describe, expect, it } from "vitest";
import type { IovaRules } from "./iova-rules.ts";
import { freeRun, inferOrder, readCalls } from "./recorded-boot.suite.ts";

const file = new URL("../../examples/boot-strict-1cpu.txt.gz", import.meta.url);

describe("a recorded boot, strict, one CPU", () => {
  const calls = readCalls(file);

  it("the first 400 calls give the recorded addresses, never corrected", () => {
    const { order } = inferOrder(calls.slice(0, 400));
    const allocations = order.filter(({ kind }) => kind === "alloc");
    expect(allocations.length).toBeGreaterThan(150);
    expect(freeRun(order)).toBe(allocations.length);
  });

  const { order, moves } = inferOrder(calls);
  const allocations = order.filter(({ kind }) => kind === "alloc").length;

  it("the whole recording gives all of its addresses, with few allocations moved", () => {
    expect(allocations).toBe(4613);
    expect(freeRun(order)).toBe(allocations);
    expect(moves / allocations).toBeLessThan(0.03);
  });

  it.each([
    ["first in, first out", { fifo: true }],
    ["no cache", { noCache: true }],
    ["no alignment", { noAlignment: true }],
    ["search from the top", { searchFromTop: true }],
    ["magazines of 8", { magazineSize: 8 }],
  ] as [string, Partial<IovaRules>][])(
    "with %s less than three quarters of them come out",
    (_, rules) => {
      expect(freeRun(order, rules)).toBeLessThan(allocations * 0.75);
    },
  );
});
