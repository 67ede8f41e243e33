import { describe, expect, it } from "vitest";
import { AssertionError } from "../errors.ts";
import { CountingMeter } from "../meter.ts";
import { AtsCache } from "./ats-cache.ts";
import { Iotlb, type IotlbGeometry } from "./iotlb.ts";
import { PROT_RW, Prot } from "./prot.ts";
import { NO_PASID } from "./tag-array.ts";

const geometry: IotlbGeometry = {
  sets: 8,
  ways: 4,
  replacement: "lru",
  pageShifts: [12, 21, 30],
};

describe("Iotlb", () => {
  it("translates every frame of the 2 MiB page that one access brought in", () => {
    const meter = new CountingMeter();
    const iotlb = new Iotlb(geometry, meter);
    expect(iotlb.lookup(1, NO_PASID, 0x205)).toBe(-1);
    iotlb.fill(1, NO_PASID, 0x205, 0x8_0005, 21, PROT_RW);
    for (const pfn of [0x200, 0x205, 0x3ff]) {
      const slot = iotlb.lookup(1, NO_PASID, pfn);
      expect(iotlb.physPfnAt(slot, pfn)).toBe(0x8_0000 + pfn - 0x200);
      expect(iotlb.entries.blockShiftAt(slot)).toBe(21);
      expect(iotlb.entries.rightsAt(slot)).toBe(PROT_RW);
    }
    expect(iotlb.lookup(1, NO_PASID, 0x400)).toBe(-1);
    expect([meter.events("iotlbHit"), meter.events("iotlbMiss")]).toEqual([3, 2]);
  });

  it("caches of a 16 KiB and of a 1 MiB page the 4 KiB piece, of a 4 GiB page the 1 GiB piece", () => {
    const iotlb = new Iotlb(geometry);
    iotlb.fill(1, NO_PASID, 0x1006, 0x2006, 14, PROT_RW);
    iotlb.fill(1, NO_PASID, 0x5006, 0x6006, 20, PROT_RW);
    expect(iotlb.entries.liveOf(12)).toBe(2);
    expect(iotlb.lookup(1, NO_PASID, 0x1007)).toBe(-1);
    const inFourGib = 2 ** 40 + 3 * 2 ** 18 + 7;
    const slot = iotlb.fill(1, NO_PASID, inFourGib, 3 * 2 ** 18 + 7, 32, PROT_RW);
    expect(iotlb.entries.firstPfnAt(slot)).toBe(2 ** 40 + 3 * 2 ** 18);
    expect(iotlb.physPfnAt(slot, inFourGib + 1)).toBe(3 * 2 ** 18 + 8);
  });

  it("keeps domains and PASIDs apart", () => {
    const iotlb = new Iotlb(geometry);
    iotlb.fill(1, NO_PASID, 5, 100, 12, PROT_RW);
    iotlb.fill(2, NO_PASID, 5, 200, 12, Prot.READ);
    iotlb.fill(1, 7, 5, 300, 12, Prot.READ);
    const physOf = (domainId: number, pasid: number) => {
      const slot = iotlb.lookup(domainId, pasid, 5);
      return slot < 0 ? -1 : iotlb.physPfnAt(slot, 5);
    };
    expect([physOf(1, NO_PASID), physOf(2, NO_PASID), physOf(1, 7)]).toEqual([100, 200, 300]);
    expect(iotlb.invalidateDomain(1, 7)).toBe(1);
    expect([physOf(1, NO_PASID), physOf(2, NO_PASID), physOf(1, 7)]).toEqual([100, 200, -1]);
  });

  it("invalidating one 4 KiB frame drops the 1 GiB entry that spans it", () => {
    const iotlb = new Iotlb(geometry);
    iotlb.fill(1, NO_PASID, 2 ** 18, 0, 30, PROT_RW);
    iotlb.fill(1, NO_PASID, 2 ** 19, 0, 12, PROT_RW);
    expect(iotlb.invalidateRange(1, NO_PASID, 2 ** 18 + 99, 2 ** 18 + 99)).toBe(1);
    expect(iotlb.entries.live).toBe(1);
  });

  it("reports what a fill displaced", () => {
    const meter = new CountingMeter();
    const iotlb = new Iotlb({ ...geometry, sets: 1, ways: 2 }, meter, 3);
    for (let pfn = 0; pfn < 5; pfn += 1) iotlb.fill(1, NO_PASID, pfn, pfn, 12, PROT_RW);
    expect(meter.amountAt("iotlbEvict", 3)).toBe(3);
  });

  it("refuses page sizes that do not ascend from 4 KiB", () => {
    expect(() => new Iotlb({ ...geometry, pageShifts: [21] })).toThrow(AssertionError);
    expect(() => new Iotlb({ ...geometry, pageShifts: [12, 30, 21] })).toThrow(AssertionError);
  });
});

describe("AtsCache", () => {
  it("reports a hit or a translation request, and invalidates by PASID", () => {
    const meter = new CountingMeter();
    const ats = new AtsCache(geometry, meter);
    expect(ats.lookup(NO_PASID, 9)).toBe(-1);
    ats.fill(NO_PASID, 9, 90, 12, PROT_RW);
    ats.fill(4, 9, 94, 12, PROT_RW);
    expect(ats.cache.physPfnAt(ats.lookup(NO_PASID, 9), 9)).toBe(90);
    expect([meter.events("atsHit"), meter.events("atsRequest")]).toEqual([1, 1]);
    expect(ats.invalidateRange(4, 0, 100)).toBe(1);
    expect(ats.lookup(NO_PASID, 9)).toBeGreaterThanOrEqual(0);
    ats.fill(4, 9, 94, 12, PROT_RW);
    expect(ats.invalidateAll(NO_PASID)).toBe(1);
    expect(ats.invalidateAll()).toBe(1);
  });
});
