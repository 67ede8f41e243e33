/**
 * A measurement as tables, and as one object: bandwidth and latency relative to identity beside the
 * published table, counts for each I/O, the cost of a sync, and a replay's prediction.
 */
import type { Fit, Measurement, Row } from "../live/measure/summary.ts";
import { type Column, durationText, type Section } from "./column.ts";
import { recordOf } from "./records.ts";
import { renderSections, type Style, wrap } from "./table.ts";

/** A published value. Never one of ours. */
export interface PublishedValue {
  /** Job that it was published for. */
  readonly job: string;
  readonly mode: Row["mode"];
  /** As the publication names the row. */
  readonly name: string;
  /** Bandwidth as a share of its base, or latency as a multiple of it. */
  readonly kind: "bandwidth" | "latency";
  readonly value: number;
}

/** What the published values are, in one sentence. */
export interface Publication {
  readonly source: string;
  readonly values: readonly PublishedValue[];
}

/** What a replay of the strict recording says of lazy, beside what was measured. Per buffer. */
export interface Prediction {
  readonly file: string;
  readonly disk: string;
  readonly job: string;
  readonly rows: readonly {
    readonly what: string;
    readonly predicted: number;
    readonly measured: number;
  }[];
}

/** All that a measurement came to. */
export interface MeasureResult {
  readonly measurement: Measurement;
  /** What it ran on: versions, processor, accelerator. */
  readonly setting: Readonly<Record<string, string>>;
  readonly publication: Publication | null;
  readonly predictions: readonly Prediction[];
}

const modeColumn: Column<Row> = {
  key: "mode",
  title: "mode",
  unit: "text",
  doc: "identity: not translated; lazy: DMA-FQ; strict: DMA",
  value: ({ mode }) => mode,
};

/** NaN where there was no identity run in the same round. */
const known = (value: number) => (Number.isFinite(value) ? value : null);

function published(
  publication: Publication | null,
  kind: PublishedValue["kind"],
  row: Row,
): PublishedValue | null {
  // It was published for NVMe; virtio-blk has no row to stand beside.
  if (row.kind !== "nvme") return null;
  const found = publication?.values.find(
    (one) => one.kind === kind && one.job === row.job && one.mode === row.mode,
  );
  return found ?? null;
}

function relativeColumns(
  what: "bandwidth" | "latency",
  publication: Publication | null,
): Column<Row>[] {
  const relative = what === "bandwidth" ? "bandwidthRelative" : "latencyRelative";
  const spread = what === "bandwidth" ? "bandwidthSpread" : "latencySpread";
  return [
    {
      key: "relative",
      title: "to\nidentity",
      unit: "ratio",
      doc: "median of the quotients to identity of the same round",
      value: (row) => known(row[relative]),
    },
    {
      key: "relativeMin",
      title: "\nfrom",
      unit: "ratio",
      doc: "smallest of the quotients",
      value: (row) => known(row[spread][0]),
    },
    {
      key: "relativeMax",
      title: "\nto",
      unit: "ratio",
      doc: "largest of the quotients",
      value: (row) => known(row[spread][1]),
    },
    {
      key: "published",
      title: "published,\nto host",
      unit: "ratio",
      doc: "the published value, relative to its host",
      value: (row) => published(publication, what, row)?.value ?? null,
    },
    {
      key: "publishedRow",
      title: "published\nas",
      unit: "text",
      doc: "the published row",
      value: (row) => published(publication, what, row)?.name ?? "-",
    },
  ];
}

const countColumns: Column<Row>[] = (
  [
    ["maps", "MAP", "MAP requests"],
    ["unmaps", "UNMAP", "UNMAP requests"],
    ["kicks", "kicks", "doorbells of the virtio-iommu's request queue"],
    ["syncs", "syncs", "batches of requests, each waited for by a processor of the guest"],
    ["messages", "messages", "messages from QEMU, of all devices"],
    ["interrupts", "irqs", "interrupts of the disk"],
  ] as const
).map(([key, title, doc]) => ({
  key,
  title,
  unit: "ratio",
  doc: `${doc}, for each I/O`,
  value: (row) => row.perIo[key],
}));

/** All sections of a disk's and a job's table. */
export function measureSections(publication: Publication | null): Section<Row>[] {
  return [
    {
      key: "bandwidth",
      title: "Bandwidth (higher is better)",
      columns: [
        {
          key: "bytesPerSecond",
          title: "bytes/s",
          unit: "bytes",
          doc: "median over the rounds",
          value: ({ bytesPerSecond }) => bytesPerSecond,
        },
        ...relativeColumns("bandwidth", publication),
      ],
    },
    {
      key: "latency",
      title: "Latency (lower is better)",
      columns: [
        {
          key: "latencyNsMean",
          title: "mean",
          unit: "ns",
          doc: "median over the rounds of the means",
          value: ({ latencyNsMean }) => latencyNsMean,
        },
        {
          key: "latencyNsP99",
          title: "p99",
          unit: "ns",
          doc: "median over the rounds of the 99th percentiles",
          value: ({ latencyNsP99 }) => latencyNsP99,
        },
        ...relativeColumns("latency", publication),
      ],
    },
    { key: "perIo", title: "For each I/O", columns: countColumns },
  ];
}

interface Group {
  readonly disk: string;
  readonly kind: string;
  readonly job: string;
  readonly rows: readonly Row[];
}

function groupsOf(rows: readonly Row[]): Group[] {
  const groups: { disk: string; kind: string; job: string; rows: Row[] }[] = [];
  for (const row of rows) {
    const { disk, kind, job } = row;
    const found = groups.find((one) => one.disk === disk && one.job === job);
    if (found === undefined) groups.push({ disk, kind, job, rows: [row] });
    else found.rows.push(row);
  }
  return groups;
}

function fitLine({ baseNs, syncNs, determination }: Fit): string {
  const share = `${(determination * 100).toFixed(0)} %`;
  if (syncNs <= 0) return `a sync costs nothing that shows here (the model explains ${share})`;
  const base = durationText(Math.max(0, baseNs));
  return `time per I/O = ${base} + ${durationText(syncNs)} for each sync (explains ${share})`;
}

/** The result as lines. */
export function renderMeasure(result: MeasureResult, width: number, style?: Style): string[] {
  const { measurement, setting, publication, predictions } = result;
  const lines = wrap(
    Object.entries(setting)
      .map(([key, value]) => `${key} ${value}`)
      .join(", "),
    width,
  );
  for (const { disk, kind, job, rows } of groupsOf(measurement.rows)) {
    lines.push("", `${disk} (${kind}), job ${job}, ${rows[0]!.rounds} rounds`);
    const shown = measureSections(publication).map((section) =>
      kind === "nvme" ? section : withoutPublished(section),
    );
    lines.push(...renderSections(modeColumn, shown, rows, width, style));
    const fit = measurement.fits.find((one) => one.disk === disk && one.job === job);
    if (fit !== undefined) lines.push(...wrap(fitLine(fit), width));
  }
  for (const prediction of predictions)
    lines.push("", ...predictionLines(prediction, width, style));
  if (publication !== null) lines.push("", ...wrap(publication.source, width));
  return lines;
}

function withoutPublished(section: Section<Row>): Section<Row> {
  const columns = section.columns.filter(({ key }) => !key.startsWith("published"));
  return { ...section, columns };
}

type PredictionRow = Prediction["rows"][number];

function predictionLines({ file, disk, job, rows }: Prediction, width: number, style?: Style) {
  const name: Column<PredictionRow> = {
    key: "what",
    title: "for each buffer",
    unit: "text",
    doc: "what is counted",
    value: ({ what }) => what,
  };
  const columns: Column<PredictionRow>[] = [
    {
      key: "predicted",
      title: "replay of\nstrict says",
      unit: "ratio",
      doc: "lazy, as the replay of the strict recording predicts it",
      value: ({ predicted }) => predicted,
    },
    {
      key: "measured",
      title: "lazy\nmeasured",
      unit: "ratio",
      doc: "lazy, as it was measured",
      value: ({ measured }) => measured,
    },
  ];
  const title = `Lazy predicted from strict: ${disk}, ${job} (${file})`;
  return renderSections(name, [{ key: "prediction", title, columns }], rows, width, style);
}

/** The result as one object. */
export function measureJson(result: MeasureResult): unknown {
  const { measurement, setting, publication, predictions } = result;
  const sections = measureSections(publication);
  const rows = measurement.rows.map((row) => ({
    disk: row.disk,
    kind: row.kind,
    job: row.job,
    rounds: row.rounds,
    ...recordOf(modeColumn, sections, row),
  }));
  return {
    schema: "iommukit/measure@1",
    result: { setting, publication, rows, fits: measurement.fits, predictions },
  };
}
