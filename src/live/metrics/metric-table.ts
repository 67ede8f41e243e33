/**
 * Which metrics there are, declared once: where each lies in shared memory follows from the table,
 * for who counts and for who reads.
 */
import { assert } from "../../errors.ts";
import { BUCKET_COUNT } from "./latency-buckets.ts";

/** One metric. Values of its label are fixed, so that each has its place. */
export interface MetricDescription {
  /** As OpenMetrics wants it: with the unit, without `_total`. */
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly label?: { readonly name: string; readonly values: readonly string[] };
}

/** Where a metric of one device lies. */
export interface MetricPlace {
  readonly description: MetricDescription;
  readonly device: string;
  readonly labelValue: string | null;
  /** In 8-byte slots. */
  readonly first: number;
}

/** Metrics that some devices have. */
export interface MetricGroup {
  readonly descriptions: readonly MetricDescription[];
  readonly devices: readonly string[];
}

/** Slots of one metric: a histogram has its buckets and the sum. */
const slotsOf = (description: MetricDescription) =>
  description.type === "histogram" ? BUCKET_COUNT + 1 : 1;

/** The places of all metrics of all devices. */
export class MetricTable {
  readonly groups: readonly MetricGroup[];
  readonly places: readonly MetricPlace[];
  readonly bytes: number;
  readonly #byKey = new Map<string, MetricPlace>();

  constructor(groups: readonly MetricGroup[]) {
    const places: MetricPlace[] = [];
    let first = 0;
    for (const { descriptions, devices } of groups) {
      for (const device of devices) {
        for (const description of descriptions) {
          for (const labelValue of description.label?.values ?? [null]) {
            const place = { description, device, labelValue, first };
            const key = keyOf(description.name, device, labelValue);
            assert(!this.#byKey.has(key), `metric ${key} is declared once`);
            this.#byKey.set(key, place);
            places.push(place);
            first += slotsOf(description);
          }
        }
      }
    }
    this.groups = groups;
    this.places = places;
    this.bytes = first * 8;
  }

  /** Where a metric lies. */
  place(name: string, device: string, labelValue: string | null): MetricPlace {
    const place = this.#byKey.get(keyOf(name, device, labelValue));
    assert(place !== undefined, `metric ${name} of ${device} is declared`);
    return place;
  }
}

function keyOf(name: string, device: string, labelValue: string | null): string {
  return `${name} ${device} ${labelValue ?? ""}`;
}
