/** Benchmarks of I/O page faults: a fault from the device to its retry, notifiers, the bitmap. */
import { claimGroup } from "../src/iommu/attach.ts";
import { IommuDevice } from "../src/iommu/device.ts";
import { DomainType } from "../src/iommu/domain.ts";
import { vtdSecondStage } from "../src/iommu/formats/vtd-second-stage.ts";
import { IommuGroups } from "../src/iommu/groups.ts";
import { HardwareOps } from "../src/iommu/hardware-ops.ts";
import { IopfQueue } from "../src/iommu/iopf/iopf-queue.ts";
import { PageRequestQueue } from "../src/iommu/iopf/page-request-queue.ts";
import { PriDevice } from "../src/iommu/iopf/pri-device.ts";
import { enablePri, PriInterface } from "../src/iommu/iopf/pri-interface.ts";
import { StallDevice } from "../src/iommu/iopf/stall-device.ts";
import { StallQueue } from "../src/iommu/iopf/stall-queue.ts";
import { PageTable } from "../src/iommu/page-table.ts";
import { TranslationUnit } from "../src/iommu/translation-unit.ts";
import { PagePool } from "../src/memory/page-pool.ts";
import type { PremapRule } from "../src/vfio/iopf/fault-server.ts";
import { PageBitmap } from "../src/vfio/iopf/page-bitmap.ts";
import { Type1Faulting } from "../src/vfio/iopf/type1-faulting.ts";
import { AddressSpace } from "../src/vfio/process/address-space.ts";
import { contiguousFrames } from "../src/vfio/process/frame-source.ts";
import type { MemoryNotifier, ProcessMemory } from "../src/vfio/process/process-memory.ts";
import { UserProcess } from "../src/vfio/process/user-process.ts";
import { attachGroup } from "../src/vfio/type1/attach.ts";
import { mapDma, mapRequest } from "../src/vfio/type1/map.ts";
import { Type1 } from "../src/vfio/type1/type1.ts";
import { removeMapping } from "../src/vfio/type1/unmap-unpin.ts";
import type { Benchmark } from "./harness.ts";

const RID = 0x3b00;
const VPN = 2 ** 24;
const IOVA = 2 ** 18;
const GEOMETRY = { sets: 64, ways: 8, replacement: "plru", pageShifts: [12, 21] } as const;

/** A container with faults on, and a device that stalls and one that asks. */
function makeWorld(pages: number, premap: Partial<PremapRule>) {
  const pool = new PagePool([{ node: 0, basePfn: 2 ** 24, frameCount: 8192 }]);
  const unit = new TranslationUnit({
    name: "unit",
    node: 0,
    iotlb: GEOMETRY,
    pagingCache: { sets: 16, ways: 4, replacement: "plru" },
    selective: { kind: "mask", maskMax: 18 },
  });
  const ops = new HardwareOps({
    name: "unit",
    unitOf: () => unit,
    createDomain() {
      const table = PageTable.create({ format: vtdSecondStage({ levels: 4 }), pool, node: 0 });
      return table === null ? null : { table };
    },
    pageResponse(device, last, code) {
      (device.rid === RID ? stalls : requests).respond(device, last, code);
    },
  });
  const iopf = new IopfQueue();
  const stalls: StallQueue = new StallQueue({ unit, iopf, stallMax: 64 });
  const requests: PageRequestQueue = new PageRequestQueue({ iopf });
  const pri = new PriInterface({ rid: RID + 1, capacity: 32, sink: requests });
  requests.connect(pri);
  enablePri(pri, 32);
  unit.enableAts(RID + 1, GEOMETRY);
  const groups = new IommuGroups({ defaultType: DomainType.DMA });
  const faulting = new Type1Faulting({
    portOf: (device) => (device.rid === RID ? stalls : requests),
    premap,
  });
  const type1 = new Type1({ isV2: true, faulting });
  for (const rid of [RID, RID + 1]) {
    const device = new IommuDevice({ name: `${rid}`, ops, rid });
    groups.add(device);
    claimGroup(groups.of(device)!, groups);
    attachGroup(type1, groups.of(device)!, false);
  }
  const frames = contiguousFrames({ basePfn: 2 ** 21, pages: pages + 512 });
  const memory = new AddressSpace({ frames });
  const notifiers = new Set<MemoryNotifier>();
  const watched: ProcessMemory = {
    pinRun: (vpn, count, isWrite, batch, out) => memory.pinRun(vpn, count, isWrite, batch, out),
    unpin: (pfn, count, isDirty) => memory.unpin(pfn, count, isDirty),
    addNotifier: (notifier) => notifiers.add(notifier),
    removeNotifier: (notifier) => notifiers.delete(notifier),
  };
  const process = new UserProcess({ memory: watched });
  faulting.enable(type1, process);
  memory.mmap({ vpn: VPN, pages, backing: { kind: "anonymous", isHuge: false } });
  memory.touch(VPN, pages, true);
  const [vaddr, iova, size] = [VPN, IOVA, pages].map((count) => BigInt(count) << 12n);
  const map = () => mapDma(type1, process, mapRequest(3, vaddr!, iova!, size!));
  map();
  const stalled = new StallDevice(stalls, { rid: RID });
  const asking = new PriDevice({ unit, pri });
  return {
    faulting,
    stalled,
    asking,
    settle() {
      stalls.drain();
      requests.drain();
      iopf.run();
    },
    /** Not through the process: what it costs to free pages is not the notifier's. */
    invalidateAll() {
      for (const notifier of notifiers) notifier.invalidate(VPN, VPN + pages - 1);
    },
    reset() {
      removeMapping(type1, type1.mappings.find(IOVA)!);
      map();
    },
  };
}

function faults(
  name: string,
  pick: (world: ReturnType<typeof makeWorld>) => StallDevice | PriDevice,
): Benchmark {
  return {
    name,
    unit: "fault",
    target: { ns: 2000 },
    prepare(scale) {
      const units = Math.ceil(100_000 * scale);
      const world = makeWorld(units, { pages: 1 });
      const device = pick(world);
      const round = () => {
        const before = world.faulting.counts.requests;
        device.start([{ iovaPfn: IOVA, pages: units, access: 3 }]);
        while (device.isBusy) {
          device.run();
          world.settle();
        }
        world.reset();
        return world.faulting.counts.requests - before;
      };
      return { units, round };
    },
  };
}

const premapped: Benchmark = {
  name: "I/O page faults with 512 pages mapped at each, per page",
  unit: "page",
  target: { ns: 400 },
  prepare(scale) {
    const units = Math.ceil(500 * scale) * 512;
    const world = makeWorld(units, { pages: 512 });
    const round = () => {
      const before = world.faulting.counts.pagesMapped;
      world.stalled.start([{ iovaPfn: IOVA, pages: units, access: 3 }]);
      while (world.stalled.isBusy) {
        world.stalled.run();
        world.settle();
      }
      world.reset();
      return world.faulting.counts.pagesMapped - before;
    };
    return { units, round };
  },
};

/** Notifiers over 1 Mi pages, `touched` of which were mapped by faults. */
function notifiers(touched: number, ns: number): Benchmark {
  return {
    name: `notifier over 1 Mi pages, ${touched} touched, and their faults`,
    unit: "touched page",
    target: { ns },
    prepare(scale) {
      const calls = Math.max(Math.ceil((100_000 * scale) / touched), 1);
      const pages = 2 ** 20;
      const world = makeWorld(pages, { pages: 1 });
      const stride = Math.floor(pages / touched);
      const segments = Array.from({ length: touched }, (_, index) => ({
        iovaPfn: IOVA + index * stride,
        pages: 1,
        access: 3,
      }));
      const round = () => {
        const before = world.faulting.counts.pagesInvalidated;
        for (let call = 0; call < calls; call += 1) {
          world.stalled.start(segments);
          while (world.stalled.isBusy) {
            world.stalled.run();
            world.settle();
          }
          world.invalidateAll();
        }
        return world.faulting.counts.pagesInvalidated - before;
      };
      return { units: calls * touched, round };
    },
  };
}

const bitmap: Benchmark = {
  name: "page bitmap of 1 TiB: set, find and clear a scattered page",
  unit: "page",
  target: { ns: 1000 },
  prepare(scale) {
    const units = Math.ceil(100_000 * scale);
    const pages = 2 ** 28;
    const round = () => {
      const bits = new PageBitmap(pages);
      for (let index = 0; index < units; index += 1) bits.addRun((index * 104_729) % pages, 1);
      let hash = 0;
      for (let page = bits.next(0); page >= 0; page = bits.next(page + 1)) {
        hash = (Math.imul(hash, 31) + page) | 0;
      }
      bits.removeRun(0, pages);
      return hash ^ bits.count;
    };
    return { units, round };
  },
};

export const benchmarks: Benchmark[] = [
  faults("I/O page fault served, stall to retry, and its unmap", (world) => world.stalled),
  faults("I/O page fault served, PRI request to ATS retry, and its unmap", (world) => world.asking),
  premapped,
  notifiers(1, 5000),
  notifiers(1000, 5000),
  notifiers(100_000, 5000),
  bitmap,
];
