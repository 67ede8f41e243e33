import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { machineFromYaml } from "../config/read-machine.ts";
import { machineToYaml } from "../config/write-machine.ts";
import { deriveGroups, probeOrder } from "../topology/groups.ts";
import { machineProblems } from "../topology/validate.ts";
import { ArchiveTree, archiveTree } from "./archive-tree.ts";
import { CapturingTree } from "./capture.ts";
import { inspectMachine } from "./inspect.ts";
import { largeHost } from "./large-host.suite.ts";
import { realHost, type TreeFiles, treeOf } from "./real-hosts.suite.ts";
import { readHost } from "./sysfs.ts";

const DEVICES = "/sys/bus/pci/devices";

/** Reads a made-up tree and does everything with it that the tool does. */
function throughAll(files: TreeFiles) {
  const reading = readHost(treeOf(files));
  const result = inspectMachine(reading.machine, { findings: reading.findings });
  machineProblems(reading.machine);
  const tree = new CapturingTree(treeOf(files));
  expect(readHost(tree)).toEqual(reading);
  expect(readHost(archiveTree(tree.archive(), "again"))).toEqual(reading);
  return { ...reading, result };
}

describe("damaged trees", () => {
  it("of which nothing is left give an empty machine", () => {
    const { machine, result } = throughAll({ "/sys/bus": "" });
    expect([machine.functions, machine.nodes, machine.groups]).toEqual([[], [], []]);
    expect(result.findings).toEqual([]);
  });

  it("that show /proc/sys, as a live system does, keep their root", () => {
    const { machine } = throughAll({
      "/proc/sys/kernel/arch": "riscv64",
      "/proc/version": "Linux version 7.0",
      "/sys/devices/system/node/node0/cpulist": "0-3",
    });
    expect([machine.architecture, machine.nodes.length]).toEqual(["riscv64", 1]);
  });

  it("with links that lead nowhere, in rings, or above the root", () => {
    const { machine, result } = throughAll({
      [`${DEVICES}/0000:00:01.0`]: { link: "../../../devices/gone" },
      [`${DEVICES}/0000:00:02.0`]: { link: "0000:00:03.0" },
      [`${DEVICES}/0000:00:03.0`]: { link: "0000:00:02.0" },
      [`${DEVICES}/0000:00:04.0`]: { link: "../../../../../../../../etc" },
      "/sys/class/iommu/dmar0": { link: "dmar0" },
      "/sys/kernel/iommu_groups/0": { link: "0" },
    });
    expect(machine.functions).toHaveLength(4);
    expect(machine.functions[0]).toMatchObject({ vendor: 0xffff, configRead: "none", node: null });
    const { className, classCode, vendor, device } = result.devices[0]!;
    expect([className, classCode, vendor, device]).toEqual(["unreadable device", null, null, null]);
    expect(machine.iommus).toMatchObject([{ name: "dmar0", kind: "vtd" }]);
  });

  it("with groups that do not show their members have them by the functions' links", () => {
    const type = (id: number) => ({ [`/sys/kernel/iommu_groups/${id}/type`]: "DMA" });
    const { machine, result } = throughAll({
      ...type(4),
      ...type(5),
      [`${DEVICES}/0000:00:01.0/iommu_group`]: { link: "../../../../kernel/iommu_groups/4" },
    });
    expect(machine.groups.map(({ devices }) => devices)).toEqual([["0000:00:01.0"], []]);
    expect(machine.functions[0]!.group).toBe(4);
    expect(result.groups[1]).toMatchObject({ derived: null, agrees: null });
    expect(result.findings.map(({ code }) => code)).not.toContain("groups-differ");
  });

  it("with functions that are each other's bridge, or their own, lose the ring", () => {
    const { machine } = throughAll({
      [`${DEVICES}/0000:01:00.0`]: { link: "../x/0000:02:00.0/0000:01:00.0" },
      [`${DEVICES}/0000:02:00.0`]: { link: "../x/0000:01:00.0/0000:02:00.0" },
      [`${DEVICES}/0000:03:00.0`]: { link: "../x/0000:03:00.0/0000:03:00.0" },
    });
    expect(machine.functions.map(({ bridge }) => bridge)).toEqual([-1, 0, -1]);
    expect(probeOrder(machine.functions).sort()).toEqual([0, 1, 2]);
  });

  it("with numbers out of any range keep what makes sense", () => {
    const device = `${DEVICES}/0000:00:01.0`;
    const { machine } = throughAll({
      [`${device}/numa_node`]: "99999999999999999999",
      [`${device}/resource`]: "0xzz 0x1 0x2\n0x5 0x1 0x200\n0x0 0xffffffffffffffff 0x200",
      [`${device}/vendor`]: "0x123456789",
      "/sys/devices/system/node/node0/distance": "10 10 10 10",
      "/sys/devices/system/node/node0/cpulist": "5-1,99999999999-3,0-9999999999",
      "/sys/devices/system/node/node0/meminfo": "Node 0 MemTotal: 99999999999999999999999 kB",
      "/sys/kernel/iommu_groups/0/type": "new-type",
      "/sys/kernel/iommu_groups/0/reserved_regions": "nonsense\n0x1 0x2 direct\n0x1 0x2 other",
      "/sys/kernel/iommu_groups/x/type": "DMA",
    });
    expect(machine.functions[0]).toMatchObject({ node: null, vendor: 0xffff });
    expect(machine.functions[0]!.bars).toMatchObject([{ index: 2, bytes: 1n << 64n }]);
    expect(machine.nodes).toMatchObject([{ cpus: [], distances: [10], memoryBytes: 0n }]);
    expect(machine.groups).toMatchObject([{ id: 0, type: "unknown", regions: [{ last: 2n }] }]);
  });

  it("with an ACPI table of garbage say so and go on", () => {
    const { findings, machine } = throughAll({
      "/sys/firmware/acpi/tables/DMAR": "short",
      "/sys/firmware/acpi/tables/SRAT": "x".repeat(100),
      [`${DEVICES}/0000:00:01.0`]: { link: "../../../devices/pci0000:00/0000:00:01.0" },
    });
    expect(machine.firmware).toBe("acpi");
    expect(findings.length).toBeGreaterThan(0);
    expect(new Set(findings.map(({ code }) => code))).toEqual(new Set(["firmware-table"]));
  });

  it("that an ordinary user read cannot be derived, and say why", () => {
    const tree = realHost("q35-2node-intel-iommu");
    const { machine } = readHost(tree);
    const short = machine.functions.map((one) => ({
      ...one,
      configRead: "header" as const,
      portType: "conventional" as const,
      acs: null,
    }));
    const result = inspectMachine({ ...machine, functions: short }, { deniedCount: 3 });
    expect(new Set(result.groups.map(({ derived, agrees }) => derived ?? agrees))).toEqual(
      new Set([null]),
    );
    expect(result.findings.map(({ code }) => code)).toEqual(
      expect.arrayContaining(["groups-uncertain", "permission-denied"]),
    );
  });
});

describe("any tree", () => {
  const name = fc.constantFrom("0000:00:01.0", "0000:01:00.0", "0000:01:00.1", "0001:00:00.0", "x");
  const directory = name.map((one) => `${DEVICES}/${one}`);
  const target = fc.constantFrom("..", "../x/0000:00:01.0/0000:01:00.0", "0000:01:00.0", "/", "");
  const file = fc.constantFrom("config", "resource", "numa_node", "vendor", "driver", "physfn");
  const text = fc.oneof(
    fc.string({ maxLength: 40, unit: "binary-ascii" }),
    fc.constantFrom("1", "-1", "0x8086", "0x1 0x1000 0x200"),
    fc.uint8Array({ maxLength: 400 }),
    target.map((link) => ({ link })),
  );
  const group = fc.tuple(fc.nat(3), fc.constantFrom("type", "reserved_regions", "name"));
  const entry = fc.oneof(
    fc.tuple(directory, target).map(([path, link]): [string, { link: string }] => [path, { link }]),
    fc.tuple(directory, file, text).map(([path, leaf, content]) => [`${path}/${leaf}`, content]),
    fc.tuple(group, text).map(([[id, leaf], content]) => {
      return [`/sys/kernel/iommu_groups/${id}/${leaf}`, content];
    }),
    fc.tuple(fc.nat(3), name).map(([id, device]) => {
      return [`/sys/kernel/iommu_groups/${id}/devices/${device}`, { link: "../x" }];
    }),
    fc
      .tuple(fc.constantFrom("dmar0", "ivhd0", "smmu3.0x10", "0000:00:01.0", "odd"), target)
      .map(([unit, link]) => [`/sys/class/iommu/${unit}`, { link }]),
  ) as fc.Arbitrary<[string, TreeFiles[string]]>;

  it("is read, inspected, written as YAML; its capture gives the same", () => {
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 25 }), (entries) => {
        const { machine } = throughAll(Object.fromEntries(entries));
        if (machineProblems(machine).length > 0) return;
        expect(machineFromYaml(machineToYaml(machine), "x")).toEqual(machine);
      }),
      { numRuns: 300 },
    );
  });
});

describe("a host of ten thousand functions", () => {
  const tree = new ArchiveTree("large", largeHost(10_000));
  const { machine } = readHost(tree);

  it("is read whole, a group for each function, as recorded", () => {
    expect(machine.functions).toHaveLength(10_048);
    expect(machine.groups).toHaveLength(10_048);
    const derived = deriveGroups(machine);
    expect(derived).toHaveLength(10_048);
    const result = inspectMachine(machine);
    expect(result.groups.filter(({ agrees }) => agrees !== true)).toEqual([]);
    expect(result.iommus.every(({ node }) => node !== null)).toBe(true);
  });

  it("names virtual functions by what their physical one says", () => {
    const vf = machine.functions.find(({ physicalFunction }) => physicalFunction >= 0)!;
    expect(vf).toMatchObject({ vendor: 0x8086, isMultifunction: false, bridge: 0 });
  });
});
