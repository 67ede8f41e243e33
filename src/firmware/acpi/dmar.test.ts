/** DMAR as Linux reads it, by the numbers of the reference. */
import { describe, expect, it } from "vitest";
import type { MachineFunction, VtdIommu } from "../../topology/machine.ts";
import { decodeTable } from "./decode.ts";
import { readTables } from "./machine-parts.ts";
import { codesOf, findingsOf, le, reading, tableOf, vector } from "./tables.suite.ts";

const record = (type: number, body: number[]) => [
  ...le(type, 2),
  ...le(4 + body.length, 2),
  ...body,
];
const scope = (type: number, id: number, bus: number, ...path: number[]) => [
  ...[type, 6 + path.length, 0, 0, id, bus],
  ...path,
];
const drhd = (base: number, flags: number, ...scopes: number[][]) =>
  record(0, [flags, 0, 0, 0, ...le(base, 8), ...scopes.flat()]);
const rhsa = (base: number, domain: number) =>
  record(3, [...le(0, 4), ...le(base, 8), ...le(domain, 4)]);
const dmar = (...records: number[][]) =>
  tableOf("DMAR", 1, [0x2f, 1, ...new Array(10).fill(0)], ...records);
const BASE = 0xfed9_0000;
const unitOf = (bytes: Uint8Array) => reading(bytes).machine.iommus[0] as VtdIommu;

describe("DMAR", () => {
  it("has the width of addresses minus one; below 12 bits Linux refuses it (F59)", () => {
    const narrow = tableOf("DMAR", 1, [10, 0, ...new Array(10).fill(0)], drhd(BASE, 1));
    expect(codesOf(narrow)).toEqual(["dmar/width"]);
    expect(vector("qemu-intel/DMAR")[36]).toBe(0x2f);
  });

  it("places a unit only by an RHSA behind its DRHD (F60)", () => {
    const srat = vector("qemu-intel/SRAT");
    const after = reading(srat, dmar(drhd(BASE, 1), rhsa(BASE, 1)));
    expect(after.machine.iommus[0]!.node).toBe(1);
    const before = dmar(rhsa(BASE, 1), drhd(BASE, 1));
    expect(reading(srat, before).machine.iommus[0]!.node).toBe(null);
    expect(codesOf(before)).toEqual(["dmar/affinity"]);
  });

  it("with a structure of length 0 hangs Linux (F61)", () => {
    const bytes = dmar(drhd(BASE, 1), [0, 0, 0, 0, 1, 2, 3, 4]);
    expect(codesOf(bytes)).toEqual(["firmware/record-length", "dmar/walk"]);
    expect(findingsOf(bytes)[1]).toMatchObject({ severity: "error", at: 64 });
    expect(findingsOf(bytes)[1]!.effect).toMatch(/hangs/);
  });

  it("with a structure beyond its end has no VT-d", () => {
    const bytes = dmar(drhd(BASE, 1), [0, 0, 200, 0, 1, 2, 3, 4]);
    expect(findingsOf(bytes)[1]!.effect).toMatch(/Record passes table end/);
  });

  it("is refused whole when a name has no NUL in it (F62)", () => {
    const andd = (text: string) => record(4, [0, 0, 0, 1, ...Buffer.from(text)]);
    expect(codesOf(dmar(drhd(BASE, 1), andd("\\_SB.X")))).toContain("dmar/name");
    const named = dmar(drhd(BASE, 0, scope(5, 1, 0, 0x15, 2)), andd("\\_SB.X\0"));
    expect(codesOf(named)).toEqual([]);
    expect(unitOf(named).endpoints).toEqual([{ base: 0n, id: 0xaa, path: "\\_SB.X" }]);
  });

  it("applies reserved memory that is not in whole pages, and taints (F64)", () => {
    const rmrr = record(1, [
      0,
      0,
      0,
      0,
      ...le(0x1000, 8),
      ...le(0x1ff0, 8),
      ...scope(1, 0, 0, 2, 0),
    ]);
    const bytes = dmar(drhd(BASE, 1), rmrr);
    expect(codesOf(bytes)).toEqual(["dmar/region"]);
    expect(reading(bytes).machine.firmwareRegions).toMatchObject([
      { start: 0x1000n, last: 0x1ff0n },
    ]);
  });

  it("lists functions one by one in QEMU's table, with an IOAPIC on bus 0xff (F65, F66, F67)", () => {
    const unit = unitOf(vector("qemu-intel/DMAR"));
    expect(unit.includesRest).toBe(false);
    expect(unit.interruptSources).toEqual([{ kind: "ioapic", id: 0, segment: 0, rid: 0xff00 }]);
    expect(unit.translates.length).toBe(13);
    expect(reading(vector("qemu-intel/DMAR")).machine.atsScopes).toEqual([
      { segment: 0, kind: "all-ports", rids: [], isRequired: false },
    ]);
  });

  it("skips structures of unknown type (F68)", () => {
    const bytes = dmar(record(9, [1, 2]), drhd(BASE, 1));
    expect(codesOf(bytes)).toEqual(["dmar/structure-unknown"]);
    expect(unitOf(bytes).includesRest).toBe(true);
  });

  it("follows a path through bridges whose buses are known", () => {
    const bytes = dmar(drhd(BASE, 0, scope(1, 0, 0, 1, 0, 2, 3)));
    expect(unitOf(bytes).translates).toEqual([]);
    expect(codesOf(bytes)).toEqual(["dmar/path"]);
    const port = { segment: 0, bus: 0, devfn: 8, secondaryBus: 0x40 } as MachineFunction;
    const { machine, findings } = readTables([decodeTable(bytes)], [port]);
    expect(findings).toEqual([[]]);
    expect(machine.iommus[0]!.translates).toMatchObject([{ firstRid: 0x4013, lastRid: 0x4013 }]);
  });

  it.each([
    ["no unit", dmar(), ["dmar/no-unit"]],
    ["registers at 0", dmar(drhd(0, 1)), ["dmar/base"]],
    [
      "a scope of length 0",
      dmar(drhd(BASE, 0, [1, 0, 0, 0, 0, 0, 0, 0])),
      ["firmware/record-length", "dmar/scope"],
    ],
    ["a scope of unknown type", dmar(drhd(BASE, 0, scope(9, 0, 0, 1, 0))), ["dmar/scope-unknown"]],
    ["a scope without a path", dmar(drhd(BASE, 0, scope(1, 0, 0))), ["dmar/path"]],
  ])("finds %s", (_what, bytes, codes) => {
    expect(codesOf(bytes)).toEqual(codes);
  });
});
