import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { alignDown } from "../units.ts";
import { type DomainTrace, DomainType, IommuDomain } from "./domain.ts";
import { mapEventText, unmapEventText } from "./events.ts";
import { IotlbGather } from "./gather.ts";
import { makeDomain, makePool } from "./hardware-world.suite.ts";
import { PROT_RW } from "./prot.ts";
import { type Script, ScriptedDriver } from "./scripted-driver.suite.ts";

const MIB = 256;
const GIB = 1024 * MIB;

function setup(style: "range" | "pages", script: Script = {}, pageShifts?: readonly number[]) {
  const driver = new ScriptedDriver(style, script, pageShifts);
  const events: string[] = [];
  const trace: DomainTrace = {
    map: (...args) => events.push(`map: ${mapEventText(...args)}`),
    unmap: (...args) => events.push(`unmap: ${unmapEventText(...args)}`),
  };
  const domain = new IommuDomain(DomainType.UNMANAGED, driver, trace);
  return { domain, calls: driver.calls, events };
}

describe("map of a driver that takes ranges", () => {
  it("is one call for the whole range, then one sync", () => {
    const { domain, calls } = setup("range");
    expect(domain.map(1, 1, 2048, PROT_RW)).toBe(Errno.OK);
    expect(calls).toEqual(["map 1 1 2048x2^12", "syncMap 1 2048"]);
  });

  it("row 92: whose sync answers ENOMEM unmaps the whole 1 GiB and answers ENOMEM", () => {
    const { domain, calls, events } = setup("range", { syncMapErrno: Errno.ENOMEM, gathers: true });
    expect(domain.map(GIB, 0, GIB, PROT_RW)).toBe(Errno.ENOMEM);
    expect(calls).toEqual([
      `map ${GIB} 0 ${GIB}x2^12`,
      `syncMap ${GIB} ${GIB}`,
      `unmap ${GIB} ${GIB}x2^12`,
      `sync ${GIB}-${2 * GIB - 1}`,
    ]);
    expect(events.map((text) => text.replace(/ IOMMU: iova=\S+ - \S+/, ""))).toEqual([
      "map: paddr=0x0000000000000000 size=1073741824",
      "unmap: size=1073741824 unmapped_size=1073741824",
    ]);
  });

  it("that fails part-way unmaps what it mapped and shows it in the trace", () => {
    const script = { mapLimit: 5, mapErrno: Errno.EADDRINUSE };
    const { domain, calls, events } = setup("range", script);
    expect(domain.map(10, 0, 8, PROT_RW)).toBe(Errno.EADDRINUSE);
    expect(calls).toEqual(["map 10 0 8x2^12", "unmap 10 5x2^12"]);
    expect(events.map((text) => text.replace(/^(\w+).* size/, "$1 size"))).toEqual([
      "map size=20480",
      "unmap size=20480 unmapped_size=20480",
    ]);
  });

  it("row 109: that maps nothing is traced as map size=0, then unmap size=0", () => {
    const { domain, events } = setup("range", { mapLimit: 0 });
    expect(domain.map(0x100, 5, 8, PROT_RW)).toBe(Errno.ENOMEM);
    expect(events).toEqual([
      "map: IOMMU: iova=0x0000000000100000 - 0x0000000000100000 paddr=0x0000000000005000 size=0",
      "unmap: IOMMU: iova=0x0000000000100000 - 0x0000000000100000 size=0 unmapped_size=0",
    ]);
  });
});

describe("map of a driver that takes pages", () => {
  it("row 95: of 8 MiB at 0x1000 is 511 x 4K, 3 x 2M, 1 x 4K, and one sync", () => {
    const { domain, calls } = setup("pages");
    expect(domain.map(1, 1, 8 * MIB, PROT_RW)).toBe(Errno.OK);
    expect(calls).toEqual([
      "map 1 1 511x2^12",
      "map 512 512 3x2^21",
      "map 2048 2048 1x2^12",
      "syncMap 1 2048",
    ]);
  });

  it.each([
    [0x1ff, 0x1ff, 513, ["1x2^12", "1x2^21"]],
    [0x1ff, 0x1ff, 512, ["512x2^12"]],
    [0x200, 0x201, 4096, ["4096x2^12"]],
    [0, 0, 192 * GIB, ["192x2^30"]],
    [0x3_fe00, 0x3_fe00, 192 * GIB, ["1x2^21", "191x2^30", "511x2^21"]],
  ])("of iova %d, physical %d, %d pages takes the runs %j", (iova, phys, pages, runs) => {
    const { domain, calls } = setup("pages");
    expect(domain.map(iova, phys, pages, PROT_RW)).toBe(Errno.OK);
    expect(calls.slice(0, -1).map((call) => call.split(" ")[3])).toEqual(runs);
  });

  it("answers EINVAL to what is not aligned to the smallest page, with size 0 in the trace", () => {
    const { domain, calls, events } = setup("pages", {}, [16, 29]);
    for (const [iova, phys, pages] of [
      [1, 16, 16],
      [16, 1, 16],
      [16, 16, 17],
    ] as const) {
      expect(domain.map(iova, phys, pages, PROT_RW)).toBe(Errno.EINVAL);
    }
    expect(calls).toEqual([]);
    expect(events.filter((text) => /size=0/.test(text))).toHaveLength(6);
  });

  it("that fails in its second run unmaps both, in runs of its own choice", () => {
    const { domain, calls } = setup("pages", { mapLimit: 511 + 512 });
    expect(domain.map(1, 1, 8 * MIB, PROT_RW)).toBe(Errno.ENOMEM);
    expect(calls).toEqual([
      "map 1 1 511x2^12",
      "map 512 512 3x2^21",
      "unmap 1 511x2^12",
      "unmap 512 1x2^21",
      "sync 1-1023",
    ]);
  });
});

describe("frames that are mapped each for itself", () => {
  it("are as many maps, syncs and events, up to one that fails", () => {
    const { domain, calls, events } = setup("range");
    const frames = Float64Array.from([7, 5]);
    expect([domain.mapEach(1, frames, 2, PROT_RW), domain.mappedPages]).toEqual([0, 2]);
    expect(calls).toEqual(["map 1 7 1x2^12", "syncMap 1 1", "map 2 5 1x2^12", "syncMap 2 1"]);
    expect(events.length).toBe(2);
    const failing = setup("pages", { mapLimit: 0 });
    expect(failing.domain.mapEach(1, frames, 2, PROT_RW)).not.toBe(Errno.OK);
    expect(failing.domain.mappedPages).toBe(0);
  });

  it("are EINVAL for a domain that translates nothing", () => {
    const { domain } = makeDomain(makePool());
    const frames = Float64Array.from([7]);
    expect([domain.mapEach(1, frames, 1, PROT_RW), domain.mappedPages]).toEqual([0, 1]);
    domain.type = DomainType.BLOCKED;
    expect(domain.mapEach(2, frames, 1, PROT_RW)).toBe(Errno.EINVAL);
    expect(domain.mappedPages).toBe(0);
  });
});

describe("unmap", () => {
  it("of a driver that gathers nothing itself still syncs what was unmapped", () => {
    const { domain, calls } = setup("pages");
    expect(domain.unmap(1, 4)).toBe(4);
    expect(calls).toEqual(["unmap 1 4x2^12", "sync 1-4"]);
  });

  it("of pages stops where the driver unmaps nothing, and tells how far it came", () => {
    const { domain, calls } = setup("pages", { unmaps: [511, 0] });
    expect(domain.unmap(1, 2047)).toBe(511);
    expect(calls).toEqual(["unmap 1 511x2^12", "unmap 512 3x2^21", "sync 1-511"]);
  });

  it("may give back more than was asked for", () => {
    const { domain, events } = setup("range", { unmaps: [512], gathers: true });
    expect(domain.unmap(0, 1)).toBe(512);
    expect(events[0]).toContain("size=4096 unmapped_size=2097152");
  });

  it("of an unaligned range is 0, without an error and without a sync", () => {
    const { domain, calls } = setup("pages", {}, [16]);
    expect(domain.unmap(1, 16)).toBe(0);
    expect(domain.unmap(16, 8)).toBe(0);
    expect(calls).toEqual([]);
  });

  it("frees tables after the sync, and without a sync when nothing was gathered", () => {
    const strict = setup("range", { gathers: true, table: 77 });
    strict.domain.unmap(5, 2);
    expect(strict.calls).toEqual(["unmap 5 2x2^12", "sync 5-6", "free 77"]);
    const bare = setup("range", { table: 77, unmaps: [0] });
    bare.domain.unmap(5, 2);
    expect(bare.calls).toEqual(["unmap 5 2x2^12", "free 77"]);
  });

  it("for a flush queue neither gathers nor syncs, but collects tables", () => {
    const { domain, calls } = setup("pages", { table: 77 });
    const gather = new IotlbGather();
    gather.queued = true;
    expect(domain.unmapFast(0, 512, gather)).toBe(512);
    expect([gather.isEmpty, gather.takeTables()]).toEqual([true, [77]]);
    expect(calls).toEqual(["unmap 0 1x2^21"]);
  });
});

describe("a scatterlist", () => {
  it("is mapped as one where its parts touch, with one sync for all", () => {
    const { domain, calls, events } = setup("range");
    const runs = [
      { pfn: 100, pages: 2 },
      { pfn: 102, pages: 3 },
      { pfn: 200, pages: 0 },
      { pfn: 300, pages: 1 },
    ];
    expect(domain.mapRuns(50, runs, PROT_RW)).toBe(Errno.OK);
    expect(calls).toEqual(["map 50 100 5x2^12", "map 55 300 1x2^12", "syncMap 50 6"]);
    expect(events).toHaveLength(2);
  });

  it("that fails in its second chunk leaves nothing mapped", () => {
    const { domain, calls } = setup("range", { mapLimit: 6 });
    const runs = [
      { pfn: 100, pages: 5 },
      { pfn: 300, pages: 4 },
    ];
    expect(domain.mapRuns(50, runs, PROT_RW)).toBe(Errno.ENOMEM);
    expect(calls.slice(2)).toEqual(["unmap 55 1x2^12", "unmap 50 5x2^12"]);
  });

  it("that fails in its first chunk is rolled back twice: the chunk, then all of nothing", () => {
    const { domain, events } = setup("pages", { mapLimit: 0 });
    expect(domain.mapRuns(50, [{ pfn: 100, pages: 5 }], PROT_RW)).toBe(Errno.ENOMEM);
    expect(events.map((text) => text.replace(/ IOMMU.* size/, " size"))).toEqual([
      "map: size=0",
      "unmap: size=0 unmapped_size=0",
      "unmap: size=0 unmapped_size=0",
    ]);
  });

  it("whose sync fails is unmapped as a whole", () => {
    const { domain, calls } = setup("range", { syncMapErrno: Errno.ENOMEM });
    expect(domain.mapRuns(50, [{ pfn: 1, pages: 4 }], PROT_RW)).toBe(Errno.ENOMEM);
    expect(calls.at(-1)).toBe("unmap 50 4x2^12");
  });
});

describe("domains without mappings", () => {
  it("answer EINVAL to a map and 0 to an unmap", () => {
    for (const type of [DomainType.BLOCKED, DomainType.IDENTITY]) {
      const domain = new IommuDomain(type, null);
      expect(domain.map(0, 0, 1, PROT_RW)).toBe(Errno.EINVAL);
      expect(domain.unmap(0, 1)).toBe(0);
      expect(domain.isPaging).toBe(false);
    }
    const hidden = new IommuDomain(DomainType.IDENTITY, new ScriptedDriver("range"));
    expect(hidden.map(0, 0, 1, PROT_RW)).toBe(Errno.EINVAL);
  });

  it("translate every frame to itself (identity) or none (blocked)", () => {
    expect(new IommuDomain(DomainType.IDENTITY, null).iovaToPhys(5)).toBe(5);
    expect(new IommuDomain(DomainType.BLOCKED, null).iovaToPhys(5)).toBe(-1);
    expect(setup("range").domain.iovaToPhys(5)).toBe(1005);
  });
});

describe("a map over real page tables", () => {
  it("that meets a mapping leaves the tables as they were, wherever it meets it", () => {
    const runs = fc.record({
      busy: fc.integer({ min: 0, max: 1500 }),
      start: fc.integer({ min: 0, max: 1200 }),
      phys: fc.integer({ min: 0, max: 1200 }),
      pages: fc.integer({ min: 1, max: 1200 }),
    });
    const property = fc.property(runs, ({ busy, start, phys, pages }) => {
      const { domain } = makeDomain(makePool());
      domain.map(busy, 0x5_0000, 1, PROT_RW);
      const errno = domain.map(start, phys, pages, PROT_RW);
      const collides = busy >= start && busy < start + pages;
      expect(errno).toBe(collides ? Errno.EADDRINUSE : Errno.OK);
      for (let pfn = alignDown(start, 512); pfn < start + pages; pfn += 37) {
        const isMapped = !collides && pfn >= start;
        const expected = pfn === busy ? 0x5_0000 : isMapped ? phys + pfn - start : -1;
        expect(domain.iovaToPhys(pfn)).toBe(expected);
      }
      expect(domain.iovaToPhys(busy)).toBe(0x5_0000);
    });
    fc.assert(property, { seed: 20261121, numRuns: 120 });
  });

  it("succeeds or leaves nothing mapped, whichever table allocation fails", () => {
    const pool = makePool();
    const { domain, hardware } = makeDomain(pool);
    let failures = 0;
    for (let successes = 0; ; successes += 1) {
      pool.failAfter(successes, 1);
      const errno = domain.map(1, 0x8_0002, 2 * GIB, PROT_RW);
      const failed = pool.injectedFailures;
      pool.failAfter(Number.POSITIVE_INFINITY);
      if (failed === 0) {
        expect(errno).toBe(Errno.OK);
        expect(domain.unmap(1, 2 * GIB)).toBe(2 * GIB);
        break;
      }
      expect(errno).toBe(Errno.ENOMEM);
      failures += 1;
      for (const pfn of [1, 511, 512, GIB, 2 * GIB]) expect(domain.iovaToPhys(pfn)).toBe(-1);
      successes += failures > 6 ? 97 : 0;
    }
    expect(failures).toBeGreaterThan(6);
    hardware.destroy();
    expect(pool.usedFrames).toBe(0);
  });
});
