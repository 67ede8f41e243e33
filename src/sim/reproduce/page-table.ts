/**
 * Published times of map and unmap: the kernel's generic page tables by size and by 256, scatter
 * lists on an SMMUv2, the DMA benchmark on an SMMUv3.
 */
import { armStage1 } from "../../iommu/formats/arm-stage1.ts";
import type { PageTableFormat } from "../../iommu/formats/format.ts";
import { vtdSecondStage } from "../../iommu/formats/vtd-second-stage.ts";
import { amdV2 } from "../../iommu/formats/x86-64.ts";
import { Prot } from "../../iommu/prot.ts";
import {
  genericTablePrices,
  genericVtdPrices,
  smmuV2Prices,
  smmuV3Prices,
} from "../profiles/kernel-tables.ts";
import {
  type OperationTimes,
  type TableMachine,
  TimedDomain,
} from "../workload/table-operations.ts";
import { compareTable, type TableRow } from "./summary.ts";
import type { Reproduction } from "./table.ts";

const PS_PER_NS = 1e3;
const PS_PER_US = 1e6;
const PHYS_PFN = 2 ** 20;
const IOVA_PFN = 2 ** 30;
const BLOCK_PAGES = 512;

type Operation = keyof OperationTimes;

interface Cell {
  readonly name: string;
  readonly format: PageTableFormat;
  readonly operation: Operation;
  readonly pageShift: number;
  readonly count: number;
  readonly published: number;
  readonly role?: TableRow["role"];
}

const x86 = amdV2({ levels: 4 });
const vtd = vtdSecondStage({ levels: 4 });

const x86Map = { name: "x86 map", format: x86, operation: "map", role: "fitted" } as const;
const x86Unmap = { name: "x86 unmap", format: x86, operation: "unmap" } as const;
const vtdMap = { name: "VT-d map", format: vtd, operation: "map" } as const;

const x86Cells: readonly Cell[] = [
  { ...x86Map, pageShift: 12, count: 1, published: 71 },
  { ...x86Map, pageShift: 21, count: 1, published: 66, role: "predicted" },
  { ...x86Map, pageShift: 30, count: 1, published: 59 },
  { ...x86Map, pageShift: 12, count: 256, published: 392 },
  { ...x86Map, pageShift: 21, count: 256, published: 383, role: "predicted" },
  { ...x86Map, pageShift: 30, count: 256, published: 378, role: "predicted" },
  { ...x86Unmap, pageShift: 12, count: 1, published: 77 },
  { ...x86Unmap, pageShift: 21, count: 1, published: 76 },
  { ...x86Unmap, pageShift: 30, count: 1, published: 69 },
  { ...x86Unmap, pageShift: 12, count: 256, published: 225 },
  { ...x86Unmap, pageShift: 21, count: 256, published: 262 },
  { ...x86Unmap, pageShift: 30, count: 256, published: 251 },
];

const vtdCells: readonly Cell[] = [
  { ...vtdMap, pageShift: 12, count: 1, published: 55, role: "fitted" },
  { ...vtdMap, pageShift: 12, count: 256, published: 391 },
  { ...vtdMap, pageShift: 21, count: 256, published: 383 },
];

/** One call in a table that has a leaf of that size already: no table is made or freed. */
function timeCell(prices: TableMachine["prices"], cell: Cell): number {
  const { format, pageShift, count, operation } = cell;
  const domain = new TimedDomain({ format, prices, selective: null });
  const pages = 2 ** (pageShift - 12);
  const neighbour = IOVA_PFN + (BLOCK_PAGES - 1) * pages;
  domain.domain.map(neighbour, PHYS_PFN * 2 ** 10, pages, Prot.READ | Prot.WRITE);
  const run = { pfn: pages * BLOCK_PAGES, pages: pages * count };
  return domain.mapAndUnmap(IOVA_PFN, [run])[operation] / PS_PER_NS;
}

function callTable(parts: {
  id: string;
  format: string;
  cells: readonly Cell[];
  prices: TableMachine["prices"];
}): Reproduction {
  const { id, format, cells, prices } = parts;
  const title = `One call of iommu_map and iommu_unmap, by size of leaves: ${format}`;
  return {
    id,
    title,
    source: "Consolidate iommu page table implementations, 2025: kernel unit benchmark",
    run(progress) {
      progress(title);
      const rows = cells.map(({ name, pageShift, count, published, role = "predicted" }) => {
        const size = count === 1 ? `2^${pageShift}` : `${count}x2^${pageShift}`;
        return { name: `${name} ${size}`, published, role };
      });
      const ours = cells.map((cell) => timeCell(prices, cell));
      return compareTable({ unit: "ns", resolution: 1 }, rows, ours);
    },
  };
}

interface SizeRow {
  readonly name: string;
  readonly pages: number;
  readonly map: number;
  readonly unmap: number;
  readonly role?: TableRow["role"];
}

const KIB = 1 / 4;
const MIB = 256;

const scatterSizes: readonly SizeRow[] = [
  { name: "4 KiB", pages: 4 * KIB, map: 2.067, unmap: 1.854 },
  { name: "64 KiB", pages: 64 * KIB, map: 9.598, unmap: 8.802 },
  { name: "1 MiB", pages: MIB, map: 148.89, unmap: 130.718 },
  { name: "2 MiB", pages: 2 * MIB, map: 305.864, unmap: 67.291, role: "fitted" },
  { name: "12 MiB", pages: 12 * MIB, map: 1793.604, unmap: 390.838 },
  { name: "16 MiB", pages: 16 * MIB, map: 2386.848, unmap: 518.187 },
  { name: "24 MiB", pages: 24 * MIB, map: 3563.296, unmap: 775.989 },
  { name: "32 MiB", pages: 32 * MIB, map: 4747.171, unmap: 1033.364 },
];

const benchmarkSizes: readonly SizeRow[] = [
  { name: "1 page", pages: 1, map: 0.1, unmap: 1.3 },
  { name: "2 pages", pages: 2, map: 0.2, unmap: 1.5 },
  { name: "4 pages", pages: 4, map: 0.3, unmap: 1.9 },
  { name: "8 pages", pages: 8, map: 0.5, unmap: 2.7 },
  { name: "16 pages", pages: 16, map: 1, unmap: 4.5 },
  { name: "32 pages", pages: 32, map: 1.8, unmap: 7.9 },
  { name: "64 pages", pages: 64, map: 3.7, unmap: 14.8, role: "fitted" },
  { name: "128 pages", pages: 128, map: 7.1, unmap: 14.7 },
  { name: "256 pages", pages: 256, map: 14, unmap: 53.9 },
  { name: "512 pages", pages: 512, map: 0.2, unmap: 0.9 },
  { name: "1024 pages", pages: 1024, map: 0.5, unmap: 1.5 },
];

function sizeTable(parts: {
  id: string;
  title: string;
  source: string;
  sizes: readonly SizeRow[];
  machine: TableMachine;
  /** A list of pages that lie apart, or one buffer through the DMA API. */
  way: "list" | "dma";
  resolution: number;
}): Reproduction {
  const { id, title, source, sizes, machine, way, resolution } = parts;
  return {
    id,
    title,
    source,
    run(progress) {
      progress(title);
      const rows: TableRow[] = [];
      const ours: number[] = [];
      for (const { name, pages, map, unmap, role = "predicted" } of sizes) {
        const domain = new TimedDomain(machine);
        const list = () => Array.from({ length: pages }, (_, at) => PHYS_PFN + 2 * at);
        const call = () =>
          way === "dma"
            ? domain.mapAndUnmapDma(PHYS_PFN, pages)
            : domain.mapAndUnmap(
                IOVA_PFN,
                list().map((pfn) => ({ pfn, pages: 1 })),
              );
        // The second time, as in a loop: tables that outlive an unmap are there, and IOVAs cached.
        call();
        const times = call();
        rows.push({ name: `${name}, map`, published: map, role });
        rows.push({ name: `${name}, unmap`, published: unmap, role });
        ours.push(times.map / PS_PER_US, times.unmap / PS_PER_US);
      }
      return compareTable({ unit: "us", resolution }, rows, ours);
    },
  };
}

const arm = armStage1({ granuleShift: 12, inputBits: 48, outputBits: 48 });

/** All of them. */
export const pageTableTables: readonly Reproduction[] = [
  callTable({
    id: "page-table-x86",
    format: "x86 64-bit",
    cells: x86Cells,
    prices: genericTablePrices,
  }),
  callTable({
    id: "page-table-vtd",
    format: "VT-d second stage",
    cells: vtdCells,
    prices: genericVtdPrices,
  }),
  sizeTable({
    id: "page-table-scatter",
    title: "Lists of 4 KiB elements on an SMMUv2: iommu_map_sg and iommu_unmap",
    source: "20210609145315.25750-1, SM8150, 9 June 2021",
    sizes: scatterSizes,
    machine: {
      format: arm,
      prices: smmuV2Prices,
      selective: { kind: "pages", pageShift: 12, commandsMax: 2 ** 20 },
    },
    way: "list",
    resolution: 0.001,
  }),
  sizeTable({
    id: "page-table-dma",
    title: "dma_map_benchmark on an SMMUv3, one thread",
    source: "edfff22f-251d-e07d-fdbc-0eb00c821f15, 15 July 2021",
    sizes: benchmarkSizes,
    machine: { format: arm, prices: smmuV3Prices, selective: { kind: "range" } },
    way: "dma",
    resolution: 0.1,
  }),
];
