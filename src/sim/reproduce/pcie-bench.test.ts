import { describe, expect, it } from "vitest";
import { broadwell } from "../profiles/pcie-bench.ts";
import { runWindow } from "../workload/random-window.ts";
import { payloadTables, pcieBenchTables } from "./pcie-bench.ts";

describe("pcie-bench's tables", () => {
  it.each(pcieBenchTables.map((table) => [table.id, table] as const))(
    "%s: latencies within 1 %, throughput within 8 %",
    (_, table) => {
      const rows = table.run(() => {});
      expect(rows.filter(({ met }) => !met)).toEqual([]);
      for (const { role, target, error, name } of rows) {
        if (role === "fitted" && target === null) expect(Math.abs(error!), name).toBeLessThan(0.01);
      }
    },
    120_000,
  );
});

it("rows that chose the walkers, the order or what pins an entry are called fitted", () => {
  const roles = pcieBenchTables
    .filter(({ id }) => /throughput-bdw-4k/.test(id))
    .map((table) => table.run(() => {}).filter(({ role }) => role === "fitted"));
  expect(roles.map((rows) => rows.map(({ name }) => name))).toEqual([
    ["512K", "1M", "64M"],
    ["1M", "64M"],
  ]);
}, 120_000);

describe("a host that somebody else measured", () => {
  // docs/reproduce-pcie-bench.md: 650 ns without an IOMMU, 300 for a miss, 128 entries.
  const roundTripNs = 650;
  const missNs = 300;
  const entries = 128;
  const walk = broadwell.prices.prices.find(({ step }) => step === "iotlbMiss")!;
  const read = broadwell.prices.prices.find(({ step }) => step === "entryRead")!;
  const machine = {
    ...broadwell,
    prices: broadwell.prices.with([{ ...walk, eachNs: missNs - read.unitNs }]),
    iotlbEntries: entries + 1,
    memoryTime: broadwell.memoryTime + (roundTripNs - 610) * 1000,
  };
  const base = { machine, pageShift: 12, isWarm: false, isWrite: false, seed: 1 } as const;

  it.each([128, 256, 1024, 16_384])(
    "has in a window of %s pages the latency of its share of misses",
    (pages) => {
      const { latency } = runWindow({ ...base, windowBytes: pages * 4096, isSingle: true });
      const share = 1 - entries / pages;
      const expected = 1000 * (roundTripNs + missNs * share);
      expect(latency.kind === "steady" && Math.abs(latency.mean / expected - 1)).toBeLessThan(
        0.005,
      );
    },
  );

  it("does as many walks at once as it has walkers", () => {
    const run = { ...base, windowBytes: 2 ** 26, isSingle: false };
    for (const walkers of [2, 4, 8]) {
      const { rate } = runWindow({ ...run, machine: { ...machine, walkers } });
      const count = rate.kind === "steady" ? (rate.mean * missNs) / 1e9 : 0;
      expect(Math.abs(count / walkers - 1), `${walkers}`).toBeLessThan(0.05);
    }
  });
});

describe("payload by size of access", () => {
  it("is within a percent in the median and 15 at most, most pairs in their order", () => {
    const rows = payloadTables[0]!.run(() => {});
    const [median, order] = rows.slice(-2);
    expect(median!.ours).toBeLessThan(1.1);
    expect(order!.ours).toBeLessThan(6.5);
    for (const { error, name } of rows.slice(0, -2)) {
      expect(Math.abs(error!), name).toBeLessThan(0.15);
    }
  }, 60_000);
});
