/** A replay's outcome as columns: what the terminal table, `--json` and `--csv` show. */
import type { ReplayOutcome } from "../recording/replay/replay.ts";
import type {
  ExposureCounts,
  FlushCounts,
  InvalidationCounts,
  IommuKind,
  IovaCounts,
  PolicyResult,
  RecordingReplay,
  RequestCounts,
  Spread,
  TableCounts,
} from "../recording/replay/result.ts";
import type { Cell, Column, Section, Unit } from "./column.ts";
import { csvOf, recordOf } from "./records.ts";

type Row = PolicyResult;

/** The column that names a row. */
export const policyColumn: Column<Row> = {
  key: "policy",
  title: "policy",
  unit: "text",
  doc: "Mapping policy",
  value: (row) => row.policy,
};

/** Makes columns of one group of a result; where a policy lacks the group they hold `null`. */
function columnsOf<Group>(groupOf: (row: Row) => Group | null) {
  return (
    key: string,
    title: string,
    unit: Unit,
    doc: string,
    value: (group: Group) => Cell,
  ): Column<Row> => ({
    key,
    title,
    unit,
    doc,
    value: (row) => {
      const group = groupOf(row);
      return group === null ? null : value(group);
    },
  });
}

function detail(column: Column<Row>): Column<Row> {
  return { ...column, isDetail: true };
}

const request = columnsOf<RequestCounts>((row) => row.requests);
const batch = columnsOf<Spread>((row) => row.requests.batch);
const invalidation = columnsOf<InvalidationCounts>((row) => row.invalidations);
const flush = columnsOf<FlushCounts>((row) => row.flushes);
const iova = columnsOf<IovaCounts>((row) => row.iova);
const table = columnsOf<TableCounts>((row) => row.tables);
const exposure = columnsOf<ExposureCounts>((row) => row.exposure);

const LEVELS_MAX = 5;

const requests: Section<Row> = {
  key: "requests",
  title: "Requests",
  columns: [
    request("map", "MAP", "count", "MAP requests; hardware: runs of pages mapped", (g) => g.map),
    request("unmap", "UNMAP", "count", "UNMAP requests; hardware: ranges unmapped", (g) => g.unmap),
    request("kicks", "kicks", "count", "Notifications of the request queue", (g) => g.kicks),
    request("syncs", "waits", "count", "Times a CPU waited for completion", (g) => g.syncs),
    request(
      "syncsPerUnmap",
      "waits/\nunmap",
      "ratio",
      "Waits per unmapped buffer",
      (g) => g.syncsPerUnmap,
    ),
    request(
      "kicksPerUnmap",
      "kicks/\nunmap",
      "ratio",
      "Notifications per unmapped buffer",
      (g) => g.kicksPerUnmap,
    ),
  ],
};

const batches: Section<Row> = {
  key: "batches",
  title: "Requests that one wait completed",
  columns: [
    batch("mean", "mean", "ratio", "Mean", (g) => g.mean),
    batch("p50", "p50", "count", "Median", (g) => g.p50),
    batch("p90", "p90", "count", "90th percentile", (g) => g.p90),
    batch("p99", "p99", "count", "99th percentile", (g) => g.p99),
    batch("max", "max", "count", "Largest", (g) => g.max),
  ],
};

const invalidations: Section<Row> = {
  key: "invalidations",
  title: "IOTLB invalidations",
  columns: [
    invalidation("range", "by range", "count", "Page-selective invalidations", (g) => g.range),
    invalidation("domain", "by domain", "count", "Domain-selective invalidations", (g) => g.domain),
    invalidation("global", "global", "count", "Global invalidations", (g) => g.global),
  ],
};

const flushes: Section<Row> = {
  key: "flushes",
  title: "Flush queue",
  columns: [
    flush("queued", "entries\nqueued", "count", "Unmapped ranges put on a queue", (g) => g.queued),
    flush("full", "flushes:\nfull", "count", "Flushes because a queue was full", (g) => g.full),
    flush("timer", "flushes:\ntimer", "count", "Flushes because the timer expired", (g) => g.timer),
  ],
};

const iovas: Section<Row> = {
  key: "iova",
  title: "I/O virtual addresses",
  columns: [
    iova("allocations", "allocated", "count", "Ranges allocated", (g) => g.allocations),
    iova("cacheHits", "cache\nhits", "count", "Ranges out of a per-CPU cache", (g) => g.cacheHits),
    iova(
      "cacheHitShare",
      "share",
      "share",
      "Cache hits of all allocations",
      (g) => g.cacheHitShare,
    ),
    iova(
      "treeSearches",
      "tree\nsearches",
      "count",
      "Ranges searched for in the tree",
      (g) => g.treeSearches,
    ),
    detail(
      iova("treeSteps", "gaps", "count", "Gaps looked at in all searches", (g) => g.treeSteps),
    ),
    iova(
      "below4GiBPeakBytes",
      "peak\n< 4 GiB",
      "bytes",
      "Most bytes below 4 GiB mapped, cached or waiting for a flush",
      (g) => g.below4GiBPeakBytes,
    ),
    iova("above4GiB", "left\n32 bits", "count", "Allocations above 4 GiB", (g) => g.above4GiB),
    iova("failed", "failed", "count", "Allocations or mappings that failed", (g) => g.failed),
  ],
};

const tables: Section<Row> = {
  key: "tables",
  title: "Page tables, peak (level 1 maps 4 KiB pages)",
  columns: [
    ...Array.from({ length: LEVELS_MAX }, (_, index) =>
      table(
        `level${index + 1}Pages`,
        `level ${index + 1}\npages`,
        "count",
        `Table pages of level ${index + 1}, at most at once`,
        (g) => g.pagesByLevel[index] ?? null,
      ),
    ),
    table("peakBytes", "memory", "bytes", "Page-table memory, at most at once", (g) => g.peakBytes),
    table(
      "entryWrites",
      "entries\nwritten",
      "count",
      "Table entries written",
      (g) => g.entryWrites,
    ),
  ],
};

const exposures: Section<Row> = {
  key: "exposure",
  title: "Still reachable by the device after unmap",
  columns: [
    exposure("unmaps", "unmaps", "count", "Unmaps that left memory reachable", (g) => g.unmaps),
    exposure("peakBytes", "peak", "bytes", "Most bytes reachable at once", (g) => g.peakBytes),
    exposure("meanBytes", "mean", "bytes", "Mean over the recording's time", (g) => g.meanBytes),
    exposure(
      "meanNs",
      "mean\ntime",
      "ns",
      "Mean time that memory stayed reachable",
      (g) => g.meanNs,
    ),
    exposure(
      "longestNs",
      "longest",
      "ns",
      "Longest time that memory stayed reachable",
      (g) => g.longestNs,
    ),
  ],
};

/** Every section, as JSON and CSV have them. */
export const replaySections: readonly Section<Row>[] = [
  requests,
  batches,
  invalidations,
  flushes,
  iovas,
  tables,
  exposures,
];

/** The sections that a terminal shows, without the columns that hold nothing. */
export function terminalSections(kind: IommuKind, rows: readonly Row[]): Section<Row>[] {
  const shown =
    kind === "virtio"
      ? [requests, batches, flushes, iovas, exposures]
      : [requests, invalidations, flushes, iovas, tables, exposures];
  return shown
    .map((section) => ({
      ...section,
      columns: section.columns.filter(
        (column) => column.isDetail !== true && rows.some((row) => column.value(row) !== null),
      ),
    }))
    .filter((section) => section.columns.length > 0);
}

/** The documented object that `replay --json` prints. */
export interface ReplayJson {
  readonly schema: "iommukit/replay@1";
  readonly result: { readonly recordings: readonly object[] };
  readonly diagnostics: readonly object[];
}

/** Makes the object of `--json`: policies as records of the same columns that the table shows. */
export function replayJson(outcomes: readonly ReplayOutcome[]): ReplayJson {
  return {
    schema: "iommukit/replay@1",
    result: {
      recordings: outcomes.map(({ replay }) => ({
        file: replay.file,
        kind: replay.kind,
        iommu: replay.iommu,
        workload: replay.workload,
        policies: replay.policies.map((row) => ({
          ...recordOf(policyColumn, replaySections, row),
          verdict: row.verdict,
        })),
      })),
    },
    diagnostics: outcomes.flatMap((outcome) => outcome.diagnostics),
  };
}

/** Makes CSV: a line per recording and policy. */
export function replayCsv(replays: readonly RecordingReplay[]): string {
  const rows = replays.flatMap((replay) =>
    replay.policies.map((policy) => ({ file: replay.file, iommu: replay.iommu, policy })),
  );
  type CsvRow = (typeof rows)[number];
  const lift = (column: Column<Row>): Column<CsvRow> => ({
    ...column,
    value: (row) => column.value(row.policy),
  });
  const names: Column<CsvRow>[] = [
    { key: "file", title: "file", unit: "text", doc: "Recording", value: (row) => row.file },
    { key: "iommu", title: "IOMMU", unit: "text", doc: "Kind of IOMMU", value: (row) => row.iommu },
    lift(policyColumn),
  ];
  const sections = replaySections.map((section) => ({
    ...section,
    columns: section.columns.map(lift),
  }));
  return csvOf(names, sections, rows);
}
