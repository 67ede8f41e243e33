import { describe, expect, it } from "vitest";
import { machineFromYaml } from "../config/read-machine.ts";
import { TranslationMap } from "./translation.ts";

const HEAD = "schema: iommukit/topology@1\n";

function mapOf(functions: string[], iommus: string[], more = "") {
  const list = (name: string, lines: string[]) =>
    `${name}:\n${lines.map((line) => `  - { ${line} }\n`).join("")}`;
  const machine = machineFromYaml(
    HEAD + more + list("functions", functions) + list("iommus", iommus),
    "m.yaml",
  );
  const map = new TranslationMap(machine);
  return { map, all: machine.functions.map((_, index) => map.of(index)) };
}

describe("translation by firmware's word", () => {
  it("F3: an endpoint's id is its place in the range, counted from the range's first id", () => {
    const { all } = mapOf(
      ["at: 0:4.0", "at: 0:5.0", "at: 0:6.0"],
      [
        'name: v, kind: virtio-pci, at: 0:4.0, translates: [{ functions: "0:0.0-0:5.7", firstId: 0x1000 }]',
      ],
    );
    // F14: the IOMMU itself lies in its range and is not behind itself; 00:06.0 is not covered.
    expect(all).toEqual([null, { iommu: 0, id: 0x1028 }, null]);
  });

  it("F5: of overlapping ranges of a virtio-iommu the later counts, of others the earlier", () => {
    const ranges =
      'translates: [{ functions: "0:0.0-0:1f.7", firstId: 0 }, { functions: 0:5.0, firstId: 77 }]';
    const of = (unit: string) =>
      mapOf(["at: 0:4.0", "at: 0:5.0"], [`${unit}, ${ranges}`]).all[1]!.id;
    expect(of("name: v, kind: virtio-pci, at: 0:4.0")).toBe(77);
    expect(of("name: s, kind: smmuv3")).toBe(0x28);
  });

  it("a bridge scope of VT-d includes all below, INCLUDE_PCI_ALL the rest of its segment", () => {
    const { all } = mapOf(
      [
        "at: 0:1.0, buses: 1-2",
        "at: 1:0.0, bridge: 0:1.0, buses: 2",
        "at: 2:0.0, bridge: 1:0.0",
        "at: 0:2.0",
        "at: 1:0:2.0",
      ],
      [
        "name: rest, kind: vtd, rest: true",
        "name: own, kind: vtd, translates: [{ functions: 0:1.0, below: true }]",
      ],
    );
    expect(all.map((one) => one?.iommu ?? null)).toEqual([1, 1, 1, 0, null]);
  });

  it("a virtual function is behind the unit of its physical one (VT-d)", () => {
    const { all } = mapOf(
      [
        "at: 0:1.0, buses: 1-2",
        "at: 1:0.0, bridge: 0:1.0, sriov: { totalVfs: 1 }",
        "at: 2:0.0, bridge: 0:1.0, physicalFunction: 1:0.0",
      ],
      ["name: own, kind: vtd, translates: [{ functions: 1:0.0 }]"],
    );
    expect(all).toEqual([null, { iommu: 0, id: 0x100 }, { iommu: 0, id: 0x200 }]);
  });

  it("F15: each alias is looked up for itself", () => {
    const bridge = "at: 0:1.0, buses: 1, port: pcie-to-pci-bridge";
    const device = "at: 1:1.0, bridge: 0:1.0, port: conventional";
    const of = (functions: string) =>
      mapOf([bridge, device], [`name: s, kind: smmuv3, translates: [{ functions: ${functions} }]`])
        .map.ofAliases(1)
        .map((one) => one?.id ?? null);
    expect(of("1:0.0-1:1f.7")).toEqual([0x108, 0x100]);
    expect(of("1:1.0")).toEqual([0x108, null]);
    expect(of("1:0.0")).toEqual([null, 0x100]);
  });

  it("F16: a platform device is found by the exact start of its registers", () => {
    const { map } = mapOf(
      ["at: 0:1.0"],
      ["name: v, kind: virtio-mmio, endpoints: [{ base: 0xfeb02c00, id: 0x42 }]"],
    );
    expect(map.ofMmio(0xfeb0_2c00n)).toEqual({ iommu: 0, id: 0x42 });
    expect(map.ofMmio(0xfeb0_2c04n)).toBe(null);
  });

  it("F93: what is below a bypassed host bridge is not translated", () => {
    const bridges =
      "hostBridges:\n  - { buses: 0:0-1f, bypassesIommu: true }\n  - { buses: 0:20-ff }\n";
    const { all } = mapOf(["at: 0:1.0", "at: 20:1.0"], ["name: d, kind: vtd, rest: true"], bridges);
    expect(all).toEqual([null, { iommu: 0, id: 0x2008 }]);
  });
});
