/**
 * Metrics in memory that two processes see: one counts, without a call or a message; the other
 * reads whenever it likes. A slot is a 64-bit float, so a count is exact to 2^53 and never torn.
 *
 * The counting side survives in that memory: who takes over a device goes on from its counts.
 */
import { assert } from "../../errors.ts";
import type { MetricFamily, MetricHistogram, MetricSample } from "../machine/open-metrics.ts";
import { BUCKET_COUNT, bucketEnd, bucketOf } from "./latency-buckets.ts";
import type { MetricDescription, MetricPlace, MetricTable } from "./metric-table.ts";

/** A count that rises, or a value that is set. */
export class Counter {
  readonly #slots: Float64Array;
  readonly #at: number;

  constructor(slots: Float64Array, at: number) {
    this.#slots = slots;
    this.#at = at;
  }

  get value(): number {
    return this.#slots[this.#at]!;
  }

  add(amount: number): void {
    this.#slots[this.#at]! += amount;
  }

  set(value: number): void {
    this.#slots[this.#at] = value;
  }
}

/** A distribution of latencies. */
export class LatencyHistogram {
  readonly #slots: Float64Array;
  readonly #at: number;

  constructor(slots: Float64Array, at: number) {
    this.#slots = slots;
    this.#at = at;
  }

  record(microseconds: number): void {
    this.#slots[this.#at + bucketOf(microseconds)]! += 1;
    this.#slots[this.#at + BUCKET_COUNT]! += microseconds;
  }

  get count(): number {
    let count = 0;
    for (let bucket = 0; bucket < BUCKET_COUNT; bucket += 1)
      count += this.#slots[this.#at + bucket]!;
    return count;
  }

  /** The end of the bucket that a share of the values does not pass; 0 when there are none. */
  percentile(share: number): number {
    const wanted = this.count * share;
    let count = 0;
    for (let bucket = 0; bucket < BUCKET_COUNT; bucket += 1) {
      count += this.#slots[this.#at + bucket]!;
      if (count > 0 && count >= wanted) return bucketEnd(bucket);
    }
    return 0;
  }
}

/** All metrics of a virtual machine. */
export class MetricMemory {
  readonly table: MetricTable;
  readonly #slots: Float64Array;

  /** @param byteOffset - a multiple of 8 with the table's bytes behind it, zero at first */
  constructor(table: MetricTable, buffer: ArrayBufferLike, byteOffset: number) {
    assert(byteOffset + table.bytes <= buffer.byteLength, "the metrics have their room");
    this.table = table;
    this.#slots = new Float64Array(buffer, byteOffset, table.bytes / 8);
  }

  counter(name: string, device: string, labelValue: string | null = null): Counter {
    return new Counter(this.#slots, this.table.place(name, device, labelValue).first);
  }

  histogram(name: string, device: string, labelValue: string | null = null): LatencyHistogram {
    return new LatencyHistogram(this.#slots, this.table.place(name, device, labelValue).first);
  }

  /** Everything, for OpenMetrics: latencies in seconds, every second bucket. */
  families(): MetricFamily[] {
    const byMetric = new Map<MetricDescription, MetricPlace[]>();
    for (const place of this.table.places) {
      const known = byMetric.get(place.description);
      if (known === undefined) byMetric.set(place.description, [place]);
      else known.push(place);
    }
    return [...byMetric].map(([description, places]): MetricFamily => {
      const { name, help, type } = description;
      if (type === "histogram")
        return { name, help, type, histograms: places.map((place) => this.#histogram(place)) };
      return { name, help, type, samples: places.map((place) => this.#sample(place)) };
    });
  }

  #sample(place: MetricPlace): MetricSample {
    return { labels: labelsOf(place), value: this.#slots[place.first]! };
  }

  #histogram(place: MetricPlace): MetricHistogram {
    const buckets: { le: number; count: number }[] = [];
    let count = 0;
    for (let bucket = 0; bucket < BUCKET_COUNT; bucket += 1) {
      count += this.#slots[place.first + bucket]!;
      if (bucket % 2 === 1) buckets.push({ le: bucketEnd(bucket) / 1e6, count });
    }
    buckets.push({ le: Number.POSITIVE_INFINITY, count });
    return {
      labels: labelsOf(place),
      buckets,
      sum: this.#slots[place.first + BUCKET_COUNT]! / 1e6,
    };
  }
}

function labelsOf(place: MetricPlace): Record<string, string> {
  const { device, labelValue, description } = place;
  const labels: Record<string, string> = { device };
  if (labelValue !== null && description.label !== undefined)
    labels[description.label.name] = labelValue;
  return labels;
}
