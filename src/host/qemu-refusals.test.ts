import { describe, expect, it } from "vitest";
import { vmOf } from "./qemu-vm.suite.ts";

const backend = (id: string, size: string) => `-object memory-backend-ram,id=${id},size=${size}`;

describe("what QEMU 11.1 refuses at its start", () => {
  // Each line with what is right next to it.
  it.each([
    ["-M pc -device intel-iommu", "-M q35 -device intel-iommu", /machine type pc/],
    ["-M pc -device amd-iommu", "-M q35 -device amd-iommu", /machine type pc/],
    ["-M q35 -device vfio-pci,host=zz", "-M q35 -device vfio-pci,host=3:0.0", /no PCI function/],
    ["-M q35 -device vfio-pci", "-M q35 -device vfio-pci,sysfsdev=/sys/x", /no host device/],
    [
      "-M q35 -object iommufd,id=i -device vfio-pci,host=3:0.0,iommufd=nope",
      "-M q35 -object iommufd,id=i -device vfio-pci,host=3:0.0,iommufd=i",
      /no -object iommufd,id=nope/,
    ],
    [
      "-M q35 -device edu,id=a -device edu,id=a",
      `-M q35 -device edu,id=a ${backend("a", "1M")}`,
      /duplicate id "a"/,
    ],
    [
      `-M q35 ${backend("a", "1M")} ${backend("a", "1M")}`,
      `-M q35 ${backend("a", "1M")} ${backend("b", "1M")}`,
      /duplicate id "a"/,
    ],
    [
      "-M q35 -device pxb-pcie,id=a,bus=pcie.0,bus_nr=32 -device pxb-pcie,id=b,bus=pcie.0,bus_nr=32",
      "-M q35 -device pxb-pcie,id=a,bus=pcie.0,bus_nr=32 -device pxb-pcie,id=b,bus=pcie.0,bus_nr=33",
      /bus 32 is already in use/,
    ],
    [
      `-m 4G ${backend("a", "1G")} -numa node,memdev=a`,
      `-m 1G ${backend("a", "1G")} -numa node,memdev=a -numa node`,
      /memory of the nodes is 1073741824 bytes/,
    ],
    ["-numa node,memdev=nix", "-numa node", /no memory backend "nix"/],
    ["-M q35,memory-backend=nix", "-M q35", /no memory backend "nix"/],
    ["-M q35 -smp 5000", "-M q35 -smp 4096", /takes 4096/],
    ["-M pc -smp 256", "-M pc -smp 255", /takes 255/],
    ["-smp 8,maxcpus=4", "-smp 4,maxcpus=8", /8 CPUs of at most 4/],
    ["-smp 4,sockets=1,cores=2,threads=1", "-smp 4,sockets=2,cores=2,threads=1", /make 2 CPUs/],
    ["-m -5", "-m 5", /no size/],
    [
      "-M q35 -device vfio-pci,host=3:0.0 -device vfio-pci,host=0000:03:00.0",
      "-M q35 -device vfio-pci,host=3:0.0 -device vfio-pci,host=0000:03:00.1",
      /already attached/,
    ],
  ])("%s is, and %s is not", (refused, taken, why) => {
    const of = (text: string) =>
      vmOf(`qemu-system-x86_64 -nodefaults ${text}`).ignored.filter((one) => one.isRefused);
    expect(of(refused)).toHaveLength(1);
    expect(of(refused)[0]!.why).toMatch(why);
    expect(of(taken)).toEqual([]);
  });

  it("makes no IOMMU of one that is refused", () => {
    expect(vmOf("qemu-system-x86_64 -M pc -device intel-iommu").viommu).toBeNull();
  });
});
