/** Metrics written, read back, and what is made of histograms. */
import { describe, expect, it } from "vitest";
import {
  type MetricFamily,
  openMetricsText,
  parseOpenMetrics,
  percentile,
} from "./open-metrics.ts";

const families: MetricFamily[] = [
  {
    name: "iommukit_requests",
    type: "counter",
    help: "Requests of the virtio-iommu",
    samples: [
      { labels: { kind: "map" }, value: 3 },
      { labels: { kind: 'un"map\\' }, value: 2 },
    ],
  },
  { name: "iommukit_mappings", type: "gauge", help: "Live", samples: [{ labels: {}, value: 7 }] },
  {
    name: "iommukit_sync_seconds",
    type: "histogram",
    help: "Time\nof a sync",
    histograms: [
      {
        labels: {},
        buckets: [
          { le: 0.001, count: 90 },
          { le: 0.002, count: 99 },
          { le: Number.POSITIVE_INFINITY, count: 100 },
        ],
        sum: 0.5,
      },
    ],
  },
];

describe("metrics as text", () => {
  it("follow OpenMetrics: type and help, then lines, then an end", () => {
    expect(openMetricsText(families)).toBe(`# TYPE iommukit_requests counter
# HELP iommukit_requests Requests of the virtio-iommu
iommukit_requests_total{kind="map"} 3
iommukit_requests_total{kind="un\\"map\\\\"} 2
# TYPE iommukit_mappings gauge
# HELP iommukit_mappings Live
iommukit_mappings 7
# TYPE iommukit_sync_seconds histogram
# HELP iommukit_sync_seconds Time\\nof a sync
iommukit_sync_seconds_bucket{le="0.001"} 90
iommukit_sync_seconds_bucket{le="0.002"} 99
iommukit_sync_seconds_bucket{le="+Inf"} 100
iommukit_sync_seconds_sum 0.5
iommukit_sync_seconds_count 100
# EOF
`);
  });

  it("read back have the same values by name and label", () => {
    const scrape = parseOpenMetrics(openMetricsText(families));
    expect(scrape.value("iommukit_requests_total")).toBe(5);
    expect(scrape.value("iommukit_requests_total", { kind: 'un"map\\' })).toBe(2);
    expect(scrape.labelValues("iommukit_requests_total", "kind")).toEqual(["map", 'un"map\\']);
    expect([...scrape.buckets("iommukit_sync_seconds")].at(-1)).toEqual([
      Number.POSITIVE_INFINITY,
      100,
    ]);
    expect(scrape.value("nothing")).toBe(0);
  });

  it("of others are read as far as they are understood", () => {
    const scrape = parseOpenMetrics('x{a=} 1\ny 2 123\n\n<html>\nz{b="c"} +Inf\n');
    expect([scrape.value("y"), scrape.value("z")]).toEqual([2, Number.POSITIVE_INFINITY]);
  });
});

describe("a percentile", () => {
  const now = new Map([
    [1, 90],
    [2, 99],
    [Number.POSITIVE_INFINITY, 100],
  ]);

  it("lies within its bucket, or at the last bound", () => {
    expect(percentile(now, null, 0.45)).toBeCloseTo(0.5);
    expect(percentile(now, null, 0.95)).toBeCloseTo(1 + 5 / 9);
    expect(percentile(now, null, 1)).toBe(2);
  });

  it("counts only what came since the scrape before", () => {
    const before = new Map([
      [1, 90],
      [2, 90],
      [Number.POSITIVE_INFINITY, 90],
    ]);
    expect(percentile(now, before, 0.5)).toBeGreaterThan(1);
    expect(percentile(now, now, 0.5)).toBeNull();
  });
});
