import { describe, expect, it } from "vitest";
import { vmOfDomain } from "./libvirt.ts";

const domain = `<domain type='kvm'><name>vm</name><memory unit='GiB'>8</memory><vcpu>4</vcpu>
  <os><type arch='x86_64' machine='pc-q35-9.2'>hvm</type></os>
  <memtune><hard_limit unit='GiB'>9</hard_limit></memtune>
  <cpu><numa>
    <cell id='0' cpus='0-1' memory='4' unit='GiB'><distances><sibling id='1' value='21'/></distances></cell>
    <cell id='1' cpus='2-3' memory='4' unit='GiB'/></numa></cpu>
  <numatune><memnode cellid='0' mode='strict' nodeset='3'/><memnode cellid='1' mode='strict' nodeset='4'/></numatune>
  <devices>
    <controller type='pci' index='0' model='pcie-root'/>
    <hostdev mode='subsystem' type='pci' managed='yes'><source>
      <address domain='0x0000' bus='0x03' slot='0x01' function='0x2'/></source>
      <address type='pci' domain='0' bus='0x02' slot='0' function='0'/></hostdev>
    <controller type='pci' index='2' model='pcie-root-port'>
      <address type='pci' bus='0x01' slot='0' function='0'/></controller>
    <controller type='pci' index='1' model='pcie-expander-bus'><target busNr='32'><node>1</node></target>
      <address type='pci' bus='0' slot='5' function='0'/></controller>
    <interface type='network'><model type='virtio'/><driver iommu='on'/>
      <address type='pci' bus='0' slot='6' function='0'/></interface>
    <memballoon model='none'/><iommu model='virtio'><address type='pci' bus='0' slot='7'/></iommu>
    <graphics type='vnc'/><wormhole kind='x'/>
  </devices></domain>`;

describe("a virtual machine from a libvirt domain", () => {
  const vm = vmOfDomain(domain, "vm.xml", null);

  it("has its nodes, their memory and the host's nodes behind them", () => {
    expect(vm.nodes).toMatchObject([
      { id: 0, bytes: 4n << 30n, hostNodes: [3], policy: "bind" },
      { id: 1, bytes: 4n << 30n, hostNodes: [4], policy: "bind" },
    ]);
    expect(vm.machine.nodes.map(({ cpus, distances }) => [cpus, distances])).toEqual([
      [
        [0, 1],
        [10, 21],
      ],
      [
        [2, 3],
        [21, 10],
      ],
    ]);
    expect(vm).toMatchObject({ name: "vm", board: "q35", memlockBytes: 9n << 30n });
  });

  it("has its devices where libvirt put them, controllers in whatever order", () => {
    expect(vm.devices).toMatchObject([
      { driver: "vfio-pci", host: "0000:03:01.2", bdf: "0000:21:00.0", exemption: null },
      { driver: "virtio-net-pci", bdf: "0000:00:06.0", accessPlatform: true },
      { driver: "virtio-iommu-pci", bdf: "0000:00:07.0" },
    ]);
    expect(vm.machine.functions[vm.devices[0]!.index]!.node).toBe(1);
  });

  it.each([
    [
      "<source><address domain='0' bus='zz' slot='0' function='9'/></source>",
      /no address of a PCI/,
    ],
    ["<source/>", /has no <source>/],
    ["", /has no <source>/],
  ])("refuses an assigned device of %j, and names it", (source, why) => {
    const text = `<domain><devices><hostdev type='pci'>${source}</hostdev></devices></domain>`;
    const { devices, ignored } = vmOfDomain(text, "x", null);
    expect(devices).toEqual([]);
    expect(ignored).toMatchObject([{ argument: "<hostdev type='pci'>", isRefused: true }]);
    expect(ignored[0]!.why).toMatch(why);
  });

  it("knows which devices libvirt takes from their drivers", () => {
    expect(vm.libvirt).toEqual({ domain: "vm", managed: ["0000:03:01.2"] });
  });

  it("says which element it does not know, and passes over what is no PCI device", () => {
    expect(vm.ignored).toEqual([
      { argument: "<wormhole kind='x'>", why: "this element is not known" },
    ]);
  });

  it("takes words of qemu:commandline behind its own", () => {
    const more = `<qemu:commandline><qemu:arg value='-device'/><qemu:arg value='edu,bus=pcie.0,addr=9'/></qemu:commandline></domain>`;
    const with9 = vmOfDomain(
      domain
        .replace("</domain>", more)
        .replace("<domain ", "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' "),
      "vm.xml",
      null,
    );
    expect(with9.devices.at(-1)).toMatchObject({ driver: "edu", bdf: "0000:00:09.0" });
  });

  it.each([
    ["", /no element|unexpected|root/],
    ["<network/>", /begins with <network>/],
    ["<domain><a></domain>", /no libvirt domain/],
    ["<d>".repeat(100), /too much/],
  ])("%j is refused with its place", (text, message) => {
    expect(() => vmOfDomain(text, "vm.xml", null)).toThrow(message);
  });
});
