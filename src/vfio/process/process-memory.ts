/**
 * What VFIO and iommufd ask of a process's memory: pin it, look its frames up, hear when it changes.
 *
 * Virtual pages and frames are numbers of 4 KiB units. Source: drivers/vfio/vfio_iommu_type1.c:
 * vfio_pin_pages_remote, vaddr_get_pfns, follow_fault_pfn; mm/gup.c:pin_user_pages_remote.
 */

/** Frames behind virtual pages, as one call of {@link ProcessMemory.pinRun} finds them; reused. */
export interface PinRun {
  /** First frame. */
  pfn: number;
  /** Contiguous frames from there, at least 1 after a success. */
  pages: number;
  /**
   * Whether the frames have no page behind them (a device's memory): they are neither pinned nor
   * charged, and only found by following the process's page table.
   */
  isReserved: boolean;
  /**
   * Why the run ends where it does: 0 when the next page lies elsewhere, is of the other kind or was
   * not asked for, else the errno that the next page gives.
   */
  nextErrno: number;
}

/** A run record, to be filled. */
export function createPinRun(): PinRun {
  return { pfn: 0, pages: 0, isReserved: false, nextErrno: 0 };
}

/** Told before pages of a process change or go away, as by mmu_notifier's invalidate callbacks. */
export interface MemoryNotifier {
  /** @param last - inclusive */
  invalidate(firstVpn: number, lastVpn: number): void;
}

/** Memory of a process, as its pages can be pinned by number. */
export interface ProcessMemory {
  /**
   * Pins the longest run of contiguous frames of one kind from `vpn` on, faulting pages in as GUP
   * does. Frames without pages are looked up instead, one lookup for each entry of the process's
   * page table (4 KiB, 2 MiB or 1 GiB).
   *
   * @param pages - at most that many, at least 1
   * @param isWrite - whether the pages have to be writable
   * @param batchPages - pages that one call of GUP asks for: 512, or 1 with `disable_hugepages`;
   *   reported as steps, and the run does not depend on it
   * @returns an errno, 0 on success: EFAULT (hole, no rights, decoding switched off), ENOMEM
   */
  pinRun(vpn: number, pages: number, isWrite: boolean, batchPages: number, out: PinRun): number;

  /**
   * Finds device memory by arithmetic, as the proposal of 2024 for VFIO_DMA_MAP_FLAG_MMIO_DONT_PIN
   * does: no lookup and no fault, one run to the end of the area. Memory without it has no such
   * areas.
   *
   * @returns whether `vpn` lies in such an area; if not, the page is pinned as any other
   */
  dontPinRun?(vpn: number, pages: number, out: PinRun): boolean;

  /** Takes one pin off each of `pages` frames that {@link pinRun} pinned, all of them with pages. */
  unpin(pfn: number, pages: number, isDirty: boolean): void;

  /** Has a notifier called from now on. */
  addNotifier(notifier: MemoryNotifier): void;

  removeNotifier(notifier: MemoryNotifier): void;
}
