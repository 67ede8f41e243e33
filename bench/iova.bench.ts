/** Benchmarks of the IOVA allocator and the flush queue. */
import { FlushQueue, type FlushQueueKind } from "../src/dma/flush-queue.ts";
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

/** Fills a space, replaces random ranges by others of another size, and empties it. */
function treePair(live: number, label: string): Benchmark {
  return {
    name: `iova: tree alloc + free of random ranges, ${label} live`,
    unit: "pair",
    target: null,
    prepare(scale) {
      const ranges = Math.ceil(live * Math.max(scale, 1000 / live));
      const churn = Math.ceil(2 ** 20 * scale);
      const random = new Random(1);
      const sizes = Int32Array.from({ length: ranges + churn }, () => 33 + random.below(64));
      const victims = Int32Array.from({ length: churn }, () => random.below(ranges));
      return {
        units: ranges + churn,
        round: () => {
          const tree = new IovaTree({ startPfn: 1, limit32Pfn: 2 ** 20 });
          const pfns = new Float64Array(ranges);
          for (let at = 0; at < ranges; at += 1) pfns[at] = tree.alloc(sizes[at]!, last48, true);
          let hash = 0;
          for (let count = 0; count < churn; count += 1) {
            const at = victims[count]!;
            tree.free(pfns[at]!);
            const pfn = tree.alloc(sizes[ranges + count]!, last48, true);
            pfns[at] = pfn;
            hash = (Math.imul(hash, 31) + pfn) | 0;
          }
          for (const pfn of pfns) hash = (hash + tree.free(pfn)) | 0;
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

/** Queues 50 entries a millisecond; rings fill up, and the timer expires in between. */
function queueEntry(kind: FlushQueueKind): Benchmark {
  return {
    name: `iova: flush queue, ${kind}, a range in and out`,
    unit: "range",
    target: { ns: 60 },
    prepare(scale) {
      const units = Math.ceil(4e6 * scale);
      return {
        units,
        round: () => {
          let hash = 0;
          let dueMs = 0;
          const queue = new FlushQueue({
            kind,
            cpus: 4,
            sink: {
              flushIotlbAll: () => {
                hash = (hash + 1) | 0;
              },
              release: (pfn, pages, _, cpu) => {
                hash = (Math.imul(hash, 31) + pfn + pages + cpu) | 0;
              },
            },
            timer: {
              arm: (due) => {
                dueMs = due;
              },
            },
          });
          for (let count = 0; count < units; count += 1) {
            const nowMs = count / 50;
            if (queue.timerArmed && nowMs >= dueMs) queue.onTimer(count & 3, nowMs);
            queue.queue(count & 3, count, 1, null, nowMs);
          }
          return hash;
        },
      };
    },
  };
}

/** The IOVA side of a lazy driver: takes a page, queues it, and gets it back from the flush. */
const lazyCycle: Benchmark = {
  name: "iova: lazy cycle: cached alloc, flush queue, cached free",
  unit: "cycle",
  target: { ns: 120 },
  prepare(scale) {
    const units = Math.ceil(4e6 * scale);
    return {
      units,
      round: () => {
        const domain = new IovaDomain({ cpus: 4 });
        const queue = new FlushQueue({
          kind: "per-cpu",
          cpus: 4,
          sink: {
            flushIotlbAll: () => {},
            release: (pfn, pages, _, cpu, nowMs) => domain.free(pfn, pages, cpu, nowMs),
          },
          timer: { arm: () => {} },
        });
        let hash = 0;
        for (let count = 0; count < units; count += 1) {
          const cpu = count & 3;
          const pfn = domain.alloc(1, last32, true, cpu);
          queue.queue(cpu, pfn, 1, null, 0);
          hash = (Math.imul(hash, 31) + pfn) | 0;
        }
        return hash;
      },
    };
  },
};

const lives: readonly [number, string][] = [
  [1000, "1 K"],
  [32_768, "32 K"],
  [2 ** 20, "1 M"],
];

export const benchmarks: readonly Benchmark[] = [
  cachedPair,
  queueEntry("per-cpu"),
  queueEntry("single"),
  lazyCycle,
  ...lives.map(([live, label]) => treePair(live, label)),
  ...lives.map(([live, label]) => treePast(live, label)),
];
