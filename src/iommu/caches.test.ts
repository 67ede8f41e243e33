/**
 * What the caches of an IOMMU and of a device give, against the page table and a plain map of it:
 * equal at all times once invalidations are synced, and stale when they are not.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { CountingMeter } from "../meter.ts";
import { alignUp } from "../units.ts";
import { amdV1 } from "./formats/amd-v1.ts";
import { armStage1 } from "./formats/arm-stage1.ts";
import type { PageTableFormat } from "./formats/format.ts";
import { vtdSecondStage } from "./formats/vtd-second-stage.ts";
import { IotlbGather } from "./gather.ts";
import type { HardwareDomainOptions } from "./hardware-domain.ts";
import { makeDomain, makePool, makeUnit, reach, reachAts } from "./hardware-world.suite.ts";
import type { SelectiveInvalidation } from "./invalidation.ts";
import { PROT_RW } from "./prot.ts";
import type { ReplacementPolicy } from "./replacement.ts";

/** I/O virtual frames that the cases use: a low piece, one around 4 GiB, one far up. */
const bases = [0, 2 ** 20 - 1024, 2 ** 34];
const SPAN = 2048;

const place = fc.tuple(fc.constantFrom(...bases), fc.integer({ min: 0, max: SPAN - 1 }));
/** Any range, one of 2 MiB leaves, or exactly what one table of 4 KiB leaves spans. */
const shapes = ["any", "leaves", "table"] as const;
const length = fc.oneof(
  fc.integer({ min: 1, max: 8 }),
  fc.constantFrom(512, 1024),
  fc.integer({ min: 1, max: 1200 }),
);
const command = fc.oneof(
  fc.record({
    op: fc.constant("map" as const),
    at: place,
    pages: length,
    shape: fc.constantFrom(...shapes),
  }),
  fc.record({ op: fc.constant("unmap" as const), index: fc.nat(), sync: fc.boolean() }),
  fc.record({ op: fc.constant("flush" as const) }),
  fc.record({ op: fc.constant("move" as const) }),
  fc.record({
    op: fc.constant("access" as const),
    at: place,
    count: fc.integer({ min: 1, max: 6 }),
  }),
  fc.record({
    op: fc.constant("access" as const),
    at: place,
    count: fc.integer({ min: 1, max: 6 }),
  }),
);

interface World {
  readonly name: string;
  readonly format: () => PageTableFormat;
  readonly options: Partial<HardwareDomainOptions>;
  readonly selective: SelectiveInvalidation;
  readonly replacement: ReplacementPolicy;
  readonly cachingMode: boolean;
}

const worlds: World[] = [
  {
    name: "VT-d",
    format: () => vtdSecondStage({ levels: 4 }),
    options: {},
    selective: { kind: "mask", maskMax: 18 },
    replacement: "lru",
    cachingMode: false,
  },
  {
    name: "VT-d in caching mode, small masks",
    format: () => vtdSecondStage({ levels: 5 }),
    options: {},
    selective: { kind: "mask", maskMax: 4 },
    replacement: "plru",
    cachingMode: true,
  },
  {
    name: "AMD without gaps",
    format: () => amdV1(),
    options: { gathering: "no-gaps" },
    selective: { kind: "range" },
    replacement: "fifo",
    cachingMode: false,
  },
  {
    name: "Arm page by page",
    format: () => armStage1({ granuleShift: 12, inputBits: 48, outputBits: 48 }),
    options: {},
    selective: { kind: "pages", pageShift: 12, commandsMax: 16 },
    replacement: "random",
    cachingMode: false,
  },
  {
    name: "domain-selective only",
    format: () => vtdSecondStage({ levels: 4 }),
    options: { firstStage: true },
    selective: { kind: "none" },
    replacement: "lru",
    cachingMode: false,
  },
];

function build(world: World) {
  const meter = new CountingMeter();
  const iotlb = { sets: 8, ways: 4, replacement: world.replacement, pageShifts: [12, 21, 30] };
  const pagingCache = { sets: 8, ways: 4, replacement: world.replacement };
  const common = { iotlb, pagingCache, selective: world.selective };
  const unit = makeUnit(meter, { ...common, cachingMode: world.cachingMode });
  const far = makeUnit(meter, { ...common, name: "far", node: 1 });
  unit.enableAts(2, { ...iotlb, sets: 2 });
  const made = makeDomain(makePool(), world.format(), world.options);
  made.hardware.attach(unit, 1);
  made.hardware.attach(unit, 2);
  made.hardware.attach(far, 1);
  return { unit, far, ...made };
}

describe.each(worlds)("translations of $name", (world) => {
  it("equal the page table at all times after sync, through units, levels and ATS", () => {
    const property = fc.property(fc.array(command, { maxLength: 80, size: "max" }), (commands) => {
      const { unit, far, domain, hardware } = build(world);
      const mappings: { iova: number; phys: number; pages: number }[] = [];
      const gather = new IotlbGather();
      /** Frames unmapped and not synced yet: their translation may be stale. */
      let unsynced: [number, number][] = [];
      let nextPhys = 0x40_0000;
      const physOf = (pfn: number) => {
        const found = mappings.find(({ iova, pages }) => pfn >= iova && pfn < iova + pages);
        return found === undefined ? -1 : found.phys + pfn - found.iova;
      };
      const check = (pfn: number) => {
        if (unsynced.some(([first, last]) => pfn >= first && pfn <= last)) return;
        const expected = physOf(pfn);
        const table = domain.iovaToPhys(pfn);
        const near = reach(unit, 1, pfn);
        const device = reachAts(unit, 2, pfn);
        const other = reach(far, 1, pfn);
        const isEqual =
          table === expected && near === expected && device === expected && other === expected;
        // An expectation costs more than all four translations.
        if (!isEqual) expect({ pfn, table, near, device, other }).toEqual({ expected });
      };
      for (const step of commands) {
        if (step.op === "map") {
          let iova = step.at[0] + step.at[1];
          let pages = step.pages;
          if (step.shape !== "any") {
            iova = alignUp(iova, 512);
            pages = step.shape === "table" ? 512 : alignUp(pages, 512);
          }
          const isFree = mappings.every(
            (each) => iova + pages <= each.iova || iova >= each.iova + each.pages,
          );
          const isSynced = unsynced.every(([first, last]) => iova > last || iova + pages <= first);
          if (!isFree || !isSynced) continue;
          const phys =
            alignUp(nextPhys, 512) + (step.shape === "leaves" ? 0 : 1 + (step.pages & 1));
          nextPhys = phys + pages + 1;
          expect(domain.map(iova, phys, pages, PROT_RW)).toBe(Errno.OK);
          mappings.push({ iova, phys, pages });
          check(iova);
          check(iova + pages - 1);
        } else if (step.op === "unmap" && mappings.length > 0) {
          const [gone] = mappings.splice(step.index % mappings.length, 1);
          const { iova, pages } = gone!;
          expect(domain.unmapFast(iova, pages, gather)).toBe(pages);
          unsynced.push([iova, iova + pages - 1]);
          if (!step.sync) continue;
          domain.iotlbSync(gather);
          unsynced = [];
          check(iova);
          check(iova + pages - 1);
        } else if (step.op === "flush") {
          domain.flushIotlbAll();
          // What the gather still holds is synced to free its tables.
          domain.iotlbSync(gather);
          unsynced = [];
        } else if (step.op === "move") {
          hardware.detach(unit, 2);
          expect(reachAts(unit, 2, mappings[0]?.iova ?? 0)).toBe(-1);
          hardware.attach(unit, 2);
        } else if (step.op === "access") {
          for (let index = 0; index < step.count; index += 1)
            check(step.at[0] + step.at[1] + index * 5);
        }
        // One frame under every lowest table, so that one freed too early is walked again.
        for (const base of bases) {
          for (let pfn = base + 7; pfn < base + SPAN; pfn += 512) check(pfn);
        }
      }
      domain.iotlbSync(gather);
      unsynced = [];
      for (const base of bases) for (let pfn = base; pfn < base + SPAN; pfn += 61) check(pfn);
      for (const { iova, pages } of mappings)
        for (const pfn of [iova, iova + pages - 1]) check(pfn);
    });
    fc.assert(property, { seed: 20261121, numRuns: 30 });
  });

  it("stay reachable after an unmap until it is synced, in every cache", () => {
    const { unit, far, domain } = build(world);
    domain.map(0x1000, 0x40_0001, 3, PROT_RW);
    const reached = () => [
      reach(unit, 1, 0x1001),
      reachAts(unit, 2, 0x1001),
      reach(far, 1, 0x1001),
    ];
    expect(reached()).toEqual([0x40_0002, 0x40_0002, 0x40_0002]);
    const gather = new IotlbGather();
    domain.unmapFast(0x1000, 3, gather);
    expect(domain.iovaToPhys(0x1001)).toBe(-1);
    expect(reached()).toEqual([0x40_0002, 0x40_0002, 0x40_0002]);
    domain.iotlbSync(gather);
    expect(reached()).toEqual([-1, -1, -1]);
  });

  it("reach somebody else's memory when an address is mapped again without a sync", () => {
    const { unit, domain } = build(world);
    domain.map(0x1000, 0x40_0000, 1, PROT_RW);
    reach(unit, 1, 0x1000);
    domain.unmapFast(0x1000, 1, new IotlbGather());
    domain.mapNoSync(0x1000, 0x50_0000, 1, PROT_RW);
    expect(reach(unit, 1, 0x1000)).toBe(0x40_0000);
    domain.flushIotlbAll();
    expect(reach(unit, 1, 0x1000)).toBe(0x50_0000);
  });
});

describe("a paging-structure cache", () => {
  it("that is not told of a freed table walks whatever lies there now", () => {
    const { unit, domain, hardware } = build(worlds[0]!);
    domain.map(0, 0x40_0001, 512, PROT_RW);
    reach(unit, 1, 5);
    const gather = new IotlbGather();
    domain.unmapFast(0, 512, gather);
    // A driver that claims that only leaves changed, and frees the table.
    unit.invalidateRange(1, -1, 0, 511, true);
    hardware.freeTables(gather.takeTables()!);
    domain.map(512, 0x66_0001, 512, PROT_RW);
    expect(domain.iovaToPhys(5)).toBe(-1);
    expect(reach(unit, 1, 5)).toBe(0x66_0006);
  });
});
