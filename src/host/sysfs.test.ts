import { describe, expect, it } from "vitest";
import { machineFromYaml } from "../config/read-machine.ts";
import { machineToYaml } from "../config/write-machine.ts";
import { pciName } from "../iommu/pci-function.ts";
import { compareGroups, deriveGroups } from "../topology/groups.ts";
import { iommuNodes, placeDomain } from "../topology/page-tables.ts";
import { TranslationMap } from "../topology/translation.ts";
import { archiveTree } from "./archive-tree.ts";
import { CapturingTree } from "./capture.ts";
import { inspectMachine, recordedText } from "./inspect.ts";
import { realHost, realHosts, treeOf } from "./real-hosts.suite.ts";
import { readHost } from "./sysfs.ts";

describe.each(realHosts)("%s", (name) => {
  const tree = realHost(name);
  const { machine, findings } = readHost(tree);

  it("is read whole: nodes with firmware's domains and memory, bridges, functions, one IOMMU", () => {
    expect(machine.nodes.map(({ id, proximityDomain }) => [id, proximityDomain])).toEqual([
      [0, 0],
      [1, 1],
    ]);
    expect(machine.nodes.map(({ distances }) => distances)).toEqual([
      [10, 21],
      [21, 10],
    ]);
    expect(machine.nodes[1]!.memory).toMatchObject([{ start: 0x4000_0000n, last: 0x7fff_ffffn }]);
    expect(
      machine.hostBridges.map(({ firstBus, lastBus, node }) => [firstBus, lastBus, node]),
    ).toEqual([
      [0x00, 0x00, null],
      [0x20, 0x22, 0],
      [0x80, 0x82, 1],
    ]);
    expect(machine.hostBridges[0]!.ecamBase).toBe(0xb000_0000n);
    expect(machine.functions.length).toBe(name.includes("intel") ? 17 : 18);
    expect(machine.iommus).toHaveLength(1);
    expect(findings).toEqual([]);
  });

  it("has the groups that the kernel formed, every one derived by the rules", () => {
    expect(machine.groups).toHaveLength(15);
    const compared = compareGroups(machine, deriveGroups(machine));
    expect(compared.filter(({ agrees }) => agrees !== true)).toEqual([]);
  });

  it("is translated by firmware's word exactly where the kernel translates", () => {
    const map = new TranslationMap(machine);
    const byTables = machine.functions.map((_, index) => map.of(index) !== null);
    expect(byTables).toEqual(machine.functions.map(({ iommu }) => iommu !== null));
    for (const [index, one] of machine.functions.entries()) {
      // QEMU's ids are requester ids, behind either IOMMU.
      const translation = map.of(index);
      if (translation !== null) expect(translation.id).toBe(one.bus * 256 + one.devfn);
    }
  });

  it("gives the text of reserved_regions back, byte for byte", () => {
    for (const { id, regions } of machine.groups) {
      const text = tree.text(`/sys/kernel/iommu_groups/${id}/reserved_regions`);
      expect(recordedText(regions)).toBe(`${text}\n`);
    }
  });

  it("goes through YAML and back unchanged", () => {
    expect(machineFromYaml(machineToYaml(machine), "machine.yaml")).toEqual(machine);
  });

  it("is captured whole: a capture of the capture has the same bytes", () => {
    const first = new CapturingTree(tree);
    expect(readHost(first).machine).toEqual(machine);
    const again = new CapturingTree(archiveTree(first.archive(), "again"));
    expect(readHost(again).machine).toEqual(machine);
    expect(again.archive()).toEqual(first.archive());
  });
});

describe("a VT-d guest of two nodes", () => {
  const { machine } = readHost(realHost("q35-2node-intel-iommu"));
  const result = inspectMachine(machine);

  it("reserves what the VT-d driver's rules give, also below the ISA bridge", () => {
    expect(result.groups.filter(({ regionsAgree }) => regionsAgree !== true)).toEqual([]);
    expect(result.groups[6]!.regions[0]).toEqual({
      start: "0x0",
      last: "0xffffff",
      type: "direct-relaxable",
    });
  });

  it("has each group's page tables on the node of its device", () => {
    for (const group of result.groups) {
      const device = result.devices.find(({ name }) => name === group.devices[0])!;
      expect(group.pageTables).toMatchObject(
        device.node === null ? { home: "mapping-cpu" } : { home: "node", node: device.node },
      );
      // The one unit serves both nodes, and no RHSA says where it is.
      expect(group.pageTables.isRemote).toBe(null);
    }
  });

  it("has its capability registers, and its bridges' scopes include what is below", () => {
    expect(machine.iommus[0]).toMatchObject({
      name: "dmar0",
      kind: "vtd",
      registers: { start: 0xfed9_0000n },
      version: "1:0",
      capability: 0x80d2_008c_222f_0606n,
    });
    expect(machine.iommus[0]!.translates.filter(({ includesBelow }) => includesBelow)).toHaveLength(
      4,
    );
  });

  it("has the facts of boot: strict, because the command line says so", () => {
    expect(machine.kernel).toMatchObject({ isStrict: true, isPassthrough: false });
    expect(machine.kernel!.commandLine).toBe("intel_iommu=on iommu.strict=1");
    expect(new Set(machine.groups.map(({ type }) => type))).toEqual(new Set(["DMA"]));
  });

  it("row of seed 1: one domain for groups of two nodes has all its tables on the first's", () => {
    const at = (bdf: string) => machine.functions.find((one) => pciName(one) === bdf)!;
    const devices = ["0000:81:00.0", "0000:21:00.0"].map(at);
    const onUnits = {
      ...machine,
      iommus: [0, 1].map((node) => ({ ...machine.iommus[0]!, name: `dmar${node}`, node })),
    };
    const placed = placeDomain(
      onUnits,
      devices.map(({ node }) => ({ node, iommu: `dmar${node}` })),
      "unmanaged",
      iommuNodes(onUnits),
    );
    expect(placed.map(({ home }) => home)).toEqual([
      { kind: "node", node: 1, rule: "device" },
      { kind: "node", node: 1, rule: "device" },
    ]);
    expect(placed.map(({ isRemote, distance }) => [isRemote, distance])).toEqual([
      [false, 10],
      [true, 21],
    ]);
  });
});

describe("an IOMMU by the name of its class device (F96)", () => {
  it.each([
    ["dmar3", "vtd", "../../devices/virtual/iommu/dmar3"],
    ["ivhd0", "amd", "../../devices/pci0000:00/0000:00:00.2/iommu/ivhd0"],
    ["0000:00:04.0", "virtio-pci", "../../devices/pci0000:00/0000:00:04.0/virtio0/iommu/x"],
    ["LNRO0005:01", "virtio-mmio", "../../devices/platform/LNRO0005:01/virtio1/iommu/LNRO0005:01"],
    ["a003e00.virtio_mmio", "virtio-mmio", "../../devices/platform/x/iommu/a003e00.virtio_mmio"],
    ["smmu3.0x0000000009050000", "smmuv3", "../../devices/platform/arm-smmu-v3.0.auto/iommu/x"],
    ["smmu.0x0000000009050000", "smmuv2", "../../devices/platform/arm-smmu.0.auto/iommu/x"],
    ["fdab9000.iommu", "other", "../../devices/platform/fdab9000.iommu/iommu/fdab9000.iommu"],
  ])("%s is a %s", (name, kind, link) => {
    const { machine } = readHost(treeOf({ [`/sys/class/iommu/${name}`]: { link } }));
    expect(machine.iommus).toMatchObject([{ name, kind }]);
  });
});

describe("a virtio-iommu guest of two nodes", () => {
  const result = inspectMachine(readHost(realHost("q35-2node-virtio-iommu")).machine);

  it("has no page tables of its own, and the IOMMU itself is in no group", () => {
    expect(new Set(result.groups.map(({ pageTables }) => pageTables.why))).toEqual(
      new Set(["a virtio-iommu keeps none in the guest"]),
    );
    expect(result.devices.find(({ bdf }) => bdf === "0000:00:04.0")).toMatchObject({ group: null });
    expect(result.findings.map(({ code }) => code)).not.toContain("device-without-group");
  });

  it("cannot have its regions derived: they stand in answers to PROBE", () => {
    expect(new Set(result.groups.map(({ regionsAgree }) => regionsAgree))).toEqual(new Set([null]));
  });
});
