import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Random } from "../random.ts";
import { crowdedRun, IovaTreePair } from "./iova-tree.suite.ts";
import { IovaTree, NO_IOVA } from "./iova-tree.ts";

const last32 = 0xf_ffff;
const last48 = 2 ** 36 - 1;

function tree(searchFromTop = false): IovaTree {
  return new IovaTree({ startPfn: 1, limit32Pfn: 2 ** 20, searchFromTop });
}

describe("first values of an empty space", () => {
  it("below 4 GiB: 1, 1, 16, 4, then 256 pages give 0xfffff 0xffffe 0xfffe0 0xfffdc 0xffe00", () => {
    const space = tree();
    const sizes = [1, 1, 16, 4, 256];
    const pfns = sizes.map((pages) => space.alloc(pages, last32, true));
    expect(pfns).toEqual([0xfffff, 0xffffe, 0xfffe0, 0xfffdc, 0xffe00]);
  });

  it("with a 48-bit limit 1 page gives 0xfffffffff", () => {
    expect(tree().alloc(1, last48, true)).toBe(0xf_ffff_ffff);
  });

  it("with a 64-bit limit 1 page gives the last page of the space", () => {
    expect(tree().alloc(1, 2 ** 52 - 1, true)).toBe(2 ** 52 - 1);
  });
});

describe("search", () => {
  it("33 pages are taken as 33 and aligned to 64 (row 55)", () => {
    const space = tree();
    expect(space.alloc(33, last32, true)).toBe(0xf_ffc0);
    expect(space.pagesAt(0xf_ffc0)).toBe(33);
    expect(space.alloc(31, last32, true)).toBe(0xf_ffa0);
  });

  it("goes on below the last allocation, and comes back to the top when the rest is full", () => {
    const space = new IovaTree({ startPfn: 1, limit32Pfn: 64 });
    for (let pfn = 63; pfn >= 1; pfn -= 1) expect(space.alloc(1, 63, true)).toBe(pfn);
    space.free(40);
    space.free(50);
    expect(space.alloc(1, 63, true)).toBe(50);
    expect(space.alloc(1, 63, true)).toBe(40);
    expect(space.alloc(1, 63, true)).toBe(NO_IOVA);
  });

  it("a free at or above the cached node moves the search up to it", () => {
    const space = tree();
    const [top, , low] = [1, 1, 1].map((pages) => space.alloc(pages, last32, true));
    space.free(top!);
    expect(space.alloc(1, last32, true)).toBe(top);
    space.free(low!);
    expect(space.alloc(1, last32, true)).toBe(low);
  });

  it("a hole that alignment left above the cached node is passed by, unless from the top", () => {
    const sizes = [1, 16, 1];
    const fromCached = tree();
    expect(sizes.map((pages) => fromCached.alloc(pages, last32, true))[2]).toBe(0xf_ffdf);
    const fromTop = tree(true);
    expect(sizes.map((pages) => fromTop.alloc(pages, last32, true))[2]).toBe(0xf_fffe);
  });

  it("page 0 is never handed out (row 61)", () => {
    const space = new IovaTree({ startPfn: 1, limit32Pfn: 256 });
    const pfns = new Set<number>();
    for (let pfn = space.alloc(1, 255, true); pfn !== NO_IOVA; pfn = space.alloc(1, 255, true))
      pfns.add(pfn);
    expect(pfns.size).toBe(255);
    expect(pfns.has(0)).toBe(false);
  });

  it("after a failed 2 GiB below 4 GiB 2 GiB fails unsearched, 1 GiB is searched (row 60)", () => {
    const space = tree();
    space.alloc(0x80000, last32, true);
    expect(space.alloc(0x80000, last32, true)).toBe(NO_IOVA);
    expect(space.visited).toBeGreaterThan(0);
    expect(space.alloc(0x80000, last32, true)).toBe(NO_IOVA);
    expect(space.visited).toBe(0);
    expect(space.alloc(0x40000, last32, true)).toBe(0x40000);
    expect(space.visited).toBeGreaterThan(0);
  });

  it("a free below 4 GiB lets the failed size be searched for again", () => {
    const space = tree();
    const half = space.alloc(0x80000, last32, true);
    expect(space.alloc(0x80000, last32, true)).toBe(NO_IOVA);
    space.free(half);
    expect(space.alloc(0x80000, last32, true)).toBe(0x80000);
  });

  it("a free of a page that is not allocated gives 0 pages", () => {
    const space = tree();
    space.alloc(4, last32, true);
    expect(space.free(5)).toBe(0);
  });
});

describe("reservations", () => {
  it("the recorded guest's windows leave 0xfef00, then 0xfec00, then 0xb0000 (replay notes 3.1)", () => {
    const space = tree();
    for (const [first, last] of [
      [0xa0, 0xbf],
      [0x80000, 0xaffff],
      [0xc0000, 0xfebff],
      [0x10_0000, 0x8f_ffff],
      [0xfee00, 0xfeeff],
    ] as const)
      space.reserve(first, last);
    const seen: number[] = [];
    for (let count = 0; count < 4352 + 512 + 1; count += 1) seen.push(space.alloc(1, last32, true));
    expect(seen[4351]).toBe(0xfef00);
    expect(seen[4352]).toBe(0xfedff);
    expect(seen[4352 + 511]).toBe(0xfec00);
    expect(seen[4352 + 512]).toBe(0xbffff);
  });

  it("a reservation over others fills what lies between them, and above", () => {
    const space = tree();
    space.reserve(5, 10);
    space.reserve(12, 15);
    expect(space.reserve(3, 20)).toBe(2 + 1 + 5);
    expect([...space]).toEqual([
      { first: 3, last: 10 },
      { first: 11, last: 15 },
      { first: 16, last: 20 },
    ]);
    expect(space.reserve(4, 19)).toBe(0);
  });
});

describe("against a list walked range by range", () => {
  it("240 000 random operations in crowded spaces give the same addresses and visits", () => {
    for (let seed = 1; seed <= 24; seed += 1) crowdedRun(seed, 10_000, seed % 6 === 0);
  });

  it("shrinks: any short history gives the same addresses", () => {
    const operation = fc.oneof(
      fc.record({
        kind: fc.constant("alloc" as const),
        pages: fc.integer({ min: 1, max: 40 }),
        limit: fc.integer({ min: 1, max: 300 }),
        aligned: fc.boolean(),
      }),
      fc.record({ kind: fc.constant("free" as const), index: fc.nat(1000) }),
      fc.record({
        kind: fc.constant("reserve" as const),
        first: fc.nat(300),
        pages: fc.integer({ min: 1, max: 30 }),
      }),
    );
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 80 }), (operations) => {
        const pair = new IovaTreePair(1, 128, false);
        for (const step of operations) {
          if (step.kind === "alloc") pair.alloc(step.pages, step.limit, step.aligned);
          else if (step.kind === "reserve") pair.reserve(step.first, step.first + step.pages - 1);
          else if (pair.live.length > 0) pair.free(step.index);
        }
        pair.compare();
      }),
      { seed: 20, numRuns: 2000 },
    );
  });

  it("addresses above 2^32 pages are exact: a run near the top of the space agrees", () => {
    const pair = new IovaTreePair(1, 2 ** 20, false);
    const random = new Random(77);
    for (let count = 0; count < 20_000; count += 1) {
      if (pair.live.length > 200 || (pair.live.length > 0 && random.chance(1, 3)))
        pair.free(random.below(2 ** 20));
      else pair.alloc(1 + random.below(2 ** 30), 2 ** 52 - 1 - random.below(1000), true);
    }
    pair.compare();
  });
});

describe("clone", () => {
  it("goes its own way and gives what the original would have given", () => {
    const space = tree();
    for (let count = 0; count < 1000; count += 1) space.alloc(1 + (count % 7), last32, true);
    const copy = space.clone();
    const next = copy.alloc(3, last32, true);
    expect(copy.alloc(3, last32, true)).not.toBe(next);
    expect(space.alloc(3, last32, true)).toBe(next);
  });
});
