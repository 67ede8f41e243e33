/** A window whose device has a translation cache of its own, or whose pages are not there before. */
import { describe, expect, it } from "vitest";
import { broadwell } from "../profiles/pcie-bench.ts";
import {
  runWindow,
  type WindowFaults,
  type WindowResult,
  type WindowRun,
} from "./random-window.ts";

const KIB = 2 ** 10;

const usual: WindowRun = {
  machine: broadwell,
  windowBytes: 512 * KIB,
  pageShift: 12,
  isWarm: false,
  isWrite: false,
  isSingle: true,
  seed: 1,
  accesses: 10_000,
};

const faults: WindowFaults = {
  kind: "stall",
  outstanding: 32,
  handlers: 1,
  reportNs: 1000,
  handlerNs: 2000,
};

const pri = { ...faults, kind: "pri" } as const;

function run(change: Partial<WindowRun>) {
  return runWindow({ ...usual, ...change });
}

function amount({ where }: WindowResult, name: string): number {
  return where.steps.find(({ step }) => step === name)?.amount ?? 0;
}

/** The parts are the latency of what is done, also where many were in flight at the end. */
function expectWhole({ where }: WindowResult): void {
  const sum = where.parts.reduce((all, { time }) => all + time, 0);
  expect(sum).toBe(where.latency);
}

describe("a device with ATS", () => {
  it("asks once for each page that its cache holds, and never again", () => {
    const result = run({ atsEntries: 128 });
    expect(amount(result, "atsRequest")).toBe(128);
    expect(amount(result, "atsHit")).toBeGreaterThanOrEqual(10_000 - 128);
    expect(result.hits + result.misses).toBe(128);
    expectWhole(result);
  });

  it("is as quick as without an IOMMU once it knows its pages", () => {
    const latency = (change: Partial<WindowRun>) => {
      const { latency: found } = run({ accesses: 40_000, ...change });
      return found.kind === "steady" ? found.mean / 1000 : Number.NaN;
    };
    const none = latency({ pageShift: null });
    expect(latency({ atsEntries: 128, windowBytes: 64 * KIB })).toBeCloseTo(none, 0);
    // A page that is not known costs the way there and back, too.
    const far = { windowBytes: 64 * KIB * KIB };
    expect(latency({ atsEntries: 16, ...far })).toBeGreaterThan(latency(far) + 100);
  });

  it("goes through with many requests in flight, writes and reads", () => {
    for (const isWrite of [false, true]) {
      const result = run({ atsEntries: 8, isSingle: false, isWrite });
      expect(result.where.requests).toBeGreaterThanOrEqual(10_000);
      expect(result.rate.kind).toBe("steady");
    }
  });
});

describe("pages that are not there", () => {
  it.each([
    ["stall", { faults }],
    ["pri", { faults: pri, atsEntries: 128 }],
  ] as const)("fault once each by %s, at the price of report and handler", (_kind, how) => {
    const result = run(how);
    expect(result.faults).toBe(128);
    expect(amount(result, "pageRequest")).toBe(128);
    expect(amount(result, "pageResponse")).toBe(128);
    expect(amount(result, "pageFault")).toBe(128);
    const time = (wanted: string) => result.where.parts.find(({ name }) => name === wanted)?.time;
    expect(time("fault report")).toBe(128 * 1000 * 1000);
    expect(time("handling a fault")).toBe(128 * 2000 * 1000);
    expectWhole(result);
  });

  it("are looked for again by each access that came before the handler was done", () => {
    const result = run({ faults, isSingle: false });
    expect(result.faults).toBeGreaterThan(128);
    expect(amount(result, "pageFault")).toBe(128);
  });

  it("wait for a handler, and less with several", () => {
    const waited = (handlers: number) => {
      const result = run({ faults: { ...faults, handlers }, isSingle: false });
      const wait = result.where.parts.find(
        ({ kind, resource }) => kind === "wait" && resource === "fault handler",
      );
      return wait?.time ?? 0;
    };
    expect(waited(1)).toBeGreaterThan(2 * waited(8));
  });

  it("cost nothing more than those that are there where report and handler cost nothing", () => {
    const free = { ...faults, reportNs: 0, handlerNs: 0 };
    const { where } = run({ faults: free });
    const { where: mapped } = run({});
    // A fault walks three times: it misses, is retried in the unit, and by the access.
    const difference = where.latency - mapped.latency;
    expect(difference / mapped.latency).toBeLessThan(0.02);
    expect(difference).toBeGreaterThan(0);
  });
});
