/** What `check` can find: about devices that are to be handed to a virtual machine, and about one. */
import type { FindingKind } from "./finding-kind.ts";

/** The part of the register that is about virtual machines. */
export const checkKinds = {
  "group-not-viable": {
    severity: "error",
    title: "the group is not viable",
    cause:
      "VFIO takes a group as a whole, since its devices can reach each other. A device of it is " +
      "still used by a driver of the kernel, so that opening the group fails.",
    remedy:
      "Bind every device of the group to vfio-pci (or to no driver); or use a slot where the " +
      "device is alone in its group.",
  },
  "device-bound": {
    severity: "warning",
    title: "the device is still bound to a driver of the host",
    cause: "A device is handed through by vfio-pci; another driver has it now.",
    remedy: "driverctl set-override BDF vfio-pci, or managed='yes' in libvirt.",
  },
  "device-is-bridge": {
    severity: "error",
    title: "a bridge cannot be handed through",
    cause:
      "vfio-pci takes functions with an ordinary header only: ports and bridges stay the host's.",
    remedy: "Name the devices behind it: `iommukit inspect` shows them.",
  },
  "device-missing": {
    severity: "error",
    title: "the host has no such device",
    cause: "The address that the configuration names is none of the host's PCI functions.",
    remedy: "Look for it with `iommukit inspect`; addresses change with cards and firmware setup.",
  },
  "no-acs": {
    severity: "warning",
    title: "a port on the way to the device does not isolate",
    cause:
      "Without ACS (source validation, request and completion redirect, upstream forwarding) a " +
      "port may send DMA of one device straight to another, past the IOMMU. Linux puts all that is " +
      "below such a port into one group.",
    remedy: "Use another slot; pci=config_acs= where the port has ACS and it is off.",
  },
  "node-mismatch": {
    severity: "warning",
    title: "the guest's node is not the device's node on the host",
    cause:
      "The guest allocates buffers for the device on the node that it believes the device to be " +
      "on. That node's memory comes from another node of the host than the device's, so that each " +
      "DMA crosses the link between nodes.",
    remedy:
      "Put the device behind a pxb-pcie whose numa_node= has its backend on the device's host " +
      "node: `iommukit inspect --emit qemu --device BDF` writes the arguments.",
  },
  "domain-spans-nodes": {
    severity: "warning",
    title: "devices of several nodes share one set of page tables",
    cause:
      "One container or IOAS gives all compatible devices one domain. Its page tables live on the " +
      "node of the device that came first; IOMMUs of other nodes walk them from afar on each miss.",
    remedy:
      "Attach the devices whose misses cost most first, or give each node a domain of its own: two " +
      "containers, or a page table per node on one IOAS.",
  },
  "memlock-too-small": {
    severity: "error",
    title: "the guest's memory does not fit into the limit of locked memory",
    cause:
      "VFIO pins all memory of the guest, once for each address space, and charges it to " +
      "RLIMIT_MEMLOCK. Beyond the limit VFIO_MAP_DMA fails with ENOMEM.",
    remedy: "Raise it: ulimit -l, LimitMEMLOCK= of systemd, <hard_limit> of libvirt.",
  },
  "memlock-tight": {
    severity: "note",
    title: "the limit of locked memory has no room for the BARs",
    cause:
      "Linux charges memory, and pages of a BAR only where they have a struct page (memory of a " +
      "device that the kernel knows as such). Kernels and tools that count BARs as well, as libvirt " +
      "does with its extra 1 GiB, would go beyond the limit.",
    remedy: "Leave room for the BARs of all devices above the guest's memory.",
  },
  "too-many-mappings": {
    severity: "warning",
    title: "the guest can make more mappings than a container takes",
    cause:
      "Behind an IOMMU of the guest each of its mappings is one VFIO_MAP_DMA, and a type1 " +
      "container takes dma_entry_limit of them (65535). Beyond it the call fails with ENOSPC and " +
      "the guest's DMA faults.",
    remedy:
      "iommu=pt in the guest or larger pages; raise vfio_iommu_type1.dma_entry_limit; or iommufd, " +
      "which has no such limit.",
  },
  "bar-unaligned": {
    severity: "warning",
    title: "a BAR is not aligned for huge leaves",
    cause:
      "Leaves of 2 MiB or 1 GiB need an address in the process, a physical address and an I/O virtual " +
      "address that agree modulo their size. Here one starts in between, so that the BAR is mapped " +
      "by smaller pages, with a fault and a lookup for each.",
    remedy:
      "A process aligns its mmap of a BAR to the BAR's size, as QEMU does since 9.2; Linux maps BARs " +
      "by huge pages since 6.12. A physical address is moved with pci=resource_alignment=.",
  },
  "iova-reserved": {
    severity: "error",
    title: "memory of the guest lies in a reserved region of the host",
    cause:
      "Without an IOMMU of its own the guest's addresses are the IOVAs. The host's IOMMU reserves " +
      "a range that the guest has memory in: VFIO refuses to map it (EINVAL).",
    remedy:
      "Move the guest's memory (less of it below 4 GiB, a machine type that knows of the hole at " +
      "1 TiB), or leave out the device whose group reserves the range.",
  },
  "strict-by-caching-mode": {
    severity: "note",
    title: "the guest invalidates strictly, whatever it is told",
    cause:
      "With caching mode (VT-d) or caching of entries that are not present (AMD) each unmapping " +
      "must reach the host, and Linux switches batching off: iommu.strict=0 has no effect.",
    remedy:
      "virtio-iommu, which honours lazy mode; on VT-d first-level tables (x-scalable-mode, x-flts), " +
      "which need no caching mode.",
  },
  "viommu-exempt": {
    severity: "warning",
    title: "the guest's IOMMU does not translate a device",
    cause:
      "The device is below a bus that bypasses the IOMMU, so that no table (VIOT, DMAR, IVRS, IORT) " +
      "names it. Its DMA reaches all memory of the guest and the guest forms no group for it.",
    remedy: "Take bypass_iommu= or default_bus_bypass_iommu= away, or move the device.",
  },
  "viommu-behind-bridge": {
    severity: "error",
    title: "a device behind a conventional bridge takes the guest's IOMMU down",
    cause:
      "QEMU's virtio-iommu knows what is behind a conventional PCI bridge by the bridge's id alone. " +
      "Linux probes each device by its own id, is told that there is none, and gives up the whole " +
      "IOMMU without a message: no groups, and no device is translated.",
    remedy: "Put the device below a pcie-root-port, or on the root bus.",
  },
  "boot-bypass": {
    severity: "warning",
    title: "devices reach all memory until the guest's driver takes over",
    cause:
      "virtio-iommu starts with bypass on: firmware can use its disk, and so can every other " +
      "device use all memory, until the driver attaches it to a domain; for good, where none does.",
    remedy:
      "-device virtio-iommu-pci,boot-bypass=off, where firmware and boot loader need no DMA or have a driver for the IOMMU.",
  },
  "no-access-platform": {
    severity: "warning",
    title: "a virtio device goes past the guest's IOMMU",
    cause:
      "Without VIRTIO_F_ACCESS_PLATFORM a virtio device and its driver use addresses of memory, " +
      "though the guest lists the device in a group behind the IOMMU.",
    remedy:
      "iommu_platform=on, with disable-legacy=on where it is not behind a root port; in libvirt " +
      "<driver iommu='on'/> in the device's element.",
  },
  "viommu-caching-mode": {
    severity: "error",
    title: "VT-d without caching mode in front of an assigned device",
    cause:
      "Without caching mode the guest does not say when it maps, so that VFIO cannot follow. QEMU " +
      "ends: Device assignment is not allowed without enabling caching-mode=on for Intel IOMMU.",
    remedy: "-device intel-iommu,caching-mode=on, with intremap=on and kernel-irqchip=split.",
  },
  "argument-refused": {
    severity: "error",
    title: "QEMU refuses an argument",
    cause: "QEMU ends at its start with a message about this argument; no guest runs.",
    remedy: "Mend the argument; the finding says what is wrong with it.",
  },
  "argument-ignored": {
    severity: "note",
    title: "an argument is not understood",
    cause: "This reader does not know the argument.",
    remedy: "What it does is not part of this report; compare with `info qtree` of the monitor.",
  },
} as const satisfies Record<string, FindingKind>;
