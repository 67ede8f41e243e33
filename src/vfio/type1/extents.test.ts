import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EXTENTS_MAX, Extents } from "./extents.ts";

describe("Extents", () => {
  it("joins runs that follow each other in memory", () => {
    const extents = new Extents();
    extents.append(100, 2, false);
    extents.append(102, 3, true);
    extents.append(7, 1, false);
    expect(extents.runs()).toEqual([
      { pfn: 100, pages: 5 },
      { pfn: 7, pages: 1 },
    ]);
    expect([1, 2, 4, 5].map((page) => extents.isReserved(page))).toEqual([
      false,
      true,
      true,
      false,
    ]);
  });

  it("gives up at too many runs, and still knows which pages are device memory", () => {
    const extents = new Extents();
    for (let index = 0; index < EXTENTS_MAX; index += 1) extents.append(2 * index, 1, false);
    expect(extents.isComplete).toBe(true);
    extents.append(1000, 2, true);
    expect([extents.isComplete, extents.count, extents.runs()]).toEqual([false, 0, []]);
    expect(extents.isReserved(EXTENTS_MAX + 1)).toBe(true);
    extents.clear();
    expect([extents.isComplete, extents.hasReserved]).toEqual([true, false]);
  });

  it("knows the kind of every page as a plain list does", () => {
    const runs = fc.array(fc.tuple(fc.nat(3), fc.integer({ min: 1, max: 4 }), fc.boolean()), {
      maxLength: 100,
    });
    fc.assert(
      fc.property(runs, (given) => {
        const extents = new Extents();
        const kinds: boolean[] = [];
        for (const [pfn, pages, isReserved] of given) {
          extents.append(pfn, pages, isReserved);
          for (let page = 0; page < pages; page += 1) kinds.push(isReserved);
        }
        expect(kinds.map((_, page) => extents.isReserved(page))).toEqual(kinds);
        const ends = kinds.map((kind, page) => {
          const end = kinds.indexOf(!kind, page);
          return end < 0 ? kinds.length : end;
        });
        expect(kinds.map((_, page) => extents.kindEnd(page, kinds.length))).toEqual(ends);
      }),
      { seed: 1, numRuns: 200 },
    );
  });
});
