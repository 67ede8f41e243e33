import { describe, expect, it } from "vitest";
import { hasWideAcs, type QuirkSubject, quirksOf } from "./pci-quirks.ts";

const subject = (
  vendor: number,
  device: number,
  more: Partial<QuirkSubject> = {},
): QuirkSubject => ({
  vendor,
  device,
  portType: "endpoint",
  header: "endpoint",
  devfn: 0,
  isMultifunction: false,
  above: "root-port",
  hasIvrs: false,
  ...more,
});

describe("quirks of single devices", () => {
  it("isolate root ports of older chipsets, and only the ports", () => {
    const port = { portType: "root-port", header: "bridge", above: null } as const;
    expect(quirksOf(subject(0x8086, 0x1c10, port))).toEqual({ isolated: true });
    expect(quirksOf(subject(0x8086, 0x1c10))).toBe(null);
    expect(quirksOf(subject(0x8086, 0x1d11, port))).toBe(null);
  });

  it("isolate ports of Zhaoxin, Cavium and Ampere, and network functions of Wangxun", () => {
    const port = { portType: "root-port", header: "bridge", above: null } as const;
    const isolated = (vendor: number, device: number, more = {}) =>
      quirksOf(subject(vendor, device, more))?.isolated === true;
    expect([0x0710, 0x0720, 0x0721].map((id) => isolated(0x1d17, id, port))).toEqual([
      true,
      false,
      true,
    ]);
    expect([isolated(0x177d, 0xa002, port), isolated(0x177d, 0xa002)]).toEqual([true, false]);
    expect([isolated(0x1def, 0xe005, port), isolated(0x8088, 0x0101)]).toEqual([true, true]);
  });

  it("know ports whose ACS registers are wide", () => {
    const wide = (device: number) => hasWideAcs({ vendor: 0x8086, device, portType: "root-port" });
    expect([0xa110, 0xa11f, 0xa120, 0x9d1b, 0x9d1c].map(wide)).toEqual([
      true,
      true,
      false,
      true,
      false,
    ]);
  });

  it("isolate network functions by their makers' word", () => {
    expect(quirksOf(subject(0x8086, 0x10fb, { isMultifunction: true }))).toEqual({
      isolated: true,
    });
    expect(quirksOf(subject(0x10de, 0x10fb))).toBe(null);
  });

  it("isolate AMD's south bridge only with an IOMMU, on the root bus, among several", () => {
    const south = { isMultifunction: true, above: null, hasIvrs: true };
    expect(quirksOf(subject(0x1002, 0x4385, south))).toEqual({ isolated: true });
    expect(quirksOf(subject(0x1002, 0x4385, { ...south, hasIvrs: false }))).toBe(null);
  });

  it("give disks behind Marvell's controllers the id of a function that does not exist", () => {
    expect(quirksOf(subject(0x1b4b, 0x9230))).toEqual({ aliasDevfns: [1] });
    expect(quirksOf(subject(0x1b4b, 0x9230, { devfn: 1 }))).toBe(null);
    expect(quirksOf(subject(0x1180, 0xe832, { devfn: 0x0b }))).toEqual({ aliasDevfns: [8] });
  });

  it("find Express bridges that do not say so, below an Express port", () => {
    const bridge = { header: "bridge", portType: "conventional" } as const;
    expect(quirksOf(subject(0x1b21, 0x1080, bridge))).toEqual({ aliasesSecondaryBus: true });
    expect(quirksOf(subject(0x1b21, 0x1080, { ...bridge, above: null }))).toBe(null);
  });
});
