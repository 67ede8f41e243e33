import { describe, expect, it } from "vitest";
import { deriveGroups } from "../topology/groups.ts";
import { machineProblems } from "../topology/validate.ts";
import { twoNodes, vmOf } from "./qemu-vm.suite.ts";

const placesOf = (text: string) =>
  vmOf(text).machine.functions.map(
    ({ bus, devfn, vendor, device }) =>
      `${bus.toString(16)}:${(devfn >> 3).toString(16)}.${devfn & 7} ${vendor.toString(16)}:${device.toString(16)}`,
  );

describe("a virtual machine from a QEMU command line", () => {
  it("has the functions that q35 has by itself, as `info pci` of QEMU 11.1 lists them", () => {
    expect(placesOf("qemu-system-x86_64 -machine q35")).toEqual([
      "0:0.0 8086:29c0",
      "0:1.0 1234:1111",
      "0:2.0 8086:10d3",
      "0:1f.0 8086:2918",
      "0:1f.2 8086:2922",
      "0:1f.3 8086:2930",
    ]);
  });

  it("has those of pc where no machine is named", () => {
    expect(placesOf("qemu-system-x86_64")).toEqual([
      "0:0.0 8086:1237",
      "0:1.0 8086:7000",
      "0:1.1 8086:7010",
      "0:1.3 8086:7113",
      "0:2.0 1234:1111",
      "0:3.0 8086:100e",
    ]);
  });

  it("keeps nodes, memory, backends, CPUs and distances", () => {
    const { machine, nodes, ignored } = vmOf(twoNodes);
    expect(ignored).toEqual([]);
    expect(machineProblems(machine)).toEqual([]);
    expect(machine.nodes.map(({ cpus, distances }) => [cpus, distances])).toEqual([
      [
        [0, 1],
        [10, 21],
      ],
      [
        [2, 3],
        [21, 10],
      ],
    ]);
    expect(nodes).toMatchObject([
      { bytes: 4n << 30n, hostNodes: [3], policy: "bind" },
      { bytes: 4n << 30n, hostNodes: [4], policy: "bind" },
    ]);
    expect(machine.nodes[0]!.memory).toMatchObject([
      { start: 0n, last: 0x7fff_ffffn },
      { start: 0x1_0000_0000n, last: 0x1_7fff_ffffn },
    ]);
    expect(machine.nodes[1]!.memory).toMatchObject([
      { start: 0x1_8000_0000n, last: 0x2_7fff_ffffn },
    ]);
  });

  it("puts a device behind an expander on the expander's node and behind the IOMMU", () => {
    const { machine, devices, viommu } = vmOf(twoNodes);
    expect(devices).toMatchObject([
      {
        driver: "vfio-pci",
        bdf: "0000:21:00.0",
        host: "0000:03:01.0",
        path: "iommufd",
        exemption: null,
      },
      { driver: "virtio-iommu-pci", bdf: "0000:00:04.0", exemption: "is-the-iommu" },
    ]);
    expect(machine.functions[devices[0]!.index]!.node).toBe(1);
    expect(viommu).toMatchObject({ kind: "virtio", bootBypass: true, name: "0000:00:04.0" });
    expect(machine.iommus[0]!.translates).toMatchObject([
      { firstRid: 0, lastRid: 0x00ff },
      { firstRid: 0x2000, lastRid: 0x21ff },
    ]);
  });

  it("makes devices of JSON form after all others, and gives them the slots that are left", () => {
    expect(
      placesOf(`qemu-system-x86_64 -M q35 -nodefaults -device '{"driver":"nvme","serial":"1"}'
        -device edu -drive if=virtio,file=x -device e1000e`).slice(1, 5),
    ).toEqual(["0:1.0 1234:11e8", "0:2.0 8086:10d3", "0:3.0 1af4:1001", "0:4.0 1b36:10"]);
  });

  it.each([
    ["default_bus_bypass_iommu=on", "", "bypassed-bus", null],
    ["usb=off", "bypass_iommu=on,", null, "bypassed-bus"],
  ])("machine %s, expander %s: F93 each bus by itself", (machine, expander, onRoot, below) => {
    const { devices } = vmOf(`qemu-system-x86_64 -M q35,${machine} -nodefaults
      -device virtio-iommu-pci,addr=3 -device nvme,serial=1,addr=4,bus=pcie.0
      -device pxb-pcie,${expander}id=p,bus_nr=32 -device pcie-root-port,id=r,bus=p
      -device nvme,serial=2,bus=r`);
    expect(devices.slice(1).map(({ exemption }) => exemption)).toEqual([onRoot, below]);
  });

  it("a virtio device is translated only with iommu_platform, old-fashioned on a root bus", () => {
    const { devices, machine } = vmOf(`qemu-system-x86_64 -M q35 -nodefaults -device intel-iommu
      -device virtio-net-pci -device virtio-net-pci,iommu_platform=on,disable-legacy=on
      -device pcie-root-port,id=r -device virtio-blk-pci,bus=r`);
    expect(devices.map(({ exemption }) => exemption)).toEqual([
      "no-access-platform",
      null,
      "no-access-platform",
    ]);
    expect(devices.map(({ index }) => machine.functions[index]!.device)).toEqual([
      0x1000, 0x1041, 0x1042,
    ]);
  });

  it.each([
    ["q35", 39],
    ["pc", 64],
    ["virt", 48],
  ])("F92: a virtio-iommu on %s takes addresses of %i bits, unless it is told", (board, bits) => {
    const line = `qemu -M ${board} -device virtio-iommu-pci`;
    expect(vmOf(line).viommu!.addressBits).toBe(bits);
    expect(vmOf(`${line},aw-bits=52`).viommu!.addressBits).toBe(52);
  });

  it("F90, F91: the IOMMU that QEMU refuses is none", () => {
    const { viommu } = vmOf("qemu -M q35 -device virtio-iommu-device");
    expect(viommu).toBe(null);
    const two = vmOf("qemu -M q35 -device virtio-iommu-pci,addr=5 -device virtio-iommu-pci,addr=6");
    expect(two.viommu!.name).toBe("0000:00:05.0");
  });

  it("groups a device behind a root port alone, and one behind a switch's port with the port", () => {
    const { machine, devices } = vmOf(`qemu-system-x86_64 -M q35 -nodefaults -device intel-iommu
      -device pcie-root-port,id=r,chassis=1 -device nvme,serial=1,bus=r
      -device pcie-root-port,id=s,chassis=2 -device x3130-upstream,id=u,bus=s
      -device xio3130-downstream,id=d0,bus=u,chassis=3 -device nvme,serial=2,bus=d0`);
    const groups = deriveGroups(machine);
    const sizeOf = (at: number) =>
      groups.find(({ functions }) => functions.includes(devices[at]!.index))!.functions.length;
    expect([sizeOf(0), sizeOf(1)]).toEqual([1, 2]);
  });

  it.each([
    ["-device nvme,bus=nowhere", /there is no bus "nowhere"/],
    ["-device nvme,addr=40", /addr=40 is no slot/],
    ["-device nvme,addr=1f.2", /taken/],
    ["-device pxb-pcie,id=p,bus_nr=9 -device nvme", /only bridges can be plugged into pxb-pcie/],
    ["-device pcie-root-port,id=r -device nvme,bus=r,addr=3", /has slot 0 only/],
    [
      "-device pcie-root-port,id=r -device virtio-iommu-pci,bus=r",
      /goes on the root bus only/, // F91
    ],
    ["-device virtio-iommu-pci -device intel-iommu", /QEMU takes one/], // F91
    ["-device virtio-iommu-device", /force-legacy=false/], // F90
    ["-wobble 3", /this option is not known/],
    ["-device flux-capacitor", /not known/],
    ["disk.img", /belongs to no option/],
  ])("q35 with %s: kept, and said", (words, why) => {
    const { ignored } = vmOf(`qemu-system-x86_64 -M q35 -nodefaults ${words}`);
    expect(ignored.map((one) => one.why).join()).toMatch(why);
  });

  it.each([
    ["-device '{'", /`-device \{`: it is no JSON/],
    ["-m", /`-m`: its value is missing/],
    ["-device =x", /has no key/],
    ["'-m 4G", /a quote is not closed/],
  ])("%s is refused by name", (words, message) => {
    expect(() => vmOf(`qemu-system-x86_64 ${words}`)).toThrow(message);
  });

  it.each([
    "sudo",
    "LD_PRELOAD=x numactl --membind=0 --cpunodebind=0",
    "/lib64/ld-linux-x86-64.so.2 --library-path /a:/b",
    "taskset -c 0-3 nice -n 5",
  ])("starts behind %s", (wrapper) => {
    const { ignored, memoryBytes, board } = vmOf(
      `${wrapper} /usr/bin/qemu-system-x86_64 -M q35 -m 1G`,
    );
    expect([ignored, memoryBytes, board]).toEqual([[], 1n << 30n, "q35"]);
  });

  it("reads sizes, doubled commas and switches as QEMU does", () => {
    expect(vmOf("qemu -m 512").memoryBytes).toBe(512n << 20n);
    expect(vmOf("qemu -m size=1.5G,maxmem=4G").memoryBytes).toBe(1536n << 20n);
    expect(vmOf("qemu -name a,,b -M q35").name).toBe("a,b");
    expect(vmOf("qemu-system-aarch64 -M virt,iommu=smmuv3").viommu?.kind).toBe("smmuv3");
  });
});
