/**
 * A device whose memory processes map, and how kernels find the frames of such memory.
 *
 * Source: drivers/vfio/pci/vfio_pci_core.c: vfio_pci_core_mmap, vfio_pci_mmap_huge_fault;
 * drivers/vfio/vfio_iommu_type1.c: vaddr_get_pfns, follow_fault_pfn.
 */

/** Hears when a device's memory must leave every page table. */
export interface DeviceMapper {
  /** Takes all pages of the device out of the page table (unmap_mapping_range). */
  unmapDevice(device: MappableDevice): void;
}

/** A device whose memory can be mapped through its file. */
export interface MappableDevice {
  /** Whether an access finds memory: decoding on, power on. A fault gives SIGBUS otherwise. */
  readonly isAccessible: boolean;
  /** Who maps it. */
  readonly mappers: Set<DeviceMapper>;

  /**
   * Checks an mmap of the device's file.
   *
   * @param filePage - page of the file (vm_pgoff)
   * @param out - receives the frame of the first page
   * @returns an errno, 0 on success
   */
  mapPages(filePage: number, pages: number, isShared: boolean, out: { pfn: number }): number;
}

/** How a kernel of some age and architecture finds the frames of device memory. */
export interface FollowRules {
  /** Sizes of page-table entries for device memory, as log2 of pages, descending to 0. */
  readonly entryOrders: readonly number[];
  /**
   * What one lookup answers for: a page, the rest of the entry, or there is no lookup and such
   * memory cannot be had at all.
   */
  readonly stride: "none" | "page" | "entry";
  /** Whether each lookup is really made, instead of counted for a uniform range. */
  readonly isWalked?: boolean;
}

const PUD_ORDER = 18;
const PMD_ORDER = 9;

/**
 * Rules by kernel. Before 6.12 a fault filled in single pages; 6.12 brought vfio-pci's huge_fault,
 * 6.15 the stride of type1 by entry. arm64 has no 1 GiB entries for such memory
 * (HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD); iommufd has no lookup (Documentation/driver-api/vfio.rst).
 */
export const followRules = {
  "linux-6.11": { entryOrders: [0], stride: "page" },
  "linux-6.12": { entryOrders: [PUD_ORDER, PMD_ORDER, 0], stride: "page" },
  "linux-6.15": { entryOrders: [PUD_ORDER, PMD_ORDER, 0], stride: "entry" },
  "linux-6.15-arm64": { entryOrders: [PMD_ORDER, 0], stride: "entry" },
  iommufd: { entryOrders: [PUD_ORDER, PMD_ORDER, 0], stride: "none" },
} as const satisfies Record<string, FollowRules>;
