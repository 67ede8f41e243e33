import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { openHost } from "../../host/open-host.ts";
import { readHost } from "../../host/sysfs.ts";
import { pciName } from "../../iommu/pci-function.ts";
import { regionsText } from "../../iommu/reserved-regions.ts";
import type { Machine } from "../../topology/machine.ts";
import { connect, mapMemory } from "./connect.ts";
import { buildHost } from "./host.ts";
import { planOfMachine } from "./plan-of-machine.ts";
import { walkedNodes } from "./walks.ts";
import { user } from "./world.suite.ts";

function machineOf(name: string): Machine {
  const opened = openHost(`examples/hosts/${name}.tar.gz`);
  if (opened.kind !== "tree") throw new Error("the capture is a tree");
  return readHost(opened.tree).machine;
}

const machine = machineOf("q35-2node-intel-iommu");
/** The disks, two behind ports of each node. */
const disks = machine.functions.filter((pci) => pci.classCode >> 8 === 0x0108);
const passThrough = disks.map(pciName);

describe("a plan of a recorded host with VT-d", () => {
  const host = buildHost(planOfMachine(machine, { passThrough }));

  it("makes the groups that its kernel made, with the same reserved regions", () => {
    expect(machine.groups.length).toBeGreaterThan(3);
    const ours = host.groups.all.map((group) => ({
      devices: group.devices.map((device) => device.name).sort(),
      regions: regionsText(group.reservedRegions()),
    }));
    const recorded = machine.groups.map(({ devices, regions }) => ({
      devices: devices.filter((name) => host.devices.has(name)).sort(),
      regions: regions
        .map(({ start, last, type }) => {
          const digits = (address: bigint) => `0x${address.toString(16).padStart(16, "0")}`;
          return `${digits(start)} ${digits(last)} ${type}\n`;
        })
        .join(""),
    }));
    const byName = (a: { devices: string[] }, b: { devices: string[] }) =>
      a.devices[0]!.localeCompare(b.devices[0]!);
    const known = recorded.filter(({ devices }) => devices.length > 0);
    expect(ours.sort(byName)).toEqual(known.sort(byName));
  });

  it("places the tables of a container that gets its disks: with the one attached first", () => {
    expect(disks.map(({ node }) => node)).toEqual([0, 0, 1, 1]);
    for (const order of [passThrough, [...passThrough].reverse()]) {
      const fresh = buildHost(planOfMachine(machine, { passThrough }));
      const task = user();
      const { fd, type1 } = connect(fresh, task, order);
      const memory = { iova: 0n, vaddr: 0x100_0000n, size: 0x10_0000n };
      expect(mapMemory(task, fd, memory)).toBe(Errno.OK);
      expect(type1.domains.length).toBe(1);
      const { node } = fresh.device(order[0]!).iommuDevice;
      for (const address of passThrough) {
        expect(walkedNodes(fresh, address, 0x42)).toEqual([node, node, node, node]);
      }
    }
  });

  it("has the BARs that were recorded, and leaves other drivers where they are", () => {
    const disk = host.device(passThrough[0]!);
    const [bar] = disks[0]!.bars;
    expect(disk.vfio!.region(bar!.index)).toMatchObject({ bytes: Number(bar!.bytes) });
    const bound = machine.functions.filter((pci) => pci.driver === "ahci");
    for (const pci of bound) expect(host.groupPath(pciName(pci))).toBe(null);
  });
});

describe("a plan of a host with a virtio-iommu", () => {
  it("leaves the unit out, which has no tables in the host, and offers nothing behind it", () => {
    const virtual = machineOf("q35-2node-virtio-iommu");
    const plan = planOfMachine(virtual, { passThrough: ["0000:00:03.0"] });
    expect(plan.units).toEqual([]);
    expect(buildHost(plan).vfio.groups).toEqual([]);
  });
});
