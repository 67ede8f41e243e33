import { describe, expect, it } from "vitest";
import { CountingMeter, Step } from "./meter.ts";

describe("steps", () => {
  it("are numbered consecutively from 0, so that a column holds each", () => {
    const numbers = Object.values(Step);
    expect(numbers).toEqual(numbers.map((_, index) => index));
  });
});

describe("CountingMeter", () => {
  it("counts reports and amounts apart, in all and by node", () => {
    const meter = new CountingMeter();
    meter.step(Step.tableAlloc, 1, 0);
    meter.step(Step.tableAlloc, 4, 1);
    meter.step(Step.fault, 1, 0);
    expect(meter.events("tableAlloc")).toBe(2);
    expect(meter.amount("tableAlloc")).toBe(5);
    expect(meter.amountAt("tableAlloc", 0)).toBe(1);
    expect(meter.amountAt("tableAlloc", 1)).toBe(4);
    expect(meter.amountAt("tableAlloc", 7)).toBe(0);
    expect(meter.events("tableFree")).toBe(0);
  });

  it("forgets everything on reset", () => {
    const meter = new CountingMeter();
    meter.step(Step.fault, 1, 2);
    meter.reset();
    expect(meter.amount("fault")).toBe(0);
    expect(meter.amountAt("fault", 2)).toBe(0);
  });
});
