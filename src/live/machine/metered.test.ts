/** What the counting wrappers count, and that they change nothing. */
import { describe, expect, it } from "vitest";
import type { BlockStore } from "../../block/block-store.ts";
import { MemoryStore } from "../../block/memory-store.ts";
import { newView } from "../../memory/memory-view.ts";
import { Step } from "../../meter.ts";
import type { PciFunction } from "../../pci/function.ts";
import { Structure, VirtioBar } from "../../virtio/pci/layout.ts";
import { MetricMemory } from "../metrics/metric-memory.ts";
import { exampleMachine } from "./live-machine.suite.ts";
import { IommuMeter, MeteredIommu } from "./metered-function.ts";
import { MeteredStore } from "./metered-store.ts";
import { metricTableOf } from "./metric-list.ts";

function metrics(): MetricMemory {
  const table = metricTableOf(exampleMachine());
  return new MetricMemory(table, new ArrayBuffer(table.bytes), 0);
}

/** A clock that moves by 10 us at each look. */
function clock(): () => number {
  let now = 0;
  return () => {
    now += 10;
    return now;
  };
}

describe("a metered store", () => {
  const memory = metrics();
  const store: BlockStore = new MeteredStore(
    new MemoryStore({ bytes: 8192 }),
    memory,
    "blk0",
    clock(),
  );
  const view = newView(4096);
  const count = (name: string, label: string | null) => memory.counter(name, "blk0", label).value;

  it("passes reads and writes on, and counts them, their bytes and their time", () => {
    view.u8.fill(7);
    const segment = [{ view, at: 0, bytes: 4096 }];
    const errnos: number[] = [];
    store.write(4096, segment, (errno) => errnos.push(errno));
    view.u8.fill(0);
    store.read(4096, segment, (errno) => errnos.push(errno));
    store.flush((errno) => errnos.push(errno));
    expect([view.u8[0], ...errnos]).toEqual([7, 0, 0, 0]);
    expect(count("iommukit_io", "write")).toBe(1);
    expect(count("iommukit_io_bytes", "read")).toBe(4096);
    expect(count("iommukit_io", "flush")).toBe(1);
    expect(count("iommukit_io_errors", null)).toBe(0);
    const times = memory.histogram("iommukit_io_seconds", "blk0");
    expect([times.count, times.percentile(1)]).toEqual([3, 12]);
  });

  it("counts what fails", () => {
    const full = new MeteredStore(
      new MemoryStore({ bytes: 4096, occupiedMax: 0 }),
      memory,
      "nvme0",
      clock(),
    );
    let errno = 0;
    full.write(0, [{ view, at: 0, bytes: 4096 }], (got) => {
      errno = got;
    });
    expect(errno).not.toBe(0);
    expect(memory.counter("iommukit_io_errors", "nvme0").value).toBe(1);
  });
});

describe("a metered virtio-iommu", () => {
  const memory = metrics();
  const meter = new IommuMeter(memory, "iommu0");
  const turns = [2, 0];
  const inner = {
    regions: [],
    vectors: 3,
    revision: 5,
    write: () => true,
    // The first turn handles two requests and has more to do, the second nothing.
    work: () => {
      const requests = turns.shift() ?? 0;
      for (let index = 0; index < requests; index += 1) meter.step(Step.requestMap, 1);
      return requests > 0;
    },
  } as unknown as PciFunction;
  const iommu = new MeteredIommu(inner, meter, memory, "iommu0", clock());
  const value = (name: string, label: string | null = null) =>
    memory.counter(name, "iommu0", label).value;

  it("counts kicks of the request queue alone, and a sync for a batch, not for an empty turn", () => {
    const source = newView(8);
    iommu.write(VirtioBar.REGISTERS, Structure.NOTIFY, source, 0, 2);
    iommu.write(VirtioBar.REGISTERS, Structure.NOTIFY + 4, source, 0, 2);
    iommu.write(VirtioBar.REGISTERS, Structure.COMMON, source, 0, 2);
    expect([iommu.work(), iommu.work()]).toEqual([true, false]);
    expect([value("iommukit_kicks"), value("iommukit_syncs")]).toEqual([1, 1]);
    expect(value("iommukit_requests", "map")).toBe(2);
    expect(memory.histogram("iommukit_sync_seconds", "iommu0").percentile(1)).toBe(12);
    expect(iommu.revision).toBe(5);
  });
});
