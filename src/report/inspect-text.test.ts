import { describe, expect, it } from "vitest";
import { ArchiveTree } from "../host/archive-tree.ts";
import { inspectMachine } from "../host/inspect.ts";
import { largeHost } from "../host/large-host.suite.ts";
import { readHost } from "../host/sysfs.ts";
import { EMPTY_MACHINE } from "../topology/machine.ts";
import { renderInspected } from "./inspect-text.ts";
import { twoSockets } from "./two-sockets.suite.ts";

const heading = { name: "server", release: null, architecture: "x86_64" };
const render = (result: typeof twoSockets, width = 80) =>
  renderInspected(result, heading, width, (_role, piece) => piece);

describe("a host in a terminal", () => {
  it("reads well", () => {
    expect(render(twoSockets).join("\n")).toMatchInlineSnapshot(`
      "server  x86_64
        2 NUMA nodes, 2 IOMMUs, 6 devices in 5 groups

      NUMA nodes
      node  memory  CPUs   distances
      0     256GiB  0-31   10 21
      1     256GiB  32-63  21 10

      IOMMUs
      IOMMU  kind  node  at          devices
      dmar0  VT-d  1     0xd37fc000        4
      dmar1  VT-d  1     0xee7fc000        2

      Devices
                     group
      node 0
        bus 0000:00
          00:01.0        0  PCI bridge [8086:352a]  (pcieport)
            01:00.0      2  3D controller [10de:2330]  (vfio-pci)
          00:1e.0        1  USB controller (xHCI) [8086:1bcc]  (xhci_hcd)
          00:1e.1        1  SMBus controller [8086:1bca]
      node 1
        bus 0000:80
          80:01.0        3  PCI bridge [8086:352a]  (pcieport)
            81:00.0      4  InfiniBand controller [15b3:1021]  (ATS)

      Page tables of each group's default domain
        groups 0-2: on node 0 (the node of the device that the domain was allocated
          for), walked by dmar0 from node 1: FROM AFAR, distance 21
        groups 3-4: on node 1 (the node of the device that the domain was allocated
          for), walked by dmar1 from node 1: local

      Groups of several devices
        group 1: 0000:00:1e.0 0000:00:1e.1

      Reserved I/O virtual addresses
        groups 0-4: 0xfee00000-0xfeefffff msi

      Findings
        warning: page tables of groups 0-2 live on node 0; dmar0 walks them from node
          1 [page-tables-remote]
          distance 21
          the node of the device that the domain was allocated for
          0000:00:01.0 0000:00:1e.0 0000:00:1e.1 0000:01:00.0
        note: 2 devices share group 1 [group-shared]
          0000:00:1e.0: ACS missing
          0000:00:1e.1: ACS missing
          0000:00:1e.0 0000:00:1e.1"
    `);
  });

  it("fits the width, but for names", () => {
    for (const width of [40, 60, 120]) {
      const long = render(twoSockets, width).filter((line) => line.length > width + 16);
      expect(long).toEqual([]);
    }
  });

  it("with nothing in it is three lines at most", () => {
    expect(render(inspectMachine(EMPTY_MACHINE))).toEqual([
      "server  x86_64",
      "  0 NUMA nodes, 0 IOMMUs, 0 devices in 0 groups",
    ]);
  });

  it("of ten thousand functions folds virtual functions, and stays below a thousand lines", () => {
    const { machine } = readHost(new ArchiveTree("large", largeHost(10_000)));
    const lines = render(inspectMachine(machine));
    expect(lines.length).toBeLessThan(1000);
    expect(lines.join("\n")).toMatch(/01:00.1 …\s+2-63 {2}62 virtual functions/);
  });
});
