/**
 * DMA through an IOMMU in virtual time: runs of hits, hits one by one, misses with their walks, and
 * a device with its links in front.
 */
import { DomainType, IommuDomain } from "../src/iommu/domain.ts";
import { vtdSecondStage } from "../src/iommu/formats/vtd-second-stage.ts";
import { HardwareDomain } from "../src/iommu/hardware-domain.ts";
import { PageTable } from "../src/iommu/page-table.ts";
import { PROT_RW } from "../src/iommu/prot.ts";
import { TranslationUnit } from "../src/iommu/translation-unit.ts";
import { PagePool } from "../src/memory/page-pool.ts";
import { Random } from "../src/random.ts";
import { DmaEngine } from "../src/sim/device/dma-engine.ts";
import { TimedUnit } from "../src/sim/device/timed-unit.ts";
import { WalkBill } from "../src/sim/device/walk-bill.ts";
import { Engine } from "../src/sim/engine.ts";
import { PriceList } from "../src/sim/price-list.ts";
import type { Benchmark } from "./harness.ts";

const RID = 0x3b00;
const PAGES = 2 ** 14;
/** As many as pcie-bench found in a Broadwell. */
const ENTRIES = 117;
const WALKERS = 6;
const price = { unitNs: 0, remoteUnitNs: 0, on: "walker", source: "a bench", fittedOn: null };
const prices = new PriceList([
  { ...price, step: "iotlbMiss", eachNs: 158 },
  { ...price, step: "entryRead", eachNs: 135 },
]);

/** A device on a domain of 64 MiB in pages of 4 KiB. */
function makeWorld() {
  const engine = new Engine();
  const bill = new WalkBill(prices);
  const pool = new PagePool([{ node: 0, basePfn: 2 ** 24, frameCount: 4096 }]);
  const format = vtdSecondStage({ levels: 4 });
  const table = new PageTable({ format, pool, node: 0, meter: bill });
  const hardware = new HardwareDomain({ table });
  const domain = new IommuDomain(DomainType.UNMANAGED, hardware);
  const unit = new TranslationUnit({
    name: "dmar0",
    node: 0,
    iotlb: { sets: 1, ways: ENTRIES, replacement: "lru", pageShifts: [12, 21, 30] },
    pagingCache: { sets: 1, ways: 64, replacement: "lru" },
    selective: { kind: "mask", maskMax: 18 },
    meter: bill,
  });
  hardware.attach(unit, RID);
  // One frame beside where a larger page would fit.
  domain.map(0, 2 ** 20 + 1, PAGES, PROT_RW);
  return { engine, bill, timed: new TimedUnit({ engine, unit, bill, walkers: WALKERS }) };
}

function hashOf({ engine, bill }: ReturnType<typeof makeWorld>): number {
  const low = Number.parseInt(engine.hash.slice(8), 16);
  return (low ^ bill.count("iotlbHit") ^ Math.imul(engine.now % 2 ** 31, 31)) | 0;
}

/** Posted accesses, one at a time, `run` to a page, pages at random in a window. */
function accesses(name: string, window: number, run: number, perSecond: number | null): Benchmark {
  return {
    name,
    unit: "translation",
    target: perSecond === null ? null : { perSecond },
    prepare(scale) {
      const count = Math.ceil((2_000_000 * scale) / Math.min(run, 8));
      const round = () => {
        const world = makeWorld();
        const { engine, timed } = world;
        const random = new Random(1);
        let left = count;
        const next = engine.define(() => {
          while (left > 0) {
            left -= 1;
            timed.begin(RID, random.below(window), true, next, 0, run);
            if (timed.hitTime < 0) return;
          }
        });
        engine.after(0, next);
        engine.run();
        return hashOf(world);
      };
      return { units: count * run, round };
    },
  };
}

/** A device as pcie-bench's: so many requests in flight, a link in each direction. */
function device(
  name: string,
  options: { window: number; isWrite: boolean; payload?: number; bytes?: number },
  perSecond: number | null,
): Benchmark {
  const { window, isWrite, bytes = 64, payload = bytes } = options;
  const link = { latency: 100_000, bytesPerSecond: 7.88e9 };
  return {
    name,
    unit: "translation",
    target: perSecond === null ? null : { perSecond },
    prepare(scale) {
      const limit = Math.ceil(500_000 * scale);
      const round = () => {
        const world = makeWorld();
        const { engine, timed } = world;
        const random = new Random(2);
        const speed = { inFlight: 36, gap: 18_000, up: link, down: link, bytes, payload };
        new DmaEngine({
          ...speed,
          engine,
          unit: timed,
          rid: RID,
          isWrite,
          limit,
          next: () => random.below(window),
          memory: 350_000,
          done: () => {},
        }).start();
        engine.run();
        return hashOf(world);
      };
      return { units: limit * Math.ceil(bytes / payload), round };
    },
  };
}

export const benchmarks: readonly Benchmark[] = [
  accesses("timed translation: runs of 64 hits", 64, 64, 20e6),
  accesses("timed translation: hits one by one", 64, 1, 5e6),
  accesses("timed translation: misses one by one", PAGES, 1, null),
  device("timed translation: device, 64-byte writes that hit", { window: 64, isWrite: true }, 5e6),
  device("timed translation: device, 64-byte reads that hit", { window: 64, isWrite: false }, null),
  device(
    "timed translation: device, pages in packets of 256 bytes, misses",
    { window: PAGES, isWrite: true, bytes: 4096, payload: 256 },
    5e6,
  ),
  device(
    "timed translation: device, 64-byte reads that miss",
    { window: PAGES, isWrite: false },
    null,
  ),
];
