import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PFN_LAST } from "../units.ts";
import { IotlbGather } from "./gather.ts";

describe("IotlbGather", () => {
  it("starts empty, and is empty again after a reset that keeps the queued mark", () => {
    const gather = new IotlbGather();
    expect(gather.isEmpty).toBe(true);
    gather.queued = true;
    gather.addRange(5, 3);
    gather.pageShift = 12;
    expect([gather.isEmpty, gather.startPfn, gather.lastPfn]).toEqual([false, 5, 7]);
    gather.reset();
    expect([gather.isEmpty, gather.pageShift, gather.queued]).toEqual([true, 0, true]);
  });

  it("holds the first and the last frame, up to the end of the address space", () => {
    const gather = new IotlbGather();
    gather.addRange(PFN_LAST, 1);
    expect(gather.isEmpty).toBe(false);
    gather.addRange(0, 1);
    expect([gather.startPfn, gather.lastPfn]).toEqual([0, PFN_LAST]);
  });

  it("gives its tables out once", () => {
    const gather = new IotlbGather();
    expect(gather.takeTables()).toBe(null);
    gather.addTable(7);
    gather.addTable(9);
    expect(gather.takeTables()).toEqual([7, 9]);
    expect(gather.takeTables()).toBe(null);
  });

  it("spans what a plain minimum and maximum give, and tells gaps from neighbours", () => {
    const range = fc.tuple(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 1, max: 8 }));
    const property = fc.property(fc.array(range, { minLength: 1 }), range, (ranges, next) => {
      const gather = new IotlbGather();
      for (const [start, pages] of ranges) gather.addRange(start, pages);
      const frames = ranges.flatMap(([start, pages]) => [start, start + pages - 1]);
      const [first, last] = [Math.min(...frames), Math.max(...frames)];
      expect([gather.startPfn, gather.lastPfn]).toEqual([first, last]);
      const [start, pages] = next;
      const gap = start > last ? start - last - 1 : Math.max(first - (start + pages), 0);
      expect(gather.isDisjoint(start, pages)).toBe(gap > 0);
    });
    fc.assert(property, { seed: 20261121, numRuns: 300 });
    expect(new IotlbGather().isDisjoint(5, 1)).toBe(false);
  });
});
