/** IORT as Linux reads it, by the numbers of the reference. */
import { describe, expect, it } from "vitest";
import type { Iommu } from "../../topology/machine.ts";
import { itemsOf } from "../table-item.ts";
import { decodeTable } from "./decode.ts";
import {
  DraftParavirt,
  DraftVirtioPci,
  ItsGroup,
  NamedComponent,
  RootComplex,
  SmmuV3,
} from "./iort.ts";
import { codesOf, le, patched, reading, tableOf, vector } from "./tables.suite.ts";

type Mapping = [input: number, count: number, output: number, reference: number, flags?: number];

const node = (type: number, revision: number, body: number[], mappings: Mapping[] = []) => {
  const length = 16 + body.length + 20 * mappings.length;
  const offset = mappings.length === 0 ? 0 : 16 + body.length;
  const head = [type, ...le(length, 2), revision, ...le(0, 4), ...le(mappings.length, 4)];
  const maps = mappings.flatMap(([input, count, output, reference, flags = 0]) =>
    [input, count, output, reference, flags].flatMap((value) => le(value, 4)),
  );
  return [...head, ...le(offset, 4), ...body, ...maps];
};
const its = node(0, 1, [...le(1, 4), ...le(0, 4)]);
const smmu = (flags: number, domain: number, mappings: Mapping[] = []) =>
  node(
    4,
    4,
    [
      ...le(0x905_0000n, 8),
      ...le(flags, 4),
      ...le(0, 4),
      ...le(0, 8),
      ...[0, 74, 75, 77, 76, domain, 0].flatMap((value) => le(value, 4)),
    ],
    mappings,
  );
const complex = (mappings: Mapping[], { bits = 64, ats = 0, segment = 0 } = {}) =>
  node(2, 3, [...le(1, 4), 0, 0, 0, 3, ...le(ats, 4), ...le(segment, 4), bits, 0, 0, 0], mappings);
const iort = (revision: number, ...nodes: number[][]) =>
  tableOf("IORT", revision, [...le(nodes.length, 4), ...le(48, 4), ...le(0, 4)], ...nodes);
/** Offset of the n-th node. */
const at = (nodes: number[][], index: number) =>
  48 + nodes.slice(0, index).reduce((sum, one) => sum + one.length, 0);

const routes = (bytes: Uint8Array) =>
  reading(bytes).machine.iommus.map((iommu) =>
    iommu.translates.map((one) => [one.firstRid, one.lastRid, one.firstId]),
  );

describe("IORT", () => {
  it("holds number of IDs minus one in a mapping (F34)", () => {
    const bytes = iort(5, its, smmu(0, 0), complex([[0, 0xff, 0x1000, at([its], 1)]]));
    expect(routes(bytes)).toEqual([[[0, 0xff, 0x1000]]]);
    expect(codesOf(bytes)).toEqual([]);
  });

  it("warns where devices lead through the mapping of an SMMU's own interrupts", () => {
    const wired = smmu(0, 0, [[0, 0xffff, 0, at([], 0)]]);
    expect(codesOf(iort(5, its, wired))).toEqual([]);
    // Without a wired event interrupt, index 0 of a node of revision 4 counts.
    const EVENT_GSIV = 44;
    const bare = wired.with(EVENT_GSIV, 0);
    expect(codesOf(iort(5, its, bare))).toEqual(["iort/own-mapping"]);
    // From revision 5 on a flag decides alone.
    expect(codesOf(iort(5, its, bare.with(3, 5)))).toEqual([]);
  });

  it("takes an ID that two mappings share to the later one, and says why (F35)", () => {
    const to = at([its], 1);
    const maps: Mapping[] = [
      [0, 8, 0, to],
      [8, 8, 0x100, to],
    ];
    const bytes = iort(5, its, smmu(0, 0), complex(maps));
    expect(codesOf(bytes)).toEqual(["iort/id-count"]);
    expect(routes(bytes)).toEqual([
      [
        [0, 7, 0],
        [8, 16, 0x100],
      ],
    ]);
  });

  it("has the length of a node at its second byte, unaligned (F36)", () => {
    const table = decodeTable(iort(5, its));
    expect(itemsOf(table.root, ItsGroup)[0]!.length).toBe(its.length);
    expect(ItsGroup.layout.at.length).toBe(1);
  });

  it("has memory flags of a root complex at 23 and ATS at 24 (F37)", () => {
    expect([RootComplex.layout.at.memoryFlags, RootComplex.layout.at.ats]).toEqual([23, 24]);
    const bytes = iort(5, its, complex([[0, 0xffff, 0, 48]], { ats: 1 }));
    expect(reading(bytes).machine.hostBridges[0]!.atsSupported).toBe(true);
  });

  it("warns of a root complex that emits addresses of 0 bits (F38)", () => {
    expect(codesOf(iort(5, its, complex([[0, 0xffff, 0, 48]], { bits: 0 })))).toEqual([
      "iort/address-bits",
    ]);
  });

  it("gives no IOMMU to what refers to offset 0 (F39)", () => {
    const bytes = iort(5, its, smmu(0, 0), complex([[0, 0xffff, 0, 0]]));
    expect([routes(bytes), codesOf(bytes)]).toEqual([[[]], ["iort/reference-null"]]);
  });

  it("takes the node of an SMMUv3 only with flag bit 3 (F40)", () => {
    const srat = vector("qemu-intel/SRAT");
    const nodeOf = (flags: number) =>
      (reading(srat, iort(5, its, smmu(flags, 1))).machine.iommus[0] as Iommu).node;
    expect([nodeOf(1), nodeOf(9)]).toEqual([null, 1]);
  });

  it("reads reserved memory from table revision 5 on, in steps of 64 KiB (F41)", () => {
    const to = at([its], 1);
    const region = (base: number) =>
      node(
        6,
        3,
        [...le(0, 4), ...le(1, 4), ...le(28, 4), ...le(base, 8), ...le(0x1_0000, 8), ...le(0, 4)],
        [[0, 0, 8, to]],
      );
    const table = (revision: number, base = 0x9000_0000) =>
      iort(revision, its, smmu(0, 0), complex([[0, 0xff, 0, to]]), region(base));
    expect(codesOf(table(3))).toEqual(["iort/rmr-revision"]);
    expect(codesOf(table(5, 0x9000_1000))).toEqual(["iort/rmr-range"]);
    const [found] = reading(table(5)).machine.firmwareRegions;
    expect([found!.start, found!.last]).toEqual([0x9000_0000n, 0x9000_ffffn]);
    expect(found!.functions!.map((one) => [one.firstRid, one.lastRid])).toEqual([[8, 8]]);
  });

  it("without an SMMU has no IOMMU, so that VIOT decides (F42, F44)", () => {
    expect(reading(vector("reference/IORT-its")).machine.iommus).toEqual([]);
    expect(codesOf(vector("reference/IORT-its"))).toEqual([]);
  });

  it("has the PASID width of a component in flags 5:1 (F45)", () => {
    expect(NamedComponent.layout.fields.flags).toMatchObject({ bits: { pasidBits: [1, 5] } });
    expect(RootComplex.layout.at.pasid).toBe(33);
  });

  it("tells the two layouts of type 0x80 by their length (F25)", () => {
    const short = node(0x80, 0, le(8, 4));
    const long = node(0x80, 0, [
      ...le(8, 4),
      ...new Array(12).fill(0),
      ...le(1, 4),
      ...new Array(20).fill(0),
    ]);
    const { root } = decodeTable(iort(0, short, long));
    expect([short.length, long.length]).toEqual([20, 56]);
    expect(itemsOf(root, DraftVirtioPci).map((one) => one.at)).toEqual([48]);
    expect(itemsOf(root, DraftParavirt).map((one) => one.at)).toEqual([68]);
  });

  it("assigns no IOMMU to a root complex that leads to type 0x80 in a plain IORT (F28)", () => {
    const bytes = iort(0, node(0x80, 0, le(8, 4)), complex([[0, 0xffff, 0, 48]]));
    expect([reading(bytes).machine.iommus, codesOf(bytes)]).toEqual([[], ["iort/draft-node"]]);
  });

  it("names devices by path, one ID a mapping", () => {
    const path = [...Buffer.from("\\_SB.VR00\0\0\0")];
    const body = [...le(0, 4), ...le(1, 4), 0, 0, 0, 3, 64, ...path, 0, 0, 0];
    const component = node(1, 4, body.slice(0, 28), [[0, 0, 0x55, at([its], 1), 1]]);
    const [iommu] = reading(iort(5, its, smmu(0, 0), component)).machine.iommus as [Iommu];
    expect(iommu.endpoints).toEqual([{ base: 0n, id: 0x55, path: "\\_SB.VR00" }]);
  });

  it("ends a circle of references with a finding at each node", () => {
    const nodes = [
      complex([[0, 0xffff, 0, 48 + 56]]),
      complex([[0, 0xffff, 0, 48]], { segment: 1 }),
    ];
    const bytes = iort(5, ...nodes);
    expect(codesOf(bytes)).toEqual(["iort/cycle", "iort/cycle"]);
  });

  it("follows mappings through a node between, with both offsets applied", () => {
    const first = complex([[0x10, 0xf, 0x100, 48 + 56]]);
    const between = complex([[0x100, 0xff, 0x2000, 48 + 112]], { segment: 1 });
    const bytes = iort(5, first, between, smmu(0, 0));
    const [iommu] = reading(bytes).machine.iommus as [Iommu];
    expect(iommu.translates.filter((one) => one.segment === 0)).toMatchObject([
      { firstRid: 0x10, lastRid: 0x1f, firstId: 0x2000 },
    ]);
  });

  it.each([
    ["an offset where no node starts", 60, "iort/reference"],
    ["an offset behind the table", 0xffff_fff0, "iort/reference"],
  ])("finds a mapping to %s", (_where, reference, code) => {
    expect(codesOf(iort(5, its, complex([[0, 0xff, 0, reference]])))).toEqual([code]);
  });

  it("uses the first of two root complexes of a segment", () => {
    const to = at([its], 1);
    const bytes = iort(5, its, smmu(0, 0), complex([[0, 7, 0, to]]), complex([[0, 9, 0, to]]));
    expect([routes(bytes), codesOf(bytes)]).toEqual([[[[0, 7, 0]]], ["iort/segment-twice"]]);
  });

  it("counts more nodes than there are with a warning at every device", () => {
    expect(codesOf(patched(iort(5, its), [36, 2]))).toEqual(["iort/node-count"]);
  });

  it("keeps a later revision's SMMUv3 node and an early one without placement", () => {
    const early = smmu(0, 0).slice(0, 60);
    early[1] = 60;
    expect(itemsOf(decodeTable(iort(0, early)).root, SmmuV3)[0]!.items).toEqual([]);
    expect(codesOf(iort(0, early))).toEqual([]);
  });
});
