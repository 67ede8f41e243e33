/** Page tables: mapping, unmapping, walking. The promises are those of the README. */
import { amdV1 } from "../src/iommu/formats/amd-v1.ts";
import { armStage1 } from "../src/iommu/formats/arm-stage1.ts";
import type { PageTableFormat } from "../src/iommu/formats/format.ts";
import { vtdSecondStage } from "../src/iommu/formats/vtd-second-stage.ts";
import { vtdFirstStage } from "../src/iommu/formats/x86-64.ts";
import { IotlbGather } from "../src/iommu/gather.ts";
import { PageTable } from "../src/iommu/page-table.ts";
import { PROT_RW } from "../src/iommu/prot.ts";
import { WalkResult } from "../src/iommu/table-walk.ts";
import { PagePool } from "../src/memory/page-pool.ts";
import { CountingMeter, type Meter, NULL_METER } from "../src/meter.ts";
import { Random } from "../src/random.ts";
import type { Benchmark } from "./harness.ts";

const TABLE_FRAMES = 2 ** 16;
const FRAMES_1_GIB = 2 ** 18;

function createTable(format: PageTableFormat, meter: Meter = NULL_METER): PageTable {
  const pool = new PagePool([{ node: 0, basePfn: 0x10_0000, frameCount: TABLE_FRAMES }]);
  return new PageTable({ format, pool, node: 0, meter });
}

function mix(hash: number, value: number): number {
  return Math.imul(hash ^ value, 0x0100_0193);
}

/** 4 GiB whose physical side is off by one granule, so that no larger page fits. */
function mapContiguous(format: PageTableFormat, perSecond: number): Benchmark {
  return {
    name: `page-table/map-contiguous ${format.name}`,
    unit: "PTE",
    target: { perSecond },
    prepare(scale) {
      const pool = new PagePool([{ node: 0, basePfn: 0x10_0000, frameCount: TABLE_FRAMES }]);
      const frames = 2 ** (format.granuleShift - 12);
      const units = Math.max(1, Math.round(2 ** 20 * scale));
      const round = () => {
        const table = new PageTable({ format, pool, node: 0 });
        const errno =
          format.style === "range"
            ? table.map(2 ** 24, 2 ** 21 + frames, units * frames, PROT_RW)
            : table.mapPages(2 ** 24, 2 ** 21 + frames, format.granuleShift, units, PROT_RW);
        const last = table.iovaToPhys(2 ** 24 + units * frames - 1);
        const hash = mix(mix(mix(0, errno), table.mappedPages), last);
        table.destroy();
        return hash;
      };
      return { units, round };
    },
  };
}

/** Random single pages of 256 MiB, whose tables exist. */
function mapUnmapPairs(format: PageTableFormat): Benchmark {
  return {
    name: `page-table/map-unmap-page ${format.name}`,
    unit: "pair",
    target: { perSecond: 10e6 },
    prepare(scale) {
      const table = createTable(format);
      const random = new Random(1);
      const iovas = Float64Array.from({ length: 2 ** 16 }, () => 2 ** 24 + random.below(2 ** 16));
      const gather = new IotlbGather();
      const units = Math.max(1, Math.round(2 ** 21 * scale));
      const round = () => {
        let hash = 0;
        for (let index = 0; index < units; index += 1) {
          const iova = iovas[index & 0xffff]!;
          const errno = table.map(iova, 2 ** 22 + (index & 0xf_ffff), 1, PROT_RW);
          hash = mix(hash, errno + table.unmap(iova, 1, gather));
        }
        return hash;
      };
      return { units, round };
    },
  };
}

/** The BAR of a large GPU: 192 GiB, both sides aligned to 1 GiB. */
const mapBar: Benchmark = {
  name: "page-table/map-192-gib vtd-second-stage-4",
  unit: "map",
  target: { ns: 1e6 },
  prepare(scale) {
    const format = vtdSecondStage({ levels: 4 });
    const table = createTable(format);
    const gather = new IotlbGather();
    const units = Math.max(1, Math.round(2000 * scale));
    const round = () => {
      let hash = 0;
      for (let index = 0; index < units; index += 1) {
        const pages = 192 * FRAMES_1_GIB;
        const errno = table.map(256 * FRAMES_1_GIB, 1024 * FRAMES_1_GIB, pages, PROT_RW);
        hash = mix(hash, errno + table.unmap(256 * FRAMES_1_GIB, pages, gather));
        table.freeTables(gather.takeTables() ?? []);
      }
      return hash;
    };
    return { units, round };
  },
};

/** Random walks over 200 000 single pages that lie anywhere in 16 GiB. */
function walk(format: PageTableFormat, meter: Meter = NULL_METER): Benchmark {
  const what = meter === NULL_METER ? "" : " counted";
  return {
    name: `page-table/walk-${format.topLevel + 1}-levels ${format.name}${what}`,
    unit: "walk",
    target: meter === NULL_METER ? { ns: 30 } : null,
    prepare(scale) {
      const table = createTable(format, meter);
      const random = new Random(2);
      const pages = Math.max(64, Math.round(200_000 * scale));
      const frames = 2 ** (format.granuleShift - 12);
      const start = 2 ** 24;
      for (let page = 0; page < pages; page += 1) {
        const phys = 2 ** 20 + random.below(2 ** 22) * frames;
        table.mapPages(start + page * frames, phys, format.granuleShift, 1, PROT_RW);
      }
      const iovas = Uint32Array.from(
        { length: 2 ** 16 },
        () => start + random.below(pages * frames),
      );
      const units = Math.max(1, Math.round(2 ** 21 * scale));
      const result = new WalkResult();
      const round = () => {
        let hash = 0;
        for (let index = 0; index < units; index += 1) {
          if (table.walk(iovas[index & 0xffff]!, result)) hash = mix(hash, result.physPfn);
        }
        return hash;
      };
      return { units, round };
    },
  };
}

const vtd = vtdSecondStage({ levels: 4 });
const arm = armStage1({ granuleShift: 12, inputBits: 48, outputBits: 48 });

export const benchmarks: readonly Benchmark[] = [
  mapContiguous(vtd, 100e6),
  mapContiguous(vtdFirstStage({ levels: 5 }), 100e6),
  mapContiguous(amdV1(), 100e6),
  mapContiguous(arm, 100e6),
  mapContiguous(armStage1({ granuleShift: 16, inputBits: 48, outputBits: 52 }), 100e6),
  mapUnmapPairs(vtd),
  mapUnmapPairs(amdV1()),
  mapBar,
  walk(vtd),
  walk(amdV1({ levels: 4 })),
  walk(arm),
  walk(vtd, new CountingMeter()),
];
