import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { AssertionError } from "../errors.ts";
import { CountingMeter } from "../meter.ts";
import { createFaultRecord, FaultReason, virtioFaultReason } from "./fault-queue.ts";
import { amdV1 } from "./formats/amd-v1.ts";
import { vtdSecondStage } from "./formats/vtd-second-stage.ts";
import { IotlbGather } from "./gather.ts";
import {
  makeDomain,
  makePool,
  makeUnit,
  reach,
  reachAts,
  SMALL_IOTLB,
} from "./hardware-world.suite.ts";
import { PROT_RW, Prot } from "./prot.ts";
import { NO_PASID } from "./tag-array.ts";
import { Outcome, Translation } from "./translation-unit.ts";

const RID = 0x3b00;

function setup(options: Parameters<typeof makeUnit>[1] = {}) {
  const meter = new CountingMeter();
  const unit = makeUnit(meter, options);
  const pool = makePool();
  const { domain, hardware } = makeDomain(pool);
  return { meter, unit, pool, domain, hardware, out: new Translation() };
}

describe("a paged device", () => {
  it("misses and walks once, then hits until the entry is invalidated", () => {
    const { meter, unit, domain, hardware } = setup();
    domain.map(0x1000, 0x8_0000, 1, PROT_RW);
    expect(hardware.attach(unit, RID)).toBe(Errno.OK);
    expect(reach(unit, RID, 0x1000)).toBe(0x8_0000);
    expect(reach(unit, RID, 0x1000)).toBe(0x8_0000);
    expect([meter.events("iotlbMiss"), meter.events("iotlbHit")]).toEqual([1, 1]);
    unit.invalidateGlobal();
    expect(reach(unit, RID, 0x1000)).toBe(0x8_0000);
    expect(meter.events("iotlbMiss")).toBe(2);
  });

  it("walks from the lowest table that the paging-structure cache holds", () => {
    const { meter, unit, domain, hardware, pool } = setup();
    const own = makeDomain(pool, vtdSecondStage({ levels: 5 }));
    expect(own.domain.map(0, 0x8_0000, 512 * 3 + 1, PROT_RW)).toBe(Errno.OK);
    domain.map(0x10_0001, 0x8_0001, 3, PROT_RW);
    hardware.attach(unit, RID);
    own.hardware.attach(unit, RID + 1);
    expect(reach(unit, RID, 0x10_0001)).toBe(0x8_0001);
    expect(meter.events("pagingCacheMiss")).toBe(1);
    expect(reach(unit, RID, 0x10_0002)).toBe(0x8_0002);
    // The last of four levels is where it starts: three are skipped.
    expect([meter.events("pagingCacheHit"), meter.amount("pagingCacheHit")]).toEqual([1, 3]);
    expect(reach(unit, RID + 1, 0)).toBe(0x8_0000);
    // A 2 MiB leaf lies in the table of level 1.
    expect(reach(unit, RID + 1, 512)).toBe(0x8_0200);
    expect(meter.amount("pagingCacheHit")).toBe(3 + 3);
  });

  it("is refused what its page does not allow, with a record of who, where and why", () => {
    const { meter, unit, domain, hardware, out } = setup();
    domain.map(0x1000, 0x8_0000, 1, Prot.READ);
    domain.map(0x1001, 0x8_0001, 1, Prot.WRITE);
    hardware.attach(unit, RID);
    expect(unit.translate(RID, NO_PASID, 0x1000, Prot.WRITE, out)).toBe(Outcome.FAULT);
    expect([out.fault, out.physPfn, out.slot]).toEqual([FaultReason.NO_WRITE, -1, -1]);
    // The same out of the cache.
    expect(unit.translate(RID, NO_PASID, 0x1000, PROT_RW, out)).toBe(Outcome.FAULT);
    expect(unit.translate(RID, NO_PASID, 0x1001, Prot.READ, out)).toBe(Outcome.FAULT);
    expect(out.fault).toBe(FaultReason.NO_READ);
    expect(unit.translate(RID, NO_PASID, 0x1002, Prot.READ, out)).toBe(Outcome.FAULT);
    expect(out.fault).toBe(FaultReason.NOT_PRESENT);
    expect(unit.translate(RID, NO_PASID, 2 ** 36, Prot.READ, out)).toBe(Outcome.FAULT);
    expect(out.fault).toBe(FaultReason.ADDRESS_WIDTH);
    const record = createFaultRecord();
    const reasons: number[] = [];
    while (unit.faults.take(record)) reasons.push(record.reason);
    expect(reasons).toEqual([
      FaultReason.NO_WRITE,
      FaultReason.NO_WRITE,
      FaultReason.NO_READ,
      FaultReason.NOT_PRESENT,
      FaultReason.ADDRESS_WIDTH,
    ]);
    expect(record).toMatchObject({ rid: RID, pasid: NO_PASID, iovaPfn: 2 ** 36, access: 1 });
    expect(meter.events("fault")).toBe(5);
  });

  it("loses faults beyond the queue, but not the count", () => {
    const { unit, hardware } = setup({ faultRecords: 2 });
    hardware.attach(unit, RID);
    for (let pfn = 0; pfn < 5; pfn += 1) expect(reach(unit, RID, pfn)).toBe(-1);
    expect([unit.faults.count, unit.faults.lost]).toEqual([2, 3]);
  });

  it("sees a mapping made after a fault without a sync, as absence is not cached", () => {
    const { unit, domain, hardware } = setup();
    hardware.attach(unit, RID);
    expect(reach(unit, RID, 7)).toBe(-1);
    domain.mapNoSync(7, 70, 1, PROT_RW);
    expect(reach(unit, RID, 7)).toBe(70);
  });

  it("in caching mode sees it only after iotlb_sync_map", () => {
    const { meter, unit, domain, hardware } = setup({ cachingMode: true });
    hardware.attach(unit, RID);
    expect(reach(unit, RID, 7)).toBe(-1);
    domain.mapNoSync(7, 70, 1, PROT_RW);
    expect(reach(unit, RID, 7)).toBe(-1);
    expect(domain.syncMap(7, 1)).toBe(Errno.OK);
    expect(reach(unit, RID, 7)).toBe(70);
    expect([meter.events("invalidateRange"), meter.events("invalidateWait")]).toEqual([1, 1]);
  });

  it("goes on through the growing top of an AMD table", () => {
    const { unit, pool } = setup();
    const { domain, hardware } = makeDomain(pool, amdV1());
    domain.map(0x1000, 0x8_0000, 1, PROT_RW);
    hardware.attach(unit, RID);
    expect(reach(unit, RID, 0x1000)).toBe(0x8_0000);
    expect(domain.map(2 ** 40, 0x9_0000, 1, PROT_RW)).toBe(Errno.OK);
    expect(reach(unit, RID, 2 ** 40)).toBe(0x9_0000);
    expect(reach(unit, RID, 0x1000)).toBe(0x8_0000);
    unit.iotlb.invalidateAll();
    expect(reach(unit, RID, 0x1000)).toBe(0x8_0000);
  });
});

describe("PASIDs", () => {
  it("of one device go through different domains, or nowhere", () => {
    const { unit, domain, hardware, pool, out } = setup();
    const other = makeDomain(pool);
    domain.map(1, 100, 1, PROT_RW);
    other.domain.map(1, 200, 1, PROT_RW);
    hardware.attach(unit, RID);
    other.hardware.attach(unit, RID, 42);
    expect(reach(unit, RID, 1)).toBe(100);
    expect(unit.translate(RID, 42, 1, Prot.READ, out)).toBe(Outcome.MEMORY);
    expect(out.physPfn).toBe(200);
    expect(unit.translate(RID, 43, 1, Prot.READ, out)).toBe(Outcome.FAULT);
    expect(out.fault).toBe(FaultReason.NO_DOMAIN);
    other.hardware.detach(unit, RID, 42);
    expect(unit.translate(RID, 42, 1, Prot.READ, out)).toBe(Outcome.FAULT);
    expect(reach(unit, RID, 1)).toBe(100);
  });

  it("share second-stage entries and have first-stage entries of their own", () => {
    for (const firstStage of [false, true]) {
      const { meter, unit, pool, out } = setup();
      const { domain, hardware } = makeDomain(pool, undefined, { firstStage });
      domain.map(1, 100, 1, PROT_RW);
      hardware.attach(unit, RID, 5);
      hardware.attach(unit, RID, 6);
      unit.translate(RID, 5, 1, Prot.READ, out);
      unit.translate(RID, 6, 1, Prot.READ, out);
      expect(meter.events("iotlbHit")).toBe(firstStage ? 0 : 1);
      expect(hardware.tagCount).toBe(firstStage ? 2 : 1);
      domain.unmap(1, 1);
      expect(unit.translate(RID, 5, 1, Prot.READ, out)).toBe(Outcome.FAULT);
      expect(unit.translate(RID, 6, 1, Prot.READ, out)).toBe(Outcome.FAULT);
    }
  });

  it("and requester ids have a width", () => {
    const { unit, hardware } = setup();
    expect(() => unit.devices.ensure(65536)).toThrow(AssertionError);
    expect(() => hardware.attach(unit, RID, 2 ** 20)).toThrow(AssertionError);
  });
});

describe("a device that speaks ATS", () => {
  it("asks once, then reaches memory without its IOMMU", () => {
    const { meter, unit, domain, hardware } = setup();
    unit.enableAts(RID, { ...SMALL_IOTLB, sets: 4 });
    domain.map(0x1000, 0x8_0000, 2, PROT_RW);
    hardware.attach(unit, RID);
    expect(reachAts(unit, RID, 0x1000)).toBe(0x8_0000);
    expect(reachAts(unit, RID, 0x1000)).toBe(0x8_0000);
    expect([meter.events("atsRequest"), meter.events("atsHit")]).toEqual([1, 1]);
    expect(meter.events("iotlbMiss")).toBe(1);
  });

  it("keeps reaching a page unmapped while only the IOTLB was told", () => {
    const { unit, domain, hardware } = setup();
    unit.enableAts(RID, SMALL_IOTLB);
    domain.map(0x1000, 0x8_0000, 1, PROT_RW);
    hardware.attach(unit, RID);
    reachAts(unit, RID, 0x1000);
    hardware.table.unmap(0x1000, 1, new IotlbGather());
    unit.invalidateGlobal();
    expect(reachAts(unit, RID, 0x1000)).toBe(0x8_0000);
    unit.invalidateDevice(RID, NO_PASID, 0x1000, 0x1000);
    expect(reachAts(unit, RID, 0x1000)).toBe(-1);
  });

  it("asks again for a right that it was not given, and a refusal is no fault of the unit", () => {
    const { meter, unit, domain, hardware } = setup();
    unit.enableAts(RID, SMALL_IOTLB);
    domain.map(0x1000, 0x8_0000, 1, Prot.READ);
    hardware.attach(unit, RID);
    expect(reachAts(unit, RID, 0x1000)).toBe(0x8_0000);
    expect(reachAts(unit, RID, 0x1000, Prot.WRITE)).toBe(-1);
    expect(meter.events("atsRequest")).toBe(2);
    expect([unit.faults.count, meter.events("fault")]).toEqual([0, 0]);
  });

  it("falls back to untranslated requests when ATS is switched off", () => {
    const { meter, unit, domain, hardware } = setup();
    unit.enableAts(RID, SMALL_IOTLB);
    unit.disableAts(RID);
    domain.map(0x1000, 0x8_0000, 1, PROT_RW);
    hardware.attach(unit, RID);
    expect(reachAts(unit, RID, 0x1000)).toBe(0x8_0000);
    expect(meter.events("atsRequest")).toBe(0);
  });
});

describe("bypass and windows of virtio-iommu endpoints", () => {
  const windows = [
    { firstPfn: 0xfee00, lastPfn: 0xfeeff, kind: "msi" as const },
    { firstPfn: 0x8000, lastPfn: 0x80ff, kind: "reserved" as const },
  ];

  it("V107, V108: an unattached endpoint in bypass reaches every address untranslated", () => {
    const { unit } = setup({ bypassUnattached: true });
    expect(reach(unit, RID, 0, Prot.WRITE)).toBe(0);
    expect(reach(unit, RID, 2 ** 52 - 1)).toBe(2 ** 52 - 1);
  });

  it("V107, V111: endpoints attached to a bypass domain are in bypass, however many", () => {
    const { unit } = setup();
    for (const rid of [1, 2, 3]) {
      unit.devices.attach(rid, NO_PASID, { kind: "identity" });
      expect(reach(unit, rid, 0x1234)).toBe(0x1234);
    }
  });

  it("V109: an unattached endpoint not in bypass reaches nothing: fault DOMAIN", () => {
    const { unit, out } = setup();
    expect(unit.translate(RID, NO_PASID, 5, Prot.READ, out)).toBe(Outcome.FAULT);
    expect(virtioFaultReason(out.fault)).toBe(1);
  });

  it("V110: switching bypass moves all unattached endpoints and no attached one", () => {
    const { unit, domain, hardware } = setup({ bypassUnattached: true });
    domain.map(5, 50, 1, PROT_RW);
    hardware.attach(unit, RID);
    unit.devices.attach(4, NO_PASID, { kind: "identity" });
    unit.devices.attach(3, NO_PASID, { kind: "blocked" });
    const reached = () => [1, 2, 3, 4, RID].map((rid) => reach(unit, rid, 5));
    expect(reached()).toEqual([5, 5, -1, 5, 50]);
    unit.bypassUnattached = false;
    expect(reached()).toEqual([-1, -1, -1, 5, 50]);
  });

  it("V112: bypass decides before any driver attached anything, and after all detached", () => {
    const { unit, domain, hardware } = setup({ bypassUnattached: true });
    expect(reach(unit, RID, 9)).toBe(9);
    hardware.attach(unit, RID);
    expect(reach(unit, RID, 9)).toBe(-1);
    hardware.detach(unit, RID);
    unit.devices.attach(RID, NO_PASID, null);
    expect(reach(unit, RID, 9)).toBe(9);
    expect(domain.iovaToPhys(9)).toBe(-1);
  });

  it("V113: a reserved region faults with MAPPING even where something is mapped", () => {
    const { unit, domain, hardware, out } = setup({ windows });
    domain.map(0x8000, 0x8_0000, 1, PROT_RW);
    hardware.attach(unit, RID);
    expect(unit.translate(RID, NO_PASID, 0x8000, Prot.READ, out)).toBe(Outcome.FAULT);
    expect([out.fault, virtioFaultReason(out.fault)]).toEqual([FaultReason.RESERVED_RANGE, 2]);
  });

  it("V113: a write to the MSI region is an interrupt and no memory access, a read faults", () => {
    const { unit, hardware, out } = setup({ windows });
    hardware.attach(unit, RID);
    expect(unit.translate(RID, NO_PASID, 0xfee00, Prot.WRITE, out)).toBe(Outcome.INTERRUPT);
    expect([out.physPfn, out.fault]).toEqual([-1, FaultReason.NONE]);
    expect(unit.translate(RID, NO_PASID, 0xfee00, Prot.READ, out)).toBe(Outcome.FAULT);
    unit.devices.attach(2, NO_PASID, { kind: "identity" });
    expect(unit.translate(2, NO_PASID, 0xfeeff, Prot.WRITE, out)).toBe(Outcome.INTERRUPT);
    expect(unit.translate(2, NO_PASID, 0xfef00, Prot.WRITE, out)).toBe(Outcome.MEMORY);
  });

  it("windows given to a device replace those of the unit", () => {
    const { unit, domain, hardware } = setup({ windows });
    domain.map(0x8000, 0x8_0000, 1, PROT_RW);
    hardware.attach(unit, RID);
    unit.devices.ensure(RID).windows = [];
    expect(reach(unit, RID, 0x8000)).toBe(0x8_0000);
  });
});
