/**
 * Device memory mapped for DMA and unmapped: eight BARs of 192 GiB, as fast as alignment lets it go
 * and as slow as a page at a time is. The thread that proposed MMIO_DONT_PIN gives 50.79 s and
 * 1.57 s for eight such BARs, 32 to 1.
 */

import { IommuDevice } from "../src/iommu/device.ts";
import { DomainType, IommuDomain } from "../src/iommu/domain.ts";
import { vtdSecondStage } from "../src/iommu/formats/vtd-second-stage.ts";
import { HardwareDomain } from "../src/iommu/hardware-domain.ts";
import { PageTable } from "../src/iommu/page-table.ts";
import { PagePool } from "../src/memory/page-pool.ts";
import { regionPage } from "../src/vfio/device/pci-bar.ts";
import { VfioPciDevice } from "../src/vfio/device/pci-device.ts";
import { AddressSpace } from "../src/vfio/process/address-space.ts";
import { contiguousFrames } from "../src/vfio/process/frame-source.ts";
import { type FollowRules, followRules } from "../src/vfio/process/mappable-device.ts";
import { UserProcess } from "../src/vfio/process/user-process.ts";
import { mapDma, mapRequest } from "../src/vfio/type1/map.ts";
import { Type1, type UnmapMode } from "../src/vfio/type1/type1.ts";
import { unmapDma, unmapRequest } from "../src/vfio/type1/unmap.ts";
import { MapFlag, UnmapFlag } from "../src/vfio/uapi/type1.ts";
import { NO_USER_MEMORY } from "../src/vfio/uapi/user-memory.ts";
import type { Benchmark } from "./harness.ts";

const BARS = 8;
const GIB = 2 ** 18;
const BAR_PFN = 2 ** 30;
const FLAGS = MapFlag.READ | MapFlag.WRITE;

interface Way {
  readonly rules: FollowRules;
  readonly unmapMode: UnmapMode;
  /** Pages by which the process's and the device's addresses are off the BAR's alignment. */
  readonly offset: number;
}

const byGib: Way = { rules: followRules["linux-6.15"], unmapMode: "extents", offset: 0 };
/** Entries and leaves of 4 KiB, a lookup for each that is really made. */
const byPage: Way = {
  rules: { ...followRules["linux-6.11"], isWalked: true },
  unmapMode: "extents",
  offset: 1,
};

function mix(hash: number, value: number): number {
  return Math.imul(hash ^ value, 0x0100_0193);
}

/** Maps and unmaps all BARs in a fresh container of a fresh process. */
function mapAll(pool: PagePool, way: Way, pages: number): number {
  const table = new PageTable({ format: vtdSecondStage({ levels: 4 }), pool, node: 0 });
  const domain = new IommuDomain(DomainType.UNMANAGED, new HardwareDomain({ table }));
  const type1 = new Type1({ isV2: true, unmapMode: way.unmapMode });
  type1.domains.push({ domain, groups: [], coherencyEnforced: false });
  type1.pageSizes = 0x4020_1000n;
  const frames = contiguousFrames({ basePfn: 1, pages: 16 });
  const memory = new AddressSpace({ frames, rules: way.rules });
  const process = new UserProcess({ memory });
  const size = BigInt(pages) << 12n;
  let hash = 0;
  for (let bar = 0; bar < BARS; bar += 1) {
    const device = new VfioPciDevice({
      iommuDevice: new IommuDevice({ name: `gpu${bar}`, ops: null }),
      bars: [{ pfn: BAR_PFN + bar * 256 * GIB, bytes: Number(size) }],
    });
    const at = (64 + bar * 256) * GIB + way.offset;
    memory.mmap({ vpn: at, pages, backing: { kind: "device", device, filePage: regionPage(0) } });
    const address = BigInt(at) << 12n;
    hash = mix(hash, mapDma(type1, process, mapRequest(FLAGS, address, address, size)));
    hash = mix(hash, domain.iovaToPhys(at + pages - 1));
  }
  const all = unmapRequest(UnmapFlag.ALL, 0n, 0n);
  hash = mix(hash, unmapDma(type1, all, NO_USER_MEMORY));
  hash = mix(hash, all.unmappedPages / pages);
  table.destroy();
  return hash;
}

function bars(name: string, way: Way, rest: Partial<Benchmark>): Benchmark {
  return {
    name,
    unit: "BAR",
    ...rest,
    prepare(scale) {
      const gib = Math.max(1, Math.round(192 * scale));
      const pages = gib * GIB;
      // Eight times as many tables of leaves as there are blocks of 2 MiB, and what holds them.
      const frameCount = way.offset === 0 ? 4096 : BARS * (gib + 1) * 513 + 4096;
      const pool = new PagePool([{ node: 0, basePfn: 2 ** 36, frameCount }]);
      return { units: BARS, round: () => mapAll(pool, way, pages) };
    },
  };
}

const FAST = "mmio/map-unmap-8x192-gib by 1 GiB";

export const benchmarks: readonly Benchmark[] = [
  bars(FAST, byGib, { target: { ns: 5e6 / BARS } }),
  bars("mmio/map-unmap-8x192-gib by 4 KiB, each looked up", byPage, {
    target: { ns: 30e9 / BARS },
    roundsMax: 1,
    ratioTo: FAST,
  }),
];
