/** VFIO type1: mapping and unmapping, small and many, large and scattered, a device's memory. */
import { DomainType, IommuDomain } from "../src/iommu/domain.ts";
import { vtdSecondStage } from "../src/iommu/formats/vtd-second-stage.ts";
import { HardwareDomain } from "../src/iommu/hardware-domain.ts";
import { PageTable } from "../src/iommu/page-table.ts";
import { PagePool } from "../src/memory/page-pool.ts";
import { Random } from "../src/random.ts";
import { AddressSpace } from "../src/vfio/process/address-space.ts";
import { contiguousFrames, scatteredFrames } from "../src/vfio/process/frame-source.ts";
import type { PinRun, ProcessMemory } from "../src/vfio/process/process-memory.ts";
import { UserProcess } from "../src/vfio/process/user-process.ts";
import { type MapRequest, mapDma, mapRequest } from "../src/vfio/type1/map.ts";
import { Type1, type UnmapMode } from "../src/vfio/type1/type1.ts";
import { type UnmapRequest, unmapDma, unmapRequest } from "../src/vfio/type1/unmap.ts";
import { MapFlag, UnmapFlag } from "../src/vfio/uapi/type1.ts";
import { NO_USER_MEMORY } from "../src/vfio/uapi/user-memory.ts";
import type { Benchmark } from "./harness.ts";

const VPN = 2 ** 24;
const PAGES_16_GIB = 2 ** 22;
const PAGES_192_GIB = 192 * 2 ** 18;
const FLAGS = MapFlag.READ | MapFlag.WRITE;

function mix(hash: number, value: number): number {
  return Math.imul(hash ^ value, 0x0100_0193);
}

/** A container with one domain on a pool that is used again by the next. */
class Setup {
  readonly pool = new PagePool([{ node: 0, basePfn: 2 ** 30, frameCount: 2 ** 16 }]);
  readonly process: UserProcess;
  type1!: Type1;
  #table: PageTable | null = null;

  constructor(memory: ProcessMemory) {
    this.process = new UserProcess({ memory });
  }

  /** Begins anew. */
  reset(unmapMode: UnmapMode = "extents"): void {
    this.#table?.destroy();
    const format = vtdSecondStage({ levels: 4 });
    const table = new PageTable({ format, pool: this.pool, node: 0 });
    const domain = new IommuDomain(DomainType.UNMANAGED, new HardwareDomain({ table }));
    this.type1 = new Type1({ isV2: true, unmapMode });
    this.type1.domains.push({ domain, groups: [], coherencyEnforced: false });
    this.type1.pageSizes = 0x4020_1000n;
    this.#table = table;
  }

  map(request: MapRequest): number {
    return mapDma(this.type1, this.process, request);
  }

  unmap(request: UnmapRequest): number {
    return unmapDma(this.type1, request, NO_USER_MEMORY) + request.unmappedPages;
  }
}

function anonymous(pages: number, isScattered: boolean): AddressSpace {
  const stretch = { basePfn: 2 ** 20, pages: pages * 2 };
  const frames = isScattered
    ? scatteredFrames({ ...stretch, unitPages: 1, seed: 1 })
    : contiguousFrames(stretch);
  const space = new AddressSpace({ frames });
  space.mmap({ vpn: VPN, pages, backing: { kind: "anonymous", isHuge: false } });
  space.touch(VPN, pages, true);
  return space;
}

const requestOf = (pages: number): MapRequest =>
  mapRequest(FLAGS, BigInt(VPN) << 12n, 0n, BigInt(pages) << 12n);

/** One page at a random place among 60 000 that stay. */
const pairs: Benchmark = {
  name: "type1/map-unmap-page 60000 live",
  unit: "pair",
  target: { perSecond: 1e6 },
  prepare(scale) {
    const live = Math.max(100, Math.round(60_000 * scale));
    const setup = new Setup(anonymous(4096, true));
    setup.reset();
    for (let index = 0; index < live; index += 1) {
      const map = { ...requestOf(1), iovaPfn: 2 * index, vpn: VPN + (index & 0xfff) };
      if (setup.map(map) !== 0) throw new Error("the live mappings are made");
    }
    const random = new Random(1);
    const places = Float64Array.from({ length: 2 ** 14 }, () => 2 * random.below(live) + 1);
    const map = requestOf(1);
    const unmap = unmapRequest(0, 0n, 4096n);
    const units = Math.max(1, Math.round(2 ** 19 * scale));
    const round = () => {
      let hash = 0;
      for (let index = 0; index < units; index += 1) {
        map.iovaPfn = places[index & 0x3fff]!;
        map.vpn = VPN + (index & 0xfff);
        unmap.iovaPfn = map.iovaPfn;
        hash = mix(hash, setup.map(map) + setup.unmap(unmap));
      }
      return hash;
    };
    return { units, round };
  },
};

/** 16 GiB of memory whose pages lie apart: pinned, charged and mapped page by page. */
const scattered: Benchmark = {
  name: "type1/map-16-gib scattered",
  unit: "page",
  target: { perSecond: 20e6 },
  prepare(scale) {
    const units = Math.max(2 ** 12, Math.round(PAGES_16_GIB * scale));
    const setup = new Setup(anonymous(units, true));
    const request = requestOf(units);
    const round = () => {
      // The pins of the rounds add up; tables and mappings begin anew.
      setup.reset();
      const errno = setup.map(request);
      return mix(errno, setup.type1.domains[0]!.domain.iovaToPhys(units - 1));
    };
    return { units, round };
  },
};

/** The same mapped and unmapped, leaf by leaf or by the kernel's steps. */
function scatteredPair(mode: UnmapMode): Benchmark {
  return {
    name: `type1/map-unmap-16-gib scattered ${mode}`,
    unit: "page",
    target: null,
    prepare(scale) {
      const units = Math.max(2 ** 12, Math.round(PAGES_16_GIB * scale));
      const setup = new Setup(anonymous(units, true));
      setup.reset(mode);
      const request = requestOf(units);
      const unmap = unmapRequest(UnmapFlag.ALL, 0n, 0n);
      const round = () => {
        unmap.iovaPfn = 0;
        return mix(setup.map(request), setup.unmap(unmap));
      };
      return { units, round };
    },
  };
}

/** Device memory that is found by one lookup for each GiB. */
class Bars implements ProcessMemory {
  pinRun(vpn: number, pages: number, _isWrite: boolean, _batch: number, out: PinRun): number {
    out.pfn = 2 ** 32 + vpn;
    out.pages = pages;
    out.isReserved = true;
    out.nextErrno = 0;
    return 0;
  }

  unpin(): void {}

  addNotifier(): void {}

  removeNotifier(): void {}
}

/** Eight BARs of 192 GiB by leaves of 1 GiB: type1's part of it, without the process's. */
function bars(mode: UnmapMode, count: number, target: Benchmark["target"]): Benchmark {
  return {
    name: `type1/map-unmap-192-gib-bar ${mode}`,
    unit: "BAR",
    target: target ?? null,
    prepare(scale) {
      const setup = new Setup(new Bars());
      setup.reset(mode);
      const pages = Math.max(2 ** 18, Math.round((PAGES_192_GIB * scale) / 2 ** 18) * 2 ** 18);
      const map = requestOf(pages);
      const unmap = unmapRequest(UnmapFlag.ALL, 0n, 0n);
      const round = () => {
        let hash = 0;
        for (let index = 0; index < count; index += 1) {
          map.iovaPfn = index * PAGES_192_GIB;
          hash = mix(hash, setup.map(map));
        }
        return mix(hash, setup.unmap(unmap));
      };
      return { units: count, round };
    },
  };
}

export const benchmarks: readonly Benchmark[] = [
  pairs,
  scattered,
  scatteredPair("extents"),
  scatteredPair("kernel"),
  bars("extents", 8, { ns: 625e3 }),
  bars("kernel", 1, null),
];
