import { spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { itNeeds } from "../../test/support/tools.ts";
import { machineFromYaml } from "../config/read-machine.ts";
import { machineToYaml } from "../config/write-machine.ts";
import { decodeBlob } from "../firmware/devicetree/blob.ts";
import { blobOf, vector, vectorNames } from "../firmware/devicetree/devicetree.suite.ts";
import { readDevicetree } from "../firmware/devicetree/reader.ts";
import { topologyPart } from "../firmware/devicetree/topology-properties.ts";
import { cells, type DtNode, dtNode, strings } from "../firmware/devicetree/tree.ts";
import { compareGroups, deriveGroups } from "../topology/groups.ts";
import { TranslationMap } from "../topology/translation.ts";
import { archiveTree } from "./archive-tree.ts";
import { CapturingTree } from "./capture.ts";
import { BLOB, cleanBlob } from "./devicetree.ts";
import { armHosts, realHost, type TreeFiles, treeOf } from "./real-hosts.suite.ts";
import { readHost } from "./sysfs.ts";

const BASE = "/sys/firmware/devicetree/base";

/** The directories that the kernel makes of a tree. */
function directories(node: DtNode, path: string = BASE): [string, Uint8Array][] {
  return [
    ...node.properties.map(({ name, value }): [string, Uint8Array] => [`${path}/${name}`, value]),
    [`${path}/name`, strings(node.name)],
    ...node.children.flatMap((child) => directories(child, `${path}/${child.name}`)),
  ];
}

describe.each(armHosts)("%s, a real guest that a devicetree describes", (name) => {
  const tree = realHost(name);
  const { machine, findings } = readHost(tree);

  it("has firmware's word for memory, distances, configuration space and ids", () => {
    expect(machine.firmware).toBe("devicetree");
    expect(findings).toEqual([]);
    expect(machine.nodes).toMatchObject([
      { memory: [{ start: 0x4000_0000n, last: 0x5fff_ffffn }], distances: [10, 30] },
      { memory: [{ start: 0x6000_0000n, last: 0x7fff_ffffn }], distances: [30, 10] },
    ]);
    expect(machine.hostBridges).toMatchObject([{ segment: 0, ecamBase: 0x40_1000_0000n }]);
    expect(machine.iommus).toHaveLength(1);
    const map = new TranslationMap(machine);
    for (const [index, one] of machine.functions.entries()) {
      const found = map.of(index);
      expect(found !== null).toBe(one.iommu !== null);
      if (found !== null) expect(found.id).toBe(one.bus * 256 + one.devfn);
    }
  });

  it("has the groups that the kernel formed, every one derived by the rules", () => {
    const compared = compareGroups(machine, deriveGroups(machine));
    expect(compared.map(({ agrees }) => agrees)).toEqual([true, true, true]);
  });

  it("is captured without what does not concern topology, and reads the same", () => {
    const first = new CapturingTree(tree);
    expect(readHost(first).machine).toEqual(machine);
    const archive = first.archive();
    const again = archiveTree(archive, "again");
    expect(readHost(again).machine).toEqual(machine);
    expect(again.list(`${BASE}/chosen`)).toEqual([]);
    expect(again.list(BASE)).not.toContain("model");
    expect(machineFromYaml(machineToYaml(machine), "machine.yaml")).toEqual(machine);
  });
});

describe("a tree", () => {
  it.each(vectorNames)("%s reads the same without what a capture leaves out", (name) => {
    const { root } = decodeBlob(vector(name));
    const { machine } = readDevicetree(root);
    expect(readDevicetree(topologyPart(root)).machine).toEqual(machine);
  });

  it.each(vectorNames)("%s reads the same from the kernel's directories", (name) => {
    const { root } = decodeBlob(vector(name));
    const blob = readHost(treeOf({ [BLOB]: vector(name) })).machine;
    const files: TreeFiles = Object.fromEntries(directories(root));
    const { machine } = readHost(treeOf(files));
    expect(machine).toEqual(blob);
    expect(machine.firmware).toBe("devicetree");
    // A tree that went through a tool without links has it below /proc alone.
    const moved = Object.entries(files).map(([path, bytes]) => [
      path.replace(BASE, "/proc/device-tree"),
      bytes,
    ]);
    const below = treeOf({ ...Object.fromEntries(moved), "/sys/kernel/x": "" });
    expect(readHost(below).machine.hostBridges).toEqual(blob.hostBridges);
  });

  it("is cleaned of network addresses and serial numbers, and cleaning again changes nothing", () => {
    const root = dtNode("", { "serial-number": strings("S3CRET"), compatible: strings("x") }, [
      dtNode("ethernet@0", { "local-mac-address": Uint8Array.of(2, 0, 0, 0, 0, 1) }),
      dtNode("chosen", { bootargs: strings("password=1"), "rng-seed": cells(1, 2) }),
    ]);
    const clean = cleanBlob(blobOf(root));
    const text = Buffer.from(clean).toString("latin1");
    for (const word of ["S3CRET", "serial", "password", "mac-address", "rng-seed"]) {
      expect(text).not.toContain(word);
    }
    expect(cleanBlob(clean)).toEqual(clean);
  });

  it("that is damaged is a finding, and the host is read without it", () => {
    const damaged = vector("virt-smmuv3").slice(0, 2000);
    const tree = treeOf({ [BLOB]: damaged, "/sys/bus/pci/x": "" });
    const { machine, findings } = readHost(tree);
    expect(machine.firmware).toBe("devicetree");
    expect(findings).toMatchObject([{ code: "firmware-table" }]);
    const capture = new CapturingTree(tree);
    readHost(capture);
    const again = readHost(archiveTree(capture.archive(), "again"));
    expect(again.findings.map(({ code }) => code)).toEqual(["firmware-table"]);
  });

  it("with links that lead in circles ends at them", () => {
    const links = ["a", "b", "c"].map((name) => [`${BASE}/${name}`, { link: "." }]);
    const { root } = decodeBlob(vector("virt-smmuv3"));
    const files = Object.fromEntries([...directories(root), ...links]);
    const { machine } = readHost(treeOf(files));
    expect(machine).toEqual(readHost(treeOf({ [BLOB]: vector("virt-smmuv3") })).machine);
  });

  it("as deep and as wide as somebody likes is read within bounds", () => {
    const deep = `${BASE}${"/a".repeat(200)}/reg`;
    const files: Record<string, Uint8Array> = { [deep]: cells(1) };
    for (let index = 0; index < 3000; index += 1) files[`${BASE}/n@${index}/reg`] = cells(index);
    const { machine } = readHost(treeOf(files));
    expect(machine.firmware).toBe("devicetree");
  });
});

describe("segments of host bridges", () => {
  const bridge = (unit: string) =>
    dtNode(`pcie@${unit}`, {
      compatible: strings("pci-host-ecam-generic"),
      device_type: strings("pci"),
      reg: cells(0, Number.parseInt(unit, 16), 0, 0x1000_0000),
      ranges: new Uint8Array(),
      "numa-node-id": cells(unit === "10000000" ? 0 : 1),
    });
  const root = dtNode("", { "#address-cells": cells(2), "#size-cells": cells(2) }, [
    bridge("10000000"),
    bridge("20000000"),
  ]);
  const config = new Uint8Array(64).fill(1);
  const function_ = (at: string, segment: string, unit: string): TreeFiles => {
    const directory = `/sys/devices/platform/${at}.pcie/pci${segment}:00`;
    const name = `${segment}:00:00.0`;
    return {
      [`${directory}/${name}/config`]: config,
      [`/sys/devices/platform/${at}.pcie/of_node`]: {
        link: `../../../firmware/devicetree/base/pcie@${unit}`,
      },
      [`/sys/bus/pci/devices/${name}`]: {
        link: `../../../devices/platform/${at}.pcie/pci${segment}:00/${name}`,
      },
    };
  };

  it("are those of the devices, where the second bridge's driver came first", () => {
    const { machine } = readHost(
      treeOf({
        ...Object.fromEntries(directories(root)),
        ...function_("20000000", "0000", "20000000"),
        ...function_("10000000", "0001", "10000000"),
      }),
    );
    expect(machine.hostBridges).toMatchObject([
      { segment: 0, ecamBase: 0x2000_0000n },
      { segment: 1, ecamBase: 0x1000_0000n },
    ]);
  });
});

describe("a source that dtc compiles", () => {
  itNeeds("dtc", "gives devices behind a vendor's IOMMU their registers and ids", (dtc) => {
    const source = `/dts-v1/;
/ { #address-cells = <1>; #size-cells = <1>;
  soc { #address-cells = <1>; #size-cells = <1>; ranges = <0x0 0xfd000000 0x1000000>;
    mmu: iommu@b0000 { compatible = "vendor,iommu"; reg = <0xb0000 0x100>; #iommu-cells = <0>; };
    npu@a0000 { compatible = "vendor,npu"; reg = <0xa0000 0x1000>; iommus = <&mmu>; };
  };
};`;
    const done = spawnSync(dtc, ["-I", "dts", "-O", "dtb", "-q"], { input: source });
    const platform = "/sys/devices/platform/soc";
    const tree = treeOf({
      [BLOB]: new Uint8Array(done.stdout),
      [`${platform}/fd0b0000.iommu/iommu/fd0b0000.iommu/devices/fd0a0000.npu`]: { link: "../x" },
      "/sys/class/iommu/fd0b0000.iommu": {
        link: "../../devices/platform/soc/fd0b0000.iommu/iommu/fd0b0000.iommu",
      },
    });
    const { machine, findings } = readHost(tree);
    expect(findings).toEqual([]);
    expect(machine.iommus).toMatchObject([
      { kind: "other", name: "fd0b0000.iommu", endpoints: [{ base: 0xfd0a_0000n, id: 0 }] },
    ]);
    expect(machine.platformDevices).toMatchObject([
      { name: "fd0a0000.npu", path: "/soc/npu@a0000", identity: "vendor,npu" },
    ]);
  });
});
