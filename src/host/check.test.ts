import { describe, expect, it } from "vitest";
import { pciName } from "../iommu/pci-function.ts";
import type { Machine, MachineFunction } from "../topology/machine.ts";
import { type CheckSubject, check } from "./check.ts";
import { vmOfDomain } from "./libvirt.ts";
import { readCommand } from "./qemu-command.ts";
import { buildVm } from "./qemu-vm.ts";
import { splitWords } from "./qemu-words.ts";
import { realHost } from "./real-hosts.suite.ts";
import { readHost } from "./sysfs.ts";

const GIB = 1n << 30n;
/** Two nodes; NVMe at 81:00.0, 82:00.0 on node 1 and 21:00.0, 22:00.0 on node 0. */
const real = readHost(realHost("q35-2node-intel-iommu")).machine;

type Change = (one: MachineFunction) => Partial<MachineFunction>;

/** The host with one function changed. */
function hostWith(bus: number, devfn: number, change: Change): Machine {
  const functions = real.functions.map((one) =>
    one.bus === bus && one.devfn === devfn ? { ...one, ...change(one) } : one,
  );
  return { ...real, functions };
}

const vmOf = (words: string, host: Machine | null = null) =>
  buildVm(
    readCommand(splitWords(`qemu-system-x86_64 -M q35 -nodefaults ${words}`, "--qemu"), "--qemu"),
    host,
  );

function codes(subject: Partial<CheckSubject>): string[] {
  const nothing = { host: null, vm: null, devices: [], memlockBytes: null, entryLimit: null };
  return check({ ...nothing, ...subject }).map(({ code }) => code);
}

const one = "-device pcie-root-port,id=r1 -device vfio-pci,host=81:00.0,bus=r1";
const bar = (start: bigint, bytes: bigint) => ({
  bars: [{ index: 0, kind: "memory64" as const, prefetchable: true, start, bytes }],
});
const node = (hostNode: number) =>
  `-m 4G -object memory-backend-ram,id=m0,size=2G,host-nodes=0,policy=bind
   -object memory-backend-ram,id=m1,size=2G,host-nodes=${hostNode},policy=bind
   -numa node,memdev=m0 -numa node,memdev=m1
   -device pxb-pcie,id=p,bus_nr=32,numa_node=1,bus=pcie.0
   -device pcie-root-port,id=r1,bus=p -device vfio-pci,host=81:00.0,bus=r1`;

/** For each code a subject that has it, and one, as near as can be, that has not. */
const cases: [code: string, has: Partial<CheckSubject>, hasNot: Partial<CheckSubject>][] = [
  [
    "group-not-viable",
    {
      host: hostWith(0, 0xfa, () => ({ driver: "ahci" })),
      devices: ["0000:00:1f.3"],
    },
    {
      host: {
        ...real,
        functions: real.functions.map((f) => (f.bus === 0 ? { ...f, driver: "vfio-pci" } : f)),
      },
      devices: ["0000:00:1f.3"],
    },
  ],
  [
    "device-bound",
    { host: hostWith(0x81, 0, () => ({ driver: "nvme" })), devices: ["0000:81:00.0"] },
    { host: hostWith(0x81, 0, () => ({ driver: "vfio-pci" })), devices: ["0000:81:00.0"] },
  ],
  [
    "device-is-bridge",
    { host: real, devices: ["0000:80:00.0"] },
    { host: real, devices: ["0000:81:00.0"] },
  ],
  [
    "device-missing",
    { host: real, devices: ["0000:99:00.0"] },
    { host: real, devices: ["0000:81:00.0"] },
  ],
  [
    "no-acs",
    { host: hostWith(0x80, 0, () => ({ acs: null })), devices: ["0000:81:00.0"] },
    { host: real, devices: ["0000:81:00.0"] },
  ],
  ["node-mismatch", { host: real, vm: vmOf(node(0)) }, { host: real, vm: vmOf(node(1)) }],
  [
    "device-without-node",
    { host: real, vm: vmOf(node(1).replace("numa_node=1,", "")) },
    { host: real, vm: vmOf(node(1)) },
  ],
  [
    "domain-spans-nodes",
    { host: real, devices: ["0000:81:00.0", "0000:21:00.0"] },
    { host: real, devices: ["0000:81:00.0", "0000:82:00.0"] },
  ],
  [
    "memlock-too-small",
    { vm: vmOf(`-m 8G ${one}`), memlockBytes: 8n * GIB - 1n },
    { vm: vmOf(`-m 8G ${one}`), memlockBytes: 8n * GIB },
  ],
  [
    "memlock-tight",
    {
      host: hostWith(0x81, 0, () => bar(GIB, GIB)),
      vm: vmOf(`-m 8G ${one}`),
      memlockBytes: 9n * GIB - 1n,
    },
    {
      host: hostWith(0x81, 0, () => bar(GIB, GIB)),
      vm: vmOf(`-m 8G ${one}`),
      memlockBytes: 9n * GIB,
    },
  ],
  [
    "too-many-mappings",
    { vm: vmOf(`-m 256M -device intel-iommu,caching-mode=on ${one}`) },
    { vm: vmOf(`-m 255M -device intel-iommu,caching-mode=on ${one}`) },
  ],
  [
    "bar-unaligned",
    { host: hostWith(0x81, 0, () => bar(0x10_0000n, 2n << 20n)), devices: ["0000:81:00.0"] },
    { host: hostWith(0x81, 0, () => bar(0x20_0000n, 2n << 20n)), devices: ["0000:81:00.0"] },
  ],
  [
    "iova-reserved",
    {
      host: {
        ...real,
        groups: real.groups.map((group) => ({
          ...group,
          regions: [
            ...group.regions,
            { start: 0x7000_0000n, last: 0x700f_ffffn, type: "reserved" as const },
          ],
        })),
      },
      vm: vmOf(`-m 4G ${one}`),
    },
    { host: real, vm: vmOf(`-m 4G ${one}`) },
  ],
  [
    "strict-by-caching-mode",
    { vm: vmOf("-device intel-iommu,caching-mode=on") },
    { vm: vmOf("-device intel-iommu,caching-mode=on,x-scalable-mode=on,x-flts=on") },
  ],
  [
    "viommu-exempt",
    {
      vm: vmOf(`-device virtio-iommu-pci -device pxb-pcie,id=p,bus_nr=9,bypass_iommu=on,bus=pcie.0
        -device pcie-root-port,id=r1,bus=p -device nvme,serial=1,bus=r1`),
    },
    {
      vm: vmOf(`-device virtio-iommu-pci -device pxb-pcie,id=p,bus_nr=9,bus=pcie.0
        -device pcie-root-port,id=r1,bus=p -device nvme,serial=1,bus=r1`),
    },
  ],
  [
    "boot-bypass",
    { vm: vmOf("-device virtio-iommu-pci") },
    { vm: vmOf("-device virtio-iommu-pci,boot-bypass=off") },
  ],
  [
    "no-access-platform",
    { vm: vmOf("-device virtio-iommu-pci -device virtio-net-pci") },
    {
      vm: vmOf(
        "-device virtio-iommu-pci -device virtio-net-pci,iommu_platform=on,disable-legacy=on",
      ),
    },
  ],
  [
    "viommu-caching-mode",
    { vm: vmOf(`-device intel-iommu ${one}`) },
    { vm: vmOf(`-device intel-iommu,caching-mode=on ${one}`) },
  ],
  ["argument-refused", { vm: vmOf("-m -5") }, { vm: vmOf("-m 5") }],
  ["argument-ignored", { vm: vmOf("-wobble") }, { vm: vmOf("-nographic") }],
];

describe("check", () => {
  it.each(cases)("%s is found where it is, and only there", (code, has, hasNot) => {
    expect(codes(has)).toContain(code);
    expect(codes(hasNot)).not.toContain(code);
  });

  it("finds memory pinned once for each device behind the guest's IOMMU", () => {
    const words = `-m 2G -device intel-iommu,caching-mode=on ${one}
      -device pcie-root-port,id=r2 -device vfio-pci,host=82:00.0,bus=r2`;
    expect(codes({ vm: vmOf(words), memlockBytes: 4n * GIB - 1n })).toContain("memlock-too-small");
    expect(codes({ vm: vmOf(words), memlockBytes: 4n * GIB })).not.toContain("memlock-too-small");
  });

  it("says nothing of mappings on iommufd, which has no limit of them", () => {
    const words = `-m 4G -object iommufd,id=i -device intel-iommu,caching-mode=on
      -device pcie-root-port,id=r1 -device vfio-pci,host=81:00.0,bus=r1,iommufd=i`;
    expect(codes({ vm: vmOf(words) })).not.toContain("too-many-mappings");
  });

  it("leaves managed devices of a domain to libvirt, and speaks of others in its terms", () => {
    const host = hostWith(0x81, 0, () => ({ driver: "nvme" }));
    const domain = (managed: string) =>
      vmOfDomain(
        `<domain><name>vm</name><devices><hostdev type='pci' managed='${managed}'><source>
        <address domain='0' bus='0x81' slot='0' function='0'/></source></hostdev></devices></domain>`,
        "x",
        host,
      );
    expect(codes({ host, vm: domain("yes") })).not.toContain("device-bound");
    const nothing = { devices: [], memlockBytes: null, entryLimit: null };
    const [bound] = check({ ...nothing, host, vm: domain("no") });
    expect(bound).toMatchObject({ next: "virsh nodedev-detach pci_0000_81_00_0" });
  });

  it("keeps --root in the command that it offers", () => {
    const nothing = { devices: [], memlockBytes: null, entryLimit: null };
    const found = check({ ...nothing, host: real, vm: vmOf(node(0)), root: "my host.tar.gz" });
    expect(found.find(({ code }) => code === "node-mismatch")!.next).toBe(
      "iommukit inspect --root 'my host.tar.gz' --emit qemu --device 0000:81:00.0",
    );
  });

  it("tells of a thousand shared groups in a few findings", () => {
    const one = real.functions.find(({ bus }) => bus === 0x81)!;
    const functions = Array.from({ length: 2000 }, (_, at) => ({
      ...one,
      segment: 1 + (at >> 1),
      devfn: at & 1,
      bridge: -1,
      group: 1000 + (at >> 1),
    }));
    const groups = Array.from({ length: 1000 }, (_, at) => ({
      ...real.groups[0]!,
      id: 1000 + at,
      devices: functions.slice(2 * at, 2 * at + 2).map(pciName),
    }));
    const host = { ...real, functions: [...real.functions, ...functions], groups };
    const shared = codes({ host }).filter((code) => code === "group-shared");
    expect(shared.length).toBe(17);
  });

  it("without devices it says what inspect says of the host", () => {
    expect(codes({ host: real })).toEqual(codes({ host: real, devices: [] }));
  });

  it("shows its evidence each time", () => {
    for (const [, has] of cases) {
      const nothing = { host: null, vm: null, devices: [], memlockBytes: null, entryLimit: null };
      for (const { evidence } of check({ ...nothing, ...has })) expect(evidence).not.toEqual([]);
    }
  });
});
