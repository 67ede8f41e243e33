import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Random } from "../random.ts";
import { ADDRESS_LAST, offsetOf, pfnOf } from "../units.ts";
import { CUT, NONE, type RangeEntry, RangeInsert, RangeMap } from "./range-map.ts";

/** The plain twin: a sorted array of bigint ranges. */
class PlainMap {
  ranges: RangeEntry[] = [];

  insert(entry: RangeEntry, rangesMax: number): RangeInsert {
    if (this.ranges.some((other) => other.start <= entry.last && entry.start <= other.last))
      return RangeInsert.OVERLAP;
    if (this.ranges.length >= rangesMax) return RangeInsert.FULL;
    const index = this.ranges.findIndex((other) => other.start > entry.start);
    this.ranges.splice(index < 0 ? this.ranges.length : index, 0, entry);
    return RangeInsert.OK;
  }

  removeContained(start: bigint, last: bigint): number {
    const touched = this.ranges.filter((range) => range.start <= last && start <= range.last);
    if (touched.some((range) => range.start < start || range.last > last)) return CUT;
    this.ranges = this.ranges.filter((range) => !touched.includes(range));
    return touched.length;
  }

  find(address: bigint): RangeEntry | undefined {
    return this.ranges.find((range) => range.start <= address && address <= range.last);
  }
}

const remove = (map: RangeMap, start: bigint, last: bigint): number =>
  map.removeContained(pfnOf(start), offsetOf(start), pfnOf(last), offsetOf(last));
const findStart = (map: RangeMap, address: bigint): bigint | undefined => {
  const at = map.find(pfnOf(address), offsetOf(address));
  return at === NONE ? undefined : (BigInt(map.startPfn(at)) << 12n) + BigInt(map.startOffset(at));
};
const entry = (start: bigint, last: bigint, value = 0n, flags = 3): RangeEntry => ({
  start,
  last,
  value,
  flags,
});

describe("range map", () => {
  it("finds the range of an address, its ends included, and nothing beside it", () => {
    const map = new RangeMap({ rangesMax: 10 });
    expect(map.add(entry(0x1001n, 0x5ffen, 0xabc_def0_1234_5678n, 0xfff_ffff))).toBe(0);
    for (const address of [0x1001n, 0x1fffn, 0x3000n, 0x5ffen])
      expect(findStart(map, address)).toBe(0x1001n);
    for (const address of [0n, 0x1000n, 0x5fffn, ADDRESS_LAST])
      expect(findStart(map, address)).toBe(undefined);
    expect([...map.entries()]).toEqual([
      entry(0x1001n, 0x5ffen, 0xabc_def0_1234_5678n, 2 ** 28 - 1),
    ]);
  });

  it("reports every kind of overlap and keeps what is there", () => {
    const map = new RangeMap({ rangesMax: 10 });
    map.add(entry(10n, 19n));
    map.add(entry(30n, 39n));
    for (const [start, last] of [
      [10n, 19n],
      [12n, 15n],
      [5n, 25n],
      [5n, 10n],
      [19n, 25n],
      [15n, 35n],
      [0n, ADDRESS_LAST],
    ] as const)
      expect(map.add(entry(start, last))).toBe(RangeInsert.OVERLAP);
    expect(map.add(entry(20n, 29n))).toBe(RangeInsert.OK);
    expect(map.add(entry(0n, 9n))).toBe(RangeInsert.OK);
    expect(map.add(entry(40n, ADDRESS_LAST))).toBe(RangeInsert.OK);
    expect(map.count).toBe(5);
    map.check();
  });

  it("holds the whole 64-bit space as one range and gives it back", () => {
    const map = new RangeMap({ rangesMax: 10 });
    expect(map.add(entry(0n, ADDRESS_LAST))).toBe(RangeInsert.OK);
    expect(findStart(map, ADDRESS_LAST)).toBe(0n);
    expect(remove(map, 0n, ADDRESS_LAST - 1n)).toBe(CUT);
    expect(remove(map, 1n, ADDRESS_LAST)).toBe(CUT);
    expect(remove(map, 0n, ADDRESS_LAST)).toBe(1);
    expect(map.first()).toBe(NONE);
    expect(map.last()).toBe(NONE);
    expect(remove(map, 0n, ADDRESS_LAST)).toBe(0);
  });

  it("removes nothing when a span would cut a range at either end", () => {
    const map = new RangeMap({ rangesMax: 10 });
    for (const start of [0n, 10n, 20n, 30n]) map.add(entry(start, start + 9n));
    expect(remove(map, 5n, 29n)).toBe(CUT);
    expect(remove(map, 0n, 25n)).toBe(CUT);
    expect(remove(map, 12n, 15n)).toBe(CUT);
    expect(map.count).toBe(4);
    expect(remove(map, 10n, 29n)).toBe(2);
    expect(remove(map, 10n, 29n)).toBe(0);
    expect([...map.entries()].map((range) => range.start)).toEqual([0n, 30n]);
  });

  it("walks both ways and from any address", () => {
    const map = new RangeMap({ rangesMax: 2000 });
    for (let index = 0; index < 2000; index += 1)
      map.insert(index * 2, 0, index * 2, 0xfff, 0, 0, index);
    let seen = 0;
    for (let at = map.last(); at !== NONE; at = map.previous(at)) {
      seen += 1;
      expect(map.flags(at)).toBe(2000 - seen);
    }
    expect(seen).toBe(2000);
    expect(map.flags(map.firstFrom(101, 5))).toBe(51);
    expect(map.flags(map.firstFrom(102, 5))).toBe(51);
    expect(map.firstFrom(3999, 0)).toBe(NONE);
    expect(map.overlaps(101, 0, 101, 0xfff)).toBe(false);
    expect(map.overlaps(101, 0, 102, 0)).toBe(true);
  });

  it("refuses the range above its limit and takes it after a removal", () => {
    const map = new RangeMap({ rangesMax: 100 });
    for (let pfn = 0; pfn < 100; pfn += 1) expect(map.insert(pfn, 0, pfn, 0xfff, 0, 0, 0)).toBe(0);
    expect(map.insert(100, 0, 100, 0xfff, 0, 0, 0)).toBe(RangeInsert.FULL);
    expect(map.insert(50, 0, 50, 0xfff, 0, 0, 0)).toBe(RangeInsert.OVERLAP);
    expect(map.removeContained(7, 0, 7, 0xfff)).toBe(1);
    expect(map.insert(100, 0, 100, 0xfff, 0, 0, 0)).toBe(RangeInsert.OK);
  });

  it("stays as it was when any one growth of its memory is refused", () => {
    const fill = (allow: () => boolean): { full: number; map: RangeMap } => {
      const map = new RangeMap({ rangesMax: 2500, allow });
      let full = 0;
      for (let index = 0; index < 1500; index += 1) {
        const pfn = (index * 7919) % 1501;
        const before = map.count;
        const result = map.insert(pfn, 0, pfn, 0xfff, pfn, 0, 0);
        if (result === RangeInsert.FULL) {
          full += 1;
          expect(map.count).toBe(before);
          map.check();
          expect(map.insert(pfn, 0, pfn, 0xfff, pfn, 0, 0)).toBe(RangeInsert.OK);
        }
      }
      return { full, map };
    };
    let growths = 0;
    const whole = fill(() => {
      growths += 1;
      return true;
    });
    expect(growths).toBeGreaterThan(8);
    for (let failing = 1; failing <= growths; failing += 1) {
      let asked = 0;
      const { full, map } = fill(() => {
        asked += 1;
        return asked !== failing;
      });
      expect(full).toBe(1);
      expect([...map.entries()]).toEqual([...whole.map.entries()]);
    }
  });

  it("keeps its memory in proportion when ranges are thinned out again and again", () => {
    const map = new RangeMap({ rangesMax: 20_000 });
    const random = new Random(5);
    let peak = 0;
    for (let round = 0; round < 8; round += 1) {
      const base = round * 100_000;
      for (let pfn = base; map.count < 20_000; pfn += 1) map.insert(pfn, 0, pfn, 0xfff, 0, 0, 0);
      map.check();
      if (round === 0) peak = map.bytes;
      // Leaves one range in thirty-two, by single and by spanning removals.
      for (let at = map.first(); at !== NONE; ) {
        const pfn = map.startPfn(at);
        if (random.chance(1, 2)) map.removeContained(pfn + 1, 0, pfn + 31, 0xfff);
        else
          for (let next = pfn + 1; next < pfn + 32; next += 1)
            map.removeContained(next, 0, next, 0xfff);
        at = map.firstFrom(pfn + 32, 0);
      }
      map.check();
    }
    expect(map.bytes).toBeLessThanOrEqual(peak * 3);
    map.clear();
    expect(map.bytes).toBe(0);
  });
});

describe("range map against a sorted array", () => {
  const spaces: [string, (random: Random) => [bigint, bigint]][] = [
    [
      "bytes of a small space",
      (random) => {
        const start = BigInt(random.below(5000));
        return [start, start + BigInt(random.below(random.chance(1, 8) ? 400 : 6))];
      },
    ],
    [
      "pages of a sparse 64-bit space",
      (random) => {
        const start = (BigInt(random.below(2 ** 12)) << 52n) + (BigInt(random.below(4)) << 12n);
        const last = start + BigInt(1 + random.below(3)) * 4096n - 1n;
        return [start, last > ADDRESS_LAST ? ADDRESS_LAST : last];
      },
    ],
    [
      "the top of the space",
      (random) => {
        const start = ADDRESS_LAST - BigInt(random.below(9000));
        const last = start + BigInt(random.below(random.chance(1, 6) ? 900 : 5));
        return [start, last > ADDRESS_LAST ? ADDRESS_LAST : last];
      },
    ],
  ];

  it.each(spaces)("agrees on %s", (_, draw) => {
    const property = fc.property(fc.integer({ min: 0, max: 2 ** 31 }), (seed) => {
      const random = new Random(seed);
      const rangesMax = random.chance(1, 4) ? 40 : 4000;
      const removals = 1 + random.below(8);
      const map = new RangeMap({ rangesMax });
      const plain = new PlainMap();
      for (let step = 0; step < 500; step += 1) {
        const [start, last] = draw(random);
        if (random.below(10) < removals) {
          let [from, to] = [start, last];
          // Half of the removals hit ranges that exist, some of them many.
          if (plain.ranges.length > 0 && random.chance(1, 2)) {
            const at = random.below(plain.ranges.length);
            const many = Math.min(at + random.below(80), plain.ranges.length - 1);
            from = plain.ranges[at]!.start;
            to = plain.ranges[random.chance(1, 3) ? many : at]!.last;
          }
          expect(remove(map, from, to)).toBe(plain.removeContained(from, to));
        } else {
          const range = entry(start, last, start ^ 0xfff0n, step);
          expect(map.add(range)).toBe(plain.insert(range, rangesMax));
        }
        expect(map.count).toBe(plain.ranges.length);
        const [probe] = draw(random);
        expect(findStart(map, probe)).toBe(plain.find(probe)?.start);
        const from = map.firstFrom(pfnOf(probe), offsetOf(probe));
        const expected = plain.ranges.find((range) => range.last >= probe);
        expect(from === NONE ? undefined : map.flags(from)).toBe(expected?.flags);
      }
      map.check();
      expect([...map.entries()]).toEqual(plain.ranges);
    });
    fc.assert(property, { seed: 11, numRuns: 20 });
  });

  it("agrees over large trees of several levels with spans of thousands", () => {
    const random = new Random(3);
    const map = new RangeMap({ rangesMax: 200_000 });
    const present = new Set<number>();
    const pages = 60_000;
    let wrong = 0;
    for (let round = 0; round < 25; round += 1) {
      for (let step = 0; step < 6000; step += 1) {
        const pfn = random.below(pages);
        const result = map.insert(pfn, 0, pfn, 0xfff, pfn, 0, 0);
        if (result !== (present.has(pfn) ? RangeInsert.OVERLAP : RangeInsert.OK)) wrong += 1;
        present.add(pfn);
      }
      const from = random.below(pages);
      const to = from + random.below(random.chance(1, 2) ? 300 : 30_000);
      let inside = 0;
      for (let pfn = from; pfn <= to; pfn += 1) if (present.delete(pfn)) inside += 1;
      if (map.removeContained(from, 0, to, 0xfff) !== inside) wrong += 1;
      for (let step = 0; step < 3000; step += 1) {
        const pfn = random.below(pages);
        const removed = map.removeContained(pfn, 0, pfn, 0xfff);
        if (removed !== (present.delete(pfn) ? 1 : 0)) wrong += 1;
      }
      map.check();
      expect(map.count).toBe(present.size);
    }
    expect(map.removeContained(0, 0, pages, 0xfff)).toBe(present.size);
    map.check();
    expect(wrong).toBe(0);
  });
});
