/** IVRS as Linux reads it, by the numbers of the reference. */
import { describe, expect, it } from "vitest";
import type { AmdIommu } from "../../topology/machine.ts";
import { Ivhd10, Ivhd11, Ivhd40 } from "./ivrs.ts";
import { codesOf, findingsOf, le, reading, tableOf, vector } from "./tables.suite.ts";

const block = (type: number, id: number, body: number[][]) => {
  const long = type === 0x10 ? 0 : 16;
  const fixed = [
    ...le(0x40, 2),
    ...le(0xfeb8_0000, 8),
    0,
    0,
    0,
    0,
    ...le(0, 4),
    ...new Array(long).fill(0),
  ];
  const rest = [...le(id, 2), ...fixed, ...body.flat()];
  return [type, 0x10, ...le(4 + rest.length, 2), ...rest];
};
const ivrs = (...blocks: number[][]) => tableOf("IVRS", 2, [...le(1, 4), ...le(0, 8)], ...blocks);
const select = (id: number) => [2, ...le(id, 2), 0];
const range = (first: number, last: number) => [3, ...le(first, 2), 0, 4, ...le(last, 2), 0];
const ioapic = [72, 0, 0, 0, 0, ...le(0xa0, 2), 1];
const ivmd = (type: number, flags: number, id: number, last = 0) => [
  ...[type, flags, 32, 0, ...le(id, 2), ...le(last, 2), ...le(0, 8)],
  ...[...le(0x1f00_0000, 8), ...le(0x2000, 8)],
];
const ids = (bytes: Uint8Array) =>
  reading(bytes).machine.iommus.map((iommu) =>
    iommu.translates.map((one) => [one.firstRid, one.lastRid, one.firstId]),
  );

describe("IVRS", () => {
  it("has IVHD heads of 24 and 40 bytes (F69)", () => {
    expect([Ivhd10, Ivhd11, Ivhd40].map((format) => format.layout.bytes)).toEqual([24, 40, 40]);
  });

  it("gives entries 4, 8 bytes by their type's upper bits, and 22 and the UID to 240 (F70)", () => {
    const pad = [64, 0, 0, 0, 0, 0, 0, 0];
    const hid = [
      240,
      ...le(9, 2),
      0,
      ...Buffer.from("AMDI0020"),
      ...le(0, 8),
      2,
      3,
      ...Buffer.from("ABC"),
    ];
    const bytes = ivrs(block(0x40, 2, [[0, 0, 0, 0], pad, hid, select(8), ioapic]));
    expect([ids(bytes), codesOf(bytes)]).toEqual([[[[8, 8, 8]]], []]);
    expect(reading(bytes).machine.iommus[0]!.endpoints).toEqual([{ base: 0n, id: 9, path: "ABC" }]);
  });

  it.each([
    ["an entry of type 0x80", block(0x11, 2, [[0x80, 0, 0, 0]])],
    ["an entry of type 0xff", block(0x11, 2, [select(8), [0xff, 0, 0, 0, 0, 0, 0, 0]])],
    ["a block of length 0", [0x11, 0, 0, 0, 1, 2]],
  ])("hangs Linux with %s (F71)", (_what, wrong) => {
    const found = findingsOf(ivrs(block(0x11, 2, [ioapic]), wrong));
    expect(found.map((one) => one.code)).toContain("ivrs/hang");
    expect(found.find((one) => one.code === "ivrs/hang")!.severity).toBe("error");
  });

  it("uses the last of 0x10, 0x11 and 0x40 for one unit (F72)", () => {
    const blocks = [0x10, 0x11, 0x40].map((type) => block(type, 2, [select(type), ioapic]));
    expect(ids(ivrs(...blocks))).toEqual([[[0x40, 0x40, 0x40]]]);
    expect(ids(ivrs(...blocks.slice(0, 2)))).toEqual([[[0x11, 0x11, 0x11]]]);
  });

  it("looks for no better type behind a block above 0x40 (F73)", () => {
    const bytes = ivrs(
      block(0x10, 2, [select(1), ioapic]),
      block(0x41, 2, []),
      block(0x11, 2, [select(2)]),
    );
    expect(ids(bytes)).toEqual([[[1, 1, 1]]]);
    expect(codesOf(bytes)).toEqual(["ivrs/block-unknown"]);
  });

  it("does not consider a better type for another unit", () => {
    const bytes = ivrs(block(0x10, 2, [select(1), ioapic]), block(0x11, 3, [select(2)]));
    expect(ids(bytes)).toEqual([[[1, 1, 1]]]);
  });

  it("takes a memory definition for the unit's own function for a type, and has no unit", () => {
    const bytes = ivrs(block(0x10, 2, [ioapic]), ivmd(0x21, 7, 2));
    expect(codesOf(bytes)).toEqual(["ivrs/type-taken-from-memory", "ivrs/no-unit"]);
  });

  it("counts ACPI devices in blocks of type 0x40 only (F74)", () => {
    const hid = [240, ...le(9, 2), 0, ...Buffer.from("AMDI0020"), ...le(0, 8), 0, 0];
    const bytes = ivrs(block(0x11, 2, [hid, ioapic]));
    expect(codesOf(bytes)).toEqual(["ivrs/hid-misplaced"]);
    expect(reading(bytes).machine.iommus[0]!.endpoints).toEqual([]);
  });

  it("has memory to be mapped for all, one and a range of functions (F75)", () => {
    const parts = [ivmd(0x20, 1, 0), ivmd(0x21, 7, 9), ivmd(0x22, 8, 16, 32)];
    const { firmwareRegions } = reading(ivrs(block(0x10, 2, [ioapic]), ...parts)).machine;
    expect(firmwareRegions.map((one) => [one.treatment, one.canRead, one.canWrite])).toEqual([
      ["mapped", false, false],
      ["mapped", true, true],
      ["excluded", true, true],
    ]);
    expect(
      firmwareRegions.map((one) => one.functions?.map((f) => [f.firstRid, f.lastRid])),
    ).toEqual([undefined, [[9, 9]], [[16, 32]]]);
    expect(firmwareRegions[0]).toMatchObject({ start: 0x1f00_0000n, last: 0x1f00_1fffn });
  });

  it("without an IOAPIC has no interrupt remapping (F76)", () => {
    expect(codesOf(ivrs(block(0x10, 2, [select(8)])))).toEqual(["ivrs/no-ioapic"]);
  });

  it("with a wrong checksum leaves AMD-Vi off (F78)", () => {
    const bytes = ivrs(block(0x10, 2, [select(8), ioapic]));
    bytes[9] = bytes[9]! ^ 1;
    expect(findingsOf(bytes)).toMatchObject([{ code: "acpi/checksum", severity: "error", at: 9 }]);
    const slit = vector("qemu-intel/SLIT");
    slit[9] = slit[9]! ^ 1;
    expect(findingsOf(slit)).toMatchObject([{ code: "acpi/checksum", severity: "warning" }]);
  });

  it("needs an end for a range, and lets later entries win", () => {
    const all = [1, 0, 0, 0];
    const alias = [66, ...le(0x100, 2), 0, 0, ...le(0xa5, 2), 0];
    expect(ids(ivrs(block(0x10, 2, [all, alias, ioapic])))).toEqual([
      [
        [0, 0xa4, 0],
        [0xa5, 0xa5, 0xa5],
        [0xa6, 0xff, 0xa6],
        [0x100, 0x100, 0xa5],
        [0x101, 0xffff, 0x101],
      ],
    ]);
    expect(ids(ivrs(block(0x10, 2, [range(8, 15), ioapic])))).toEqual([[[8, 15, 8]]]);
  });

  it("reads two units, each with the functions listed in it", () => {
    const two = ivrs(
      block(0x10, 2, [select(8), ioapic]),
      block(0x10, 0x4002, [range(0x4008, 0x40ff)]),
    );
    expect(ids(two)).toEqual([[[8, 8, 8]], [[0x4008, 0x40ff, 0x4008]]]);
    expect((reading(two).machine.iommus[1] as AmdIommu).rid).toBe(0x4002);
  });
});
