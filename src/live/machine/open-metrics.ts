/**
 * Metrics as text that monitoring systems scrape, and back.
 *
 * Source: OpenMetrics 1.0. What is read back is what {@link openMetricsText} writes, and what others
 * write in the same form: lines that are not understood are passed over.
 */

/** Values by label: `{ kind: "map" }`. */
export type Labels = Readonly<Record<string, string>>;

/** One line's worth. */
export interface MetricSample {
  readonly labels: Labels;
  readonly value: number;
}

/** A distribution: how many values were at most `le`, for rising bounds; the last is infinity. */
export interface MetricHistogram {
  readonly labels: Labels;
  readonly buckets: readonly { readonly le: number; readonly count: number }[];
  readonly sum: number;
}

interface Family {
  /** Without `_total`. */
  readonly name: string;
  readonly help: string;
}

/** A metric with all its label sets. */
export type MetricFamily =
  | (Family & { readonly type: "counter" | "gauge"; readonly samples: readonly MetricSample[] })
  | (Family & { readonly type: "histogram"; readonly histograms: readonly MetricHistogram[] });

/** The media type of the text. */
export const OPEN_METRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8";

function escaped(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll('"', '\\"');
}

function labelText(labels: Labels): string {
  const parts = Object.entries(labels).map(([key, value]) => `${key}="${escaped(value)}"`);
  return parts.length === 0 ? "" : `{${parts.join(",")}}`;
}

function numberText(value: number): string {
  return value === Number.POSITIVE_INFINITY ? "+Inf" : String(value);
}

/** The text of all families, with the line that ends it. */
export function openMetricsText(families: readonly MetricFamily[]): string {
  const lines = families.flatMap((family) => {
    const { name, help, type } = family;
    return [`# TYPE ${name} ${type}`, `# HELP ${name} ${escaped(help)}`, ...linesOf(family)];
  });
  return `${[...lines, "# EOF"].join("\n")}\n`;
}

function linesOf(family: MetricFamily): string[] {
  const { name } = family;
  if (family.type !== "histogram") {
    const end = family.type === "counter" ? "_total" : "";
    return family.samples.map(
      ({ labels, value }) => `${name}${end}${labelText(labels)} ${numberText(value)}`,
    );
  }
  return family.histograms.flatMap(({ labels, buckets, sum }) => [
    ...buckets.map(
      ({ le, count }) => `${name}_bucket${labelText({ ...labels, le: numberText(le) })} ${count}`,
    ),
    `${name}_sum${labelText(labels)} ${numberText(sum)}`,
    `${name}_count${labelText(labels)} ${buckets.at(-1)?.count ?? 0}`,
  ]);
}

/** One scrape: values by name and labels. */
export class Scrape {
  readonly #lines: readonly { name: string; labels: Labels; value: number }[];

  constructor(lines: readonly { name: string; labels: Labels; value: number }[]) {
    this.#lines = lines;
  }

  /** Sum of the lines of a name whose labels include the given ones; 0 when there is none. */
  value(name: string, labels: Labels = {}): number {
    return this.#matching(name, labels).reduce((sum, { value }) => sum + value, 0);
  }

  /** The values that a label takes in the lines of a name, in their order. */
  labelValues(name: string, label: string): string[] {
    const found = this.#matching(name, {}).map(({ labels }) => labels[label]);
    return [...new Set(found.filter((value) => value !== undefined))];
  }

  /** Cumulative counts of a histogram by their bounds, rising. */
  buckets(name: string, labels: Labels = {}): Map<number, number> {
    const sums = new Map<number, number>();
    for (const { labels: own, value } of this.#matching(`${name}_bucket`, labels)) {
      const le = own.le === "+Inf" ? Number.POSITIVE_INFINITY : Number(own.le);
      sums.set(le, (sums.get(le) ?? 0) + value);
    }
    return new Map([...sums].sort(([a], [b]) => a - b));
  }

  #matching(name: string, labels: Labels) {
    const wanted = Object.entries(labels);
    return this.#lines.filter(
      (line) => line.name === name && wanted.every(([key, value]) => line.labels[key] === value),
    );
  }
}

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{([^}]*)\})? (\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/** Reads a text. */
export function parseOpenMetrics(text: string): Scrape {
  const lines = text.split("\n").flatMap((line) => {
    const match = LINE.exec(line);
    const value = match?.[3] === "+Inf" ? Number.POSITIVE_INFINITY : Number(match?.[3]);
    if (match === null || Number.isNaN(value)) return [];
    const labels = Object.fromEntries(
      [...(match[2] ?? "").matchAll(LABEL)].map(([, key, raw]) => [
        key!,
        raw!.replace(/\\(.)/g, (_, char: string) => (char === "n" ? "\n" : char)),
      ]),
    );
    return [{ name: match[1]!, labels, value }];
  });
  return new Scrape(lines);
}

/**
 * A percentile of what a histogram counted between two scrapes: the bound below which the share
 * lies, interpolated within its bucket.
 *
 * @param before - null for all since the start
 * @returns null when nothing was counted
 */
export function percentile(
  now: ReadonlyMap<number, number>,
  before: ReadonlyMap<number, number> | null,
  share: number,
): number | null {
  const counts = [...now].map(([le, count]) => ({ le, count: count - (before?.get(le) ?? 0) }));
  const total = counts.at(-1)?.count ?? 0;
  if (total <= 0) return null;
  const wanted = share * total;
  let lowBound = 0;
  let lowCount = 0;
  for (const { le, count } of counts) {
    if (count >= wanted) {
      if (!Number.isFinite(le)) return lowBound;
      const part = count === lowCount ? 1 : (wanted - lowCount) / (count - lowCount);
      return lowBound + part * (le - lowBound);
    }
    lowBound = le;
    lowCount = count;
  }
  return lowBound;
}
