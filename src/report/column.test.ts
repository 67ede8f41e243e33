import { describe, expect, it } from "vitest";
import { cellParts, cellText, countText, durationText } from "./column.ts";

describe("printed values", () => {
  it("groups thousands", () => {
    expect([0, 999, 1000, 1234567].map(countText)).toEqual(["0", "999", "1,000", "1,234,567"]);
  });

  it("prints durations with three digits in the largest unit", () => {
    expect([0, 999, 1500, 12_345_678, 999_960, 2e9].map(durationText)).toEqual([
      "0 ns",
      "999 ns",
      "1.50 us",
      "12.3 ms",
      "1000 us",
      "2 s",
    ]);
  });

  it("prints each unit, and a dash for what is not known", () => {
    expect(cellText(null, "bytes")).toBe("-");
    expect(cellText(65536, "bytes")).toBe("64 KiB");
    expect(cellText(0.1234, "share")).toBe("12.3 %");
    expect(cellText(2, "ratio")).toBe("2.00");
    expect(cellText(12345.6, "ratio")).toBe("12,346");
    expect(cellText(true, "text")).toBe("yes");
    expect(cellText("strict", "text")).toBe("strict");
  });

  it("refuses a result that is not a number", () => {
    expect(() => cellText(Number.NaN, "count")).toThrow(/number or null/);
  });

  it("splits at the decimal point and the unit", () => {
    expect(cellParts("1,536.5 KiB")).toEqual({ whole: "1,536", fraction: ".5", suffix: " KiB" });
    expect(cellParts("-")).toEqual({ whole: "-", fraction: "", suffix: "" });
  });
});
