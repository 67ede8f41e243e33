import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { AssertionError } from "../errors.ts";
import { PagePool } from "../memory/page-pool.ts";
import { CountingMeter } from "../meter.ts";
import { armStage1 } from "./formats/arm-stage1.ts";
import { vtdSecondStage } from "./formats/vtd-second-stage.ts";
import { IotlbGather } from "./gather.ts";
import {
  invalidations,
  makeDomain,
  makePool,
  makeUnit,
  reach,
  reachAts,
  SMALL_IOTLB,
} from "./hardware-world.suite.ts";
import { PROT_RW } from "./prot.ts";
import type { TranslationUnitOptions } from "./translation-unit.ts";

const RID = 0x3b00;
const none = { range: 0, domain: 0, global: 0, device: 0, wait: 0 };

function setup(options: Partial<TranslationUnitOptions> = {}, format?: "arm") {
  const meter = new CountingMeter();
  const unit = makeUnit(meter, options);
  const pool = makePool();
  const arm = () => armStage1({ granuleShift: 12, inputBits: 48, outputBits: 48 });
  const made = makeDomain(pool, format === "arm" ? arm() : undefined);
  made.hardware.attach(unit, RID);
  return { meter, unit, pool, ...made };
}

describe("invalidation of an unmap", () => {
  it("is one page-selective command and one wait", () => {
    const { meter, domain } = setup();
    domain.map(0x1000, 0x8_0000, 1, PROT_RW);
    expect(invalidations(meter)).toEqual(none);
    domain.unmap(0x1000, 1);
    expect(invalidations(meter)).toEqual({ ...none, range: 1, wait: 1 });
    expect(meter.amount("invalidateRange")).toBe(1);
  });

  it("is widened to an aligned power of two: 3 pages from 0xfff on become 8192", () => {
    const { meter, domain } = setup();
    domain.map(0xfff, 0x8_0fff, 3, PROT_RW);
    domain.unmap(0xfff, 3);
    expect(meter.amount("invalidateRange")).toBe(8192);
  });

  it("becomes domain-selective beyond the unit's largest mask", () => {
    const { meter, unit, domain } = setup({ selective: { kind: "mask", maskMax: 9 } });
    domain.map(0, 0x8_0000, 512, PROT_RW);
    domain.map(0x400, 0x9_0000, 1024, PROT_RW);
    reach(unit, RID, 0x401);
    domain.unmap(0, 512);
    expect(invalidations(meter)).toEqual({ ...none, range: 1, wait: 1 });
    expect(unit.iotlb.entries.live).toBe(1);
    domain.unmap(0x400, 1024);
    expect(invalidations(meter)).toEqual({ ...none, range: 1, domain: 1, wait: 2 });
    expect(unit.iotlb.entries.live).toBe(0);
  });

  it("is exact where the unit takes ranges, and domain-selective where it takes none", () => {
    const ranges = setup({ selective: { kind: "range" } });
    ranges.domain.map(0xfff, 0x8_0fff, 3, PROT_RW);
    ranges.domain.unmap(0xfff, 3);
    expect(ranges.meter.amount("invalidateRange")).toBe(3);
    const blunt = setup({ selective: { kind: "none" } });
    blunt.domain.map(0xfff, 0x8_0fff, 3, PROT_RW);
    blunt.domain.unmap(0xfff, 3);
    expect(invalidations(blunt.meter)).toEqual({ ...none, domain: 1, wait: 1 });
  });

  it("is one command a page where the unit takes pages, up to its limit", () => {
    const selective = { kind: "pages", pageShift: 12, commandsMax: 4 } as const;
    const { meter, domain } = setup({ selective }, "arm");
    domain.map(0x1001, 0x8_0001, 4, PROT_RW);
    domain.unmap(0x1001, 4);
    expect(invalidations(meter)).toEqual({ ...none, range: 4, wait: 1 });
    domain.map(0x1001, 0x8_0001, 5, PROT_RW);
    domain.unmap(0x1001, 5);
    expect(invalidations(meter)).toEqual({ ...none, range: 4, domain: 1, wait: 2 });
  });

  it("goes to every unit once, to every ATS device, and waits once for each unit", () => {
    const { meter, unit, domain, hardware } = setup();
    const second = makeUnit(meter, { name: "dmar1", node: 1 });
    unit.enableAts(RID + 1, SMALL_IOTLB);
    second.enableAts(RID, SMALL_IOTLB);
    second.enableAts(RID + 2, SMALL_IOTLB);
    second.enableAts(RID + 3, SMALL_IOTLB);
    hardware.attach(second, RID);
    hardware.attach(unit, RID + 1);
    hardware.attach(second, RID + 2);
    expect(hardware.tagCount).toBe(5);
    domain.map(0x1000, 0x8_0000, 1, PROT_RW);
    meter.reset();
    domain.unmap(0x1000, 1);
    expect(invalidations(meter)).toEqual({ ...none, range: 2, device: 3, wait: 2 });
    expect(meter.amountAt("invalidateRange", 1)).toBe(1);
  });

  it("of everything is domain-selective at each unit and empties ATS caches", () => {
    const { meter, unit, domain, hardware } = setup();
    unit.enableAts(RID + 1, SMALL_IOTLB);
    hardware.attach(unit, RID + 1);
    domain.map(0x1000, 0x8_0000, 1, PROT_RW);
    reachAts(unit, RID + 1, 0x1000);
    meter.reset();
    domain.flushIotlbAll();
    expect(invalidations(meter)).toEqual({ ...none, domain: 1, device: 1, wait: 1 });
    expect(unit.devices.find(RID + 1)!.ats!.cache.entries.live).toBe(0);
  });

  it("with nothing attached costs nothing", () => {
    const { meter, unit, domain, hardware } = setup();
    hardware.detach(unit, RID);
    meter.reset();
    domain.map(0x1000, 0x8_0000, 1, PROT_RW);
    domain.unmap(0x1000, 1);
    domain.flushIotlbAll();
    expect(invalidations(meter)).toEqual(none);
  });
});

describe("tables", () => {
  it("cut off by an unmap are freed after the sync, with the paging-structure cache dropped", () => {
    const { unit, pool, domain } = setup();
    domain.map(0, 0x8_0001, 512, PROT_RW);
    reach(unit, RID, 5);
    const used = pool.usedFrames;
    const gather = new IotlbGather();
    expect(domain.unmapFast(0, 512, gather)).toBe(512);
    expect(pool.usedFrames).toBe(used);
    expect(unit.pagingCache!.levels[0]!.live).toBe(1);
    domain.iotlbSync(gather);
    expect(pool.usedFrames).toBe(used - 1);
    expect(unit.pagingCache!.levels[0]!.live).toBe(0);
  });

  it("that stay keep the paging-structure cache", () => {
    const { unit, domain } = setup();
    domain.map(0, 0x8_0001, 3, PROT_RW);
    reach(unit, RID, 0);
    domain.unmap(0, 1);
    expect(unit.pagingCache!.levels[0]!.live).toBe(1);
    expect(unit.iotlb.entries.live).toBe(0);
  });

  it("in the way of a large page are synced and freed before the map returns", () => {
    const { meter, unit, pool, domain, hardware } = setup();
    domain.map(0, 0x8_0001, 2, PROT_RW);
    reach(unit, RID, 1);
    // Unmapping single pages leaves an empty table behind.
    domain.unmap(0, 1);
    domain.unmap(1, 1);
    const used = pool.usedFrames;
    meter.reset();
    expect(domain.map(0, 0x8_0000, 512, PROT_RW)).toBe(Errno.OK);
    expect(pool.usedFrames).toBe(used - 1);
    expect(invalidations(meter)).toEqual({ ...none, range: 1, wait: 1 });
    expect(hardware.table.pendingTables).toBe(0);
    expect(reach(unit, RID, 5)).toBe(0x8_0005);
  });

  it("row 68: of a lazy unmap wait for the flush, and no sync is issued", () => {
    const { meter, unit, pool, domain } = setup();
    domain.map(0, 0x8_0001, 512, PROT_RW);
    reach(unit, RID, 5);
    const used = pool.usedFrames;
    const gather = new IotlbGather();
    gather.queued = true;
    domain.unmapFast(0, 512, gather);
    expect(gather.isEmpty).toBe(true);
    expect(invalidations(meter)).toEqual(none);
    // Still reachable, and its table still walked: the window that lazy mode accepts.
    expect(reach(unit, RID, 5)).toBe(0x8_0006);
    const tables = gather.takeTables()!;
    domain.flushIotlbAll();
    domain.driver!.freeTables(tables);
    expect(pool.usedFrames).toBe(used - 1);
    expect(reach(unit, RID, 5)).toBe(-1);
  });

  it("of Arm are flushed and freed at once, even in a lazy unmap", () => {
    const { meter, unit, pool, domain, hardware } = setup({}, "arm");
    domain.map(0, 0x8_0001, 512, PROT_RW);
    reach(unit, RID, 5);
    const used = pool.usedFrames;
    const gather = new IotlbGather();
    gather.queued = true;
    expect(hardware.unmap(0, 21, 1, gather)).toBe(512);
    expect(gather.freelist).toBe(null);
    expect(pool.usedFrames).toBe(used - 1);
    expect(invalidations(meter)).toEqual({ ...none, range: 1, wait: 1 });
    expect(reach(unit, RID, 5)).toBe(-1);
  });
});

describe("gathering", () => {
  const unmapTwo = (gathering: "range" | "no-gaps") => {
    const meter = new CountingMeter();
    const unit = makeUnit(meter, { selective: { kind: "range" } });
    const { domain, hardware } = makeDomain(makePool(), undefined, { gathering });
    hardware.attach(unit, RID);
    domain.map(0x100, 0x8_0001, 1, PROT_RW);
    domain.map(0x101, 0x8_0100, 1, PROT_RW);
    domain.map(0x140, 0x8_0300, 1, PROT_RW);
    const gather = new IotlbGather();
    for (const pfn of [0x100, 0x101, 0x140]) domain.unmapFast(pfn, 1, gather);
    const early = meter.events("invalidateRange");
    domain.iotlbSync(gather);
    return {
      early,
      commands: meter.events("invalidateRange"),
      pages: meter.amount("invalidateRange"),
    };
  };

  it("range: widens over the gap and syncs once", () => {
    expect(unmapTwo("range")).toEqual({ early: 0, commands: 1, pages: 0x41 });
  });

  it("no gaps: syncs what it has before it goes on elsewhere", () => {
    expect(unmapTwo("no-gaps")).toEqual({ early: 1, commands: 2, pages: 3 });
  });

  it("no gaps: an early sync frees the tables it covers, not those of the next range", () => {
    const meter = new CountingMeter();
    const unit = makeUnit(meter);
    const pool = makePool();
    const { domain, hardware } = makeDomain(pool, undefined, { gathering: "no-gaps" });
    hardware.attach(unit, RID);
    domain.map(0, 0x8_0001, 512, PROT_RW);
    domain.map(0x10000, 0x9_0001, 512, PROT_RW);
    reach(unit, RID, 0x10000);
    const used = pool.usedFrames;
    const gather = new IotlbGather();
    domain.unmapFast(0, 512, gather);
    domain.unmapFast(0x10000, 512, gather);
    expect(pool.usedFrames).toBe(used - 1);
    expect(unit.pagingCache!.levels[0]!.live).toBe(1);
    domain.iotlbSync(gather);
    expect(pool.usedFrames).toBe(used - 2);
    expect(unit.pagingCache!.levels[0]!.live).toBe(0);
  });

  it("pages: another size and a gap sync early, neighbours of one size do not", () => {
    const { meter, domain, hardware } = setup({ selective: { kind: "range" } }, "arm");
    domain.map(0, 0x8_0000, 1024, PROT_RW);
    domain.map(0x400, 0x9_0001, 4, PROT_RW);
    const gather = new IotlbGather();
    hardware.unmap(0, 21, 1, gather);
    hardware.unmap(0x200, 21, 1, gather);
    expect(meter.events("invalidateRange")).toBe(0);
    hardware.unmap(0x400, 12, 1, gather);
    expect(meter.amount("invalidateRange")).toBe(1024);
    hardware.unmap(0x401, 12, 1, gather);
    hardware.unmap(0x403, 12, 1, gather);
    expect(meter.amount("invalidateRange")).toBe(1026);
    domain.iotlbSync(gather);
    expect([meter.events("invalidateRange"), meter.amount("invalidateRange")]).toEqual([3, 1027]);
  });
});

describe("row 93: generic page tables", () => {
  it("refuse 4 KiB inside a 2 MiB leaf, unmap nothing inside it, and all of it from its start", () => {
    const { domain } = setup();
    expect(domain.map(0, 0x8_0000, 512, PROT_RW)).toBe(Errno.OK);
    expect(domain.map(0, 0x9_0000, 1, PROT_RW)).toBe(Errno.EADDRINUSE);
    expect(domain.unmap(1, 1)).toBe(0);
    expect(domain.iovaToPhys(1)).toBe(0x8_0001);
    expect(domain.unmap(0, 1)).toBe(512);
    expect(domain.iovaToPhys(1)).toBe(-1);
  });
});

describe("row 94: Arm LPAE", () => {
  it("answers EEXIST to a map over a live leaf", () => {
    const { domain } = setup({}, "arm");
    expect(domain.map(0, 0x8_0000, 512, PROT_RW)).toBe(Errno.OK);
    expect(domain.map(0, 0x9_0000, 512, PROT_RW)).toBe(Errno.EEXIST);
    expect(domain.map(7, 0x9_0000, 1, PROT_RW)).toBe(Errno.EEXIST);
    expect(domain.iovaToPhys(7)).toBe(0x8_0007);
  });
});

describe("attaching", () => {
  it("is refused with EINVAL by a unit that cannot walk the tables or cannot snoop", () => {
    const { meter, unit, pool, hardware } = setup();
    const other = makeUnit(meter, { formats: ["amd-v1"], snoopControl: false });
    expect(hardware.attach(other, 1)).toBe(Errno.EINVAL);
    const plain = makeUnit(meter, { snoopControl: false });
    expect(hardware.attach(plain, 1)).toBe(Errno.OK);
    expect(hardware.enforceCacheCoherency()).toBe(false);
    hardware.detach(plain, 1);
    expect(hardware.enforceCacheCoherency()).toBe(true);
    expect(hardware.attach(plain, 1)).toBe(Errno.EINVAL);
    const narrow = makeUnit(meter, { formats: [vtdSecondStage({ levels: 3 }).name] });
    expect(makeDomain(pool).hardware.attach(narrow, 1)).toBe(Errno.EINVAL);
    expect(unit.domainIds.count).toBe(1);
  });

  it("is refused with ENOSPC when the unit has no number left, and leaves the device alone", () => {
    const { meter, pool } = setup();
    const small = makeUnit(meter, { domainIds: 3 });
    const domains = [makeDomain(pool), makeDomain(pool), makeDomain(pool)];
    expect(domains.map(({ hardware }, rid) => hardware.attach(small, rid))).toEqual([0, 0, 28]);
    expect(small.devices.find(2)).toBe(null);
    domains[0]!.hardware.detach(small, 0);
    expect(domains[2]!.hardware.attach(small, 2)).toBe(Errno.OK);
    expect(small.domainIds.count).toBe(2);
  });

  it("gives each domain one number in a unit, whichever devices use it", () => {
    const { unit, hardware } = setup();
    hardware.attach(unit, 1);
    hardware.attach(unit, 2);
    expect([unit.domainIds.count, hardware.tagCount]).toEqual([1, 1]);
    for (const rid of [RID, 1]) hardware.detach(unit, rid);
    expect([unit.domainIds.count, hardware.tagCount]).toEqual([1, 1]);
    hardware.detach(unit, 2);
    expect([unit.domainIds.count, hardware.tagCount]).toEqual([0, 0]);
  });

  it("twice without a detach is a mistake, as is destroying a domain in use", () => {
    const { unit, pool, hardware } = setup();
    expect(() => hardware.attach(unit, RID)).toThrow(AssertionError);
    expect(() => hardware.destroy()).toThrow(AssertionError);
    hardware.detach(unit, RID);
    expect(() => hardware.detach(unit, RID)).toThrow(AssertionError);
    hardware.destroy();
    expect(pool.usedFrames).toBe(0);
  });

  it("again after a detach never meets what the number's last owner left in the caches", () => {
    const { unit, pool, domain, hardware } = setup();
    domain.map(7, 70, 1, PROT_RW);
    expect(reach(unit, RID, 7)).toBe(70);
    hardware.detach(unit, RID);
    expect([unit.iotlb.entries.live, reach(unit, RID, 7)]).toEqual([0, -1]);
    const next = makeDomain(pool);
    next.hardware.attach(unit, RID);
    expect(reach(unit, RID, 7)).toBe(-1);
  });

  it("remembers the node of the unit attached last, until the last one leaves", () => {
    const { meter, unit, hardware } = setup();
    const far = makeUnit(meter, { node: 1 });
    expect(hardware.unitNode).toBe(0);
    hardware.attach(far, RID);
    expect(hardware.unitNode).toBe(1);
    hardware.detach(far, RID);
    hardware.detach(unit, RID);
    expect(hardware.unitNode).toBe(-1);
  });
});

describe("new tables of a domain", () => {
  const pages = (unitNodes: "none" | "report" | "follow") => {
    const pool = new PagePool([
      { node: 0, basePfn: 0x10_0000, frameCount: 4096 },
      { node: 1, basePfn: 0x20_0000, frameCount: 4096 },
    ]);
    const { domain, hardware } = makeDomain(pool, undefined, { unitNodes });
    const far = makeUnit(new CountingMeter(), { node: 1 });
    expect(hardware.attach(far, RID)).toBe(Errno.OK);
    expect(domain.map(0, 0x500, 1, PROT_RW)).toBe(Errno.OK);
    return [pool.usedFramesOf(0), pool.usedFramesOf(1), hardware.nid];
  };

  it("stay on the node it was made for, whichever unit it is attached to", () => {
    expect(pages("none")).toEqual([4, 0, 0]);
    expect(pages("report")).toEqual([4, 0, 1]);
  });

  it("come from the node of the unit attached last where the driver follows it", () => {
    expect(pages("follow")).toEqual([1, 3, 1]);
  });
});

describe("caching mode", () => {
  it("of one unit makes a map sync there and nowhere else", () => {
    const { meter, domain, hardware } = setup();
    const virtual = makeUnit(meter, { cachingMode: true, node: 1 });
    domain.map(1, 10, 1, PROT_RW);
    expect(invalidations(meter)).toEqual(none);
    hardware.attach(virtual, 5);
    domain.map(2, 20, 1, PROT_RW);
    expect(invalidations(meter)).toEqual({ ...none, range: 1, wait: 1 });
    expect(meter.amountAt("invalidateRange", 1)).toBe(1);
  });

  it("syncs each frame that is mapped for itself, also up to one that fails", () => {
    const { meter, domain, hardware } = setup();
    const virtual = makeUnit(meter, { cachingMode: true, node: 1 });
    hardware.attach(virtual, 5);
    domain.map(12, 1, 1, PROT_RW);
    meter.reset();
    const frames = Float64Array.from([70, 50, 60]);
    expect([domain.mapEach(10, frames, 3, PROT_RW), domain.mappedPages]).toEqual([98, 2]);
    expect(invalidations(meter)).toEqual({ ...none, range: 2, wait: 2 });
    expect([10, 11, 12].map((iovaPfn) => domain.iovaToPhys(iovaPfn))).toEqual([70, 50, 1]);
  });

  it("does not concern first-stage tables", () => {
    const meter = new CountingMeter();
    const virtual = makeUnit(meter, { cachingMode: true });
    const { domain, hardware } = makeDomain(makePool(), undefined, { firstStage: true });
    hardware.attach(virtual, 5);
    expect(reach(virtual, 5, 9)).toBe(-1);
    domain.map(9, 90, 1, PROT_RW);
    expect(invalidations(meter)).toEqual(none);
    expect(reach(virtual, 5, 9)).toBe(90);
  });
});
