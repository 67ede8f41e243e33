/** SRAT, SLIT and MCFG as Linux reads them, by the numbers of the reference. */
import { describe, expect, it } from "vitest";
import {
  ApicAffinity,
  GenericInitiator,
  GenericPort,
  GiccAffinity,
  ItsAffinity,
  MemoryAffinity,
  RintcAffinity,
  X2ApicAffinity,
} from "./srat.ts";
import { codesOf, le, patched, reading, tableOf, vector } from "./tables.suite.ts";

const apic = (domain: number, id: number, flags = 1) => [
  ...[0, 16, domain & 0xff, id],
  ...le(flags, 4),
  ...[0, ...le(domain >>> 8, 3)],
  ...le(0, 4),
];
const x2apic = (domain: number, id: number, length = 24) =>
  [2, length, 0, 0, ...le(domain, 4), ...le(id, 4), ...le(1, 4), ...new Array(8).fill(0)].slice(
    0,
    length,
  );
const memory = (domain: number, base: number, bytes: number, flags = 1) => [
  ...[1, 40, ...le(domain, 4), 0, 0],
  ...[...le(base, 8), ...le(bytes, 8), ...le(0, 4), ...le(flags, 4), ...le(0, 8)],
];
const initiator = (domain: number, handle: number[], flags = 1) => [
  ...[5, 32, 0, 1, ...le(domain, 4)],
  ...[...handle, ...new Array(16 - handle.length).fill(0), ...le(flags, 4), ...le(0, 4)],
];
const srat = (revision: number, ...entries: number[][]) =>
  tableOf("SRAT", revision, [...le(1, 4), ...le(0, 8)], ...entries);
const domains = (bytes: Uint8Array) =>
  reading(bytes).machine.nodes.map((node) => node.proximityDomain);

describe("SRAT", () => {
  it("has entries of 16, 40, 24, 18, 12, 32, 32, 20 bytes (F46)", () => {
    const formats = [
      ApicAffinity,
      MemoryAffinity,
      X2ApicAffinity,
      GiccAffinity,
      ItsAffinity,
      GenericInitiator,
      GenericPort,
      RintcAffinity,
    ];
    expect(formats.map((format) => format.type)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(formats.map((format) => format.layout.bytes)).toEqual([16, 40, 24, 18, 12, 32, 32, 20]);
  });

  it("of revision 1 has proximity domains of 8 bits (F47)", () => {
    const entries = [apic(0x105, 0), memory(0x105, 0, 4096)];
    expect(domains(srat(1, ...entries))).toEqual([5]);
    expect(codesOf(srat(1, ...entries))).toEqual([
      "srat/domain-truncated",
      "srat/domain-truncated",
    ]);
    expect(domains(srat(3, ...entries))).toEqual([0x105]);
  });

  it("has the bus before devfn in the handle of a PCI initiator (F48, F50)", () => {
    const bytes = srat(3, initiator(2, [0, 0, 0x21, 0x08]));
    expect(reading(bytes).initiators).toEqual([{ proximityDomain: 2, segment: 0, rid: 0x2108 }]);
  });

  it("loses CPUs and initiators behind a disabled initiator (F49)", () => {
    const off = initiator(1, [], 0);
    const bytes = srat(3, apic(0, 0), off, apic(1, 1), initiator(2, []));
    expect(domains(bytes)).toEqual([0]);
    expect(codesOf(bytes)).toEqual(["srat/initiator-disabled"]);
    // Memory is another pass, so it is not lost.
    expect(domains(srat(3, apic(0, 0), off, memory(1, 0, 4096)))).toEqual([0, 1]);
  });

  it("is not used at all with a short x2APIC entry (F54)", () => {
    const bytes = srat(3, apic(0, 0), x2apic(1, 1, 20));
    expect([domains(bytes), codesOf(bytes)]).toEqual([
      [],
      ["firmware/record-short", "srat/refused"],
    ]);
  });

  it("is not used with a CPU entry that is not 16 bytes long", () => {
    expect(codesOf(srat(3, [...apic(0, 0).with(1, 20), 0, 0, 0, 0]))).toEqual(["srat/refused"]);
  });

  it("accepts domain 1023 and refuses 1024 (F55)", () => {
    expect(domains(srat(3, x2apic(1023, 0)))).toEqual([1023]);
    expect([domains(srat(3, x2apic(1024, 0))), codesOf(srat(3, x2apic(1024, 0)))]).toEqual([
      [],
      ["srat/refused"],
    ]);
  });

  it("numbers nodes as their domains appear, CPUs and initiators before memory (F57)", () => {
    const bytes = srat(3, memory(7, 0, 4096), apic(4, 9), initiator(6, []), memory(4, 8192, 4096));
    const { nodes } = reading(bytes).machine;
    expect(nodes.map((node) => [node.id, node.proximityDomain])).toEqual([
      [0, 4],
      [1, 6],
      [2, 7],
    ]);
    expect(nodes[0]!.firmwareCpuIds).toEqual([9]);
  });

  it("leaves entries out that are not enabled", () => {
    expect(domains(srat(3, apic(0, 0), apic(1, 1, 0), memory(2, 0, 0, 0)))).toEqual([0]);
  });

  it("finds memory that is in two entries, and ranges that are none", () => {
    const twice = srat(3, memory(0, 0, 8192), memory(1, 4096, 8192));
    expect(codesOf(twice)).toEqual(["srat/memory-overlap"]);
    expect(codesOf(srat(3, memory(0, 4096, 0)))).toEqual(["srat/memory-range"]);
  });

  it("skips entries of unknown type by their length", () => {
    const bytes = srat(3, [99, 4, 1, 2], apic(0, 0));
    expect([domains(bytes), codesOf(bytes)]).toEqual([[0], ["srat/entry-unknown"]]);
  });
});

describe("SLIT", () => {
  const slit = (size: number, ...distances: number[]) => tableOf("SLIT", 1, le(size, 8), distances);
  const nodes = srat(3, apic(0, 0), apic(1, 1));
  const distances = (...tables: Uint8Array[]) =>
    reading(nodes, ...tables).machine.nodes.map((node) => node.distances);

  it("counts only with 10 on the diagonal and more elsewhere; else 10 and 20 apply (F51)", () => {
    const fallback = [
      [10, 20],
      [20, 10],
    ];
    expect(distances()).toEqual(fallback);
    for (const wrong of [
      slit(2, 11, 21, 21, 10),
      slit(2, 10, 10, 21, 10),
      slit(2, 10, 9, 21, 10),
    ]) {
      expect(distances(wrong)).toEqual(fallback);
      expect(codesOf(wrong)).toEqual(["slit/invalid"]);
    }
  });

  it("has 44 bytes and N × N, by proximity domain (F52)", () => {
    expect(vector("qemu-intel/SLIT").length).toBe(44 + 4);
    expect(distances(slit(2, 10, 21, 31, 10))).toEqual([
      [10, 21],
      [31, 10],
    ]);
  });

  it("accepts 254, 255 and asymmetry (F53)", () => {
    expect(codesOf(slit(2, 10, 254, 255, 10))).toEqual([]);
  });

  it.each([
    ["too few distances", slit(3, 10, 20, 20, 10), "slit/size"],
    ["2^63 localities", tableOf("SLIT", 1, le(2n ** 63n, 8)), "slit/size"],
    [
      "2^32 localities, whose square is 0 in 64 bits",
      tableOf("SLIT", 1, le(2n ** 32n, 8)),
      "slit/size",
    ],
  ])("with %s is not read", (_what, bytes, code) => {
    expect(codesOf(bytes)).toEqual([code]);
  });

  it("says which domain it does not reach", () => {
    const { findings } = reading(nodes, slit(1, 10));
    expect(findings[1]!.map((one) => one.code)).toEqual(["slit/domain-missing"]);
  });
});

describe("MCFG", () => {
  it("has the address of bus 0, whatever the first bus is", () => {
    const entry = [...le(0xb000_0000, 8), 1, 0, 0x20, 0x3f, 0, 0, 0, 0];
    const bytes = tableOf("MCFG", 1, le(0, 8), entry);
    expect(reading(bytes).machine.hostBridges).toMatchObject([
      { segment: 1, firstBus: 0x20, lastBus: 0x3f, ecamBase: 0xb000_0000n },
    ]);
  });

  it("refuses entries without address or with buses the wrong way round", () => {
    const good = vector("qemu-intel/MCFG");
    expect(codesOf(patched(good, [44, ...le(0, 8)]))).toEqual(["mcfg/range"]);
    expect(codesOf(patched(good, [54, 9, 8]))).toEqual(["mcfg/range"]);
    expect(codesOf(tableOf("MCFG", 1, le(0, 8)))).toEqual(["mcfg/empty"]);
  });
});
