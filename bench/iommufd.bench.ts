/**
 * iommufd: single pages mapped and unmapped among many, scattered memory, BARs by dma-buf, and
 * faults that a user serves.
 *
 * The process's memory costs nothing here, so what is measured is the address space, the extents
 * and the page table. Targets: 1 M pairs of map and unmap a second with 60 000 mappings live, 20 M
 * scattered pages a second, 8 BARs of 192 GiB mapped and unmapped in 5 ms, a fault served in 2 µs.
 */
import { IommuDevice } from "../src/iommu/device.ts";
import { DomainType } from "../src/iommu/domain.ts";
import { vtdSecondStage } from "../src/iommu/formats/vtd-second-stage.ts";
import { IommuGroups } from "../src/iommu/groups.ts";
import { HardwareOps } from "../src/iommu/hardware-ops.ts";
import { IopfQueue } from "../src/iommu/iopf/iopf-queue.ts";
import { pageRequest } from "../src/iommu/iopf/page-request.ts";
import { reportDeviceFault } from "../src/iommu/iopf/report.ts";
import { PageTable } from "../src/iommu/page-table.ts";
import { TranslationUnit } from "../src/iommu/translation-unit.ts";
import { PagePool } from "../src/memory/page-pool.ts";
import { NULL_METER } from "../src/meter.ts";
import { VfioDmaBuf } from "../src/vfio/device/dma-buf.ts";
import { Iommufd } from "../src/vfio/iommufd/iommufd.ts";
import { HwptFlag, MapFlag } from "../src/vfio/iommufd/uapi.ts";
import type { PinRun, ProcessMemory } from "../src/vfio/process/process-memory.ts";
import { UserProcess } from "../src/vfio/process/user-process.ts";
import type { Benchmark } from "./harness.ts";

const FLAGS = MapFlag.READABLE | MapFlag.WRITEABLE | MapFlag.FIXED_IOVA;
const GIB = 2 ** 30;
const PAGE = 4096n;

/** Memory whose every page lies apart from the next one, and costs nothing to pin. */
class ScatteredMemory implements ProcessMemory {
  pinRun(vpn: number, _pages: number, _isWrite: boolean, _batch: number, out: PinRun): number {
    out.pfn = 2 ** 24 + 2 * vpn;
    out.pages = 1;
    out.isReserved = false;
    out.nextErrno = 0;
    return 0;
  }
  unpin(): void {}
  addNotifier(): void {}
  removeNotifier(): void {}
}

/** An IOAS with a device on a table of its own; with faults, the table has a fault object. */
function openSpace(hasFaults = false) {
  const pool = new PagePool([{ node: 0, basePfn: 2 ** 30, frameCount: 2 ** 17 }]);
  const unit = new TranslationUnit({
    name: "dmar0",
    node: 0,
    iotlb: { sets: 16, ways: 4, replacement: "lru", pageShifts: [12, 21, 30] },
    pagingCache: null,
    selective: { kind: "mask", maskMax: 18 },
    meter: NULL_METER,
  });
  let answers = 0;
  const ops = new HardwareOps({
    name: "intel",
    unitOf: () => unit,
    createDomain: () => ({
      table: new PageTable({ format: vtdSecondStage({ levels: 4 }), pool, node: 0 }),
    }),
    pageResponse() {
      answers += 1;
    },
  });
  const groups = new IommuGroups({ defaultType: DomainType.DMA });
  const device = new IommuDevice({ name: "0000:10:00.0", ops, rid: 0x1000 });
  groups.add(device);
  if (hasFaults) new IopfQueue().addDevice(device);
  const group = groups.of(device)!;
  const iommufd = new Iommufd({ process: new UserProcess({ memory: new ScatteredMemory() }) });
  const { ioasId } = iommufd.ioasAlloc();
  const { devId } = iommufd.bind(device, group);
  const { faultId } = iommufd.faultQueueAlloc();
  const flags = hasFaults ? HwptFlag.FAULT_ID_VALID : 0;
  const { hwptId } = iommufd.hwptAlloc({ devId, ptId: ioasId, faultId, flags });
  iommufd.attach(devId, hwptId);
  const { driver } = iommufd.table(hwptId)!.domain;
  const fault = iommufd.fault(faultId)!;
  return { iommufd, ioasId, driver: driver!, fault, group, device, answers: () => answers };
}

const singlePages: Benchmark = {
  name: "iommufd/pairs-of-one-page-60000-live",
  unit: "pair",
  target: { perSecond: 1e6 },
  prepare(scale) {
    const live = Math.max(Math.round(60_000 * scale), 64);
    const { iommufd, ioasId, driver } = openSpace();
    const at = Array.from({ length: live }, (_, index) => BigInt(2 * index + 2) * PAGE);
    for (const iova of at) {
      iommufd.ioasMap({ ioasId, flags: FLAGS, userVa: iova, iova, length: PAGE });
    }
    const round = () => {
      let hash = 0;
      for (let index = 0; index < live; index += 1) {
        // An odd step visits every mapping once, near and far.
        const iova = at[(index * 7919) % live]!;
        hash += Number(iommufd.ioasUnmap({ ioasId, iova, length: PAGE }).length);
        iommufd.ioasMap({ ioasId, flags: FLAGS, userVa: iova, iova, length: PAGE });
      }
      return (hash + driver.iovaToPhys(2)) >>> 0;
    };
    return { units: live, round };
  },
};

const scattered: Benchmark = {
  name: "iommufd/16-GiB-of-scattered-pages",
  unit: "page",
  target: { perSecond: 20e6 },
  prepare(scale) {
    const pages = Math.max(Math.round((16 * GIB * scale) / 4096), 4096);
    const { iommufd, ioasId, driver } = openSpace();
    // Above the interrupt window below 4 GiB.
    const range = { ioasId, iova: 4n * BigInt(GIB), length: BigInt(pages) * PAGE };
    const round = () => {
      const { errno } = iommufd.ioasMap({ ...range, flags: FLAGS, userVa: 0n });
      const pfn = driver.iovaToPhys(2 ** 20 + pages - 1);
      const { length } = iommufd.ioasUnmap(range);
      return (errno + pfn + Number(length % 4099n)) >>> 0;
    };
    return { units: pages, round };
  },
};

const bars: Benchmark = {
  name: "iommufd/8-BARs-of-192-GiB-by-dma-buf",
  unit: "round",
  target: { ns: 5e6 },
  prepare() {
    const { iommufd, ioasId, driver } = openSpace();
    const pages = (192 * GIB) / 4096;
    const buffers = Array.from({ length: 8 }, (_, index) => {
      return new VfioDmaBuf([{ pfn: 2 ** 31 + index * 2 ** 28, pages }], false, () => {});
    });
    const length = BigInt(192 * GIB);
    const round = () => {
      let hash = 0;
      for (const [index, buffer] of buffers.entries()) {
        const iova = BigInt(index + 1) * 2n ** 40n;
        const call = { ioasId, flags: FLAGS, iova, length };
        hash += iommufd.ioasMapFile(call, { kind: "dma-buf", buffer }).errno;
      }
      hash += driver.iovaToPhys(2 ** 28 + 5);
      hash += Number(iommufd.ioasUnmap({ ioasId, iova: 0n, length: 2n ** 64n - 1n }).length % 7n);
      return hash >>> 0;
    };
    return { units: 1, round };
  },
};

const faults: Benchmark = {
  name: "iommufd/faults-served-by-a-user",
  unit: "fault",
  target: { ns: 2000 },
  prepare(scale) {
    const count = Math.max(Math.round(20_000 * scale), 64);
    const { iommufd, ioasId, fault, group, device, answers } = openSpace(true);
    const round = () => {
      const before = answers();
      for (let pfn = 1; pfn <= count; pfn += 1) {
        reportDeviceFault(group, device, pageRequest(pfn));
        const [record] = fault.next(1)!;
        const call = { ioasId, flags: FLAGS, userVa: record!.addr, iova: record!.addr };
        iommufd.ioasMap({ ...call, length: PAGE });
        fault.respond(record!.cookie, 0);
      }
      const { length } = iommufd.ioasUnmap({ ioasId, iova: 0n, length: 2n ** 64n - 1n });
      return (answers() - before + Number(length / PAGE)) >>> 0;
    };
    return { units: count, round };
  },
};

export const benchmarks: readonly Benchmark[] = [singlePages, scattered, bars, faults];
