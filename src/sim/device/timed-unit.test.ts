import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DomainType, IommuDomain } from "../../iommu/domain.ts";
import { vtdSecondStage } from "../../iommu/formats/vtd-second-stage.ts";
import { HardwareDomain } from "../../iommu/hardware-domain.ts";
import { PageTable } from "../../iommu/page-table.ts";
import { PROT_RW, Prot } from "../../iommu/prot.ts";
import { TranslationUnit } from "../../iommu/translation-unit.ts";
import { PagePool } from "../../memory/page-pool.ts";
import { Engine } from "../engine.ts";
import { Link } from "../link.ts";
import { PriceList } from "../price-list.ts";
import { TimedUnit } from "./timed-unit.ts";
import { WalkBill } from "./walk-bill.ts";

const RID = 0x100;
const price = { unitNs: 0, remoteUnitNs: 0, on: "walker", source: "a test", fittedOn: null };

/** A unit on node 0 whose walks take 50 ns and 100 ns a read; its tables are on `node`. */
function world(
  options: { node?: number; walkers?: number; ways?: number; link?: Link; hitNs?: number } = {},
) {
  const { node = 0, walkers = 1, ways = 32, hitNs = 0 } = options;
  const engine = new Engine();
  const bill = new WalkBill(
    new PriceList([
      { ...price, step: "iotlbMiss", eachNs: 50 },
      { ...price, step: "iotlbHit", eachNs: hitNs },
      { ...price, step: "entryRead", eachNs: 0, unitNs: 100 },
    ]),
  );
  const pool = new PagePool(
    [0, 1].map((each) => ({ node: each, basePfn: (each + 1) * 2 ** 20, frameCount: 1024 })),
  );
  const table = new PageTable({ format: vtdSecondStage({ levels: 4 }), pool, node, meter: bill });
  const hardware = new HardwareDomain({ table });
  const domain = new IommuDomain(DomainType.UNMANAGED, hardware);
  const unit = new TranslationUnit({
    name: "dmar0",
    node: 0,
    iotlb: { sets: 1, ways, replacement: "lru", pageShifts: [12, 21] },
    pagingCache: null,
    selective: { kind: "none" },
    meter: bill,
  });
  hardware.attach(unit, RID);
  for (let page = 0; page < 64; page += 1) domain.map(page, 1000 + 2 * page, 1, PROT_RW);
  const interconnect = options.link ?? new Link(engine, { latency: 70_000, bytesPerSecond: 64e9 });
  const timed = new TimedUnit({ engine, unit, bill, walkers, interconnect });
  const ends: [number, number][] = [];
  const refusals: number[] = [];
  const done = engine.define((a, isRefused) => {
    if (isRefused === 1) refusals.push(a);
    else ends.push([a, engine.now / 1000]);
  });
  return { engine, timed, ends, refusals, done, unit, bill, domain };
}

describe("a timed unit", () => {
  it("lets a walk of four levels take what its reads cost, and a hit nothing", () => {
    const { engine, timed, ends, done } = world();
    timed.access(RID, 5, true, done, 1);
    engine.run();
    timed.access(RID, 5, true, done, 2);
    engine.run();
    expect(ends).toEqual([
      [1, 450],
      [2, 450],
    ]);
  });

  it("lets misses wait for a walker, also for a page that is being walked for", () => {
    const { engine, timed, ends, done } = world({ walkers: 2 });
    for (const access of [1, 2, 3]) timed.access(RID, 5, true, done, access);
    engine.run();
    expect(ends.map(([, time]) => time)).toEqual([450, 450, 900]);
    expect(timed.walkers.use()).toMatchObject({ granted: 3, waited: 1 });
  });

  it("lets each read of another node cost the way there and back", () => {
    const { engine, timed, ends, done } = world({ node: 1 });
    timed.access(RID, 5, true, done, 1);
    engine.run();
    // Four reads, 64 bytes each at 64 GB/s.
    expect(ends).toEqual([[1, 450 + 4 * 70 + 4]]);
  });

  it("has less room for pages by what accesses in flight hold, and gets it back", () => {
    const { engine, timed, done, unit } = world({ ways: 32, walkers: 2 });
    const pagesCached = () => {
      let count = 0;
      for (let page = 0; page < 64; page += 1) {
        if (unit.iotlb.entries.peek(domainId, -1, 12, page) >= 0) count += 1;
      }
      return count;
    };
    const attachment = unit.devices.find(RID)!.attachment!;
    const domainId = attachment.kind === "paged" ? attachment.domainId : -1;
    for (let page = 0; page < 64; page += 1) timed.access(RID, page, true, done, page);
    engine.run();
    expect(pagesCached()).toBe(32);
    const held = [60, 61, 62, 63].map((page) => timed.access(RID, page, false, done, page));
    engine.run();
    expect(pagesCached()).toBe(28);
    for (const access of held) timed.release(access);
    for (let page = 0; page < 32; page += 1) timed.access(RID, page, true, done, page);
    engine.run();
    expect(pagesCached()).toBe(32);
  });

  it("lets a read wait for an entry when all are held, and for nothing else", () => {
    const { engine, timed, ends, done, unit } = world({ ways: 3, walkers: 2 });
    const first = [0, 1, 2].map((page) => timed.access(RID, page, false, done, page));
    const late = timed.access(RID, 3, false, done, 3);
    engine.run();
    // Walks that find every entry held fill none.
    expect(ends.map(([page]) => page)).toEqual([0, 1, 2]);
    expect(unit.iotlb.entries.live).toBe(0);
    timed.release(first[0]!);
    engine.run();
    expect(ends.at(-1)).toEqual([3, 1350]);
    for (const access of [...first.slice(1), late]) timed.release(access);
    timed.access(RID, 7, true, done, 7);
    engine.run();
    expect(unit.iotlb.entries.live).toBe(1);
  });

  it("refuses what is not mapped, and a write where only reads are allowed", () => {
    const { engine, timed, domain, done, refusals } = world();
    domain.map(100, 5000, 1, Prot.READ);
    const read = timed.access(RID, 100, false, done, 1);
    engine.run();
    timed.release(read);
    timed.access(RID, 100, true, done, 2);
    timed.access(RID, 200, true, done, 3);
    engine.run();
    expect(refusals).toEqual([2, 3]);
    expect(timed.refused).toBe(2);
  });

  it("charges a run of hits in one step as one by one, to the last entry", () => {
    const page = fc.nat(12);
    const runs = fc.array(fc.tuple(page, fc.integer({ min: 1, max: 9 }), fc.boolean()), {
      maxLength: 40,
    });
    const check = fc.property(runs, fc.constantFrom(4, 24), (asked, ways) => {
      const play = (isByRun: boolean) => {
        const { engine, timed, unit, bill } = world({ ways, hitNs: 3 });
        const times: number[] = [];
        // One run after the other, and in it one access after the other.
        const next = (index: number) => {
          if (index === asked.length) return;
          const [pfn, count, isWrite] = asked[index]!;
          let left = isByRun ? 1 : count;
          const again = engine.define(() => {
            if (!isWrite) timed.release(access);
            left -= 1;
            if (left > 0) {
              access = timed.access(RID, pfn, isWrite, again, 0);
            } else {
              times.push(engine.now);
              next(index + 1);
            }
          });
          let access = timed.access(RID, pfn, isWrite, again, 0, isByRun ? count : 1);
        };
        next(0);
        engine.run();
        const { entries } = unit.iotlb;
        const cached = Array.from({ length: ways }, (_, slot) =>
          entries.isLive(slot) ? entries.firstPfnAt(slot) : -1,
        );
        return { times, cached: cached.sort(), hits: bill.count("iotlbHit") };
      };
      expect(play(true)).toEqual(play(false));
    });
    fc.assert(check, { seed: 3, numRuns: 100 });
  });
});
