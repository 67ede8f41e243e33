import { describe, expect, it } from "vitest";
import { machineFromYaml } from "../config/read-machine.ts";
import { iommuNodes, placeDomain, tablesHome } from "./page-tables.ts";

const machine = machineFromYaml(
  `schema: iommukit/topology@1
nodes:
  - { id: 0, distances: [10, 21, 31] }
  - { id: 1, distances: [21, 10, 21] }
  - { id: 4, distances: [31, 21, 10] }
functions:
  - { at: 0:1.0, node: 0, iommu: d0 }
  - { at: 20:1.0, node: 1, iommu: d1 }
  - { at: 30:1.0, node: 4, iommu: d1 }
  - { at: 40:1.0, node: 4, iommu: d4 }
iommus:
  - { name: d0, kind: vtd, node: 0, translates: [] }
  - { name: d1, kind: vtd, translates: [] }
  - { name: d4, kind: amd, at: 0:1.0, translates: [] }
  - { name: s, kind: smmuv3, node: 4, translates: [] }
  - { name: v, kind: virtio-mmio, translates: [] }
  - { name: o, kind: other, translates: [] }
`,
  "m.yaml",
);
const unit = (name: string) => machine.iommus.find((one) => one.name === name)!;
const at = (node: number | null, iommu: string) => ({ node, iommu });

describe("page tables of a domain", () => {
  it("F58: VT-d and AMD-Vi follow the device, an SMMU itself, a virtio-iommu has none", () => {
    const home = (name: string, node: number | null) =>
      tablesHome(unit(name), at(node, name), "DMA");
    expect(home("d0", 1)).toEqual({ kind: "node", node: 1, rule: "device" });
    expect(home("d4", 1)).toEqual({ kind: "node", node: 1, rule: "device" });
    expect(home("s", 1)).toEqual({ kind: "node", node: 4, rule: "smmu" });
    expect(home("v", 1)).toEqual({ kind: "none", because: "virtio" });
    expect(home("o", 1)).toEqual({ kind: "unknown" });
    expect(home("d0", null)).toEqual({ kind: "mapping-cpu", rule: "device" });
  });

  it("are none where DMA is not translated or blocked", () => {
    for (const type of ["identity", "blocked"] as const) {
      expect(tablesHome(unit("d0"), at(0, "d0"), type)).toEqual({ kind: "none", because: type });
    }
  });

  it("of groups in one container are where the first one's device is; the others walk from afar", () => {
    const devices = [at(0, "d0"), at(4, "d4")];
    expect(placeDomain(machine, devices, "unmanaged").map(({ distance }) => distance)).toEqual([
      10, 31,
    ]);
    const other = placeDomain(machine, [...devices].reverse(), "unmanaged");
    expect(other.map(({ isRemote, distance }) => [isRemote, distance])).toEqual([
      [false, 10],
      [true, 31],
    ]);
  });

  it("are as far as is known: a unit of devices of two nodes may be anywhere", () => {
    expect(placeDomain(machine, [at(1, "d1")], "DMA")).toMatchObject([
      { home: { node: 1 }, walker: { iommu: "d1", node: null }, distance: null, isRemote: null },
    ]);
    expect(iommuNodes(machine).get("d4")).toEqual({ iommu: "d4", node: 4, isInferred: true });
    expect(iommuNodes(machine).get("d0")!.isInferred).toBe(false);
    expect(placeDomain(machine, [{ node: 1, iommu: null }], "DMA")[0]!.home.kind).toBe("unknown");
  });
});
