import { describe, expect, it } from "vitest";
import type { DmaMapping } from "./mapping.ts";
import { MappingIndex } from "./mapping-index.ts";

const mapping = (iovaPfn: number, pages: number) => ({ iovaPfn, pages }) as DmaMapping;

describe("MappingIndex", () => {
  it("finds mappings by any of their frames, and by order", () => {
    const index = new MappingIndex(() => true);
    const [low, high] = [mapping(4, 2), mapping(10, 1)];
    index.insert(high);
    index.insert(low);
    expect([3, 4, 5, 6].map((pfn) => index.find(pfn))).toEqual([null, low, low, null]);
    expect(index.firstIn(0, 3)).toBe(null);
    expect(index.firstIn(5, 5)).toBe(low);
    expect(index.firstIn(6, 2 ** 52 - 1)).toBe(high);
    expect([...index]).toEqual([low, high]);
  });

  it("lets the mapping visited be removed, and uses its place again", () => {
    const index = new MappingIndex(() => true);
    for (let pfn = 0; pfn < 100; pfn += 2) index.insert(mapping(pfn, 1));
    for (const each of index) if (each.iovaPfn % 4 === 0) index.remove(each);
    expect([...index].map((each) => each.iovaPfn)).toEqual(
      Array.from({ length: 25 }, (_, at) => 4 * at + 2),
    );
    const again = mapping(8, 1);
    index.insert(again);
    expect([index.find(8), index.count]).toEqual([again, 26]);
  });

  it("holds nothing when the memory for it is refused", () => {
    const index = new MappingIndex(() => false);
    expect(index.insert(mapping(0, 1))).toBe(false);
    expect([index.count, index.find(0)]).toEqual([0, null]);
  });
});
