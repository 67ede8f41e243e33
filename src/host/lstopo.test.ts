import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { itNeeds } from "../../test/support/tools.ts";
import { positionText, StackError } from "../errors.ts";
import { pciName } from "../iommu/pci-function.ts";
import type { Machine } from "../topology/machine.ts";
import { DiskTree } from "./disk-tree.ts";
import { inspectMachine } from "./inspect.ts";
import { machineFromLstopo } from "./lstopo.ts";
import { readHost } from "./sysfs.ts";

const head = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE topology SYSTEM "hwloc2.dtd">\n';
const twoNodes = `${head}<topology version="2.0">
  <object type="Machine" os_index="0" cpuset="0x0000000f" nodeset="0x00000003" gp_index="1">
    <info name="OSRelease" value="6.1.0"/>
    <info name="Architecture" value="x86_64"/>
    <object type="Package" os_index="0" cpuset="0x00000003" nodeset="0x00000001" gp_index="2">
      <object type="NUMANode" os_index="0" cpuset="0x00000003" nodeset="0x00000001" gp_index="3" local_memory="1055461376"/>
      <object type="Bridge" gp_index="4" bridge_type="0-1" depth="0" bridge_pci="0000:[00-02]">
        <object type="Bridge" gp_index="5" bridge_type="1-1" depth="1" bridge_pci="0000:[01-01]" pci_busid="0000:00:01.0" pci_type="0604 [8086:2030] [0000:0000] 04" pci_link_speed="0.250000">
          <object type="PCIDev" gp_index="6" pci_busid="0000:01:00.0" pci_type="0108 [144d:a80a] [144d:a801] 00" pci_link_speed="7.876923">
            <object type="OSDev" gp_index="7" name="nvme0n1" osdev_type="0"/>
          </object>
        </object>
      </object>
    </object>
    <object type="Package" os_index="1" cpuset="0x0000000c" nodeset="0x00000002" gp_index="8">
      <object type="NUMANode" os_index="1" cpuset="0x0000000c" nodeset="0x00000002" gp_index="9" local_memory="2055461376"/>
      <object type="Bridge" gp_index="10" bridge_type="0-1" depth="0" bridge_pci="0000:[80-81]">
        <object type="PCIDev" gp_index="11" pci_busid="0000:80:02.0" pci_type="0302 [10de:2330] [10de:16c1] a1" pci_link_speed="0.0"/>
      </object>
    </object>
  </object>
  <distances2 type="NUMANode" nbobjs="2" kind="5" name="NUMALatency" indexing="os">
    <indexes length="4">0 1 </indexes>
    <u64values length="12">10 21 21 10 </u64values>
  </distances2>
</topology>
`;

describe("an export of lstopo", () => {
  it("gives nodes with CPUs, memory and distances, bridges and functions on their nodes", () => {
    const machine = machineFromLstopo(twoNodes, "x.xml");
    expect(machine).toMatchObject({
      architecture: "x86_64",
      kernel: { release: "6.1.0" },
      nodes: [
        { id: 0, cpus: [0, 1], memoryBytes: 1055461376n, distances: [10, 21] },
        { id: 1, cpus: [2, 3], distances: [21, 10] },
      ],
      hostBridges: [
        { firstBus: 0, lastBus: 2, node: 0 },
        { firstBus: 0x80, lastBus: 0x81, node: 1 },
      ],
      functions: [
        {
          bus: 0,
          devfn: 8,
          header: "bridge",
          secondaryBus: 1,
          vendor: 0x8086,
          node: 0,
          bridge: -1,
        },
        { bus: 1, vendor: 0x144d, device: 0xa80a, classCode: 0x010800, node: 0, bridge: 0 },
        { bus: 0x80, devfn: 16, subsystemDevice: 0x16c1, revision: 0xa1, node: 1, bridge: -1 },
      ],
    });
  });

  it("says nothing of IOMMUs, and the report says that none is in use", () => {
    const { findings, groups } = inspectMachine(machineFromLstopo(twoNodes, "x.xml"));
    expect(groups).toEqual([]);
    expect(findings.map(({ code }) => code)).toEqual(["no-iommu"]);
  });

  it.each([
    ["<topology>", /x.xml:1:\d+ .*unclosed tag/],
    ["<topology></topology>", /no object stands in it/],
    [twoNodes.replace("</object>", "</objekt>"), /x.xml:\d+:\d+ .*unexpected close tag/],
    [`<!DOCTYPE a [<!ENTITY x "y">]><topology>&x;</topology>`, /undefined entity/],
    [`<topology>${"<object type='Group'>".repeat(10_000)}`, /too many objects/],
  ])("that is damaged is refused with its place (%#)", (text, message) => {
    let thrown: unknown = null;
    try {
      machineFromLstopo(text, "x.xml");
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(StackError);
    const { at, message: said } = thrown as StackError;
    expect(`${positionText(at!)} ${said}`).toMatch(message);
  });

  itNeeds("lstopo", "as the installed lstopo writes it is read", (path) => {
    const xml = execFileSync(path, ["--of", "xml", "--whole-io"], { encoding: "utf8" });
    const machine = machineFromLstopo(xml, "live.xml");
    // The same machine as its kernel shows it.
    const { machine: seen } = readHost(new DiskTree("/"));
    expect(machine.architecture).toBe(seen.architecture);
    const nodes = (of: Machine) => of.nodes.map(({ id, cpus }) => ({ id, cpus }));
    if (seen.nodes.length > 0) expect(nodes(machine)).toEqual(nodes(seen));
    const names = (of: Machine) => of.functions.map(pciName);
    expect(names(seen)).toEqual(expect.arrayContaining(names(machine)));
  });
});
