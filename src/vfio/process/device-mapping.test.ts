import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { alignDown, isAligned } from "../../units.ts";
import { countEntries, DeviceEntries, entryOrderAt } from "./device-mapping.ts";

/** The plain rule, page by page: the largest block that is aligned, congruent and inside. */
function plainOrder(
  vma: { start: number; last: number; pfnDelta: number },
  vpn: number,
  orders: readonly number[],
): number {
  for (const order of orders) {
    const block = alignDown(vpn, 2 ** order);
    const isInside = block >= vma.start && block + 2 ** order - 1 <= vma.last;
    if (isInside && isAligned(block + vma.pfnDelta, 2 ** order)) return order;
  }
  return 0;
}

const orders = fc.constantFrom<readonly number[]>([0], [3, 0], [5, 2, 0], [4, 1, 0]);

describe("entries of device memory", () => {
  it("are as large and as many as going page by page finds them", () => {
    const number = (min: number, max: number) => fc.integer({ min, max });
    fc.assert(
      fc.property(
        number(0, 80),
        number(1, 150),
        number(0, 70),
        orders,
        number(0, 150),
        number(0, 150),
        (start, pages, pfn, sizes, a, b) => {
          const vma = { start, last: start + pages - 1, pfnDelta: pfn + 100 - start };
          const first = start + (Math.min(a, b) % pages);
          const last = Math.min(vma.last, Math.max(first, start + (Math.max(a, b) % pages)));
          let count = 0;
          let entryEnd = -1;
          for (let vpn = first; vpn <= last; vpn += 1) {
            const order = plainOrder(vma, vpn, sizes);
            expect(entryOrderAt(vma, vpn, sizes)).toBe(order);
            if (vpn <= entryEnd) continue;
            count += 1;
            entryEnd = alignDown(vpn, 2 ** order) + 2 ** order - 1;
          }
          expect(countEntries(vma, first, last, sizes)).toBe(count);
        },
      ),
    );
  });

  it("of 192 GiB are 192, 98 304 or 50 331 648 (rows 107, 108)", () => {
    const pages = 192 * 2 ** 18;
    const start = 64 * 2 ** 18;
    const aligned = { start, last: start + pages - 1, pfnDelta: 2 ** 30 };
    expect(countEntries(aligned, start, aligned.last, [18, 9, 0])).toBe(192);
    expect(countEntries(aligned, start, aligned.last, [9, 0])).toBe(98_304);
    const off = { start: start + 1, last: start + pages, pfnDelta: 2 ** 30 - 1 };
    expect(countEntries(off, start + 1, off.last, [18, 9, 0])).toBe(50_331_648);
  });

  it("that are missing are told of in the longest stretches", () => {
    const entries = new DeviceEntries(1000);
    entries.fill(1010, 2 ** 20);
    entries.clear(5000, 5000);
    entries.clear(2 ** 19, 2 ** 19 + 2 ** 18);
    const missing: number[][] = [];
    entries.visitMissing(1005, 2 ** 20 + 4, (first, last) => missing.push([first, last]));
    expect(missing).toEqual([
      [1005, 1009],
      [5000, 5000],
      [2 ** 19, 2 ** 19 + 2 ** 18],
      [2 ** 20 + 1, 2 ** 20 + 4],
    ]);
  });
});
