import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AssertionError } from "../../errors.ts";
import { PageBitmap } from "./page-bitmap.ts";

/** Runs of a set between two pages. */
function runsOf(bitmap: PageBitmap, end = bitmap.pages): [number, number][] {
  const runs: [number, number][] = [];
  for (let page = bitmap.next(0); page >= 0 && page < end; ) {
    const last = bitmap.runEnd(page, end);
    runs.push([page, last - page]);
    page = last >= end ? -1 : bitmap.next(last);
  }
  return runs;
}

describe("PageBitmap", () => {
  it("is as large as a 64-bit space", () => {
    const bitmap = new PageBitmap(2 ** 52);
    bitmap.addRun(2 ** 52 - 3, 3);
    bitmap.addRun(0, 1);
    bitmap.addRun(2 ** 40, 5000);
    expect(runsOf(bitmap)).toEqual([
      [0, 1],
      [2 ** 40, 5000],
      [2 ** 52 - 3, 3],
    ]);
    expect(bitmap.has(2 ** 52 - 1)).toBe(true);
    bitmap.removeRun(1, 2 ** 52 - 1);
    expect([bitmap.count, bitmap.has(0), bitmap.next(1)]).toEqual([1, true, -1]);
  });

  it("of one page is a set too", () => {
    const bitmap = new PageBitmap(1);
    expect([bitmap.next(0), bitmap.next(1)]).toEqual([-1, -1]);
    bitmap.addRun(0, 1);
    expect([bitmap.next(0), bitmap.runEnd(0, 1), bitmap.has(0)]).toEqual([0, 1, true]);
  });

  it("refuses pages that are there already, or outside", () => {
    const bitmap = new PageBitmap(100);
    bitmap.addRun(10, 10);
    expect(() => bitmap.addRun(19, 1)).toThrow(AssertionError);
    expect(() => bitmap.addRun(99, 2)).toThrow(AssertionError);
    expect(() => bitmap.removeRun(0, 101)).toThrow(AssertionError);
    expect(() => new PageBitmap(0)).toThrow(AssertionError);
  });

  it.each([40, 1024, 5000, 2 ** 21])("over %i pages equals a plain set", (pages) => {
    const operation = fc.record({
      at: fc.double({ min: 0, max: 1, noNaN: true }),
      pages: fc.integer({ min: 1, max: 1500 }),
      add: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 25 }), (operations) => {
        const bitmap = new PageBitmap(pages);
        const twin = new Set<number>();
        for (const { at, pages: wanted, add } of operations) {
          const page = Math.min(Math.floor(at * pages), pages - 1);
          const count = Math.min(wanted, pages - page);
          for (let each = page; each < page + count; each += 1) {
            if (!add) twin.delete(each);
            else if (!twin.has(each)) {
              twin.add(each);
              bitmap.addRun(each, 1);
            }
          }
          if (!add) bitmap.removeRun(page, count);
        }
        expect(bitmap.count).toBe(twin.size);
        const found: number[] = [];
        for (const [first, length] of runsOf(bitmap)) {
          for (let page = first; page < first + length; page += 1) found.push(page);
        }
        expect(found).toEqual([...twin].sort((a, b) => a - b));
        for (const { at } of operations) {
          const page = Math.min(Math.floor(at * pages), pages - 1);
          expect(bitmap.has(page)).toBe(twin.has(page));
        }
      }),
      { numRuns: 60 },
    );
  });
});
