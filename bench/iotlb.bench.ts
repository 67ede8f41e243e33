/** The IOTLB and the way to it: a hit, a miss with walk and fill, and invalidations. */
import { DomainType, IommuDomain } from "../src/iommu/domain.ts";
import { vtdSecondStage } from "../src/iommu/formats/vtd-second-stage.ts";
import { HardwareDomain } from "../src/iommu/hardware-domain.ts";
import { Iotlb, type IotlbGeometry } from "../src/iommu/iotlb.ts";
import { PageTable } from "../src/iommu/page-table.ts";
import { PROT_RW } from "../src/iommu/prot.ts";
import { NO_PASID } from "../src/iommu/tag-array.ts";
import { Translation, TranslationUnit } from "../src/iommu/translation-unit.ts";
import { PagePool } from "../src/memory/page-pool.ts";
import type { Benchmark } from "./harness.ts";

const GEOMETRY: IotlbGeometry = {
  sets: 64,
  ways: 8,
  replacement: "plru",
  pageShifts: [12, 21, 30],
};
const RID = 0x3b00;
const PAGES = 65536;

/** A device on a domain that maps 256 MiB in pages of 4 KiB, from 4 GiB downwards. */
function makeWorld() {
  const pool = new PagePool([{ node: 0, basePfn: 0x100_0000, frameCount: 8192 }]);
  const table = new PageTable({ format: vtdSecondStage({ levels: 4 }), pool, node: 0 });
  const hardware = new HardwareDomain({ table });
  const domain = new IommuDomain(DomainType.DMA, hardware);
  const unit = new TranslationUnit({
    name: "dmar0",
    node: 0,
    iotlb: GEOMETRY,
    pagingCache: { sets: 16, ways: 4, replacement: "plru" },
    selective: { kind: "mask", maskMax: 18 },
  });
  hardware.attach(unit, RID);
  const base = 2 ** 20 - PAGES;
  domain.map(base, 0x20_0001, PAGES, PROT_RW);
  return { unit, domain, base };
}

function translations(name: string, perSecond: number, pages: number, stride: number): Benchmark {
  return {
    name,
    unit: "translation",
    target: { perSecond },
    prepare(scale) {
      const { unit, base } = makeWorld();
      const out = new Translation();
      const units = Math.ceil(2_000_000 * scale);
      const round = () => {
        let hash = 0;
        let page = 0;
        for (let index = 0; index < units; index += 1) {
          unit.translate(RID, NO_PASID, base + page, 1, out);
          hash = (Math.imul(hash, 31) + out.physPfn) | 0;
          page += stride;
          if (page >= pages) page -= pages;
        }
        return hash;
      };
      return { units, round };
    },
  };
}

const lookup: Benchmark = {
  name: "IOTLB lookup and fill, 512 entries, 3 sizes",
  unit: "lookup",
  target: { perSecond: 20e6 },
  prepare(scale) {
    const units = Math.ceil(4_000_000 * scale);
    const round = () => {
      const iotlb = new Iotlb(GEOMETRY);
      for (let page = 0; page < 400; page += 1) {
        iotlb.fill(1, NO_PASID, page, page + 7, 12, PROT_RW);
      }
      iotlb.fill(1, NO_PASID, 2 ** 20, 2 ** 20, 21, PROT_RW);
      let hash = 0;
      for (let index = 0; index < units; index += 1) {
        const slot = iotlb.lookup(1, NO_PASID, (index * 7) % 400);
        hash = (Math.imul(hash, 31) + slot) | 0;
      }
      return hash;
    };
    return { units, round };
  },
};

const unmaps: Benchmark = {
  name: "map, access, unmap and range invalidation of one page",
  unit: "I/O",
  target: { perSecond: 2e6 },
  prepare(scale) {
    const { unit, domain, base } = makeWorld();
    const out = new Translation();
    const units = Math.ceil(500_000 * scale);
    const first = base - PAGES;
    const round = () => {
      let hash = 0;
      for (let index = 0; index < units; index += 1) {
        const pfn = first + (index & 0xfff);
        domain.map(pfn, 0x40_0000 + (index & 0xffff), 1, PROT_RW);
        unit.translate(RID, NO_PASID, pfn, 1, out);
        hash = (Math.imul(hash, 31) + out.physPfn) | 0;
        domain.unmap(pfn, 1);
      }
      return hash ^ unit.iotlb.entries.live;
    };
    return { units, round };
  },
};

const ranges: Benchmark = {
  name: "range invalidation, 512 entries live",
  unit: "invalidation",
  target: { perSecond: 5e6 },
  prepare(scale) {
    const { unit, base } = makeWorld();
    const out = new Translation();
    for (let page = 0; page < 512; page += 1) unit.translate(RID, NO_PASID, base + page, 1, out);
    const units = Math.ceil(1_000_000 * scale);
    const round = () => {
      for (let index = 0; index < units; index += 1) {
        const pfn = base + 1024 + (index & 0xffff);
        unit.invalidateRange(1, NO_PASID, pfn, pfn + (index & 7), true);
      }
      return unit.iotlb.entries.live;
    };
    return { units, round };
  },
};

export const benchmarks: Benchmark[] = [
  lookup,
  translations("translation, IOTLB hit", 25e6, 256, 1),
  translations("translation, IOTLB miss, walk from paging cache, fill", 6e6, PAGES, 641),
  unmaps,
  ranges,
];
