import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EMPTY_MACHINE, type Machine, type RidRange } from "../../topology/machine.ts";
import { parseProperties } from "../../virtio/iommu/driver-probe.ts";
import { richMachine } from "../acpi/rich-machine.suite.ts";
import { buildBuiltin } from "./build.ts";
import { type Dialect, dialects } from "./formats.ts";
import { dialectOf } from "./kinds.ts";
import { readProperties, writeProperties } from "./probe-properties.ts";
import { accessTo, offersTopology, readBuiltin } from "./reader.ts";

const pci = richMachine.iommus[0]!;
const range = (segment: number, firstRid: number, lastRid: number, firstId: number): RidRange => ({
  segment,
  firstRid,
  lastRid,
  firstId,
  includesBelow: false,
});
const machine = (translates: RidRange[], endpoints: Machine["iommus"][0]["endpoints"] = []) => ({
  ...EMPTY_MACHINE,
  iommus: [{ ...pci, translates, endpoints }],
});
const small = machine([range(0, 0, 0x1f, 0x100), range(1, 0x21, 0xffff, 0x200)]);
const hexOf = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const names = Object.keys(dialects) as Dialect[];

describe("a built-in topology", () => {
  it("of the RFC is a linked list at offset 40, types 0 and 1, 16 bytes each (F29, F30, F31)", () => {
    const bytes = buildBuiltin(small, "v1");
    expect(hexOf(bytes.subarray(36))).toBe(
      "28000000" +
        "0000380000010000" +
        "000000001f000000" +
        "0000000000020000" +
        "01002100ffff0000",
    );
  });

  it("of the array form has stride and count at 36; its range is 12 bytes of 16 (F31)", () => {
    const bytes = buildBuiltin(machine([range(2, 8, 9, 0x1_0008)]), "v2");
    expect(hexOf(bytes.subarray(36))).toBe(
      "300000000100000010000000" + "010002000800090008000100" + "00000000",
    );
  });

  it("of August 2020 has count and offset at 36, and lengths; VIOT's shapes (F30, F31)", () => {
    const endpoint = { base: 0xfeb0_2c00n, id: 0x42, path: null };
    const bytes = buildBuiltin(machine([range(0, 0, 0xffff, 0)], [endpoint]), "v3");
    expect(hexOf(bytes.subarray(36))).toBe(
      "02002800" +
        "0100100000000000" +
        "00000000ffff0000" +
        "0200100042000000" +
        "002cb0fe00000000",
    );
  });

  it.each(names)("in %s comes back, and is known for what it is", (dialect) => {
    const ranges = fc.record({
      segment: fc.integer({ min: 0, max: 0xffff }),
      firstRid: fc.integer({ min: 0, max: 0x7fff }),
      lastRid: fc.integer({ min: 0x8000, max: 0xffff }),
      firstId: fc.integer({ min: 0, max: dialect === "v1" ? 0xffff : 0xffff_ffff }),
      includesBelow: fc.constant(false),
    });
    fc.assert(
      fc.property(fc.array(ranges, { minLength: 1, maxLength: 9 }), (translates) => {
        const bytes = buildBuiltin(machine(translates), dialect);
        const reading = readBuiltin(accessTo(bytes), dialect);
        expect(reading.findings).toEqual([]);
        expect(reading.machine.iommus[0]!.translates).toEqual(translates);
        expect(dialectOf(bytes)).toBe(dialect);
        // A guest of the RFC reads what was written for it.
        if (dialect === "v1") {
          expect(readBuiltin(accessTo(bytes), "v1", "rfc").machine).toEqual(reading.machine);
        }
      }),
    );
  });

  it("with ids of 65536 and more is refused for the RFC's guest, which would misread them (F32)", () => {
    const wide = machine([range(0, 0, 0xff, 0x1_0010)]);
    expect(() => buildBuiltin(wide, "v1")).toThrow(/16 bits/);
    const bytes = buildBuiltin(small, "v1");
    new DataView(bytes.buffer).setUint32(44, 0x1_0010, true);
    const idOf = (reader: "rfc" | "proposal") =>
      readBuiltin(accessTo(bytes), "v1", reader).machine.iommus[0]!.translates[0]!.firstId;
    expect(idOf("proposal")).toBe(0x1_0010);
    expect(idOf("rfc")).toBe(0x10);
  });

  it("is offered by bit 6; the RFC's guest looked at bits 1 and 2 (F29)", () => {
    expect(offersTopology(1n << 6n, "proposal")).toBe(true);
    expect(offersTopology(1n << 6n, "rfc")).toBe(false);
    expect(offersTopology(1n << 2n, "rfc")).toBe(true);
  });

  it("that points to itself ends after 65535 structures", () => {
    const bytes = buildBuiltin(small, "v1");
    new DataView(bytes.buffer).setUint16(58, 40, true);
    const { items, findings } = readBuiltin(accessTo(bytes), "v1");
    expect(items).toHaveLength(65_535);
    expect(findings.at(-1)!.code).toBe("builtin/endless");
  });

  it.each(names)("in %s of any bytes is read within its bounds", (dialect) => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 96 }), (bytes) => {
        const access = accessTo(bytes);
        const reads: number[] = [];
        const watched = {
          length: access.length,
          read: (at: number, count: number) => {
            reads.push(at + count);
            return access.read(at, count);
          },
        };
        readBuiltin(watched, dialect);
        const last = reads.reduce((most, one) => Math.max(most, one), 0);
        expect(last).toBeLessThanOrEqual(Math.max(48, bytes.length));
      }),
    );
  });
});

describe("PROBE properties", () => {
  const said = {
    regions: [{ start: 0xfee0_0000n, last: 0xfeef_ffffn, kind: "msi" as const }],
    proximityDomain: 3,
    hasAtsPath: true,
  };

  it("with the proposed placement come back", () => {
    expect(readProperties(writeProperties(said))).toEqual(said);
    const none = { regions: [], proximityDomain: null, hasAtsPath: false };
    expect(writeProperties(none)).toHaveLength(0);
  });

  it("of the proposal are passed over by a driver of today, which still sees the regions", () => {
    const settings = { corrections: { propertyBits: false }, regionsMax: 8 };
    const result = parseProperties(writeProperties(said), settings as never);
    expect(result).toMatchObject({ errno: 0, unknownCount: 1 });
    expect(result.regions).toEqual(said.regions);
  });
});
