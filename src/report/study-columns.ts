/** What runs of devices' workloads are told in: a row for each policy, figures by kind. */
import type { StudyKind, StudyOutcome } from "../sim/study/study.ts";
import type { Column, Section, Unit } from "./column.ts";

type StudyColumn = Column<StudyOutcome>;

export const variantColumn: StudyColumn = {
  key: "policy",
  title: "policy",
  unit: "text",
  doc: "how things are set up",
  value: ({ name }) => name,
};

function column(key: string, title: string, unit: Unit, doc: string): StudyColumn {
  return { key, title, unit, doc, value: ({ run }) => run.values[key] ?? null };
}

/** Half the confidence interval, as a share. */
const halfWidth: StudyColumn = {
  key: "halfWidth95",
  title: "+- 95 %",
  unit: "share",
  doc: "half the confidence interval of what is judged",
  value: ({ run }) => (run.speed === null ? null : run.halfWidth),
};

const window: readonly Section<StudyOutcome>[] = [
  {
    key: "throughput",
    title: "Throughput",
    columns: [
      column("accessesPerSecond", "accesses/s", "count", "accesses a second"),
      column("bytesPerSecond", "bytes/s", "bytes", "what they move, 64 bytes each"),
      halfWidth,
    ],
  },
  {
    key: "latency",
    title: "Latency of an access, from its issue",
    columns: [
      column("meanNs", "mean", "ns", "arithmetic mean"),
      column("p50Ns", "p50", "ns", "median"),
      column("p99Ns", "p99", "ns", "latency that 99 % of the accesses do not exceed"),
    ],
  },
  {
    key: "iommu",
    title: "In the IOMMU",
    columns: [
      column("hitShare", "IOTLB hits", "share", "accesses that found their page in the IOTLB"),
      column("walkersBusy", "walkers", "share", "time that walkers were at work"),
      column("faults", "faults", "count", "pages that were not there and asked for"),
    ],
  },
];

const allReduce: readonly Section<StudyOutcome>[] = [
  {
    key: "throughput",
    title: "Throughput, as nccl-tests counts it",
    columns: [
      column("algbw", "algbw GB/s", "ratio", "10^9 bytes reduced a second: size over time"),
      column("busbw", "busbw GB/s", "ratio", "algbw times 2 (n - 1) / n, n ranks"),
      column("timeNs", "time", "ns", "virtual time of the operation"),
    ],
  },
  {
    key: "iommu",
    title: "In the IOMMUs",
    columns: [
      column("remoteShare", "remote reads", "share", "table entries read on another node"),
      column("walkersBusyMin", "walkers, least", "share", "time that they worked, idlest unit"),
      column("walkersBusyMax", "walkers, most", "share", "the same of the busiest unit"),
    ],
  },
];

const accelerator: readonly Section<StudyOutcome>[] = [
  {
    key: "throughput",
    title: "Throughput",
    columns: [
      column("bytesPerSecond", "bytes/s", "bytes", "bytes of messages a second"),
      column("timeNs", "time", "ns", "virtual time of all messages"),
    ],
  },
  {
    key: "faults",
    title: "Page faults of the device",
    columns: [
      column("faults", "faults", "count", "page requests of the device"),
      column("faultShare", "of the time", "share", "time in which it waited for them"),
      column("nsPerFault", "each", "ns", "that time by their number"),
      column("bufferPages", "pages of a set", "count", "input and output of one message"),
    ],
  },
];

const vmStart: readonly Section<StudyOutcome>[] = [
  {
    key: "time",
    title: "Time",
    columns: [
      column("mapNs", "start", "ns", "until everything is mapped"),
      column("unmapNs", "end", "ns", "to unmap all of it"),
    ],
  },
  {
    key: "work",
    title: "What the start took",
    columns: [
      column("pagesPinned", "pages pinned", "count", "4 KiB pages"),
      column("pagesZeroed", "faulted in", "count", "pages of RAM that were not there before"),
      column("lookups", "lookups", "count", "of frames of device memory"),
      column("entries", "entries", "count", "page-table entries that were written"),
      column("tables", "tables", "count", "page tables that were allocated"),
    ],
  },
];

/** Sections by kind. */
export const studySections: Readonly<Record<StudyKind, readonly Section<StudyOutcome>[]>> = {
  window,
  "all-reduce": allReduce,
  accelerator,
  "vm-start": vmStart,
};
