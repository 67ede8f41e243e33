import { describe, expect, it } from "vitest";
import { broadwell } from "../profiles/pcie-bench.ts";
import { runWindow, type WindowRun } from "./random-window.ts";

const KIB = 2 ** 10;
const MIB = 2 ** 20;

const usual: WindowRun = {
  machine: broadwell,
  windowBytes: MIB,
  pageShift: 12,
  isWarm: false,
  isWrite: false,
  isSingle: true,
  seed: 1,
  accesses: 20_000,
};

function latencyNs(change: Partial<WindowRun>): number {
  const { latency } = runWindow({ ...usual, ...change });
  return latency.kind === "steady" ? latency.mean / 1000 : Number.NaN;
}

function rate(change: Partial<WindowRun>): number {
  const { rate: found } = runWindow({ ...usual, isSingle: false, ...change });
  return found.kind === "steady" ? found.mean / 1e6 : Number.NaN;
}

describe("random DMA in a window", () => {
  it("gives the same run for the same seed, and another for another", () => {
    const hash = runWindow({ ...usual, isSingle: false }).hash;
    expect(runWindow({ ...usual, isSingle: false }).hash).toBe(hash);
    expect(runWindow({ ...usual, isSingle: false, seed: 2 }).hash).not.toBe(hash);
  });

  it("with pages 512 times as large has its knee at a window 512 times as large", () => {
    // The same share of a window's pages fits: 116 of 100, 128, 256 and 1024.
    for (const pages of [100, 128, 256, 1024]) {
      const small = latencyNs({ windowBytes: pages * 4 * KIB });
      const large = latencyNs({ windowBytes: pages * 2 * MIB, pageShift: 21 });
      expect(Math.abs(large / small - 1), `${pages} pages`).toBeLessThan(0.005);
    }
    expect(latencyNs({ windowBytes: 100 * 4 * KIB })).toBeLessThan(611);
    expect(latencyNs({ windowBytes: 1024 * 4 * KIB })).toBeGreaterThan(850);
  });

  it("has hits of its entries over its pages, one access at a time", () => {
    const { hits, misses } = runWindow({ ...usual, windowBytes: MIB, accesses: 100_000 });
    expect(hits / (hits + misses)).toBeCloseTo(116 / 256, 2);
  });

  it("obeys Little's law: never more in flight than the device can have", () => {
    for (const windowBytes of [256 * KIB, 512 * KIB, MIB, 64 * MIB]) {
      const { latency, rate: found } = runWindow({ ...usual, isSingle: false, windowBytes });
      const inFlight =
        latency.kind === "steady" && found.kind === "steady"
          ? latency.mean * 1e-12 * found.mean
          : Number.NaN;
      expect(inFlight).toBeLessThanOrEqual(36.01);
      expect(inFlight).toBeGreaterThan(30);
    }
  });

  it("goes through faster with walkers for everybody, and never faster than without an IOMMU", () => {
    const windowBytes = 16 * MIB;
    const none = rate({ windowBytes, pageShift: null });
    const six = rate({ windowBytes });
    const many = rate({ windowBytes, machine: { ...broadwell, walkers: 36 } });
    expect(many).toBeGreaterThan(1.5 * six);
    expect(many).toBeLessThanOrEqual(none);
  });

  it("misses as often with tables on another node, and each miss costs a hop more", () => {
    const windowBytes = 16 * MIB;
    const local = latencyNs({ windowBytes });
    const remote = latencyNs({ windowBytes, tableNode: 1 });
    // 63 ns for the one entry that a walk reads.
    expect(remote - local).toBeGreaterThan(60);
    expect(remote - local).toBeLessThan(64);
    const free = broadwell.prices.with(
      broadwell.prices.prices
        .filter(({ step }) => step === "entryRead")
        .map((price) => ({ ...price, remoteUnitNs: 0 })),
    );
    const equal = { ...broadwell, prices: free };
    expect(latencyNs({ windowBytes, tableNode: 1, machine: equal })).toBe(local);
  });
});
