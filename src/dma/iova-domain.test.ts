import { describe, expect, it } from "vitest";
import { CountingMeter } from "../meter.ts";
import { Random } from "../random.ts";
import { IovaDomain } from "./iova-domain.ts";
import { DeviceIova } from "./iova-limits.ts";
import type { IovaRules } from "./iova-rules.ts";
import { NO_IOVA } from "./iova-tree.ts";
import { PlainIovaDomain } from "./plain-iova.suite.ts";

const last32 = 0xf_ffff;
const last48 = 2 ** 36 - 1;

function domain(cpus = 2, rules: Partial<IovaRules> = {}): IovaDomain {
  return new IovaDomain({ cpus, rules });
}

/** A run over several CPUs; both must hand out the same pages throughout. */
function randomRun(seed: number, operations: number): void {
  const random = new Random(seed);
  const cpus = 1 + random.below(4);
  const magazine = [2, 5, 127][random.below(3)]!;
  const fast = domain(cpus, { magazineSize: magazine });
  const plain = new PlainIovaDomain(cpus, 1, magazine);
  // A floor near 4 GiB leaves little space, so that it runs out and caches are flushed.
  const floor = random.chance(1, 2) ? 0xf_f000 : 0xf_fe00;
  fast.reserve(0, floor);
  plain.tree.reserve(0, floor);
  const live: [number, number][] = [];
  let now = 0;
  const liveMax = 1 + random.below(300);
  for (let count = 0; count < operations; count += 1) {
    const cpu = random.below(cpus);
    now += random.below(3);
    if (random.chance(1, 50)) {
      fast.runDepotWork(now);
      plain.work(now);
    } else if (live.length < liveMax && random.chance(1, 2)) {
      const pages = random.chance(1, 10) ? 1 + random.below(60) : 1 + random.below(8);
      const limit = random.chance(1, 10) ? floor + random.below(0x200) : last32;
      const flush = random.chance(1, 2);
      const expected = plain.alloc(pages, limit, flush, cpu);
      const pfn = fast.alloc(pages, limit, flush, cpu);
      if (pfn !== expected) expect({ seed, count, pfn }).toEqual({ seed, count, pfn: expected });
      if (pfn !== NO_IOVA) live.push([pfn, pages]);
    } else if (live.length > 0) {
      const at = random.below(live.length);
      const [pfn, pages] = live[at]!;
      live[at] = live.at(-1)!;
      live.pop();
      plain.free(pfn, pages, cpu, now);
      fast.free(pfn, pages, cpu, now);
    }
  }
  const treeRanges = plain.tree.ranges.slice(0, -1).map(({ first, last }) => ({ first, last }));
  expect([...fast.tree]).toEqual(treeRanges);
  const pages = treeRanges.reduce((sum, { first, last }) => sum + last - first + 1, 0);
  const { livePages, cachedPages, reservedPages32 } = fast.counts;
  expect(livePages + cachedPages + reservedPages32).toBe(pages);
}

describe("caches", () => {
  it("a page freed on a CPU is the next one that CPU gets (row 56)", () => {
    const space = domain();
    const pfns = [1, 1, 1].map((pages) => space.alloc(pages, last32, true, 0));
    space.free(pfns[1]!, 1, 0, 0);
    space.free(pfns[0]!, 1, 0, 0);
    expect(space.alloc(1, last32, true, 0)).toBe(pfns[0]);
    expect(space.alloc(1, last32, true, 0)).toBe(pfns[1]);
  });

  it("a page goes to the CPU that frees it, not to the one that took it", () => {
    const space = domain();
    const pfn = space.alloc(1, last32, true, 0);
    space.free(pfn, 1, 1, 0);
    expect(space.alloc(1, last32, true, 0)).not.toBe(pfn);
    expect(space.alloc(1, last32, true, 1)).toBe(pfn);
  });

  it("3 pages take 4, 16 KiB-aligned, and are freed to the class of 4 (row 54)", () => {
    const space = domain();
    const pfn = space.alloc(3, last32, true, 0);
    expect(pfn % 4).toBe(0);
    expect(space.tree.pagesAt(pfn)).toBe(4);
    space.free(pfn, 3, 0, 0);
    expect(space.alloc(4, last32, true, 0)).toBe(pfn);
  });

  it("17 pages take 32, 33 pages take 33 and are never cached (row 55)", () => {
    const space = domain();
    expect(space.tree.pagesAt(space.alloc(17, last32, true, 0))).toBe(32);
    const pfn = space.alloc(33, last32, true, 0);
    expect(pfn % 64).toBe(0);
    expect(space.tree.pagesAt(pfn)).toBe(33);
    space.free(pfn, 33, 0, 0);
    expect(space.tree.pagesAt(pfn)).toBe(0);
    expect(space.counts.cachedPages).toBe(0);
  });

  it("a cache with pages above the limit only is passed by and left as it is (row 57)", () => {
    const space = domain();
    const high = space.alloc(1, last48, true, 0);
    space.free(high, 1, 0, 0);
    const low = space.alloc(1, last32, true, 0);
    expect(low).toBe(0xf_ffff);
    expect(space.alloc(1, last48, true, 0)).toBe(high);
  });

  it("of a magazine the newest page below the limit is taken, the newest page fills its place", () => {
    const space = domain();
    const low = space.alloc(1, last32, true, 0);
    const [a, b] = [1, 1].map((pages) => space.alloc(pages, last48, true, 0));
    for (const pfn of [low, a!, b!]) space.free(pfn, 1, 0, 0);
    expect(space.alloc(1, last32, true, 0)).toBe(low);
    expect(space.alloc(1, last48, true, 0)).toBe(a);
    expect(space.alloc(1, last48, true, 0)).toBe(b);
  });

  it("two magazines of 127 stay with the CPU, the 255th free moves one to the depot", () => {
    const space = domain(2);
    const pfns = Array.from({ length: 255 }, () => space.alloc(1, last32, true, 0));
    for (const pfn of pfns.slice(0, 254)) space.free(pfn, 1, 0, 0);
    expect(space.cache.depotSize(0)).toBe(0);
    space.free(pfns[254]!, 1, 0, 0);
    expect(space.cache.depotSize(0)).toBe(1);
    // The other CPU takes the whole magazine, which was filled second.
    expect(space.alloc(1, last32, true, 1)).toBe(pfns[253]);
    expect(space.cache.depotSize(0)).toBe(0);
    expect(space.cache.depotMoves).toBe(2);
  });

  it("the depot is trimmed to the number of online CPUs, one magazine per 100 ms", () => {
    const space = domain(2);
    const pfns = Array.from({ length: 127 * 7 }, () => space.alloc(1, last32, true, 0));
    for (const pfn of pfns) space.free(pfn, 1, 0, 5);
    expect(space.cache.depotSize(0)).toBe(5);
    expect(space.depotWorkDueMs).toBe(105);
    space.runDepotWork(104);
    expect(space.cache.depotSize(0)).toBe(5);
    const sizes: number[] = [];
    while (space.depotWorkDueMs !== Number.POSITIVE_INFINITY) {
      space.runDepotWork(space.depotWorkDueMs);
      sizes.push(space.cache.depotSize(0));
    }
    expect(sizes).toEqual([4, 3, 2, 2]);
    expect(space.counts.treeFrees).toBe(3 * 127);
  });

  it("a CPU that goes offline gives its pages back to the tree", () => {
    const space = domain(2);
    const pfn = space.alloc(1, last32, true, 1);
    space.free(pfn, 1, 1, 0);
    expect(space.tree.pagesAt(pfn)).toBe(1);
    space.offlineCpu(1);
    expect(space.tree.pagesAt(pfn)).toBe(0);
    expect(space.counts.cachedPages).toBe(0);
    space.onlineCpu(1);
    expect(space.alloc(1, last32, true, 1)).toBe(pfn);
  });

  it("without memory for a third magazine the page goes back to the tree", () => {
    let magazines = 2;
    const hasMemory = (): boolean => {
      magazines -= 1;
      return magazines >= 0;
    };
    const space = new IovaDomain({ cpus: 1, hasMemory });
    const pfns = Array.from({ length: 255 }, () => space.alloc(1, last32, true, 0));
    for (const pfn of pfns) space.free(pfn, 1, 0, 0);
    expect(space.counts.cacheFrees).toBe(254);
    expect(space.tree.pagesAt(pfns[254]!)).toBe(0);
  });

  it("a failed search empties every cache and tries once more, if asked to", () => {
    const space = domain(3);
    space.reserve(0, 0xf_fff0);
    const pfns = Array.from({ length: 15 }, () => space.alloc(1, last32, true, 0));
    for (const [index, pfn] of pfns.entries()) space.free(pfn, 1, index % 3, 0);
    expect(space.alloc(8, last32, false, 0)).toBe(NO_IOVA);
    expect(space.alloc(8, last32, true, 0)).toBe(0xf_fff8);
    expect(space.counts.cacheFlushes).toBe(1);
    expect(space.counts.cachedPages).toBe(0);
  });

  it("hits, searches, frees and depot moves reach the meter", () => {
    const meter = new CountingMeter();
    const space = new IovaDomain({ cpus: 1, meter });
    const pfn = space.alloc(1, last32, true, 0);
    space.free(pfn, 1, 0, 0);
    space.alloc(1, last32, true, 0);
    const big = space.alloc(64, last32, true, 0);
    space.free(big, 64, 0, 0);
    expect(meter.events("iovaTreeSearch")).toBe(2);
    expect(meter.events("iovaCacheHit")).toBe(1);
    expect(meter.events("iovaCacheFree")).toBe(1);
    expect(meter.events("iovaTreeFree")).toBe(1);
  });
});

describe("against plain arrays", () => {
  it("400 000 random operations on up to 4 CPUs give the same pages and no page is lost", () => {
    for (let seed = 1; seed <= 40; seed += 1) randomRun(seed, 10_000);
  });
});

describe("limits of a device", () => {
  const mask64 = 2 ** 52 - 1;

  it("a PCI device with a 64-bit mask gets 0xfffff, 0xffffe, then 16 pages at 0xfffe0 (row 52)", () => {
    const device = new DeviceIova(domain(), { try32First: true });
    const pfns = [1, 1, 16].map((pages) => device.alloc(pages, mask64, 0));
    expect(pfns).toEqual([0xfffff, 0xffffe, 0xfffe0]);
  });

  it("with forcedac and a 48-bit limit the first page is 0xfffffffff (row 59)", () => {
    const device = new DeviceIova(domain(), { try32First: false, apertureLastPfn: last48 });
    expect(device.alloc(1, mask64, 0)).toBe(0xf_ffff_ffff);
  });

  it("a full space below 4 GiB turns 32-bit addresses off for good (row 58)", () => {
    const space = domain();
    space.reserve(0, 0xf_ffef);
    const device = new DeviceIova(space, { try32First: true, apertureLastPfn: last48 });
    const low = Array.from({ length: 16 }, () => device.alloc(1, mask64, 0));
    expect(low.every((pfn) => pfn <= last32)).toBe(true);
    expect(device.alloc(1, mask64, 0)).toBe(0xf_ffff_ffff);
    for (const pfn of low) space.free(pfn, 1, 1, 0);
    expect(device.alloc(1, mask64, 0)).toBe(0xf_ffff_fffe);
    expect(device.try32First).toBe(false);
  });

  it("another device of the same space keeps its own flag", () => {
    const space = domain();
    space.reserve(0, last32);
    const first = new DeviceIova(space, { try32First: true });
    const second = new DeviceIova(space, { try32First: true });
    first.alloc(1, mask64, 0);
    expect(second.try32First).toBe(true);
  });

  it("the lowest of mask, bus limit and aperture counts", () => {
    const space = domain();
    const device = new DeviceIova(space, {
      try32First: false,
      busLimitPfn: 0x2_ffff,
      apertureLastPfn: 0x1_ffff,
    });
    expect(device.alloc(1, 0x3_ffff, 0)).toBe(0x1_ffff);
    expect(device.alloc(1, 0xff, 0)).toBe(0xff);
  });

  it("exhausting all below 4 GiB never gives a page of the MSI window (row 53)", () => {
    const space = domain();
    space.reserve(0xfee00, 0xfeeff);
    const device = new DeviceIova(space, { try32First: true, apertureLastPfn: last32 });
    let taken = 0;
    for (let pages = 256; pages >= 1; pages /= 2) {
      for (;;) {
        const pfn = device.alloc(pages, mask64, 0);
        if (pfn === NO_IOVA) break;
        taken += pages;
        expect(pfn + pages <= 0xfee00 || pfn > 0xfeeff).toBe(true);
      }
    }
    expect(taken).toBe(0x10_0000 - 256 - 1);
  });

  it("granules of 64 KiB: limits and the 4 GiB border count granules", () => {
    const space = new IovaDomain({ cpus: 1, granuleShift: 16 });
    const device = new DeviceIova(space, { try32First: true, apertureLastPfn: last48 });
    expect(device.alloc(1, mask64, 0)).toBe(0xffff);
    expect(new DeviceIova(space, { try32First: false }).alloc(1, 0xff_ffff, 0)).toBe(0xf_ffff);
  });
});

describe("broken on purpose", () => {
  /** Pages that one CPU gets over a life of mixed sizes. */
  function history(rules: Partial<IovaRules>): number[] {
    const space = domain(2, rules);
    const random = new Random(5);
    const live: [number, number][] = [];
    const pfns: number[] = [];
    for (let count = 0; count < 4000; count += 1) {
      // Bursts of 50 frees fill magazines further than single ones would.
      const frees = live.length > 100 && Math.floor(count / 50) % 2 === 1;
      if (frees) {
        const [pfn, pages] = live.splice(random.below(live.length), 1)[0]!;
        space.free(pfn, pages, random.below(2), 0);
      } else {
        const pages = 2 ** random.below(3);
        const pfn = space.alloc(pages, last32, true, random.below(2));
        live.push([pfn, pages]);
        pfns.push(pfn);
      }
    }
    return pfns;
  }

  it.each([
    ["a magazine of 8", { magazineSize: 8 }],
    ["first in, first out", { fifo: true }],
    ["no cache", { noCache: true }],
    ["no alignment", { noAlignment: true }],
    ["search from the top", { searchFromTop: true }],
    ["one cache for all CPUs", { oneCacheForAllCpus: true }],
  ] as [string, Partial<IovaRules>][])("%s gives other pages than Linux", (_, rules) => {
    const linux = history({});
    const broken = history(rules);
    expect(history({})).toEqual(linux);
    const same = broken.filter((pfn, index) => pfn === linux[index]).length;
    expect(same).toBeLessThan(linux.length * 0.75);
  });
});

describe("clone", () => {
  it("gives the same pages as the original, independently of it", () => {
    const space = domain(2);
    const pfns = Array.from({ length: 300 }, () => space.alloc(1, last32, true, 0));
    for (const pfn of pfns) space.free(pfn, 1, 0, 3);
    const copy = space.clone();
    const next = (of: IovaDomain): number[] =>
      Array.from({ length: 310 }, (_, index) => of.alloc(1, last32, true, index % 2));
    const expected = next(copy);
    expect(copy.counts.livePages).toBe(310);
    expect(space.counts.livePages).toBe(0);
    expect(next(space)).toEqual(expected);
  });
});
