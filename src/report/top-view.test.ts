/** What `top` shows of two scrapes. */
import { describe, expect, it } from "vitest";
import { parseOpenMetrics } from "../live/machine/open-metrics.ts";
import { renderTop, topView } from "./top-view.ts";

const scrape = (maps: number, reads: number, hits: number) =>
  parseOpenMetrics(`iommukit_machine{name="vm"} 1
iommukit_requests_total{device="iommu0",kind="map"} ${maps}
iommukit_requests_total{device="iommu0",kind="unmap"} ${maps}
iommukit_kicks_total{device="iommu0"} ${2 * maps}
iommukit_syncs_total{device="iommu0"} ${2 * maps}
iommukit_mappings{device="iommu0"} 7
iommukit_faults_total{device="iommu0"} 3
iommukit_iotlb_hits_total{device="iommu0"} ${hits}
iommukit_iotlb_misses_total{device="iommu0"} ${hits / 3}
iommukit_sync_seconds_bucket{device="iommu0",le="0.00001"} ${maps}
iommukit_sync_seconds_bucket{device="iommu0",le="+Inf"} ${maps}
iommukit_messages_total{device="iommu0",command="region_write"} ${2 * maps}
iommukit_messages_total{device="d",command="region_write"} ${reads}
iommukit_guest_memory_bytes{device="iommu0",state="mapped"} 1073741824
iommukit_guest_memory_bytes{device="d",state="mapped"} 1073741824
iommukit_io_total{device="d",direction="read"} ${reads}
iommukit_io_total{device="d",direction="write"} 0
iommukit_io_bytes_total{device="d",direction="read"} ${4096 * reads}
iommukit_worker_restarts_total 1
`);

describe("a view of two scrapes", () => {
  const view = topView(scrape(300, 200, 90), scrape(100, 100, 60), 2);

  it("has rates of what was counted in between", () => {
    expect(view).toMatchObject({
      machine: "vm",
      requestsPerSecond: { map: 100, unmap: 100 },
      kicksPerSecond: 200,
      syncsPerSecond: 200,
      messagesPerSecond: 250,
      mappings: 7,
      faults: 3,
      faultsPerSecond: 0,
      iotlbHitRate: 0.75,
      workerRestarts: 1,
    });
    expect(view.syncNsP50).toBeCloseTo(5000);
    expect(view.disks).toMatchObject([
      { name: "d", readsPerSecond: 50, writesPerSecond: 0, readBytesPerSecond: 204_800 },
    ]);
  });

  it("counts memory that several devices see once", () => {
    expect(view.guestBytesMapped).toBe(2 ** 30);
  });

  it("counts everything when there was no scrape before", () => {
    expect(topView(scrape(300, 200, 90), null, 1).requestsPerSecond.map).toBe(300);
  });

  it("fits a terminal of 80 columns", () => {
    const lines = renderTop(view);
    expect(lines.filter((line) => line.length > 80)).toEqual([]);
    expect(lines.join("\n")).toContain("map 100/s  unmap 100/s");
    expect(lines.join("\n")).toContain("IOTLB hits 75.0 %");
  });
});
