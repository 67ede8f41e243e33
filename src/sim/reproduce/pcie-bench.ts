/**
 * The tables of pcie-bench: what an IOMMU adds to small DMA at random in a window of memory.
 *
 * Published: R. Neugebauer and others, SIGCOMM 2018; figures of github.com/pcie-bench/data.
 */
import { broadwell, ivyBridge } from "../profiles/pcie-bench.ts";
import type { SteadyState } from "../steady-state.ts";
import { runWindow, type WindowMachine, type WindowRun } from "../workload/random-window.ts";
import { compareTable, type TableRow } from "./summary.ts";
import { compareRow, type PublishedRow, type Reproduction } from "./table.ts";

interface Series {
  readonly id: string;
  readonly title: string;
  readonly machine: WindowMachine;
  readonly pageShift: WindowRun["pageShift"];
  readonly isWarm?: boolean;
  readonly isWrite?: boolean;
  /** Values by window. */
  readonly values: Readonly<Record<string, number>>;
  /** Windows that set prices. */
  readonly fitted: readonly string[];
  /** Windows that chose a whole number or a mechanism: no prediction either, though still held to. */
  readonly chosen?: readonly string[];
}

const SEED = 1;
const KIB = 2 ** 10;

/** Latency of one read at a time, mean, ns. */
const latencies: readonly Series[] = [
  {
    id: "bdw-none-cold",
    title: "BDW without IOMMU, cold",
    machine: broadwell,
    pageShift: null,
    values: windows([608, 610, 610, 610, 610, 610, 610, 610, 610, 610, 610, 610]),
    fitted: ["64K", "64M"],
  },
  {
    id: "bdw-4k-cold",
    title: "BDW with IOMMU, 4 KiB pages, cold",
    machine: broadwell,
    pageShift: 12,
    values: windows([612, 613, 613, 638, 770, 813, 835, 868, 885, 895, 899, 901]),
    fitted: ["1M", "64M"],
  },
  {
    id: "bdw-none-warm",
    title: "BDW without IOMMU, host-warm",
    machine: broadwell,
    pageShift: null,
    isWarm: true,
    values: windows([557, 557, 557, 557, 557, 557, 557, 557, 557, 557, 569, 590]),
    fitted: ["64K", "64M"],
  },
  {
    id: "bdw-4k-warm",
    title: "BDW with IOMMU, 4 KiB pages, host-warm",
    machine: broadwell,
    pageShift: 12,
    isWarm: true,
    values: windows([555, 555, 555, 580, 712, 760, 778, 814, 827, 836, 851, 877]),
    fitted: [],
  },
  {
    id: "ivb-none-cold",
    title: "IVB without IOMMU, cold",
    machine: ivyBridge,
    pageShift: null,
    values: windows([617, 618, 618, 617, 617, 617, 617, 617, 617, 617, 617, 617]),
    fitted: ["1M", "64M"],
  },
  {
    id: "ivb-2m-cold",
    title: "IVB with IOMMU, 2 MiB pages, cold",
    machine: ivyBridge,
    pageShift: 21,
    values: windows([619, 619, 619, 619, 619, 619, 619, 619, 619, 619, 619, 619]),
    fitted: [],
  },
  {
    id: "ivb-4k-cold",
    title: "IVB with IOMMU, 4 KiB pages, cold",
    machine: ivyBridge,
    pageShift: 12,
    values: windows([618, 618, 618, 623, 770, 819, 844, 880, 899, 908, 912, 915]),
    fitted: ["1M", "64M"],
  },
];

/** Accesses as fast as they go, cold, millions a second. */
const rates: readonly Series[] = [
  {
    id: "bdw-none-read",
    title: "BDW without IOMMU, reads",
    machine: broadwell,
    pageShift: null,
    values: rateWindows([
      52.58, 54.86, 54.13, 53.62, 53.89, 54.19, 54.43, 54.57, 54.66, 54.77, 54.86, 54.84, 54.91,
    ]),
    fitted: ["2M"],
  },
  {
    id: "bdw-4k-read",
    title: "BDW with IOMMU, 4 KiB pages, reads",
    machine: broadwell,
    pageShift: 12,
    values: rateWindows([
      52.38, 54.63, 53.87, 39.45, 27.99, 24.52, 22.92, 21.48, 20.81, 19.87, 19.42, 19.27, 19.22,
    ]),
    fitted: [],
    // Retiring in order; entries pinned by reads; the number of walkers.
    chosen: ["512K", "1M", "64M"],
  },
  {
    id: "bdw-none-write",
    title: "BDW without IOMMU, writes",
    machine: broadwell,
    pageShift: null,
    isWrite: true,
    values: rateWindows(new Array<number>(13).fill(47.4)),
    fitted: ["2M"],
  },
  {
    id: "bdw-4k-write",
    title: "BDW with IOMMU, 4 KiB pages, writes",
    machine: broadwell,
    pageShift: 12,
    isWrite: true,
    values: rateWindows([
      47.4, 47.4, 47.4, 47.4, 37.86, 29.4, 26.51, 24.13, 23.31, 22.45, 22.05, 21.94, 21.9,
    ]),
    fitted: [],
    // No entry pinned by writes; the number of walkers.
    chosen: ["1M", "64M"],
  },
];

function windows(values: readonly number[]): Record<string, number> {
  const names = "8K 64K 256K 512K 1M 1.5M 2M 4M 8M 16M 32M 64M".split(" ");
  return Object.fromEntries(names.map((name, index) => [name, values[index]!]));
}

function rateWindows(values: readonly number[]): Record<string, number> {
  const names = "4K 16K 256K 512K 1M 1.5M 2M 3M 4M 8M 16M 32M 64M".split(" ");
  return Object.fromEntries(names.map((name, index) => [name, values[index]!]));
}

function bytesOf(window: string): number {
  return Number(window.slice(0, -1)) * (window.endsWith("M") ? KIB * KIB : KIB);
}

function reproduction(
  series: Series,
  measure: {
    readonly what: string;
    readonly unit: string;
    readonly isSingle: boolean;
    readonly target: number;
    readonly scale: number;
  },
): Reproduction {
  const { id, title, machine, pageShift, isWarm = false, isWrite = false, values, fitted } = series;
  const { chosen = [] } = series;
  const { what, unit, isSingle, target, scale } = measure;
  return {
    id: `pcie-bench-${what}-${id}`,
    title: `pcie-bench, ${what}: ${title}`,
    source: "R. Neugebauer and others, SIGCOMM 2018, data set",
    run(progress) {
      return Object.entries(values).map(([name, published]) => {
        progress(`pcie-bench, ${what}, ${title}: ${name}`);
        const isUsed = fitted.includes(name) || chosen.includes(name);
        const role: PublishedRow["role"] = isUsed ? "fitted" : "predicted";
        const windowBytes = bytesOf(name);
        const options = { machine, windowBytes, pageShift, isWarm, isWrite, isSingle };
        const result = runWindow({ ...options, seed: SEED });
        const value: SteadyState = isSingle ? result.latency : result.rate;
        const ours = value.kind === "steady" ? value.mean / scale : null;
        const goal = fitted.includes(name) ? null : target;
        const row = { name, unit, published, role, target: goal } as const;
        return compareRow({ ...row, errorKind: "relative" }, ours);
      });
    },
  };
}

/** Payload of warm accesses without an IOMMU, Gb/s, by size of access. */
const payloads: readonly (readonly [bytes: number, isWrite: boolean, rates: readonly number[]])[] =
  [
    [64, false, [32.2, 32.5, 32.5, 32.6, 28.4]],
    [128, false, [43.8, 43.8, 43.8, 43.8, 42.2]],
    [256, false, [47.7, 47.7, 47.7, 47.7, 46.7]],
    [512, false, [55, 55, 55, 55, 55]],
    [64, true, [24.3, 24.3, 24.3, 24.3, 24.3]],
    [128, true, [42.4, 42.4, 42.4, 42.4, 42.4]],
    [256, true, [50.5, 50.5, 50.5, 50.5, 50.5]],
    [512, true, [53, 53, 53, 53, 53.2]],
  ];

const payloadTable: Reproduction = {
  id: "pcie-bench-payload",
  title: "pcie-bench, payload by size of access: BDW without IOMMU, host-warm",
  source: "R. Neugebauer and others, SIGCOMM 2018, data set",
  run(progress) {
    const rows: TableRow[] = [];
    const ours: (number | null)[] = [];
    for (const [bytes, isWrite, rates] of payloads) {
      for (const [at, window] of ["16K", "256K", "1M", "4M", "64M"].entries()) {
        const name = `${isWrite ? "writes" : "reads"} of ${bytes}, ${window}`;
        progress(`pcie-bench, payload: ${name}`);
        const isFitted = isWrite && bytes === 128;
        rows.push({ name, published: rates[at]!, role: isFitted ? "fitted" : "predicted" });
        const windowBytes = bytesOf(window);
        const options = { windowBytes, pageShift: null, isWarm: true, isWrite, isSingle: false };
        const { rate } = runWindow({ ...options, machine: broadwell, bytes, seed: SEED });
        ours.push(rate.kind === "steady" ? (rate.mean * bytes * 8) / 1e9 : null);
      }
    }
    return compareTable({ unit: "Gb/s", resolution: 0.1 }, rows, ours);
  },
};

/** The table of sizes. */
export const payloadTables: readonly Reproduction[] = [payloadTable];

/** All tables. */
export const pcieBenchTables: readonly Reproduction[] = [
  ...latencies.map((series) =>
    reproduction(series, {
      what: "latency",
      unit: "ns",
      isSingle: true,
      target: 0.01,
      scale: 1000,
    }),
  ),
  ...rates.map((series) =>
    reproduction(series, {
      what: "throughput",
      unit: "M/s",
      isSingle: false,
      target: 0.08,
      scale: 1e6,
    }),
  ),
];
