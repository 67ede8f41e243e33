import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { openMetricsText, parseOpenMetrics, percentile } from "../machine/open-metrics.ts";
import { BUCKET_COUNT, bucketEnd, bucketOf } from "./latency-buckets.ts";
import { MetricMemory } from "./metric-memory.ts";
import { type MetricDescription, MetricTable } from "./metric-table.ts";

const descriptions: readonly MetricDescription[] = [
  {
    name: "messages",
    help: "handled",
    type: "counter",
    label: { name: "command", values: ["a", "b"] },
  },
  { name: "mappings", help: "now", type: "gauge" },
  { name: "message_seconds", help: "time", type: "histogram" },
];
const table = new MetricTable([{ descriptions, devices: ["iommu0", "blk0"] }]);

describe("latency buckets", () => {
  it("hold each value below their end and not below the end before", () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 5e8, noNaN: true }), (value) => {
        const bucket = bucketOf(value);
        const isBelow = value < bucketEnd(bucket);
        return isBelow && (bucket === 0 || value >= bucketEnd(bucket - 1));
      }),
    );
  });

  it("rise without a gap, and take anything", () => {
    for (let bucket = 1; bucket < BUCKET_COUNT; bucket += 1)
      expect(bucketEnd(bucket)).toBeGreaterThan(bucketEnd(bucket - 1));
    const odd = [-1, Number.NaN, 0, 1e300, Number.POSITIVE_INFINITY].map(bucketOf);
    expect(odd).toEqual([0, 0, 0, BUCKET_COUNT - 1, BUCKET_COUNT - 1]);
  });

  it("are a fifth wide at most, from one microsecond on", () => {
    for (let bucket = bucketOf(1) + 1; bucket < BUCKET_COUNT; bucket += 1)
      expect(bucketEnd(bucket) / bucketEnd(bucket - 1)).toBeLessThanOrEqual(1.25);
  });
});

describe("metric memory", () => {
  it("is read by another that has the same table, and outlives who counts", () => {
    const buffer = new ArrayBuffer(table.bytes + 8);
    const writer = new MetricMemory(table, buffer, 8);
    writer.counter("messages", "blk0", "b").add(3);
    writer.counter("mappings", "iommu0").set(17);
    for (const value of [10, 10, 10, 200])
      writer.histogram("message_seconds", "blk0").record(value);
    new MetricMemory(table, buffer, 8).counter("messages", "blk0", "b").add(1);
    const reader = new MetricMemory(table, buffer, 8);
    const scrape = parseOpenMetrics(openMetricsText(reader.families()));
    expect(scrape.value("messages_total", { device: "blk0", command: "b" })).toBe(4);
    expect(scrape.value("messages_total", { device: "iommu0" })).toBe(0);
    expect(scrape.value("mappings")).toBe(17);
    const buckets = scrape.buckets("message_seconds", { device: "blk0" });
    const median = percentile(buckets, null, 0.5)!;
    expect(median * 1e6).toBeGreaterThan(8);
    expect(median * 1e6).toBeLessThanOrEqual(12);
    const histogram = reader.histogram("message_seconds", "blk0");
    expect([histogram.count, histogram.percentile(0.5), histogram.percentile(1)]).toEqual([
      4, 12, 224,
    ]);
  });

  it("refuses a name that is not declared, and one declared twice", () => {
    const memory = new MetricMemory(table, new ArrayBuffer(table.bytes), 0);
    expect(() => memory.counter("messages", "blk0", "c")).toThrow("is declared");
    const twice = { descriptions: [descriptions[1]!, descriptions[1]!], devices: ["x"] };
    expect(() => new MetricTable([twice])).toThrow("once");
    expect(() => new MetricMemory(table, new ArrayBuffer(8), 0)).toThrow("room");
  });
});
