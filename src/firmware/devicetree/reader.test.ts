import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Machine, MachineFunction } from "../../topology/machine.ts";
import { TranslationMap } from "../../topology/translation.ts";
import { richMachine } from "../acpi/rich-machine.suite.ts";
import { decodeBlob } from "./blob.ts";
import { flatten } from "./blob-write.ts";
import { buildDevicetree } from "./build.ts";
import { bridgeOf, changed, machineOf, vector, withProperties } from "./devicetree.suite.ts";
import { readDevicetree } from "./reader.ts";
import { bytesOf, cells, cellsOf, type DtNode, dtNode, strings } from "./tree.ts";

const qemu = decodeBlob(vector("virt-virtio")).root;
/** QEMU's tree with properties of the host bridge, or another node, changed. */
const withBridge = (values: Record<string, Uint8Array | null>, name = "pcie@10000000") =>
  readDevicetree(
    changed(qemu, (node) => (node.name === name ? withProperties(node, values) : node)),
  );
const codes = (reading: { findings: readonly { code: string }[] }) =>
  reading.findings.map(({ code }) => code);
/** A function that only has an address. */
const functionAt = (rid: number, segment = 0) =>
  ({
    segment,
    bus: rid >> 8,
    devfn: rid & 0xff,
    bridge: -1,
    secondaryBus: -1,
    physicalFunction: -1,
  }) as MachineFunction;
/** The id of a requester id; null when it is not translated. */
const idOf = (machine: Machine, rid: number, segment = 0) =>
  new TranslationMap({ ...machine, functions: [functionAt(rid, segment)] }).of(0)?.id ?? null;

describe("QEMU's tree with a virtio-iommu", () => {
  const { machine, findings } = readDevicetree(qemu);

  it("has one at 0000:00:04.0, from reg 0x2000 (F84)", () => {
    expect(findings).toEqual([]);
    expect(machine.iommus).toHaveLength(1);
    expect(machine.iommus[0]).toMatchObject({
      kind: "virtio-pci",
      name: "0000:00:04.0",
      rid: 0x20,
    });
  });

  it("maps every function by its requester id, but not the IOMMU's own (F79)", () => {
    expect(idOf(machine, 0x1f)).toBe(0x1f);
    expect(idOf(machine, 0x20)).toBeNull();
    expect(idOf(machine, 0x21)).toBe(0x21);
    expect(idOf(machine, 0xffff)).toBe(0xffff);
    expect(machine.iommus[0]!.translates.map(({ lastRid }) => lastRid)).toEqual([0x1f, 0xffff]);
  });

  it("has nodes 0 and 1 by their own numbers, 21 apart both ways (F85, F87)", () => {
    const [zero, one] = machine.nodes;
    expect(machine.nodes.map(({ id }) => id)).toEqual([0, 1]);
    expect(zero).toMatchObject({ cpus: [0], distances: [10, 21], memoryBytes: 2n ** 28n });
    expect(one).toMatchObject({ cpus: [1], distances: [21, 10], proximityDomain: 1 });
    expect(zero!.memory[0]!.start).toBe(0x4000_0000n);
  });

  it("has 32 virtio-mmio windows and ECAM at 256 GiB", () => {
    expect(machine.platformDevices).toHaveLength(32);
    expect(machine.platformDevices.map(({ name }) => name)).toContain("a003e00.virtio_mmio");
    expect(machine.hostBridges[0]).toMatchObject({ ecamBase: 0x40_1000_0000n, lastBus: 0xff });
    expect(machine.hostBridges[0]!.windows.map(({ kind }) => kind)).toEqual([
      "io",
      "memory",
      "memory",
    ]);
  });
});

it("QEMU's tree with an SMMUv3 has it, its four interrupts and the whole segment", () => {
  const { machine } = readDevicetree(decodeBlob(vector("virt-smmuv3")).root);
  const [smmu] = machine.iommus;
  expect(smmu).toMatchObject({
    kind: "smmuv3",
    isCoherent: true,
    interrupts: [106, 107, 108, 109],
  });
  expect(smmu!.name).toBe("smmu3.0x0000000009050000");
  expect(idOf(machine, 0x1234)).toBe(0x1234);
});

describe("an iommu-map", () => {
  const phandle = cellsOf(
    bytesOf(qemu.children.find(({ name }) => name.startsWith("pcie"))!, "iommu-map")!,
  )[1]!;

  it("counts: length 0x10 from 0 ends at 0xf; what is not covered is untranslated (F79)", () => {
    const { machine } = withBridge({ "iommu-map": cells(0, phandle, 0x100, 0x10) });
    expect(idOf(machine, 0xf)).toBe(0x10f);
    expect(idOf(machine, 0x10)).toBeNull();
  });

  it("whose id base has bits outside of the mask translates nothing (F80)", () => {
    const reading = withBridge({
      "iommu-map": cells(0x28, phandle, 0x28, 1),
      "iommu-map-mask": cells(0xff00),
    });
    expect(codes(reading)).toEqual(["devicetree/iommu-map-mask"]);
    expect(idOf(reading.machine, 0x28)).toBeNull();
  });

  it("with mask 0xfff8 gives all functions of a slot one id (F81)", () => {
    const { machine } = withBridge({
      "iommu-map": cells(0, phandle, 0, 0x1_0000),
      "iommu-map-mask": cells(0xfff8),
      "bus-range": cells(0, 1),
    });
    for (const rid of [0x28, 0x2b, 0x2f]) expect(idOf(machine, rid)).toBe(0x28);
    expect(idOf(machine, 0x30)).toBe(0x30);
  });

  it("agrees with of_map_id read word by word, on any entries and mask", () => {
    const entry = fc.tuple(
      fc.integer({ min: 0, max: 0x1ff }),
      fc.integer({ min: 0, max: 0x1000 }),
      fc.integer({ min: 0, max: 0x180 }),
    );
    const masks = fc.constantFrom(0xffff_ffff, 0xfff8, 0xff, 0x1f0, 0xffff);
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 5, minLength: 1 }), masks, (entries, mask) => {
        const words = entries.flatMap(([rid, id, count]) => [rid, phandle, id, count]);
        const { machine } = withBridge({
          "iommu-map": cells(...words),
          "iommu-map-mask": cells(mask),
          "bus-range": cells(0, 1),
        });
        for (let rid = 0; rid < 0x200; rid += 7) {
          if (rid === 0x20) continue;
          expect(idOf(machine, rid)).toBe(ofMapId(entries, mask, rid));
        }
      }),
      { numRuns: 60 },
    );
  });

  it("after too many ranges of ids is left out, and said so", () => {
    const bridge = (index: number) =>
      dtNode(`p${index}`, {
        device_type: strings("pci"),
        "iommu-map": cells(0, 1, 0, 0x1_0000),
        "iommu-map-mask": cells(0xfff8),
      });
    const iommu = dtNode("i", {
      compatible: strings("virtio,mmio"),
      phandle: cells(1),
      "#iommu-cells": cells(1),
    });
    const reading = readDevicetree(
      dtNode("", {}, [iommu, ...Array.from({ length: 9 }, (_, index) => bridge(index))]),
    );
    expect(reading.machine.iommus[0]!.translates).toHaveLength(2 ** 18);
    expect(codes(reading)).toContain("devicetree/too-many-ranges");
  });

  it.each([
    ["of 12 bytes is refused", cells(0, 1, 2), "devicetree/iommu-map-length"],
    ["to a phandle of nobody is without effect", cells(0, 0x77, 0, 1), "devicetree/iommu-dangling"],
    [
      "that holds the IOMMU itself is an error",
      cells(0, phandle, 0, 0x100),
      "devicetree/iommu-self",
    ],
  ])("%s", (_, map, code) => {
    expect(codes(withBridge({ "iommu-map": map }))).toEqual([code]);
  });
});

/** What of_map_id does, in its own order: mask, then each entry. */
function ofMapId(
  entries: readonly (readonly number[])[],
  mask: number,
  rid: number,
): number | null {
  const masked = (rid & mask) >>> 0;
  for (const [base, id, count] of entries as [number, number, number][]) {
    if ((base & ~mask) >>> 0 !== 0) return null;
    if (masked >= base && masked < base + count) return id + (masked - base);
  }
  return null;
}

describe("an IOMMU", () => {
  it("that is disabled frees its endpoints (F83)", () => {
    const reading = withBridge({ status: strings("disabled") }, "virtio_iommu@4,0");
    expect(codes(reading)).toEqual(["devicetree/iommu-disabled"]);
    expect(idOf(reading.machine, 8)).toBeNull();
  });

  const mmioTree = (values: Record<string, Uint8Array>): DtNode =>
    dtNode("", { "#address-cells": cells(2), "#size-cells": cells(2) }, [
      dtNode("virtio_mmio@a003e00", {
        compatible: strings("virtio,mmio"),
        reg: cells(0, 0xa00_3e00, 0, 0x200),
        phandle: cells(7),
        ...values,
      }),
      dtNode("virtio_mmio@a003c00", {
        compatible: strings("virtio,mmio"),
        reg: cells(0, 0xa00_3c00, 0, 0x200),
        iommus: cells(7, 0x42),
      }),
    ]);

  it("behind `iommus` needs #iommu-cells; with it the endpoint has the id of its cell (F82)", () => {
    const good = readDevicetree(mmioTree({ "#iommu-cells": cells(1) }));
    expect(good.findings).toEqual([]);
    expect(new TranslationMap(good.machine).ofMmio(0xa00_3c00n)).toEqual({ iommu: 0, id: 0x42 });
    const bad = readDevicetree(mmioTree({}));
    expect(codes(bad)).toEqual(["devicetree/iommu-cells"]);
    expect(new TranslationMap(bad.machine).ofMmio(0xa00_3c00n)).toBeNull();
  });

  it("behind `iommu-map` does without #iommu-cells (F82)", () => {
    const { machine, findings } = withBridge({ "#iommu-cells": null }, "virtio_iommu@4,0");
    expect(findings).toEqual([]);
    expect(idOf(machine, 8)).toBe(8);
  });
});

describe("distances", () => {
  const matrix = (...words: number[]) =>
    withBridge({ "distance-matrix": cells(...words) }, "distance-map");

  it("of one direction stand for both; the reverse behind it overrides (F85)", () => {
    expect(matrix(0, 1, 40).machine.nodes.map((one) => one.distances)).toEqual([
      [10, 40],
      [40, 10],
    ]);
    expect(matrix(0, 1, 40, 1, 0, 50).machine.nodes[1]!.distances).toEqual([50, 10]);
  });

  it.each([[[0, 0, 11]], [[0, 1, 10]], [[0, 1]]])("%j reject the map: 20 is left", (words) => {
    const reading = matrix(...words);
    expect(codes(reading)).toEqual(["devicetree/distance"]);
    expect(reading.machine.nodes[0]!.distances).toEqual([10, 20]);
  });
});

describe("a machine written as a devicetree", () => {
  const roundTrip = (machine: Machine) =>
    readDevicetree(decodeBlob(flatten(buildDevicetree(machine))).root);

  it("of all that a devicetree knows comes back", () => {
    const kinds = ["virtio-pci", "virtio-mmio", "smmuv3"];
    const iommus = richMachine.iommus.filter(({ kind }) => kinds.includes(kind));
    const smmu = {
      ...iommus[2]!,
      translates: [],
      endpoints: [{ base: 0x900_0000n, id: 9, path: null }],
    };
    const machine = { ...richMachine, iommus: [iommus[0]!, iommus[1]!, smmu] };
    const { machine: back, findings } = roundTrip(machine);
    expect(findings).toEqual([]);
    expect(
      back.nodes.map(({ id, cpus, firmwareCpuIds }) => ({ id, cpus, firmwareCpuIds })),
    ).toEqual([
      { id: 0, cpus: [0], firmwareCpuIds: [3] },
      { id: 1, cpus: [1], firmwareCpuIds: [0x1234] },
    ]);
    expect(back.nodes[1]!.memory).toEqual(machine.nodes[1]!.memory);
    expect(back.hostBridges).toEqual(machine.hostBridges);
    expect(back.iommus.map(({ kind, node }) => [kind, node])).toEqual([
      // In the order of the tree, level by level; the PCI one inherits its bridge's node.
      ["virtio-mmio", null],
      ["smmuv3", 1],
      ["virtio-pci", 0],
    ]);
    expect(back.iommus[1]).toMatchObject({ interrupts: [74, 75, 77, 76], isCoherent: true });
    expect(new TranslationMap(back).ofMmio(0xfeb0_2c00n)).toEqual({ iommu: 0, id: 0x42 });
    expect(roundTrip(back).machine).toEqual(back);
  });

  it("with ranges that overlap gives every function the same id", () => {
    const range = fc.record({
      segment: fc.constantFrom(0, 1),
      firstRid: fc.integer({ min: 0, max: 0x3ff }),
      count: fc.integer({ min: 1, max: 0x200 }),
      firstId: fc.integer({ min: 0, max: 2 ** 31 }),
    });
    fc.assert(
      fc.property(fc.array(range, { minLength: 1, maxLength: 5 }), (ranges) => {
        const translates = ranges.map(({ count, ...one }) => ({
          ...one,
          lastRid: one.firstRid + count - 1,
          includesBelow: false,
        }));
        const pci = richMachine.iommus[0]!;
        const machine = machineOf({
          hostBridges: [bridgeOf(), bridgeOf({ segment: 1, ecamBase: 0x50_0000_0000n })],
          iommus: [{ ...pci, translates }],
        });
        const back = roundTrip(machine).machine;
        for (const segment of [0, 1]) {
          for (let rid = 0; rid < 0x600; rid += 5) {
            expect(idOf(back, rid, segment)).toBe(idOf(machine, rid, segment));
          }
        }
        expect(roundTrip(back).machine).toEqual(back);
      }),
      { numRuns: 40 },
    );
  });

  it.each([
    ["VT-d alone", machineOf({ iommus: [richMachine.iommus[2]!] }), /no binding for vtd/],
    [
      "a range without host bridge",
      machineOf({ hostBridges: [], iommus: [richMachine.iommus[0]!] }),
      /segment 0, where no host bridge is/,
    ],
  ])("with %s is refused", (_, machine, message) => {
    expect(() => buildDevicetree(machine)).toThrow(message);
  });
});
