/**
 * IOMMUs out of sysfs: kind by name, registers by attribute, and the devices behind each.
 *
 * Source: Linux drivers/iommu/iommu-sysfs.c; intel/iommu.c and amd/init.c (attributes);
 * names: intel/dmar.c `dmar%d`, amd/init.c `ivhd%d`, arm-smmu-v3.c `smmu3.%pa`, arm-smmu.c
 * `smmu.%pa`, virtio-iommu.c: the bus name of the virtio device's parent.
 */
import type { AddressRange, Iommu, IommuCommon } from "../topology/machine.ts";
import { parseBdf, ridOfAddress } from "../topology/pci-address.ts";
import { nodeOf } from "./sysfs-pci.ts";
import { directoryOf, follow, type HostTree } from "./tree.ts";

const CLASS = "/sys/class/iommu";
const PAGE = 4096n;
const SMMUV3_BYTES = 0x2_0000n;
const SMMUV2_BYTES = 0x1_0000n;
const VIRTIO_MMIO_BYTES = 0x200n;
const AMD_BYTES = 0x8_0000n;

/** The IOMMUs and, for each, the names of the devices that the kernel put behind it. */
export interface IommuReading {
  readonly iommus: Iommu[];
  readonly devices: ReadonlyMap<string, readonly string[]>;
}

/** Reads all IOMMUs that have a driver; what each translates by firmware's word comes later. */
export function readIommus(tree: HostTree): IommuReading {
  const iommus: Iommu[] = [];
  const devices = new Map<string, readonly string[]>();
  for (const name of tree.list(CLASS) ?? []) {
    const directory = follow(tree, `${CLASS}/${name}`);
    devices.set(name, tree.list(`${directory}/devices`) ?? []);
    iommus.push(iommuOf(tree, name, directory));
  }
  const order = new Intl.Collator("en", { numeric: true });
  return { iommus: iommus.sort((a, b) => order.compare(a.name, b.name)), devices };
}

function iommuOf(tree: HostTree, name: string, directory: string): Iommu {
  // `…/0000:00:04.0/iommu/0000:00:04.0`: the device that it is stands two levels up.
  const parent = directoryOf(directoryOf(directory));
  const common: IommuCommon = {
    name,
    node: nodeOf(tree, parent) ?? nodeOf(tree, follow(tree, `/sys/bus/pci/devices/${name}`)),
    includesRest: false,
    translates: [],
    endpoints: [],
    interruptSources: [],
  };
  const number = (file: string) => hexNumber(tree.text(`${directory}/${file}`));
  if (/^dmar\d+$/.test(name)) {
    const base = number("intel-iommu/address");
    return {
      ...common,
      kind: "vtd",
      segment: 0,
      registers: rangeOf(base ?? 0n, PAGE),
      version: tree.text(`${directory}/intel-iommu/version`),
      capability: number("intel-iommu/cap"),
      extendedCapability: number("intel-iommu/ecap"),
    };
  }
  if (/^ivhd\d+$/.test(name)) return amdOf(tree, directory, parent, common);
  const smmu = /^smmu(3?)\.(0x[0-9a-f]{1,16})$/.exec(name);
  if (smmu !== null) {
    const bytes = smmu[1] === "3" ? SMMUV3_BYTES : SMMUV2_BYTES;
    const kind = smmu[1] === "3" ? "smmuv3" : "smmuv2";
    const registers = rangeOf(BigInt(smmu[2]!), bytes);
    return { ...common, kind, registers, isCoherent: false, interrupts: [] };
  }
  const pci = parseBdf(name);
  if (pci !== null) {
    return { ...common, kind: "virtio-pci", segment: pci.segment, rid: ridOfAddress(pci) };
  }
  const mmio = /^([0-9a-f]{1,16})\.virtio_mmio$/.exec(name);
  if (mmio !== null) {
    const registers = rangeOf(BigInt(`0x${mmio[1]}`), VIRTIO_MMIO_BYTES);
    return { ...common, kind: "virtio-mmio", registers, interrupts: [] };
  }
  // On ACPI the parent is called by its hardware id.
  if (/^LNRO0005:/.test(name)) {
    return {
      ...common,
      kind: "virtio-mmio",
      registers: rangeOf(0n, VIRTIO_MMIO_BYTES),
      interrupts: [],
    };
  }
  return { ...common, kind: "other" };
}

function amdOf(tree: HostTree, directory: string, parent: string, common: IommuCommon): Iommu {
  const pci = parseBdf(parent.slice(parent.lastIndexOf("/") + 1));
  const features = /^([0-9a-f]{1,16}):([0-9a-f]{1,16})$/.exec(
    tree.text(`${directory}/amd-iommu/features`) ?? "",
  );
  return {
    ...common,
    kind: "amd",
    segment: pci?.segment ?? 0,
    rid: pci === null ? 0 : ridOfAddress(pci),
    capabilityOffset: 0,
    registers: rangeOf(0n, AMD_BYTES),
    // The kernel prints the second register first.
    features2: features === null ? null : BigInt(`0x${features[1]}`),
    features: features === null ? null : BigInt(`0x${features[2]}`),
  };
}

function rangeOf(start: bigint, bytes: bigint): AddressRange {
  return { start, last: start + bytes - 1n };
}

function hexNumber(text: string | null): bigint | null {
  return text !== null && /^[0-9a-f]{1,16}$/i.test(text) ? BigInt(`0x${text}`) : null;
}
