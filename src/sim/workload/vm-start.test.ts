import { describe, expect, it } from "vitest";
import { StackError } from "../../errors.ts";
import { contiguousFrames, scatteredFrames } from "../../vfio/process/frame-source.ts";
import { followRules } from "../../vfio/process/mappable-device.ts";
import { backingHost, barHost, batchPinningHost } from "../profiles/vm-start-hosts.ts";
import type { BarPlan, RamPlan } from "./vm-mappings.ts";
import { runVmStart, type VmStartMachine } from "./vm-start.ts";

const GIB = 2 ** 18;
const basePfn = 2 ** 22;

const small: RamPlan = {
  pages: GIB / 4,
  backing: { kind: "anonymous", isHuge: false },
  frames: () => scatteredFrames({ basePfn, pages: GIB, unitPages: 1, seed: 1 }),
  isTouched: true,
  batchPages: 512,
};

const bar: BarPlan = {
  count: 1,
  pages: 4 * GIB,
  way: "follow",
  rules: followRules["linux-6.15"],
  processOffset: 0,
  deviceOffset: 0,
};

function ramTimes(changed: Partial<RamPlan>, machine: VmStartMachine = backingHost) {
  return runVmStart({ machine: { ...machine, startNs: 0 }, ram: { ...small, ...changed } });
}

function barTimes(changed: Partial<BarPlan>, unmapMode: "kernel" | "extents" = "extents") {
  return runVmStart({ machine: barHost, bars: [{ ...bar, ...changed }], unmapMode });
}

function amount(result: ReturnType<typeof runVmStart>, name: string): number {
  return result.mapCharges.find(({ step }) => step === name)?.amount ?? 0;
}

describe("guest memory at the start of a VM", () => {
  it("takes twice the time, mapped and unmapped, when it is twice as large", () => {
    const one = ramTimes({});
    const two = ramTimes({ pages: 2 * small.pages });
    expect(two.mapTime / one.mapTime).toBeCloseTo(2, 3);
    expect(two.unmapTime / one.unmapTime).toBeCloseTo(2, 3);
  });

  it("is mapped and unmapped faster from the hugetlb pool than from pages that lie apart", () => {
    const frames = () => contiguousFrames({ basePfn, pages: GIB });
    const huge = ramTimes({ frames, backing: { kind: "hugetlb", order: 9 } });
    const pages = ramTimes({});
    expect(huge.mapTime).toBeLessThan(pages.mapTime / 2);
    expect(huge.unmapTime).toBeLessThan(pages.unmapTime / 2);
  });

  it("takes longer untouched, by its faults alone", () => {
    const touched = ramTimes({}, batchPinningHost);
    const fresh = ramTimes({ isTouched: false }, batchPinningHost);
    const faults = fresh.mapCharges.find(({ step }) => step === "pageFault")!;
    expect(faults.amount).toBe(small.pages);
    expect(fresh.mapTime - faults.time).toBe(touched.mapTime);
  });

  it("takes the same untouched as touched where a fault costs nothing", () => {
    const { prices } = batchPinningHost;
    const free = { ...prices.map.prices.find(({ step }) => step === "pageFault")!, unitNs: 0 };
    const machine = { ...batchPinningHost, prices: { ...prices, map: prices.map.with([free]) } };
    const fresh = ramTimes({ isTouched: false }, machine);
    expect(fresh.mapTime).toBe(ramTimes({}, machine).mapTime);
  });

  it("takes fewer calls of GUP with larger batches, and the same otherwise", () => {
    const single = ramTimes({ batchPages: 1 });
    const batched = ramTimes({});
    expect(amount(single, "pinBatch")).toBe(512 * amount(batched, "pinBatch"));
    expect(amount(single, "domainMap")).toBe(amount(batched, "domainMap"));
    expect(single.mapTime).toBeGreaterThan(batched.mapTime);
  });

  it("is refused by name where frames run out", () => {
    const frames = () => contiguousFrames({ basePfn, pages: 16 });
    expect(() => ramTimes({ frames, isTouched: false })).toThrow(StackError);
    expect(() => ramTimes({ frames, isTouched: false })).toThrow("ENOMEM");
  });
});

describe("BARs at the start of a VM", () => {
  it("take fewer lookups where process and BAR agree modulo 1 GiB, and the fewest by no lookup", () => {
    const aligned = barTimes({});
    const off = barTimes({ processOffset: 1 });
    const direct = barTimes({ way: "dont-pin", processOffset: 1 });
    const buffer = barTimes({ way: "dma-buf" });
    expect(amount(aligned, "pfnLookup")).toBe(4);
    expect(amount(off, "pfnLookup")).toBe(4 * GIB);
    expect(amount(direct, "pfnLookup")).toBe(0);
    expect(amount(buffer, "pfnLookup")).toBe(0);
    expect(aligned.mapTime).toBeLessThan(off.mapTime / 1000);
    expect(direct.mapTime).toBe(buffer.mapTime);
    expect(direct.mapTime).toBeLessThan(aligned.mapTime);
  });

  it("of the same number of pages take the same lookups by the page, however they are cut", () => {
    const rules = followRules["linux-6.12"];
    const one = barTimes({ rules });
    const four = barTimes({ rules, count: 4, pages: GIB });
    expect(amount(four, "pfnLookup")).toBe(amount(one, "pfnLookup"));
    expect(four.mapTime / one.mapTime).toBeCloseTo(1, 3);
  });

  it("cost tables where the device's address is off: one for each 2 MiB", () => {
    const aligned = barTimes({ way: "dont-pin" });
    const off = barTimes({ way: "dont-pin", deviceOffset: 1 });
    expect(amount(aligned, "entryWrite")).toBeLessThan(16);
    expect(amount(off, "tableAlloc")).toBeGreaterThanOrEqual((4 * GIB) / 512);
    expect(off.mapTime).toBeGreaterThan(100 * aligned.mapTime);
  });

  it("are looked up by the page when Linux unmaps them, whatever their leaves", () => {
    const unmapped = barTimes({ pages: GIB }, "kernel").unmapCharges;
    expect(unmapped.find(({ step }) => step === "physLookup")!.amount).toBe(GIB);
  });
});

describe("a start", () => {
  it("gives the same hash twice, and its shares add up to its time", () => {
    const first = ramTimes({});
    expect(ramTimes({}).hash).toBe(first.hash);
    const sum = first.mapCharges.reduce((total, { time }) => total + time, 0);
    expect(sum).toBe(first.mapTime);
  });
});
