/**
 * Published times of pinning: guest memory pinned page by page and in batches, kinds of backing,
 * and a BAR found by the page and by the entry.
 */
import {
  contiguousFrames,
  listedFrames,
  scatteredFrames,
} from "../../vfio/process/frame-source.ts";
import { followRules } from "../../vfio/process/mappable-device.ts";
import { backingHost, batchPinningHost, strideHost } from "../profiles/vm-start-hosts.ts";
import type { RamPlan } from "../workload/vm-mappings.ts";
import { runVmStart } from "../workload/vm-start.ts";
import { compareTable, type TableRow } from "./summary.ts";
import type { Reproduction } from "./table.ts";

const GIB = 2 ** 18;
const PS_PER_S = 1e12;
const PS_PER_US = 1e6;
const BASE_PFN = 2 ** 22;
const HUGE_PAGES = 512;

/** Seconds by GiB of guest memory. */
const batches: readonly (readonly [gib: number, base: number, batched: number])[] = [
  [1, 0.61, 0.56],
  [2, 0.93, 0.85],
  [4, 1.46, 1.34],
  [8, 2.54, 2.32],
  [16, 4.66, 4.27],
  [32, 8.94, 8.2],
  [64, 17.47, 16.04],
  [120, 32.45, 29.69],
];

/** The two ends of the first row set its start and its slope. */
const FITTED_GIB = [1, 120];

const batchTable: Reproduction = {
  id: "pinning-batch",
  title: "Untouched guest memory mapped by type1, pinned page by page and in batches",
  source: "vfio/type1: Batch page pinning, Linux commit 4d83de6da265, 2021",
  run(progress) {
    const rows: TableRow[] = [];
    const ours: number[] = [];
    for (const [gib, base, batched] of batches) {
      for (const [batchPages, published] of [[1, base] as const, [512, batched] as const]) {
        const isFitted = batchPages === 1 && FITTED_GIB.includes(gib);
        const name = `${gib} GiB, ${batchPages === 1 ? "base" : "batch of 512"}`;
        progress(`pinning: ${name}`);
        const ram: RamPlan = {
          pages: gib * GIB,
          backing: { kind: "anonymous", isHuge: false },
          frames: () => contiguousFrames({ basePfn: BASE_PFN, pages: 128 * GIB }),
          isTouched: false,
          batchPages,
        };
        const { mapTime } = runVmStart({ machine: batchPinningHost, ram, unmapMode: "extents" });
        rows.push({ name, published, role: isFitted ? "fitted" : "predicted" });
        ours.push(mapTime / PS_PER_S);
      }
    }
    return compareTable({ unit: "s", resolution: 0.01 }, rows, ours);
  },
};

const RAM_16_GIB = 16 * GIB;

interface BackingRow {
  readonly name: string;
  readonly map: number;
  readonly unmap: number;
  readonly role: TableRow["role"];
  readonly ram: Pick<RamPlan, "backing" | "frames">;
}

/** A pool that was filled page by page gives them out last in, first out. */
function poolFrames() {
  const count = RAM_16_GIB / HUGE_PAGES;
  const pfnOf = (index: number) => BASE_PFN + (count - 1 - index) * HUGE_PAGES;
  const runs = Array.from({ length: count }, (_, index) => pfnOf(index));
  return listedFrames(runs.map((pfn) => ({ pfn, pages: HUGE_PAGES })));
}

const backings: readonly BackingRow[] = [
  {
    name: "transparent huge pages",
    map: 0.047,
    unmap: 0.135,
    role: "fitted",
    ram: {
      backing: { kind: "anonymous", isHuge: true },
      frames: () => contiguousFrames({ basePfn: BASE_PFN, pages: RAM_16_GIB }),
    },
  },
  {
    name: "4 KiB pages",
    map: 0.28,
    unmap: 0.312,
    role: "predicted",
    ram: {
      backing: { kind: "anonymous", isHuge: false },
      // Free lists of single pages: no two of them side by side.
      frames: () =>
        scatteredFrames({ basePfn: BASE_PFN, pages: RAM_16_GIB, unitPages: 1, seed: 1 }),
    },
  },
  {
    name: "hugetlb",
    map: 0.052,
    unmap: 0.136,
    role: "predicted",
    ram: { backing: { kind: "hugetlb", order: 9 }, frames: poolFrames },
  },
];

const backingTable: Reproduction = {
  id: "pinning-backing",
  title: "16 GiB of touched memory mapped and unmapped by type1",
  source: "20250630072518.31846-1, Linux 6.16-rc4, 30 June 2025",
  run(progress) {
    const rows: TableRow[] = [];
    const ours: number[] = [];
    for (const { name, map, unmap, role, ram } of backings) {
      progress(`pinning: ${name}`);
      const { mapTime, unmapTime } = runVmStart({
        machine: backingHost,
        ram: { ...ram, pages: RAM_16_GIB, isTouched: true, batchPages: 512 },
      });
      rows.push({ name: `${name}, map`, published: map, role });
      rows.push({ name: `${name}, unmap`, published: unmap, role });
      ours.push(mapTime / PS_PER_S, unmapTime / PS_PER_S);
    }
    return compareTable({ unit: "s", resolution: 0.001 }, rows, ours);
  },
};

const strideTable: Reproduction = {
  id: "pinning-bar",
  title: "A BAR of 16 GiB mapped by type1",
  source:
    "vfio/type1: Improve memory pinning process for raw PFN mapping, Linux commit 356e88ebe447",
  run(progress) {
    progress("pinning: a BAR of 16 GiB");
    const rows: readonly (TableRow & { readonly kernel: "linux-6.12" | "linux-6.15" })[] = [
      { name: "by the page", kernel: "linux-6.12", published: 0.4e6, role: "fitted" },
      { name: "by the entry", kernel: "linux-6.15", published: 1.5, role: "predicted" },
    ];
    const ours = rows.map(({ kernel }) => {
      const rules = followRules[kernel];
      const bar = { count: 1, pages: RAM_16_GIB, way: "follow", rules } as const;
      const bars = [{ ...bar, processOffset: 0, deviceOffset: 0 }];
      const { mapTime } = runVmStart({ machine: strideHost, bars, unmapMode: "extents" });
      return mapTime / PS_PER_US;
    });
    return compareTable(
      { unit: "us", resolution: 0.1 },
      rows.map(({ name, published, role }) => ({ name, published, role })),
      ours,
    );
  },
};

/** All three. */
export const pinningTables: readonly Reproduction[] = [batchTable, backingTable, strideTable];
