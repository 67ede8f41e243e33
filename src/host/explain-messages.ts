/**
 * Messages of Linux and QEMU about IOMMUs and VFIO: what they say, why, and what to do.
 *
 * Source: Linux 7.2 drivers/iommu/intel/dmar.c, amd/iommu.c, arm/arm-smmu-v3, virtio-iommu.c,
 * drivers/vfio, drivers/acpi/viot.c, drivers/iommu/dma-iommu.c; QEMU 11.1 hw/vfio, hw/virtio,
 * hw/pci. A pattern holds no more of a message than what stays the same between versions.
 */

import { ridText } from "../topology/pci-address.ts";
import { dmarReasons } from "./explain-reasons.ts";

/** One message, or a family of them. */
export interface KnownMessage {
  readonly code: string;
  readonly pattern: RegExp;
  /** What it looks like. */
  readonly example: string;
  readonly cause: string;
  readonly remedy: string;
  /** Reads what the message carries: one line for each fact. */
  readonly decode?: (match: RegExpExecArray) => string[];
}

/** SMMUv3 event numbers (IHI 0070, 7.3). */
const smmuEvents = new Map<number, string>([
  [0x02, "C_BAD_STREAMID: no stream-table entry for this device"],
  [0x04, "C_BAD_STE: the stream-table entry is invalid"],
  [0x0a, "C_BAD_CD: the context descriptor is invalid"],
  [0x0b, "F_WALK_EABT: a page table could not be read"],
  [0x10, "F_TRANSLATION: nothing is mapped at the address"],
  [0x11, "F_ADDR_SIZE: an address is wider than the unit's"],
  [0x12, "F_ACCESS: the access flag is not set"],
  [0x13, "F_PERMISSION: the mapping does not allow this access"],
  [0x20, "F_TLB_CONFLICT: two entries for one address"],
]);

const viommuReasons = new Map([
  ["domain", "the device is attached to no domain"],
  ["page", "nothing is mapped at the address"],
  ["unknown", "the IOMMU does not say why"],
]);

/** The register of messages; the first that fits is taken. */
export const knownMessages: readonly KnownMessage[] = [
  {
    code: "dmar-fault",
    pattern:
      /\[?(DMA|INTR-REMAP)\b:? ?(Read|Write)?.*?device \[?([\da-f:.]+)\]?.*?fault reason (?:0x)?([\da-f]+)/i,
    example:
      "DMAR: [DMA Read NO_PASID] Request device [81:00.0] fault addr 0xfffd0000 [fault reason 0x06] PTE Read access is not set",
    cause: "VT-d refused what a device did: an address that is not mapped for it, or no longer is.",
    remedy:
      "Once at boot: firmware left the device running. Steadily: the driver maps too little or frees too early; iommu.strict=1 moves the fault next to the unmapping.",
    decode: ([text, what, access, device, reason]) => {
      const address = /fault addr (?:0x)?([\da-f]+)/i.exec(text)?.[1];
      // Kernels before 5.14 print the reason in decimal with two digits.
      const isHex = /fault reason 0x/i.test(text);
      const number = Number.parseInt(reason!, isHex ? 16 : 10);
      return [
        `device ${device}${access === undefined ? "" : `, ${access.toLowerCase()}`}`,
        ...(address === undefined ? [] : [`address 0x${address}`]),
        `reason 0x${number.toString(16)} (${what}): ${dmarReasons.get(number) ?? "not among the known ones"}`,
      ];
    },
  },
  {
    code: "amd-page-fault",
    pattern:
      /IO_PAGE_FAULT(?: device=([\da-f:.]+))?[^\]]*?\bdomain=(0x[\da-f]+).*?address=(0x[\da-f]+).*?flags=(0x[\da-f]+)/i,
    example:
      "nvme 0000:03:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000e address=0xfffd0000 flags=0x0020]",
    cause:
      "AMD-Vi refused an access: the address is not mapped for the device, or not for writing.",
    remedy:
      "As for VT-d: the driver's mapping is missing or gone; iommu.strict=1 finds late accesses.",
    decode: ({ input, 1: own, 2: domain, 3: address, 4: flags }) => {
      // Newer kernels name the device in front of the message.
      const device = own ?? /([\da-f]{4,8}:[\da-f]{2}:[\da-f]{2}\.[0-7]): AMD-Vi/i.exec(input)?.[1];
      const bits = Number.parseInt(flags!, 16);
      const access = bits & 0x20 ? "write" : "read";
      const why =
        bits & 0x10 ? "the page is mapped, the access not allowed" : "the page is not mapped";
      return [
        ...(device === undefined ? [] : [`device ${device}`]),
        `domain ${domain}, address ${address}`,
        `flags ${flags}: ${access}; ${why}`,
      ];
    },
  },
  {
    code: "amd-event",
    pattern: /AMD-Vi: Event logged \[(\w+)/,
    example: "AMD-Vi: Event logged [ILLEGAL_DEV_TABLE_ENTRY device=03:00.0 address=0x0 flags=0x0]",
    cause: "The unit met a table, a command or a device that is not in order.",
    remedy:
      "ILLEGAL_DEV_TABLE_ENTRY: firmware's IVRS names the device wrongly; timeouts of COMMAND or IOTLB: the device is gone or hung.",
    decode: ([, event]) => [`event ${event}`],
  },
  {
    code: "smmuv3-event",
    pattern: /arm-smmu-v3 .*event:? (?:(0x[\da-f]+) received|(\w+)(?: client: (\S+))?.*)/i,
    example: "arm-smmu-v3 9050000.smmuv3: event 0x10 received:",
    cause: "The SMMU recorded an event for a stream: usually an address that is not mapped.",
    remedy:
      "The lines that follow hold the stream id (low half of the second word) and the address.",
    decode: ([text, number, named, client]) => {
      if (number === undefined) {
        const known = [...smmuEvents.values()].find((one) => one.startsWith(`${named}:`));
        const sid = /\bsid: ?(0x[\da-f]{1,8})/i.exec(text)?.[1];
        const iova = /\biova: ?(0x[\da-f]{1,16})/i.exec(text)?.[1];
        return [
          `event ${known ?? `${named}: not among the known ones`}`,
          ...(client === undefined ? [] : [`device ${client}`]),
          ...(sid === undefined ? [] : [`stream ${sid}`]),
          ...(iova === undefined ? [] : [`address ${iova}`]),
        ];
      }
      const name = smmuEvents.get(Number.parseInt(number, 16));
      return [`event ${number}: ${name ?? "not among the known ones"}`];
    },
  },
  {
    code: "virtio-iommu-fault",
    pattern:
      /(domain|page|unknown) fault from EP (\d+)(?: at (?:0x)?([\da-f]+))?(?: \[([RWX ]+)\])?/i,
    example: "virtio_iommu virtio0: page fault from EP 32 at 0xdead0000 [W]",
    cause: "virtio-iommu refused an access of an endpoint. On PCI its id is the requester id.",
    remedy: "The endpoint's driver uses an address that it has not mapped, or has unmapped.",
    decode: ([, reason, endpoint, address, access]) => {
      const id = Number(endpoint);
      const hex = (value: number) => value.toString(16).padStart(2, "0");
      const bdf = `${hex((id >> 8) & 0xff)}:${hex((id >> 3) & 31)}.${id & 7}`;
      return [
        `endpoint ${id}: ${bdf} where ids are requester ids`,
        ...(address === undefined ? [] : [`address 0x${address}, access ${access ?? "not said"}`]),
        viommuReasons.get(reason!.toLowerCase())!,
      ];
    },
  },
  {
    code: "map-dma-no-memory",
    pattern:
      /VFIO_(?:MAP_DMA|IOMMU_MAP_DMA).*Cannot allocate memory|vfio_dma_map.*Cannot allocate memory|RLIMIT_MEMLOCK \(\d+\) exceeded/i,
    example: "VFIO_MAP_DMA failed: Cannot allocate memory",
    cause:
      "The kernel would have to pin more memory than RLIMIT_MEMLOCK allows (ENOMEM). All of the guest's memory is pinned, once for each address space.",
    remedy:
      "Raise the limit: ulimit -l, LimitMEMLOCK=, <hard_limit>. `iommukit check --pid N` computes it.",
  },
  {
    code: "map-dma-no-space",
    pattern: /VFIO_(?:MAP_DMA|IOMMU_MAP_DMA).*No space left|vfio_dma_map.*(?:No space left|= -28)/i,
    example: "VFIO_MAP_DMA failed: No space left on device",
    cause: "The container holds dma_entry_limit mappings (65535) already (ENOSPC).",
    remedy: "iommu=pt in the guest, larger pages, vfio_iommu_type1.dma_entry_limit=, or iommufd.",
  },
  {
    code: "map-dma-bad-address",
    pattern:
      /VFIO_(?:MAP_DMA|IOMMU_MAP_DMA).*Bad address|vfio_(?:container_)?dma_map.*(?:Bad address|= -14)/i,
    example: "vfio_dma_map(0x5581, 0xe0000000, 0x1000000, 0x7f00) = -14 (Bad address)",
    cause:
      "The kernel could not pin what lies there (EFAULT): memory of a device through iommufd or while its BAR is off, a file's pages that may not be pinned for long, or a hole.",
    remedy:
      "For BARs of other devices the guest still runs, without DMA from device to device; type1, or iommufd with dma-bufs, can map them.",
  },
  {
    code: "map-dma-invalid",
    pattern:
      /VFIO_(?:MAP_DMA|IOMMU_MAP_DMA).*Invalid argument|vfio_(?:container_)?dma_map.*(?:Invalid argument|= -22)/i,
    example: "vfio_dma_map(0x5581, 0xfd00000000, 0x40000000, 0x7f00) = -22 (Invalid argument)",
    cause:
      "The range touches a reserved region of a group, goes beyond the IOMMU's width, or is not aligned to its pages (EINVAL).",
    remedy:
      "Compare with /sys/kernel/iommu_groups/*/reserved_regions; on AMD with the hole below 1 TiB.",
  },
  {
    code: "map-dma-exists",
    pattern:
      /VFIO_(?:MAP_DMA|IOMMU_MAP_DMA).*File exists|vfio_(?:container_)?dma_map.*(?:File exists|= -17)/i,
    example: "VFIO_MAP_DMA failed: File exists",
    cause: "A part of the range is mapped already (EEXIST): ranges of memory of the guest overlap.",
    remedy:
      "With an IOMMU in the guest, its driver mapped twice; without, two BARs of the guest overlap.",
  },
  {
    code: "group-not-viable",
    pattern: /group \d* ?is not viable|not viable/i,
    example: "vfio 0000:03:00.0: group 14 is not viable",
    cause: "Another device of the group is still bound to a driver of the host.",
    remedy: "Bind all devices of the group to vfio-pci. `iommukit check --device BDF` names them.",
  },
  {
    code: "vfio-group-missing",
    pattern:
      /failed to open \/dev\/vfio\/(\d+|\S+)|Could not open '\/dev\/vfio\/\S+'|no iommu_group found/i,
    example: "failed to open /dev/vfio/14: No such file or directory",
    cause:
      "The group's file is not there before a device of it is bound to vfio-pci; or it belongs to root; or another process has it open (EBUSY).",
    remedy:
      "driverctl set-override BDF vfio-pci; give the file to the user; `fuser /dev/vfio/N` shows who has it.",
  },
  {
    code: "no-isolated-msi",
    pattern:
      /No (?:interrupt remapping|isolated MSI)|allow_unsafe_interrupts|Failed to set iommu for container: Operation not permitted/i,
    example:
      'vfio_iommu_type1_attach_group: No interrupt remapping support. Use the module param "allow_unsafe_interrupts" to enable VFIO IOMMU support on this platform',
    cause:
      "Interrupts of devices cannot be told apart: a guest could raise interrupts of the host (EPERM).",
    remedy:
      "Switch interrupt remapping on in firmware setup; in a VM intremap=on and kernel-irqchip=split. allow_unsafe_interrupts=1 gives the protection up.",
  },
  {
    code: "vfio-no-container",
    pattern: /No available IOMMU models|failed to setup container|\/dev\/iommu does not exist/i,
    example: "vfio 0000:03:00.0: failed to setup container for group 14: No available IOMMU models",
    cause: "No back end takes the container: vfio_iommu_type1 or iommufd is not loaded.",
    remedy: "modprobe vfio_iommu_type1 (or iommufd).",
  },
  {
    code: "bar-conflict",
    pattern: /BAR \d+.{0,60}?can'?t reserve|can't reserve \[(?:mem|io)/i,
    example: "vfio-pci 0000:03:00.0: BAR 1: can't reserve [mem 0xd0000000-0xdfffffff 64bit pref]",
    cause:
      "Something else holds the BAR's range: the framebuffer that firmware set up, or another driver.",
    remedy:
      "video=efifb:off or initcall_blacklist=sysfb_init; `grep -i d0000000 /proc/iomem` names the holder.",
  },
  {
    code: "device-config-invalid",
    pattern: /hardware reports invalid configuration/i,
    example:
      "vfio-pci 0000:03:00.0: vfio_pci_config: hardware reports invalid configuration, MSIX PBA outside of specified BAR",
    cause:
      "QEMU found the MSI-X table or its bits outside of the BAR that the device names for them.",
    remedy:
      "Usually the device does not answer (all ones) after a reset; else x-msix-relocation= or a quirk.",
  },
  {
    code: "device-stuck",
    pattern:
      /Unable to change power state from D3(?:cold|hot)|Unknown PCI header type|not ready \d+ms after (?:FLR|bus reset)/i,
    example:
      "vfio-pci 0000:03:00.0: Unable to change power state from D3cold to D0, device inaccessible",
    cause: "The device does not come back: its configuration space reads all ones.",
    remedy:
      "A reset that the device supports (reset_method in sysfs), or disable_idle_d3=1 for vfio-pci; otherwise power it off.",
  },
  {
    code: "rmrr-refused",
    pattern:
      /Device is ineligible for IOMMU domain attach|requires? RMRR|IOMMU direct mapping|1:1 (?:IOMMU )?mapping/i,
    example: "DMAR: Device is ineligible for IOMMU domain attach due to platform RMRR requirement.",
    cause:
      "Firmware wants memory mapped for the device at all times (RMRR, unity map, IORT RMR); Linux does not hand it to a user. Since 6.6 the message speaks of a 1:1 IOMMU mapping.",
    remedy: "Switch the firmware's feature off (remote console, storage options), or update it.",
  },
  {
    code: "dmar-fault-status",
    pattern: /DRHD: handling fault status reg ([\da-f]+)/i,
    example: "DMAR: DRHD: handling fault status reg 2",
    cause:
      "VT-d interrupted to report faults. The line says only what is in its fault status register.",
    remedy:
      "The lines that follow name device, address and reason; explain these. Bit 0 alone: more faults came than are recorded.",
    decode: ([, text]) => {
      const bits = Number.parseInt(text!, 16);
      const names = ["faults were lost", "a fault is recorded", "", "", "the queue has an error"];
      names.push("an invalidation's completion is wrong", "an invalidation timed out");
      const set = names.filter((name, bit) => name !== "" && (bits >> bit) & 1);
      return [`status 0x${bits.toString(16)}: ${set.join(", ") || "no bit that is known"}`];
    },
  },
  {
    code: "dmar-invalidation-timeout",
    pattern: /(ITE timeout|Invalidation Time-?out Error)(?:: SID ([\da-f]{1,4})\b)?/i,
    example: "DMAR: VT-d detected Invalidation Time-out Error: SID 8100",
    cause:
      "A device did not answer an invalidation of its translations (ATS): it is gone, hung or in reset. The queue stands until the error is cleared.",
    remedy:
      "SID is the requester id. Look for the device's own errors (AER, link down); pci=noats keeps the kernel from enabling ATS.",
    decode: ([, , source]) => {
      if (source === undefined) return [];
      const id = Number.parseInt(source, 16);
      return [`device ${ridText(id)}, requester id 0x${source}`];
    },
  },
  {
    code: "amd-completion-timeout",
    pattern: /Completion-Wait loop timed out/i,
    example: "AMD-Vi: Completion-Wait loop timed out",
    cause:
      "The unit did not finish its commands in time: a device does not answer an invalidation (ATS), or the unit itself hangs.",
    remedy:
      "Look for the device that went away just before (AER, reset of a GPU); pci=noats; a newer firmware. Without progress only a reboot helps.",
  },
  {
    code: "smmu-context-fault",
    pattern:
      /Unhandled context fault: fsr=(0x[\da-f]+), iova=(0x[\da-f]+)(?:, fsynr=(0x[\da-f]+))?/i,
    example:
      "arm-smmu 5000000.iommu: Unhandled context fault: fsr=0x402, iova=0xfffd0000, fsynr=0x11, cbfrsynra=0x800, cb=3",
    cause: "An SMMUv1 or v2 refused an access, and no driver handled the fault.",
    remedy: "As for others: the driver's mapping is missing or gone; cbfrsynra is the stream id.",
    decode: ({ input, 1: status, 2: address, 3: syndrome }) => {
      const bits = Number.parseInt(status!, 16);
      const why =
        bits & 2 ? "nothing is mapped" : bits & 8 ? "not permitted" : bits & 4 ? "access flag" : "";
      const stream = /cbfrsynra=(0x[\da-f]+)/i.exec(input)?.[1];
      const access = Number.parseInt(syndrome ?? "", 16) & 0x10 ? "write" : "read";
      return [
        `address ${address}${syndrome === undefined ? "" : `, ${access}`}`,
        `status ${status}${why === "" ? "" : `: ${why}`}`,
        ...(stream === undefined ? [] : [`stream ${stream}`]),
      ];
    },
  },
  {
    code: "viot-no-iommu",
    pattern: /VIOT: (?:Could not find (?:PCI|MMIO) IOMMU|No IOMMU node found)/,
    example: "ACPI: VIOT: Could not find PCI IOMMU",
    cause: "The table names an IOMMU at an address where nothing is: its devices run untranslated.",
    remedy: "Compare the address with lspci; `iommukit tables check VIOT` shows the node.",
  },
  {
    code: "iommu-deferred",
    pattern: /deferred probe timeout, ignoring dependency/,
    example: "nvme 0000:00:05.0: deferred probe timeout, ignoring dependency",
    cause:
      "The driver of the IOMMU that a table names did not come in time: the device runs untranslated.",
    remedy: "Put virtio_iommu into the initial ramdisk, or raise deferred_probe_timeout=.",
  },
  {
    code: "viommu-caching-mode",
    pattern: /caching-mode=on|caching mode.*(?:required|enabled)/i,
    example:
      "qemu-system-x86_64: Device assignment is not allowed without enabling caching-mode=on for Intel IOMMU.",
    cause: "Without caching mode the guest does not say when it maps, and the host cannot follow.",
    remedy: "-device intel-iommu,caching-mode=on.",
  },
  {
    code: "strict-forced",
    pattern: /(?:IOMMU )?batching (?:is )?disallowed due to virtualization/i,
    example: "DMAR: IOMMU batching disallowed due to virtualization",
    cause: "The IOMMU reports caching mode: the kernel invalidates strictly.",
    remedy: "Nothing is wrong; see strict-by-caching-mode.",
  },
  {
    code: "map-into-domain",
    pattern: /Failed to set up IOMMU for device|Failed to set up IOMMU/i,
    example:
      "nvme 0000:03:00.0: Failed to set up IOMMU for device 0000:03:00.0; retaining platform DMA ops",
    cause: "The device has an IOMMU and the DMA API could not use it; it goes on without.",
    remedy:
      "Look at the lines before: widths or reserved regions of the devices in its group differ.",
  },
  {
    code: "pxb-needs-bridge",
    pattern: /Only PCI\/PCIe bridges can be plugged into pxb/i,
    example: "qemu-system-x86_64: -device nvme: Only PCI/PCIe bridges can be plugged into pxb-pcie",
    cause: "A device without bus= lands on the expander that was created last.",
    remedy: "Give every device a bus=; behind pxb-pcie put a pcie-root-port.",
  },
  {
    code: "viommu-not-on-root",
    pattern: /virtio-iommu-pci must be plugged on the root bus|does not support multiple vIOMMUs/i,
    example: "virtio-iommu-pci must be plugged on the root bus",
    cause: "QEMU describes one virtio-iommu, on bus pcie.0.",
    remedy: "-device virtio-iommu-pci,bus=pcie.0,addr=…",
  },
];
