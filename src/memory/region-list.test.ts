import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { GuestRegion, SparseBudget } from "./guest-region.ts";
import { RegionList } from "./region-list.ts";

const budget = new SparseBudget(0);
const region = (start: number, bytes: number) => new GuestRegion({ start, bytes }, budget);
const starts = (list: RegionList) => list.all().map((each) => each.start);

describe("a list of regions", () => {
  it("finds a region by each of its bytes and by none beside", () => {
    const list = new RegionList();
    expect(list.find(0)).toBe(null);
    list.insert(region(0x1000, 0x1000));
    expect(list.find(0xfff)).toBe(null);
    expect(list.find(0x1000)?.start).toBe(0x1000);
    expect(list.find(0x1fff)?.start).toBe(0x1000);
    expect(list.find(0x2000)).toBe(null);
    expect(list.find(Number.NaN)).toBe(null);
  });

  it("keeps the order of 5000 regions that come from above, from below and in between", () => {
    const list = new RegionList();
    for (let index = 0; index < 5000; index += 1) {
      const at = ((index * 2654435761) % 5003) * 16;
      expect(list.insert(region(at, 16))).toBe(true);
      expect(list.insert(region(at, 16))).toBe(false);
    }
    const all = starts(list);
    expect(all.length).toBe(5000);
    expect(all.every((start, index) => index === 0 || start > all[index - 1]!)).toBe(true);
  });
});

it("a list of regions equals a sorted array", () => {
  const step = fc.record({
    isInsert: fc.boolean(),
    start: fc.integer({ min: 0, max: 4000 }),
    bytes: fc.integer({ min: 1, max: 6 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 3000, minLength: 500 }), (steps) => {
      const list = new RegionList();
      const plain = new Map<number, number>();
      const owner = new Int32Array(4010).fill(-1);
      for (const { isInsert, start, bytes } of steps) {
        if (isInsert) {
          const isFree = owner.subarray(start, start + bytes).every((each) => each < 0);
          expect(list.insert(region(start, bytes))).toBe(isFree);
          if (!isFree) continue;
          plain.set(start, bytes);
          owner.fill(start, start, start + bytes);
        } else {
          const had = plain.get(start);
          expect(list.remove(start)?.end).toBe(had === undefined ? undefined : start + had);
          plain.delete(start);
          if (had !== undefined) owner.fill(-1, start, start + had);
        }
        expect(list.find(start)?.start ?? -1).toBe(owner[start]);
      }
      expect(starts(list)).toEqual([...plain.keys()].sort((a, b) => a - b));
    }),
    { seed: 61, numRuns: 30 },
  );
});
