import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AssertionError } from "../../errors.ts";
import { SelectiveRanges } from "./selective-ranges.ts";

const text = (ranges: SelectiveRanges) =>
  ranges.entries().map(({ start, end, users }) => `${start}-${end}x${users}`);

describe("SelectiveRanges", () => {
  it("joins neighbours of equal counts and splits where counts differ", () => {
    const ranges = new SelectiveRanges();
    for (const page of [5, 7, 6]) ranges.add(page, 1);
    expect(text(ranges)).toEqual(["5-8x1"]);
    ranges.add(6, 1);
    expect(text(ranges)).toEqual(["5-6x1", "6-7x2", "7-8x1"]);
    ranges.remove(6, 1);
    expect(text(ranges)).toEqual(["5-8x1"]);
    ranges.remove(6, 1);
    expect(text(ranges)).toEqual(["5-6x1", "7-8x1"]);
  });

  it("tells how far the held piece around a page reaches", () => {
    const ranges = new SelectiveRanges();
    ranges.add(10, 10);
    ranges.add(15, 10);
    expect([ranges.endFrom(12), ranges.endFrom(24), ranges.endFrom(25)]).toEqual([25, 25, 25]);
    expect([ranges.endFrom(9), ranges.startBefore(20), ranges.startBefore(10)]).toEqual([
      9, 10, 10,
    ]);
  });

  it("refuses to take a user off a page without one", () => {
    const ranges = new SelectiveRanges();
    ranges.add(10, 2);
    ranges.add(13, 2);
    expect(() => ranges.remove(10, 5)).toThrow(AssertionError);
    expect(() => ranges.remove(14, 2)).toThrow(AssertionError);
    expect(() => ranges.remove(1, 1)).toThrow(AssertionError);
  });

  it("equals a plain array of counts", () => {
    const operation = fc.record({ start: fc.nat(60), pages: fc.integer({ min: 1, max: 20 }) });
    fc.assert(
      fc.property(
        fc.array(operation, { maxLength: 20 }),
        fc.infiniteStream(fc.boolean()),
        (adds, keep) => {
          const ranges = new SelectiveRanges();
          const counts = new Array<number>(100).fill(0);
          const change = (start: number, pages: number, by: number) => {
            for (let page = start; page < start + pages; page += 1) counts[page]! += by;
            const expected: string[] = [];
            for (let page = 0; page < 100; ) {
              let end = page + 1;
              while (end < 100 && counts[end] === counts[page]) end += 1;
              if (counts[page]! > 0) expected.push(`${page}-${end}x${counts[page]}`);
              page = end;
            }
            expect(text(ranges)).toEqual(expected);
          };
          for (const { start, pages } of adds) {
            ranges.add(start, pages);
            change(start, pages, 1);
          }
          for (let page = 0; page < 85; page += 1) {
            let end = page;
            while (counts[end]! > 0) end += 1;
            expect(ranges.endFrom(page)).toBe(end);
            let first = page;
            while (counts[page]! > 0 && counts[first - 1]! > 0) first -= 1;
            if (counts[page]! > 0) expect(ranges.startBefore(page)).toBe(first);
          }
          for (const { start, pages } of adds) {
            if (keep.next().value === true) continue;
            ranges.remove(start, pages);
            change(start, pages, -1);
          }
        },
      ),
    );
  });
});
