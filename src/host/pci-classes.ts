/**
 * Names of PCI classes. Source: PCI Code and ID Assignment specification 1.15, chapter 1; a name
 * of an interface stands where people know the device by it.
 */

const base = new Map<number, string>([
  [0x00, "unclassified device"],
  [0x01, "mass storage controller"],
  [0x02, "network controller"],
  [0x03, "display controller"],
  [0x04, "multimedia device"],
  [0x05, "memory controller"],
  [0x06, "bridge"],
  [0x07, "communication controller"],
  [0x08, "system peripheral"],
  [0x09, "input device"],
  [0x0a, "docking station"],
  [0x0b, "processor"],
  [0x0c, "serial bus controller"],
  [0x0d, "wireless controller"],
  [0x0e, "intelligent controller"],
  [0x0f, "satellite controller"],
  [0x10, "encryption controller"],
  [0x11, "signal processing controller"],
  [0x12, "processing accelerator"],
  [0x13, "instrumentation"],
  [0x40, "co-processor"],
  [0xff, "unassigned class"],
]);

const sub = new Map<number, string>([
  [0x0001, "VGA compatible device"],
  [0x0100, "SCSI controller"],
  [0x0101, "IDE controller"],
  [0x0104, "RAID controller"],
  [0x0106, "SATA controller"],
  [0x0107, "SAS controller"],
  [0x0108, "non-volatile memory controller"],
  [0x0180, "storage controller"],
  [0x0200, "Ethernet controller"],
  [0x0207, "InfiniBand controller"],
  [0x0208, "fabric controller"],
  [0x0280, "network controller"],
  [0x0300, "VGA controller"],
  [0x0302, "3D controller"],
  [0x0380, "display controller"],
  [0x0400, "video device"],
  [0x0401, "audio device"],
  [0x0403, "HD audio"],
  [0x0500, "RAM controller"],
  [0x0502, "CXL memory"],
  [0x0580, "memory controller"],
  [0x0600, "host bridge"],
  [0x0601, "ISA bridge"],
  [0x0604, "PCI bridge"],
  [0x0607, "CardBus bridge"],
  [0x0609, "semi-transparent bridge"],
  [0x0680, "bridge"],
  [0x0700, "serial port"],
  [0x0780, "communication controller"],
  [0x0800, "interrupt controller"],
  [0x0801, "DMA controller"],
  [0x0805, "SD host controller"],
  [0x0806, "IOMMU"],
  [0x0807, "root complex event collector"],
  [0x0880, "system peripheral"],
  [0x0b40, "co-processor"],
  [0x0c00, "FireWire controller"],
  [0x0c03, "USB controller"],
  [0x0c04, "Fibre Channel controller"],
  [0x0c05, "SMBus controller"],
  [0x0c06, "InfiniBand controller"],
  [0x0d80, "wireless controller"],
  [0x1000, "network encryption controller"],
  [0x1080, "encryption controller"],
  [0x1101, "performance counters"],
  [0x1180, "signal processing controller"],
  [0x1200, "processing accelerator"],
]);

const interfaces = new Map<number, string>([
  [0x010601, "SATA controller (AHCI)"],
  [0x010802, "NVMe controller"],
  [0x0c0300, "USB controller (UHCI)"],
  [0x0c0310, "USB controller (OHCI)"],
  [0x0c0320, "USB controller (EHCI)"],
  [0x0c0330, "USB controller (xHCI)"],
]);

/**
 * The name of a class.
 *
 * @param classCode - class, subclass and interface: 24 bits
 * @example
 * className(0x010802); // "NVMe controller"
 */
export function className(classCode: number): string {
  return (
    interfaces.get(classCode) ??
    sub.get(classCode >> 8) ??
    base.get(classCode >> 16) ??
    "unknown device"
  );
}
