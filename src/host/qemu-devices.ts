/**
 * What each device model of QEMU is on the PCI bus.
 *
 * Ids and classes are those that `info pci` of QEMU 11.1 prints. A model that is missing here is
 * kept with unknown ids; its place on the bus follows the same rules.
 */

/** How a model sits on the bus. */
export type BusRole =
  | "endpoint"
  /** An endpoint that always has a PCI Express capability. */
  | "express-endpoint"
  /** PCI Express where its bus is, and conventional on a root bus (virtio). */
  | "virtio"
  | "root-port"
  | "upstream"
  | "downstream"
  | "pcie-to-pci-bridge"
  | "bridge"
  /** An expander: a root bus of its own. */
  | "expander";

/** One model. */
export interface DeviceModel {
  readonly role: BusRole;
  readonly vendor: number;
  readonly device: number;
  readonly classCode: number;
}

const REDHAT = 0x1b36;
const VIRTIO = 0x1af4;
const INTEL = 0x8086;

type Row = readonly [BusRole, vendor: number, device: number, classCode: number];

const rows: Readonly<Record<string, Row>> = {
  "pcie-root-port": ["root-port", REDHAT, 0x000c, 0x060400],
  ioh3420: ["root-port", INTEL, 0x3420, 0x060400],
  "cxl-rp": ["root-port", INTEL, 0x7075, 0x060400],
  "x3130-upstream": ["upstream", 0x104c, 0x8232, 0x060400],
  "xio3130-downstream": ["downstream", 0x104c, 0x8233, 0x060400],
  "pcie-pci-bridge": ["pcie-to-pci-bridge", REDHAT, 0x000e, 0x060400],
  "pci-bridge": ["bridge", REDHAT, 0x0001, 0x060400],
  "i82801b11-bridge": ["bridge", INTEL, 0x244e, 0x060401],
  "pxb-pcie": ["expander", REDHAT, 0x000b, 0x060000],
  "pxb-cxl": ["expander", REDHAT, 0x000b, 0x060000],
  pxb: ["expander", REDHAT, 0x0009, 0x060000],
  nvme: ["express-endpoint", REDHAT, 0x0010, 0x010802],
  e1000e: ["express-endpoint", INTEL, 0x10d3, 0x020000],
  igb: ["express-endpoint", INTEL, 0x10c9, 0x020000],
  "qemu-xhci": ["express-endpoint", REDHAT, 0x000d, 0x0c0330],
  "nec-usb-xhci": ["express-endpoint", 0x1033, 0x0194, 0x0c0330],
  e1000: ["endpoint", INTEL, 0x100e, 0x020000],
  rtl8139: ["endpoint", 0x10ec, 0x8139, 0x020000],
  vmxnet3: ["express-endpoint", 0x15ad, 0x07b0, 0x020000],
  edu: ["endpoint", 0x1234, 0x11e8, 0x00ff00],
  VGA: ["endpoint", 0x1234, 0x1111, 0x030000],
  "bochs-display": ["express-endpoint", 0x1234, 0x1111, 0x038000],
  "qxl-vga": ["endpoint", REDHAT, 0x0100, 0x030000],
  qxl: ["endpoint", REDHAT, 0x0100, 0x038000],
  "cirrus-vga": ["endpoint", 0x1013, 0x00b8, 0x030000],
  "ich9-intel-hda": ["endpoint", INTEL, 0x293e, 0x040300],
  "intel-hda": ["endpoint", INTEL, 0x2668, 0x040300],
  "ich9-ahci": ["endpoint", INTEL, 0x2922, 0x010601],
  ahci: ["endpoint", INTEL, 0x2922, 0x010601],
  megasas: ["endpoint", 0x1000, 0x0060, 0x010400],
  "ivshmem-plain": ["endpoint", VIRTIO, 0x1110, 0x050000],
  "ivshmem-doorbell": ["endpoint", VIRTIO, 0x1110, 0x050000],
  "pvpanic-pci": ["endpoint", REDHAT, 0x0011, 0x080000],
  "pci-testdev": ["endpoint", REDHAT, 0x0005, 0x00ff00],
  "pci-serial": ["endpoint", REDHAT, 0x0002, 0x070002],
  i6300esb: ["endpoint", INTEL, 0x25ab, 0x088000],
  "usb-ehci": ["endpoint", INTEL, 0x24cd, 0x0c0320],
  "ich9-usb-ehci1": ["endpoint", INTEL, 0x293a, 0x0c0320],
  "ich9-usb-uhci1": ["endpoint", INTEL, 0x2934, 0x0c0300],
  "ich9-usb-uhci2": ["endpoint", INTEL, 0x2935, 0x0c0300],
  "ich9-usb-uhci3": ["endpoint", INTEL, 0x2936, 0x0c0300],
  "piix3-usb-uhci": ["endpoint", INTEL, 0x7020, 0x0c0300],
  mptsas1068: ["endpoint", 0x1000, 0x0054, 0x010000],
  lsi53c895a: ["endpoint", 0x1000, 0x0012, 0x010000],
  am53c974: ["endpoint", 0x1022, 0x2020, 0x010000],
  pcnet: ["endpoint", 0x1022, 0x2000, 0x020000],
  ne2k_pci: ["endpoint", 0x10ec, 0x8029, 0x020000],
  tulip: ["endpoint", 0x1011, 0x0019, 0x020000],
  rocker: ["endpoint", REDHAT, 0x0006, 0x028000],
  "sdhci-pci": ["endpoint", REDHAT, 0x0007, 0x080501],
};

/** virtio models: transitional id where there is one, id of the modern device, class. */
const virtioRows: Readonly<
  Record<string, readonly [transitional: number | null, modern: number, classCode: number]>
> = {
  net: [0x1000, 0x1041, 0x020000],
  blk: [0x1001, 0x1042, 0x010000],
  balloon: [0x1002, 0x1045, 0x00ff00],
  serial: [0x1003, 0x1043, 0x078000],
  scsi: [0x1004, 0x1048, 0x010000],
  rng: [0x1005, 0x1044, 0x00ff00],
  "9p": [0x1009, 0x1049, 0x000200],
  gpu: [null, 0x1050, 0x038000],
  "gpu-gl": [null, 0x1050, 0x038000],
  vga: [null, 0x1050, 0x030000],
  keyboard: [null, 0x1052, 0x090000],
  mouse: [null, 0x1052, 0x090200],
  tablet: [null, 0x1052, 0x098000],
  "input-host": [null, 0x1052, 0x090000],
  vsock: [null, 0x1053, 0x078000],
  crypto: [null, 0x1054, 0x00ff00],
  iommu: [null, 0x1057, 0x00ff00],
  mem: [null, 0x1058, 0x00ff00],
  sound: [null, 0x1059, 0x040100],
  fs: [null, 0x105a, 0x018000],
  pmem: [null, 0x105b, 0x00ff00],
};

/** Aliases that QEMU knows, and vhost forms of one and the same device. */
const aliases = new Map([
  ["virtio-net", "virtio-net-pci"],
  ["virtio-blk", "virtio-blk-pci"],
  ["virtio-scsi", "virtio-scsi-pci"],
  ["virtio-balloon", "virtio-balloon-pci"],
  ["virtio-serial", "virtio-serial-pci"],
  ["virtio-rng", "virtio-rng-pci"],
  ["virtio-gpu", "virtio-gpu-pci"],
  ["virtio-iommu", "virtio-iommu-pci"],
  ["virtio-mem", "virtio-mem-pci"],
  ["virtio-9p", "virtio-9p-pci"],
  ["virtio-vga", "virtio-vga-pci"],
  ["virtio-vga-gl", "virtio-vga-pci"],
]);

/** The name without alias. */
export function canonicalDriver(driver: string): string {
  return aliases.get(driver) ?? driver;
}

/** What is behind `virtio-net-pci`, `vhost-user-blk-pci`, `virtio-net-pci-non-transitional`. */
const virtioName =
  /^(?:virtio|vhost-user|vhost|vhost-vdpa)-([\w-]+?)-pci(-transitional|-non-transitional)?$/;

/** A virtio device's kind: `net`; null for what is no virtio device. */
export function virtioKind(driver: string): string | null {
  return virtioName.exec(canonicalDriver(driver))?.[1] ?? null;
}

/** A virtio device without the old interface, by its name; null where its properties decide. */
export function isModernByName(driver: string): boolean | null {
  const suffix = virtioName.exec(canonicalDriver(driver))?.[2];
  if (suffix === undefined) return virtioRow(driver)?.[0] === null ? true : null;
  return suffix === "-non-transitional";
}

function virtioRow(driver: string) {
  const kind = virtioKind(driver);
  return kind === null ? undefined : virtioRows[kind];
}

/**
 * The model of a driver; null for one that is not in the table.
 *
 * @param isModern - whether a virtio device has the id of a modern one
 */
export function modelOf(driver: string, isModern: boolean): DeviceModel | null {
  const name = canonicalDriver(driver);
  const row = Object.hasOwn(rows, name) ? rows[name] : undefined;
  if (row !== undefined) {
    const [role, vendor, device, classCode] = row;
    return { role, vendor, device, classCode };
  }
  if (name.startsWith("vfio-pci") || name === "vfio-user-pci") {
    return { role: "express-endpoint", vendor: 0xffff, device: 0xffff, classCode: 0 };
  }
  const virtio = virtioRow(driver);
  if (virtioKind(driver) === null) return null;
  const [transitional, modern, classCode] = virtio ?? [null, 0, 0];
  const device = transitional === null || isModern ? modern : transitional;
  return { role: "virtio", vendor: VIRTIO, device, classCode };
}

/** Devices of `-device` that are on no PCI bus: kept apart without a word. */
const elsewhere =
  /^(usb-(?!ehci)|scsi-|ide-|sd-card|isa-|virtserialport|virtconsole|virtio-.*-device$|hda-|tpm-|pc-dimm|nvdimm|nvme-ns|nvme-subsys|loader|vmgenid|vmcoreinfo|pvpanic$|i2c|smbus-|ccid-|cxl-type3|ramfb|generic-|guest-|intel-iommu$|amd-iommu$|arm-smmuv3$|kvm-|vmclock|max-|.*-cpu$|pc-testdev|acpi-|sysbus-|vfio-(ap|ccw|platform|amd-xgbe))/;

/** Whether a model is known not to be a PCI function. */
export function isNoPci(driver: string): boolean {
  return elsewhere.test(driver);
}
