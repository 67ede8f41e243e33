/**
 * Threads that contend for one SMMUv3 command queue.
 *
 * Published: B. Song, 25 May 2020, B926444035E5E2439431908E3842AFD24B86DB: the whole unmap, and of
 * that the issue of its commands. How much of that is the wait for CMD_SYNC is not told here: our
 * queue is held for both.
 */
import { kunpengServer } from "../profiles/kunpeng-server.ts";
import { runMappingThreads } from "../workload/mapping-threads.ts";
import { compareTable, type TableRow } from "./summary.ts";
import type { Reproduction } from "./table.ts";

const SEED = 1;
const PS_PER_NS = 1000;

const unmaps: readonly (readonly [threads: number, ns: number])[] = [
  [1, 1956],
  [16, 8891],
  [32, 22_043],
  [64, 60_842],
  [96, 101_880],
];

/** The table. */
export const commandQueueTables: readonly Reproduction[] = [
  {
    id: "command-queue",
    title: "Threads that map, copy 4 KiB and unmap on one SMMUv3: a whole unmap",
    source: "B926444035E5E2439431908E3842AFD24B86DB, Kunpeng 920, 25 May 2020",
    run(progress) {
      const rows = unmaps.map(([threads, published]): TableRow => {
        const name = threads === 1 ? "1 thread" : `${threads} threads`;
        return { name, published, role: threads === 1 ? "fitted" : "predicted" };
      });
      const ours = unmaps.map(([threads]) => {
        progress(`command queue: ${threads} threads`);
        const { unmap } = runMappingThreads({ machine: kunpengServer, threads, seed: SEED });
        return unmap.kind === "steady" ? unmap.mean / PS_PER_NS : null;
      });
      return compareTable({ unit: "ns", resolution: 1 }, rows, ours);
    },
  },
];
