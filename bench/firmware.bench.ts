/**
 * Firmware tables of 10 000 entries: decoded, read as Linux reads them, encoded, and written from a
 * machine. Target: 10 ms a table, so 1 µs an entry.
 */
import { buildTable } from "../src/firmware/acpi/build.ts";
import { decodeTable } from "../src/firmware/acpi/decode.ts";
import { readTables } from "../src/firmware/acpi/machine-parts.ts";
import { encodeItem } from "../src/firmware/table-item.ts";
import { EMPTY_MACHINE, type Iommu, type Machine, type RidRange } from "../src/topology/machine.ts";
import type { Benchmark } from "./harness.ts";

const ENTRIES = 10_000;
const target = { ns: 1000 };

const common = { node: null, includesRest: false, endpoints: [], interruptSources: [] };

/** Single functions, one of two apart so that nothing merges, so many in each segment. */
function ranges(count: number, perSegment = 1000): RidRange[] {
  return Array.from({ length: count }, (_, index) => {
    const rid = 2 * (index % perSegment);
    const segment = Math.floor(index / perSegment);
    return { segment, firstRid: rid, lastRid: rid, firstId: rid, includesBelow: false };
  });
}

function machineWith(iommu: Iommu): Machine {
  return { ...EMPTY_MACHINE, architecture: "x86_64", iommus: [iommu] };
}

function machines(
  count: number,
): Readonly<Record<"viot" | "iort" | "dmar" | "ivrs" | "srat", Machine>> {
  const registers = { start: 0xfed9_0000n, last: 0xfed9_0fffn };
  const translates = ranges(count);
  const name = "iommu";
  return {
    viot: machineWith({ ...common, kind: "virtio-pci", name, segment: 0, rid: 1, translates }),
    iort: machineWith({
      ...common,
      kind: "smmuv3",
      name,
      registers,
      isCoherent: true,
      interrupts: [],
      translates: ranges(count / 2),
    }),
    dmar: machineWith({
      ...common,
      kind: "vtd",
      name,
      segment: 0,
      registers,
      version: null,
      capability: null,
      extendedCapability: null,
      translates: ranges(count, ENTRIES).slice(0, 8000),
    }),
    ivrs: machineWith({
      ...common,
      kind: "amd",
      name,
      segment: 0,
      rid: 2,
      capabilityOffset: 0x40,
      registers,
      features: null,
      features2: null,
      translates: ranges(count, ENTRIES),
    }),
    srat: {
      ...EMPTY_MACHINE,
      architecture: "x86_64",
      nodes: Array.from({ length: 100 }, (_, id) => ({
        id,
        proximityDomain: id,
        memory: [],
        memoryBytes: 0n,
        cpus: Array.from({ length: count / 100 }, (_unused, cpu) => (id * count) / 100 + cpu),
        firmwareCpuIds: null,
        distances: [],
      })),
    },
  };
}

function benchmarksOf(kind: "viot" | "iort" | "dmar" | "ivrs" | "srat"): Benchmark[] {
  const prepare = (work: (bytes: Uint8Array, machine: Machine) => number) => (scale: number) => {
    const units = Math.max(100, Math.round((ENTRIES * scale) / 100) * 100);
    const machine = machines(units)[kind];
    const bytes = buildTable(kind, machine);
    return { units, round: () => work(bytes, machine) };
  };
  const common = { unit: "entry", target };
  return [
    {
      ...common,
      name: `firmware: ${kind} decoded`,
      prepare: prepare((bytes) => decodeTable(bytes).root.items.length),
    },
    {
      ...common,
      name: `firmware: ${kind} decoded and read`,
      prepare: prepare((bytes) => {
        const { machine } = readTables([decodeTable(bytes)]);
        return (
          machine.nodes.length + machine.iommus.reduce((n, one) => n + one.translates.length, 0)
        );
      }),
    },
    {
      ...common,
      name: `firmware: ${kind} encoded again`,
      prepare: prepare((bytes) => encodeItem(decodeTable(bytes).root)[9]!),
    },
    {
      ...common,
      name: `firmware: ${kind} built`,
      prepare: prepare((_bytes, machine) => buildTable(kind, machine)[9]!),
    },
  ];
}

export const benchmarks: readonly Benchmark[] = (
  ["viot", "iort", "dmar", "ivrs", "srat"] as const
).flatMap(benchmarksOf);
