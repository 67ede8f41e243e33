/** Benchmarks of the IOVA allocator and the flush queue. */
import { IovaDomain } from "../src/dma/iova-domain.ts";
import { IovaTree } from "../src/dma/iova-tree.ts";
import { Random } from "../src/random.ts";
import type { Benchmark } from "./harness.ts";

const last32 = 0xf_ffff;
const last48 = 2 ** 36 - 1;

const cachedPair: Benchmark = {
  name: "iova: cached alloc + free, 1 page, 32 in flight",
  unit: "pair",
  target: { ns: 60 },
  prepare(scale) {
    const units = Math.ceil(4e6 * scale);
    return {
      units,
      round: () => {
        const domain = new IovaDomain({ cpus: 4 });
        const window = new Float64Array(32);
        let hash = 0;
        for (let count = 0; count < units; count += 1) {
          const at = count % 32;
          if (count >= 32) domain.free(window[at]!, 1, count & 3, 0);
          const pfn = domain.alloc(1, last32, true, count & 3);
          window[at] = pfn;
          hash = (Math.imul(hash, 31) + pfn) | 0;
        }
        return hash;
      },
    };
  },
};

/** Frees a random range and takes it again: the limit makes the search end where it was. */
function treePair(live: number, label: string): Benchmark {
  return {
    name: `iova: tree free + alloc of a random range, ${label} live`,
    unit: "pair",
    target: null,
    prepare(scale) {
      const ranges = Math.ceil(live * Math.max(scale, 1000 / live));
      const units = Math.ceil(500_000 * scale);
      const random = new Random(1);
      const tree = new IovaTree({ startPfn: 1, limit32Pfn: 2 ** 20 });
      const sizes = Int32Array.from({ length: ranges }, () => 33 + random.below(64));
      const pfns = Float64Array.from(sizes, (pages) => tree.alloc(pages, last48, true));
      const victims = Int32Array.from({ length: units }, () => random.below(ranges));
      return {
        units,
        round: () => {
          let hash = 0;
          for (const at of victims) {
            const pfn = pfns[at]!;
            const pages = sizes[at]!;
            tree.free(pfn);
            hash = (Math.imul(hash, 31) + tree.alloc(pages, pfn + pages - 1, true)) | 0;
          }
          return hash;
        },
      };
    },
  };
}

/** Searches from the top past gaps of one page for two pages, which Linux does range by range. */
function treePast(live: number, label: string): Benchmark {
  return {
    name: `iova: tree alloc + free, past ${label} gaps that are too small`,
    unit: "pair",
    target: null,
    prepare(scale) {
      const ranges = Math.ceil(live * Math.max(scale, 1000 / live));
      const units = Math.ceil(500_000 * scale);
      const tree = new IovaTree({ startPfn: 1, limit32Pfn: 2 ** 20, searchFromTop: true });
      const top = 2 ** 34;
      for (let count = 0; count < ranges; count += 1)
        tree.reserve(top - 2 * count, top - 2 * count);
      return {
        units,
        round: () => {
          let hash = 0;
          for (let count = 0; count < units; count += 1) {
            const pfn = tree.alloc(2, top - 1, true);
            hash = (Math.imul(hash, 31) + pfn + tree.visited) | 0;
            tree.free(pfn);
          }
          return hash;
        },
      };
    },
  };
}

const lives: readonly [number, string][] = [
  [1000, "1 K"],
  [32_768, "32 K"],
  [2 ** 20, "1 M"],
];

export const benchmarks: readonly Benchmark[] = [
  cachedPair,
  ...lives.map(([live, label]) => treePair(live, label)),
  ...lives.map(([live, label]) => treePast(live, label)),
];
