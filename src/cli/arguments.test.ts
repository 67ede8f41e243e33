import { describe, expect, it } from "vitest";
import { nearest } from "../config/nearest.ts";
import { policies } from "../dma/policy.ts";
import { parseDurationNs, parseIommu, parsePolicy, parseQueueSize } from "./arguments.ts";

describe("flag values", () => {
  it("knows every policy by its name", () => {
    expect(policies.map(({ name }) => parsePolicy(name))).toEqual(policies);
    expect(policies).toHaveLength(7);
  });

  it("suggests the nearest policy for a slip", () => {
    expect(() => parsePolicy("lasy-mq")).toThrow(/no policy "lasy-mq"; did you mean "lazy-mq"/);
    expect(() => parsePolicy("STRICT")).toThrow(/did you mean "strict"/);
    expect(() => parsePolicy("zzzzzzzzz")).toThrow(/policies: passthrough, strict/);
  });

  it("reads times with their unit and refuses others", () => {
    expect(["10ms", "1s", "500us", "1.5ms"].map(parseDurationNs)).toEqual([1e7, 1e9, 5e5, 1.5e6]);
    expect(["2m", "1h"].map(parseDurationNs)).toEqual([120e9, 3600e9]);
    for (const text of ["10", "ms", "-1ms", "0ms", "1e3s", "99999s", ""]) {
      expect(() => parseDurationNs(text)).toThrow(/a time is a number/);
    }
  });

  it("reads queue sizes that are powers of two", () => {
    expect(parseQueueSize("256")).toBe(256);
    for (const text of ["1", "0", "-2", "2.5", "100", "99999999", "x"]) {
      expect(() => parseQueueSize(text)).toThrow(/power of two.*2 to 2097152/);
    }
  });

  it("names the kinds of IOMMU", () => {
    expect(parseIommu("hardware")).toBe("hardware");
    expect(() => parseIommu("hardwere")).toThrow(/did you mean "hardware"/);
  });
});

describe("nearest", () => {
  it("offers nothing for a word that resembles none", () => {
    expect(nearest("completely-else", ["replay", "verify"])).toBeNull();
  });
});
