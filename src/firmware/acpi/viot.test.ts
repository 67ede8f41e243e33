/** VIOT as Linux reads it: what each malformation costs, by the numbers of the reference. */
import { describe, expect, it } from "vitest";
import type { Iommu } from "../../topology/machine.ts";
import { codesOf, findingsOf, le, patched, reading, tableOf, vector } from "./tables.suite.ts";

const NODE_COUNT = 36;
const injected = vector("reference/VIOT-injected");
const expander = vector("reference/VIOT-expander");

const head = (count: number, offset = 48) => [...le(count, 2), ...le(offset, 2), ...le(0, 8)];
const pci = (bdf: number, length = 16) =>
  [3, 0, ...le(length, 2), ...le(0, 2), ...le(bdf, 2)].concat(new Array(length - 8).fill(0));
const range = (endpoint: number, first: number, last: number, output: number, length = 24) => {
  const body = [1, 0, ...le(length, 2), ...le(endpoint, 4), 0, 0, 0, 0];
  const bytes = [...body, ...le(first, 2), ...le(last, 2), ...le(output, 2)];
  return bytes.concat(new Array(length).fill(0)).slice(0, length);
};
const viot = (...nodes: number[][]) => tableOf("VIOT", 0, head(nodes.length), ...nodes);

/** Requester ids and ids of the first IOMMU, as text. */
const routes = (bytes: Uint8Array) =>
  (reading(bytes).machine.iommus[0]?.translates ?? []).map(
    (one) =>
      `${one.segment}:${one.firstRid.toString(16)}-${one.lastRid.toString(16)}=${one.firstId.toString(16)}`,
  );

describe("VIOT", () => {
  it("has 88 bytes with one IOMMU and one range, 112 with an expander (F1)", () => {
    expect([injected.length, expander.length]).toEqual([88, 112]);
    expect(routes(expander)).toEqual(["0:0-1ff=0", "0:2000-21ff=2000"]);
  });

  it("accepts longer nodes and skips by length (F2)", () => {
    const bytes = viot(pci(0x20, 32), range(0, 0, 0xffff, 48, 32));
    expect([routes(bytes), codesOf(bytes)]).toEqual([["0:0-ffff=0"], []]);
  });

  it("gives ids strided by 65536 a segment (F3)", () => {
    const bytes = patched(injected, [64 + 4, ...le(0x100, 4)], [64 + 10, 1, 0], [64 + 12, 8, 0]);
    expect(routes(bytes)).toEqual(["0:8-ffff=100", "1:8-ffff=10100"]);
  });

  it("accepts the IOMMU's node behind its ranges, and first nodes further on (F4)", () => {
    expect(routes(viot(range(0, 0, 0xff, 72), pci(0x20)))).toEqual(["0:0-ff=0"]);
    const late = tableOf(
      "VIOT",
      0,
      head(2, 56),
      new Array(8).fill(0xaa),
      pci(8),
      range(0, 0, 9, 56),
    );
    expect([routes(late), codesOf(late)]).toEqual([["0:0-9=0"], []]);
  });

  it("lets the later of two overlapping ranges win, and says so (F5)", () => {
    const bytes = viot(pci(0x20), range(0, 0, 0xffff, 48), range(0x1000, 0x28, 0x30, 48));
    expect(routes(bytes)).toEqual(["0:0-27=0", "0:28-30=1000", "0:31-ffff=31"]);
    expect(codesOf(bytes)).toEqual(["viot/overlap"]);
  });

  it("does not read the revision (F6)", () => {
    expect(codesOf(patched(injected, [8, 7]))).toEqual([]);
  });

  it("stops at a range of 20 bytes; nodes before it stay (F7)", () => {
    const bytes = viot(pci(0x20), range(0, 0, 7, 48), range(0, 8, 9, 48, 20), range(0, 16, 17, 48));
    expect(routes(bytes)).toEqual(["0:0-7=0"]);
    expect(codesOf(bytes)).toEqual(["firmware/record-short", "viot/node-short"]);
  });

  it("goes on behind a node of unknown type (F8)", () => {
    const bytes = viot(pci(0x20), [9, 0, 8, 0, 1, 2, 3, 4], range(0, 0, 7, 48));
    expect([routes(bytes), codesOf(bytes)]).toEqual([["0:0-7=0"], ["viot/node-unknown"]]);
  });

  it("uses the nodes that exist when the count is too large, and no more than counted (F9)", () => {
    const more = patched(injected, [NODE_COUNT, 3]);
    expect([routes(more), codesOf(more)]).toEqual([["0:0-ffff=0"], ["viot/node-count"]]);
    const less = patched(injected, [NODE_COUNT, 1]);
    expect(reading(less).machine.iommus).toEqual([]);
    expect(codesOf(less)).toEqual(["viot/node-count", "viot/iommu-unused"]);
  });

  it("finds nothing wrong with an IOMMU inside its own range (F14)", () => {
    expect(codesOf(injected)).toEqual([]);
  });

  it("reads MMIO endpoints and IOMMUs (F16)", () => {
    const mmio = [4, 0, 16, 0, 0, 0, 0, 0, ...le(0xfeb0_2e00n, 8)];
    const endpoint = [2, 0, 24, 0, ...le(0x42, 4), ...le(0xfeb0_2c00n, 8), 48, 0, 0, 0, 0, 0, 0, 0];
    const [iommu] = reading(viot(mmio, endpoint)).machine.iommus as [Iommu];
    expect(iommu.kind).toBe("virtio-mmio");
    expect(iommu.endpoints).toEqual([{ base: 0xfeb0_2c00n, id: 0x42, path: null }]);
  });

  it("counts in the first of two tables only (F17)", () => {
    const { machine, findings } = reading(expander, injected);
    expect(machine.iommus).toHaveLength(1);
    expect(findings[1]!.map((one) => one.code)).toEqual(["acpi/second-instance"]);
  });

  it("beside a DMAR never gets a device (F22)", () => {
    const { findings } = reading(vector("qemu-intel/DMAR"), injected);
    expect(findings[1]!.map((one) => one.code)).toEqual(["viot/beside-vendor-table"]);
  });

  it.each([
    ["a range", 64, "no IOMMU but a node of type 1"],
    ["the middle of a node", 50, "not where a node starts"],
    ["the header", 16, "not where a node starts"],
    ["behind the end", 4000, "not where a node starts"],
  ])("drops a range whose output node is %s", (_where, output, message) => {
    const bytes = patched(injected, [64 + 16, ...le(output, 2)]);
    expect(reading(bytes).machine.iommus).toEqual([]);
    const [finding] = findingsOf(bytes);
    expect([finding!.code, finding!.severity, finding!.at]).toEqual([
      "viot/output-node",
      "error",
      80,
    ]);
    expect(finding!.message).toContain(message);
  });

  it("gives an IOMMU that no range names no firmware node (F95)", () => {
    const bytes = viot(pci(0x20));
    expect([reading(bytes).machine.iommus, codesOf(bytes)]).toEqual([[], ["viot/iommu-unused"]]);
  });

  it("says that ids wrap beyond 32 bits", () => {
    const bytes = viot(pci(0x20), range(0xffff_fff0, 0, 0xff, 48));
    expect(codesOf(bytes)).toEqual(["viot/endpoint-wraps"]);
  });

  it("says that a range is empty when it ends before it starts", () => {
    expect(codesOf(viot(pci(0x20), range(0, 9, 8, 48)))).toEqual(["viot/range-empty"]);
  });
});

describe("the draft VIOT", () => {
  const draft = vector("reference/VIOT-draft");

  it("wraps a table at offset 48, which Linux takes for no nodes (F23)", () => {
    expect(codesOf(draft)).toEqual(["viot/draft"]);
  });

  it("counts offsets of the wrapped IORT from its own start (F24, F25, F26, F27)", () => {
    const [onPci, onMmio] = reading(draft).machine.iommus as [Iommu, Iommu];
    expect(onPci).toMatchObject({ kind: "virtio-pci", segment: 0, rid: 8 });
    expect(onPci.translates.map((one) => [one.firstRid, one.lastRid, one.firstId])).toEqual([
      [0, 7, 0],
      [9, 0xffff, 9],
    ]);
    expect(onMmio).toMatchObject({
      kind: "virtio-mmio",
      registers: { start: 0xd000_0000n, last: 0xd000_0fffn },
      interrupts: [5],
    });
  });

  it("is told from the final form by what stands at 36 and 48", () => {
    const { root } = { root: reading(patched(draft, [36, 1])) };
    expect(root.findings[0]!.map((one) => one.code)).not.toContain("viot/draft");
  });
});
