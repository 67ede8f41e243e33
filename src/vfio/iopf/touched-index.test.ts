import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TouchedIndex } from "./touched-index.ts";

describe("TouchedIndex", () => {
  it("finds what overlaps, like a plain list", () => {
    const stretch = fc.record({ vpn: fc.nat(200), pages: fc.integer({ min: 1, max: 60 }) });
    fc.assert(
      fc.property(
        fc.array(stretch, { maxLength: 40 }),
        fc.nat(200),
        fc.nat(80),
        (all, first, more) => {
          const index = new TouchedIndex(() => true);
          for (const each of all) expect(index.insert(each)).toBe(true);
          const gone = all.filter((_, at) => at % 3 === 1);
          for (const each of gone) index.remove(each);
          const left = all.filter((_, at) => at % 3 !== 1);
          expect(index.count).toBe(left.length);
          const found = new Set<object>();
          index.forEachIn(first, first + more, (each) => {
            expect(found.has(each)).toBe(false);
            found.add(each);
            index.remove(each);
          });
          const expected = left.filter(
            ({ vpn, pages }) => vpn <= first + more && vpn + pages > first,
          );
          expect(found).toEqual(new Set(expected));
          expect(index.count).toBe(left.length - expected.length);
        },
      ),
    );
  });

  it("refuses when memory is short, and holds nothing then", () => {
    const index = new TouchedIndex(() => false);
    expect([index.insert({ vpn: 1, pages: 1 }), index.count]).toEqual([false, 0]);
  });
});
